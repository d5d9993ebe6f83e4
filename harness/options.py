"""Hyper-parameters as data: a default, a help text, a range and the source of the default.

A configuration is a frozen dataclass with fields made by :func:`option`. That is enough for
``--set method.beta=0.3`` to work and be checked, and for ``harness show method`` to print it.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import BadInput, unknown


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[Any, ...] | None = None,
    source: str = "assumed",
    before: Any = dataclasses.MISSING,
) -> Any:
    """A dataclass field. ``low`` and ``high`` are inclusive; ``source`` says where the default comes from.

    ``before`` belongs to a setting added to a published method: the behaviour of earlier runs, see :func:`spelt`.
    """
    metadata = {"help": help, "low": low, "high": high, "choices": choices, "source": source, "before": before}
    return dataclasses.field(default=default, metadata=metadata)


def spelt(config: Any) -> dict[str, Any]:
    """The settings as specifications and records write them.

    If every setting that was added later has its value ``before``, all of them are left out: such a run equals one
    from before they existed, and keeps its training id.
    """
    values = dataclasses.asdict(config)
    added = later(config)
    if added and all(values[name] == before for name, before in added.items()):
        return {name: value for name, value in values.items() if name not in added}
    return values


def later(config: Any) -> dict[str, Any]:
    """The settings that were added later, with the behaviour of earlier runs."""
    added = {f.name: f.metadata.get("before", dataclasses.MISSING) for f in dataclasses.fields(config)}
    return {name: before for name, before in added.items() if before is not dataclasses.MISSING}


def set_apart(config: Any) -> dict[str, Any]:
    """The settings as specifications write them; one that was added later is left out if it has its value ``before``.

    Unlike :func:`spelt`, this decides each setting separately, for sections with unrelated settings.
    """
    added = later(config)
    return {k: v for k, v in dataclasses.asdict(config).items() if k not in added or v != added[k]}


def build(cls: type[Any], values: Mapping[str, Any], where: str, paper: str = "") -> Any:
    """``cls`` from ``values``, each converted and checked. Raises BadInput naming ``where``, the key and ``paper``."""
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    types_of = hints(cls)
    checked = {}
    for key, value in values.items():
        if key not in fields:
            if not fields:
                raise BadInput(f"{where} takes no settings, so {key!r} cannot be set")
            raise unknown(f"setting of {where}", key, fields)
        checked[key] = check(fields[key], types_of[key], value, f"{where}.{key}", paper)
    return cls(**checked)


def hints(cls: type[Any]) -> dict[str, Any]:
    """The types of the settings of a configuration. Raises NameError for an undefined name in an annotation."""
    return typing.get_type_hints(cls)


def key_values(settings: Sequence[str], where: str) -> dict[str, str]:
    """Parses settings written ``key=value``. Raises BadInput naming ``where`` and the malformed one."""
    values = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise BadInput(f"{where}: {setting!r} is not key=value")
        values[key.strip()] = value.strip()
    return values


def check(field: dataclasses.Field, hint: Any, value: Any, where: str, paper: str = "") -> Any:
    """``value`` converted to the field's type. Raises BadInput if the type or range does not fit."""
    value = convert(value, hint, where)
    meta = field.metadata
    if meta.get("choices") and value is not None and value not in meta["choices"]:
        raise BadInput(f"{where}={value!r} is not one of {', '.join(map(str, meta['choices']))}")
    low, high = meta.get("low"), meta.get("high")
    if value is None or not isinstance(value, int | float):
        return value
    span = span_of(low, high)
    meaning = "; ".join(filter(None, (meta.get("help", "").rstrip("."), paper)))
    if not math.isfinite(value):
        raise BadInput(f"{where}={value} must be finite and in {span} ({meaning})")
    if (low is not None and value < low) or (high is not None and value > high):
        raise BadInput(f"{where}={value} is outside {span} ({meaning})")
    return value


def span_of(low: float | None, high: float | None) -> str:
    """A range as text: ``[0, 1]``, ``[0, inf]``."""
    return f"[{'-inf' if low is None else low}, {'inf' if high is None else high}]"


def convert(value: Any, hint: Any, where: str) -> Any:
    """Converts text or a TOML value to the type of the field: bool, int, float, str, tuple[str, ...] or optional."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        inner = [a for a in typing.get_args(hint) if a is not type(None)]
        if value is None or (isinstance(value, str) and value.lower() in {"none", "null"}):
            return None
        return convert(value, inner[0], where)
    if typing.get_origin(hint) is typing.Literal:
        if value not in typing.get_args(hint):
            raise BadInput(f"{where}={value!r} is not one of {', '.join(map(str, typing.get_args(hint)))}")
        return value
    wrong = BadInput(f"{where}={value!r} is not {_NAMES.get(hint, 'a value of the right type')}")
    if typing.get_origin(hint) is tuple:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise wrong
        return tuple(convert(item, typing.get_args(hint)[0], where) for item in items)
    if hint is bool:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in words:
            return words[value.lower()]
        raise wrong
    if isinstance(value, bool):
        raise wrong
    if hint is int:
        try:
            return int(value) if isinstance(value, str) or value == int(value) else _refuse(wrong)
        except (ValueError, TypeError, OverflowError):
            raise wrong from None
    if hint is float:
        try:
            return float(value)
        except (ValueError, TypeError):
            raise wrong from None
    if hint is str:
        return value if isinstance(value, str) else _refuse(wrong)
    return value


def describe(cls: type[Any]) -> list[dict[str, Any]]:
    """The options of a configuration, for ``harness show method``: name, default, range, help, source."""
    return [
        {"name": f.name, "default": f.default}
        | {k: f.metadata.get(k) for k in ("help", "low", "high", "choices", "source")}
        for f in dataclasses.fields(cls)
    ]


def as_word(value: Any) -> str:
    """A Python value as ``--set`` takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}


def _refuse(error: BadInput) -> Any:
    raise error
