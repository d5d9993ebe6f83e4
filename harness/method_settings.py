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


def check(found: type[Method]) -> None:
    """Checks ``Config``, its defaults and the variants, and that no part of the class is misspelt."""
    contract_checks.refuse_misspelt(found, Method, "method", ("config", "state"))
    if not isinstance(found.Config, type) or not dataclasses.is_dataclass(found.Config):
        raise BadInput(
            f"{error_location.of(found, 'Config')}: Config of method {found.name} is not a dataclass; "
            "put @dataclass(frozen=True) above it"
        )
    if found.Config is NoSettings and (left := _left_over(found)) is not None:
        raise BadInput(
            f"{error_location.of(left)}: method {found.name} does not say that {left.__name__} has its settings; "
            f"write Config = {left.__name__} in it"
        )
    for name, value in list(vars(found.Config).items()):
        plain = type(value) in (bool, int, float, str, list, tuple, dict)
        if not plain or name.startswith("_") or name in getattr(found.Config, "__annotations__", ()):
            continue
        raise BadInput(
            f"{error_location.of(found.Config, name)}: {name} has no type and is therefore not a setting; write "
            f'{name}: {type(value).__name__} = option({value!r:.20}, "what it is")'
        )
    for field in dataclasses.fields(found.Config):
        _field(found, field)
    try:
        found.Config()
    except BadInput as error:
        raise BadInput(f"{error_location.of(found.Config)}: {error}") from None
    except Exception as error:  # __post_init__ of user code may raise anything
        raise BadInput(
            f"{error_location.of_error(error) or error_location.of(found.Config)}: {error_location.told(error)}"
        ) from error
    if not isinstance(found.variants, dict) or not all(isinstance(v, dict) for v in found.variants.values()):
        raise BadInput(f"{error_location.of(found, 'variants')}: variants of method {found.name} map names to settings")
    for name, settings in found.variants.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,59}", name, re.ASCII):
            said = f"variant {name!r:.40} of method {found.name}: a name has letters, digits and _ . -"
            raise BadInput(f"{error_location.of(found, 'variants')}: {said}")
        try:
            options.build(found.Config, settings, f"variant {name} of method {found.name}")
        except BadInput as error:
            raise BadInput(f"{error_location.of(found, 'variants')}: {error}") from None
        except Exception as error:
            raise BadInput(f"{error_location.of(found, 'variants')}: {error_location.told(error)}") from error


def _left_over(found: type[Method]) -> type | None:
    """A dataclass next to a method without settings, named as if it held them."""
    for value in vars(sys.modules.get(found.__module__, found)).values():
        if not isinstance(value, type) or not dataclasses.is_dataclass(value) or value.__module__ != found.__module__:
            continue
        if value.__name__.endswith(("Config", "Settings", "Options")):
            return value
    return None


def _field(found: type[Method], field: dataclasses.Field) -> None:
    """Checks one setting: it has a default that records can keep, of the field's type and in its range."""
    where = error_location.of(found.Config, field.name)
    wanted = f'say {field.name}: TYPE = option(DEFAULT, "what it is")'
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
        raise BadInput(f"{where}: setting {field.name} of method {found.name} has no default; {wanted}")
    meta, what = field.metadata, f"setting {field.name} of method {found.name}"
    bounds = [meta.get(name) for name in ("low", "high")]
    if not all(bound is None or isinstance(bound, int | float) for bound in bounds):
        raise BadInput(f"{where}: {what} has a bound that is not a number: low and high are numbers or None")
    if not isinstance(meta.get("choices"), tuple | list | None) or not isinstance(meta.get("help", ""), str):
        raise BadInput(f'{where}: {what} wants choices=("a", "b"), a tuple, and a help text')
    try:
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if said := contract_checks.unrecordable(default):
            raise BadInput(f"default of method {found.name}.{field.name} {said}")
        if field.init:
            options.check(
                field, options.hints(found.Config)[field.name], default, f"default of method {found.name}.{field.name}"
            )
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None
    except Exception as error:  # an annotation or a default of user code may raise anything
        raise BadInput(f"{error_location.of_error(error) or where}: {error_location.told(error)}") from error
    if field.name == "shuffle" and default is not False:
        said = 'is the control of its weights: shuffle: bool = option(False, "control: shuffled weights")'
        raise BadInput(f"{where}: {what} {said}")


def made(found: type[Method], config: Any) -> Method:
    """The method with its settings. Raises BadInput with FILE:LINE where its ``__init__`` fails or does too little."""
    with error_location.faults_as(BadInput, called=found):
        method = found(config)
    # Without these the first error would appear deep in the training loop.
    if not hasattr(method, "config") or not hasattr(method, "state"):
        raise BadInput(
            f"{error_location.of(found, '__init__')}: __init__ of {found.name} leaves out super().__init__(config)"
        )
    return method
