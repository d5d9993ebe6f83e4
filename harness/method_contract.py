"""Checks what the parts of a method return, before training and at every step of it.

Each function raises BadInput with FILE:LINE of the part, its value and the expected one. Shapes and types are cheap
to check, so the training loop repeats the checks of the plan on every slice of tokens.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import string
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness import error_location
from harness.error_location import describe
from harness.errors import BadInput
from harness.method import Asking, Hindsight, Method, Mixture, Needs, Pairing, Proposing, Speculation
from harness.types import Decoding, Source

if TYPE_CHECKING:
    from torch import Tensor

MODELS = ("teacher", "student")
MOST_SOURCES = 1024  # of one step: a group of responses to each prompt has tens
# Metrics of the loop itself, which a metric of the same name would overwrite.
REPORTED = {"loss", "grad_norm", "learning_rate", "validation_loss", "step", "seconds", "on_policy", "buffer_age"}
REPORTED |= {"paired", "engine_gap_mean", "engine_gap_max", "text_reward", "groups_alike"}


def broken(method: Method, part: str, said: str) -> BadInput:
    """The error for a part of a method: FILE:LINE, the part, what is wrong and what is expected."""
    return BadInput(f"{error_location.of(type(method), part)}: {part} of method {method.name} {said}")


ROLES = ("competitor", "control", "reference")


def facts(method: Method) -> None:
    """Checks the attributes that tables and records show of a method: its role, texts and marks."""
    if method.role not in ROLES:
        raise broken(method, "role", f"is {method.role!r:.40}, which is not {_or(ROLES)}")
    for name in ("paper", "note", "without_checker"):
        if not isinstance(getattr(method, name), str):
            raise broken(method, name, f"is {getattr(method, name)!r:.40}; text is wanted")
        if len(getattr(method, name)) > 2000:
            raise broken(method, name, "has more than 2,000 characters")
    for name in ("reconstruction", "baseline"):
        if not isinstance(getattr(method, name), bool):
            raise broken(method, name, f"is {getattr(method, name)!r:.40}, which is not True or False")


def needs(method: Method) -> None:
    """Checks that ``needs`` and ``reduction`` have allowed values."""
    found = method.needs
    if not isinstance(found, Needs):
        raise broken(method, "needs", f"is {describe(found)}; say needs = Needs(...), from harness.method")
    words = {
        "teacher": ("none", "text", "signal"),
        "segment": ("token", "line", "sentence", "statement", "span"),
        "redraw": ("step", "epoch"),
    }
    for name, known in words.items():
        if getattr(found, name) not in known:
            raise broken(method, "needs", f"says {name}={getattr(found, name)!r}, which is not {_or(known)}")
    for name in ("whole", "exact", "gate", "rewards", "reference", "sequence_features", "step_features", "full"):
        if not isinstance(getattr(found, name), bool):
            raise broken(method, "needs", f"says {name}={getattr(found, name)!r}, which is not True or False")
    for name in ("replay", "validate_every", "ranks", "span"):
        value = getattr(found, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise broken(method, "needs", f"says {name}={value!r}, which is not a whole number from 0")
    if found.span < 1:
        raise broken(method, "needs", f"says span={found.span!r}; a span has one token or more")
    _proposals(method, found.proposals)
    _asking(method, found)
    _pairing(method, found)
    _hindsight(method, found)
    _joint(method, found.joint)
    if found.gate and type(method).weight is Method.weight:
        raise broken(
            method, "needs", "asks for a gate; add a method weight(self, tokens), which gives it, or leave it out"
        )
    if found.sequence_features and found.teacher != "signal":
        said = 'asks for sequence features, which read the teacher\'s signal: add teacher="signal"'
        raise broken(method, "needs", said)
    if found.joint and found.teacher == "none":
        raise broken(method, "needs", 'samples jointly with the teacher: add teacher="text" or "signal"')
    if found.sequence_features and type(method).sequence_features is Method.sequence_features:
        said = "asks for sequence features; add a method sequence_features(self, sequences), or leave them out"
        raise broken(method, "needs", said)
    parts = ("step_features",) if found.rewards else ("measure", "step_features")
    for name in parts if found.step_features else ():
        if getattr(type(method), name) is getattr(Method, name):
            raise broken(method, "needs", f"asks for step features; add a method {name}, or leave them out")
    known = ("token", "sequence", "source")
    if method.reduction not in known:
        raise broken(method, "reduction", f"is {method.reduction!r}, which is not {_or(known)}")


def _asking(method: Method, found: Needs) -> None:
    """Checks who teaches, and that such a teacher can provide the other needs."""
    asking = found.asking
    if asking is None:
        return
    if not isinstance(asking, Asking):
        raise broken(method, "needs", f"says asking={describe(asking)}; give an Asking or None")
    if asking.model not in ("teacher", "initial", "ema", "live"):
        raise broken(method, "needs", f"says asking.model={asking.model!r}, which is not teacher, initial, ema or live")
    if not isinstance(asking.template, str) or not _within(asking.decay, 0, 1):
        raise broken(method, "needs", "gives asking a template that is not text, or a decay outside [0, 1]")
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(asking.template) if field is not None]
    except ValueError as error:
        said = f"gives asking a malformed template ({error}); write {{{{ for a brace"
        raise broken(method, "needs", said) from None
    if odd := [field for field in fields if not field.isidentifier()]:
        said = f"gives asking a template that names {{{odd[0]}}}; it names fields of the examples, such as {{prompt}}"
        raise broken(method, "needs", said)
    if found.teacher != "signal":
        raise broken(method, "needs", 'says who teaches but needs no signal: add teacher="signal"')
    if asking.model != "teacher" and (found.joint or found.proposals):
        raise broken(method, "needs", "teaches itself; joint sampling and proposals need the recipe's teacher")


def _within(value: Any, low: float, high: float) -> bool:
    """Whether ``value`` is a number from ``low`` to ``high``."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _joint(method: Method, joint: Any) -> None:
    """Checks how text is sampled from both models."""
    if not isinstance(joint, Mixture | Speculation | None):
        raise broken(method, "needs", f"says joint={joint!r:.60}; give a Mixture, a Speculation or None")
    if isinstance(joint, Mixture) and not _within(joint.teacher_share, 0, 1):
        raise broken(method, "needs", f"says teacher_share={joint.teacher_share!r:.40}; a number in [0, 1] is wanted")
    if not isinstance(joint, Speculation):
        return
    if isinstance(joint.top_k, bool) or not isinstance(joint.top_k, int) or joint.top_k < 1:
        raise broken(method, "needs", f"says joint.top_k={joint.top_k!r:.40}, which is not a whole number from 1")
    for name in MODELS:
        sampled = getattr(joint, name)
        if not isinstance(sampled, Decoding):
            raise broken(method, "needs", f"says joint.{name}={describe(sampled)}; give a Decoding")
        if not _within(sampled.temperature, 0, math.inf) or not _within(sampled.top_p, 0, 1) or not sampled.top_p:
            said = f"says joint.{name}={sampled!r:.60}; a temperature from 0 and a top_p in (0, 1] are wanted"
            raise broken(method, "needs", said)


