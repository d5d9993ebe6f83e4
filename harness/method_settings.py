"""Checks the settings of a method: ``Config``, defaults, variants, and misspelt names.

Everything raises BadInput with FILE:LINE, before any work.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from typing import Any

from harness import contract_checks, error_location, options
from harness.errors import BadInput
from harness.method import Method, NoSettings


def check(method_class: type[Method]) -> None:
    """Checks ``Config``, its defaults and the variants, and that no part of the class is misspelt."""
    contract_checks.refuse_misspelt(method_class, Method, "method", ("config", "state"))
    if not isinstance(method_class.Config, type) or not dataclasses.is_dataclass(method_class.Config):
        raise BadInput(
            f"{error_location.of(method_class, 'Config')}: Config of method {method_class.name} is not a dataclass; "
            "put @dataclass(frozen=True) above it"
        )
    if method_class.Config is NoSettings and (left := _left_over(method_class)) is not None:
        raise BadInput(
            f"{error_location.of(left)}: method {method_class.name} does not say that {left.__name__} has its "
            f"settings; write Config = {left.__name__} in it"
        )
    # Values without a type are class attributes to a dataclass, so no --set would reach them.
    for name, value in list(vars(method_class.Config).items()):
        plain = type(value) in (bool, int, float, str, list, tuple, dict)
        if not plain or name.startswith("_") or name in getattr(method_class.Config, "__annotations__", ()):
            continue
        raise BadInput(
            f"{error_location.of(method_class.Config, name)}: {name} has no type and is therefore not a setting; write "
            f'{name}: {type(value).__name__} = option({value!r:.20}, "what it is")'
        )
    for field in dataclasses.fields(method_class.Config):
        _field(method_class, field)
    try:
        method_class.Config()
    except BadInput as error:
        raise BadInput(f"{error_location.of(method_class.Config)}: {error}") from None
    except Exception as error:  # __post_init__ of user code may raise anything
        raise BadInput(
            f"{error_location.of_error(error) or error_location.of(method_class.Config)}: "
            f"{error_location.message(error)}"
        ) from error
    _variants(method_class)


def _variants(method_class: type[Method]) -> None:
    """Checks that the variants are names for settings that the method has."""
    if not isinstance(method_class.variants, dict) or not all(
        isinstance(v, dict) for v in method_class.variants.values()
    ):
        raise BadInput(
            f"{error_location.of(method_class, 'variants')}: variants of method {method_class.name} map names to "
            "settings"
        )
    for name, settings in method_class.variants.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,59}", name, re.ASCII):
            fault = f"variant {name!r:.40} of method {method_class.name}: a name has letters, digits and _ . -"
            raise BadInput(f"{error_location.of(method_class, 'variants')}: {fault}")
        try:
            options.build(method_class.Config, settings, f"variant {name} of method {method_class.name}")
        except BadInput as error:
            raise BadInput(f"{error_location.of(method_class, 'variants')}: {error}") from None
        except Exception as error:
            raise BadInput(f"{error_location.of(method_class, 'variants')}: {error_location.message(error)}") from error


def _left_over(method_class: type[Method]) -> type | None:
    """A dataclass next to a method without settings, named as if it held them."""
    for value in vars(sys.modules.get(method_class.__module__, method_class)).values():
        if (
            not isinstance(value, type)
            or not dataclasses.is_dataclass(value)
            or value.__module__ != method_class.__module__
        ):
            continue
        if value.__name__.endswith(("Config", "Settings", "Options")):
            return value
    return None


def _field(method_class: type[Method], field: dataclasses.Field) -> None:
    """Checks one setting: it has a default that records can keep, of the field's type and in its range."""

    def where() -> str:
        """FILE:LINE of the setting, looked up only if something is wrong: it reads and parses the file."""
        return error_location.of(method_class.Config, field.name)

    wanted = f'say {field.name}: TYPE = option(DEFAULT, "what it is")'
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
        raise BadInput(f"{where()}: setting {field.name} of method {method_class.name} has no default; {wanted}")
    meta, what = field.metadata, f"setting {field.name} of method {method_class.name}"
    bounds = [meta.get(name) for name in ("low", "high")]
    if not all(bound is None or isinstance(bound, int | float) for bound in bounds):
        raise BadInput(f"{where()}: {what} has a bound that is not a number: low and high are numbers or None")
    if not isinstance(meta.get("choices"), tuple | list | None) or not isinstance(meta.get("help", ""), str):
        raise BadInput(f'{where()}: {what} wants choices=("a", "b"), a tuple, and a help text')
    try:
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if fault := contract_checks.unrecordable(default):
            raise BadInput(f"default of method {method_class.name}.{field.name} {fault}")
        if field.init:
            options.check(
                field,
                options.hints(method_class.Config)[field.name],
                default,
                f"default of method {method_class.name}.{field.name}",
            )
    except BadInput as error:
        raise BadInput(f"{where()}: {error}") from None
    except Exception as error:  # an annotation or a default of user code may raise anything
        raise BadInput(f"{error_location.of_error(error) or where()}: {error_location.message(error)}") from error
    if field.name == "shuffle" and default is not False:
        fault = 'is the control of its weights: shuffle: bool = option(False, "control: shuffled weights")'
        raise BadInput(f"{where()}: {what} {fault}")


def made(method_class: type[Method], config: Any) -> Method:
    """The method with its settings. Raises BadInput with FILE:LINE where its ``__init__`` fails or does too little."""
    with error_location.faults_as(BadInput, called=method_class):
        method = method_class(config)
    # Without these the first error would appear deep in the training loop.
    if not hasattr(method, "config") or not hasattr(method, "state"):
        raise BadInput(
            f"{error_location.of(method_class, '__init__')}: __init__ of {method_class.name} leaves out "
            "super().__init__(config)"
        )
    return method