def _pairing(method: Method, found: Needs) -> None:
    """Checks how tokens are paired, and that nothing else needs to read token by token."""
    if (pairing := found.pairing) is None:
        return
    if not isinstance(pairing, Pairing):
        raise broken(method, "needs", f"says pairing={describe(pairing)}; give a Pairing or None")
    if pairing.by not in ("text", "place"):
        raise broken(method, "needs", f"says pairing.by={pairing.by!r}, which is not text or place")
    if not isinstance(pairing.ends, bool) or not isinstance(pairing.after, bool):
        raise broken(method, "needs", "gives pairing ends or after that are not True or False")
    if found.teacher != "signal" or not found.exact:
        raise broken(
            method, "needs", 'pairs tokens without the teacher\'s distribution: add teacher="signal", exact=True'
        )
    others = ("joint", "proposals", "asking", "gate", "sequence_features", "step_features")
    if clash := [name for name in others if getattr(found, name)] or ["segment"] * (found.segment != "token"):
        raise broken(method, "needs", f"pairs tokens of two readings and needs {clash[0]}, which reads only one")


def _hindsight(method: Method, found: Needs) -> None:
    """Checks a teacher prompt that depends on rewards."""
    hindsight = found.hindsight
    if hindsight is None:
        return
    if not isinstance(hindsight, Hindsight):
        raise broken(method, "needs", f"says hindsight={describe(hindsight)}; give a Hindsight or None")
    if hindsight.told not in ("alone", "always", "never"):
        raise broken(method, "needs", f"says hindsight.told={hindsight.told!r}, which is not alone, always or never")
    if not found.rewards or found.asking is None or found.asking.template:
        said = "looks back on rewards: add rewards=True and asking=Asking(model=...) without a template"
        raise broken(method, "needs", said)
    parts = {"template": ("prompt", "solution", "feedback"), "solution": ("text",), "feedback": ("text",)}
    for name, fields in parts.items():
        try:
            getattr(hindsight, name).format_map(dict.fromkeys(fields, ""))
        except (KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
            known = _or(tuple(f"{{{field}}}" for field in fields)) if len(fields) > 1 else "{text}"
            said = f"gives a {name} of hindsight that cannot be filled ({error}); it may name {known}"
            raise broken(method, "needs", said) from None


def _proposals(method: Method, found: Any) -> None:
    """Checks the settings of proposals; True and False are allowed, too."""
    if isinstance(found, bool):
        return
    if not isinstance(found, Proposing):
        raise broken(method, "needs", f"says proposals={found!r}; give True, False or Proposing(...)")
    words = {"validity": ("checker", "success", "likelihood", "agreement", "truth"), "continued_by": MODELS}
    for name, known in words.items():
        if getattr(found, name) not in known:
            raise broken(method, "needs", f"says {name}={getattr(found, name)!r}, which is not {_or(known)}")
    if not _within(found.temperature, 0, math.inf) or not math.isfinite(found.temperature):
        raise broken(method, "needs", f"says temperature={found.temperature!r:.40}; a number from 0 is wanted")
    for name in ("count", "longest", "tries"):
        value = getattr(found, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise broken(method, "needs", f"says {name}={value!r}, which is not a whole number from 1")


def sources(method: Method, found: Any) -> None:
    """Checks for one or more of :class:`Source`, each allowed by the needs of the method."""
    if isinstance(found, Source | str):
        raise broken(method, "sources", f"gave {found!r}; return a tuple: (Source.{str(found).upper()},)")
    if not isinstance(found, tuple | list) or not found:
        raise broken(method, "sources", f"gave {describe(found)}; return a tuple of one or more harness.types.Source")
    if len(found) > MOST_SOURCES:
        raise broken(
            method, "sources", f"gave {len(found):,} sources; every prompt would appear as many times: give a few"
        )
    needed = {
        Source.TEACHER: (method.needs.teacher != "none", 'teacher="text" or "signal"'),
        Source.MIXED: (method.needs.joint, "joint=Mixture(...) or Speculation(...)"),
        Source.REPLAY: (method.needs.replay, "replay=N, the size of the buffer"),
    }
    graded = tuple(s for s in found if s in (Source.DATA, Source.REPLAY)) if method.needs.rewards else ()
    if graded:
        said = f"asks for Source.{graded[0].name} with rewards; graded texts must answer the prompts of their step"
        raise broken(method, "sources", said)
    for source in found:
        if not isinstance(source, Source):
            raise broken(method, "sources", f"gave {source!r} among {found!r}; each must be a harness.types.Source")
        given, what = needed.get(source, (True, ""))
        if not given:
            raise broken(method, "sources", f"asks for Source.{source.name}; say needs = Needs({what})")


def values(method: Method, found: Any, logits: Tensor) -> None:
    """Checks an objective: [N] floating-point numbers with a gradient, for ``logits`` [N, V]."""
    import torch

    n, v = logits.shape
    wanted = f"one floating-point value per token is wanted, [{n}] here"
    if not isinstance(found, torch.Tensor):
        fix = "does it lack a return?" if found is None else "return a tensor computed from tokens.student"
        raise broken(method, "objective", f"gave {describe(found)}; {wanted}: {fix}")
    if found.layout != torch.strided or found.device != logits.device:
        kind = f"a {str(found.layout).removeprefix('torch.')} tensor on {found.device}"
        raise broken(method, "objective", f"gave {kind}; a dense one on {logits.device} is wanted, as the logits are")
    if found.shape != (n,):
        fix = {
            0: "take out .sum() or .mean(), the harness averages over tokens",
            1: "each token of the slice has its own value",
        }.get(found.dim(), "sum over the vocabulary with .sum(-1)")
        fix = "add .squeeze(-1)" if found.shape == (n, 1) and v != 1 else fix
        raise broken(method, "objective", f"gave {describe(found)}; {wanted}: {fix}")
    if not found.is_floating_point():
        raise broken(method, "objective", f"gave {describe(found)}; {wanted}: compute with .float()")
    if not found.requires_grad and torch.is_grad_enabled() and logits.requires_grad:
        raise broken(method, "objective", f"gave {describe(found)} {DETACHED}")


DETACHED = (
    "without a gradient path to the student; compute it from tokens.student or tokens.logits without .detach(), "
    ".data, .item(), argmax or torch.no_grad()"
)


def weights(method: Method, found: Any, n: int, values: bool = True) -> None:
    """Checks weights: None, or [N] finite non-negative numbers; without ``values`` no device is asked for them."""
    import torch

    if found is None:
        return
    wanted = f"expected [{n}] finite values from 0, one per token, or None"
    if not isinstance(found, torch.Tensor) or found.shape != (n,) or found.is_complex():
        raise broken(method, "weight", f"gave {describe(found)}; {wanted}")
    if found.layout != torch.strided or found.is_meta:
        raise broken(method, "weight", f"gave a tensor that does not own its values ({found.layout}, {found.device})")
    if not values:
        return
    smallest = float(found.min()) if n else 0.0  # NaN if any weight is NaN, which fails the comparison below
    if not smallest >= 0:
        raise broken(method, "weight", f"gave a weight of {smallest:g}; {wanted}")
    if not bool(torch.isfinite(found).all()):
        raise broken(method, "weight", f"gave an infinite weight; {wanted}")


def features(method: Method, name: str, found: Any, n: int) -> None:
    """[N, ...] numbers from ``name``: sequence_features, measure or step_features."""
    import torch

    if not isinstance(found, torch.Tensor) or found.dim() < 1 or len(found) != n:
        said = f"gave {describe(found)}; a tensor [{n}, ...] is wanted, one row per token"
        raise broken(method, name, said)


def metrics(method: Method, found: Mapping[str, Any], n: int) -> None:
    """Checks metrics: a tensor [N] or a scalar each, under a name that the loop does not use itself."""
    import torch

    if not isinstance(found, dict):
        said = f"set tokens.metrics to {describe(found)}; add to the dict that is there: tokens.metrics[name] = values"
        raise broken(method, "objective", said)
    for name, value in found.items():
        said = f"set tokens.metrics[{name!r:.40}] to {describe(value)}"
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w @%./+-]{0,59}", name):
            raise broken(method, "objective", f"{said}; a name has up to 60 letters, digits and _ @ % . / + -")
        if name in REPORTED:
            raise broken(method, "objective", f"{said}; the loop reports that itself, choose another name")
        if not isinstance(value, torch.Tensor) or value.shape not in ((n,), ()) or value.is_complex():
            raise broken(method, "objective", f"{said}; a tensor [{n}] is wanted, one value per token")


@contextlib.contextmanager
def unchanged(method: Method, part: str, given: Any) -> Iterator[None]:
    """Raises BadInput if a part changes an input tensor in place, because the batch shares it with others.

    ``given`` is a dataclass such as Tokens. Compares the versions that torch counts, which costs microseconds.
    """
    had = [(name, value, value._version) for name, value in tensors(given)]
    yield
    for name, value, version in had:
        if value._version != version:
            raise broken(method, part, f"changes {name} in place, which is shared; {OWN_COPY}")


OWN_COPY = "compute with a copy: .clone(), or x = x + 1 for x += 1"


def tensors(given: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a dataclass with their names, those of its dataclasses included."""
    import torch

    for name, value in vars(given).items():
        if isinstance(value, torch.Tensor) and not value.is_inference():
            yield f"{type(given).__name__.lower()}.{name}", value
        elif dataclasses.is_dataclass(value):
            yield from tensors(value)


def _or(choices: tuple[str, ...]) -> str:
    return f"{', '.join(choices[:-1])} or {choices[-1]}"
