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


def broken(method: Method, part: str, fault: str) -> BadInput:
    """The error for a part of a method: FILE:LINE, the part, what is wrong and what is expected."""
    return BadInput(f"{error_location.of(type(method), part)}: {part} of method {method.name} {fault}")


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
    declared = method.needs
    if not isinstance(declared, Needs):
        raise broken(method, "needs", f"is {describe(declared)}; say needs = Needs(...), from harness.method")
    words = {
        "teacher": ("none", "text", "signal"),
        "segment": ("token", "line", "sentence", "statement", "span"),
        "redraw": ("step", "epoch"),
    }
    for name, known in words.items():
        if getattr(declared, name) not in known:
            raise broken(method, "needs", f"says {name}={getattr(declared, name)!r}, which is not {_or(known)}")
    for name in ("whole", "exact", "gate", "rewards", "reference", "sequence_features", "step_features", "full"):
        if not isinstance(getattr(declared, name), bool):
            raise broken(method, "needs", f"says {name}={getattr(declared, name)!r}, which is not True or False")
    for name in ("replay", "validate_every", "ranks", "span"):
        value = getattr(declared, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise broken(method, "needs", f"says {name}={value!r}, which is not a whole number from 0")
    if declared.span < 1:
        raise broken(method, "needs", f"says span={declared.span!r}; a span has one token or more")
    _proposals(method, declared.proposals)
    _asking(method, declared)
    _pairing(method, declared)
    _hindsight(method, declared)
    _joint(method, declared.joint)
    if declared.gate and type(method).weight is Method.weight:
        raise broken(
            method, "needs", "asks for a gate; add a method weight(self, tokens), which gives it, or leave it out"
        )
    if declared.sequence_features and declared.teacher != "signal":
        fault = 'asks for sequence features, which read the teacher\'s signal: add teacher="signal"'
        raise broken(method, "needs", fault)
    if declared.joint and declared.teacher == "none":
        raise broken(method, "needs", 'samples jointly with the teacher: add teacher="text" or "signal"')
    if declared.sequence_features and type(method).sequence_features is Method.sequence_features:
        fault = "asks for sequence features; add a method sequence_features(self, sequences), or leave them out"
        raise broken(method, "needs", fault)
    parts = ("step_features",) if declared.rewards else ("measure", "step_features")
    for name in parts if declared.step_features else ():
        if getattr(type(method), name) is getattr(Method, name):
            raise broken(method, "needs", f"asks for step features; add a method {name}, or leave them out")
    known = ("token", "sequence", "source")
    if method.reduction not in known:
        raise broken(method, "reduction", f"is {method.reduction!r}, which is not {_or(known)}")


def _asking(method: Method, declared: Needs) -> None:
    """Checks who teaches, and that such a teacher can provide the other needs."""
    asking = declared.asking
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
        fault = f"gives asking a malformed template ({error}); write {{{{ for a brace"
        raise broken(method, "needs", fault) from None
    if odd := [field for field in fields if not field.isidentifier()]:
        fault = f"gives asking a template that names {{{odd[0]}}}; it names fields of the examples, such as {{prompt}}"
        raise broken(method, "needs", fault)
    if declared.teacher != "signal":
        raise broken(method, "needs", 'says who teaches but needs no signal: add teacher="signal"')
    if asking.model != "teacher" and (declared.joint or declared.proposals):
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
            fault = f"says joint.{name}={sampled!r:.60}; a temperature from 0 and a top_p in (0, 1] are wanted"
            raise broken(method, "needs", fault)


def _pairing(method: Method, declared: Needs) -> None:
    """Checks how tokens are paired, and that nothing else needs to read token by token."""
    if (pairing := declared.pairing) is None:
        return
    if not isinstance(pairing, Pairing):
        raise broken(method, "needs", f"says pairing={describe(pairing)}; give a Pairing or None")
    if pairing.by not in ("text", "place"):
        raise broken(method, "needs", f"says pairing.by={pairing.by!r}, which is not text or place")
    if not isinstance(pairing.ends, bool) or not isinstance(pairing.after, bool):
        raise broken(method, "needs", "gives pairing ends or after that are not True or False")
    if declared.teacher != "signal" or not declared.exact:
        raise broken(
            method, "needs", 'pairs tokens without the teacher\'s distribution: add teacher="signal", exact=True'
        )
    others = ("joint", "proposals", "asking", "gate", "sequence_features", "step_features")
    if clash := [name for name in others if getattr(declared, name)] or ["segment"] * (declared.segment != "token"):
        raise broken(method, "needs", f"pairs tokens of two readings and needs {clash[0]}, which reads only one")


def _hindsight(method: Method, declared: Needs) -> None:
    """Checks a teacher prompt that depends on rewards."""
    hindsight = declared.hindsight
    if hindsight is None:
        return
    if not isinstance(hindsight, Hindsight):
        raise broken(method, "needs", f"says hindsight={describe(hindsight)}; give a Hindsight or None")
    if hindsight.told not in ("alone", "always", "never"):
        raise broken(method, "needs", f"says hindsight.told={hindsight.told!r}, which is not alone, always or never")
    if not declared.rewards or declared.asking is None or declared.asking.template:
        fault = "looks back on rewards: add rewards=True and asking=Asking(model=...) without a template"
        raise broken(method, "needs", fault)
    parts = {"template": ("prompt", "solution", "feedback"), "solution": ("text",), "feedback": ("text",)}
    for name, fields in parts.items():
        try:
            getattr(hindsight, name).format_map(dict.fromkeys(fields, ""))
        except (KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
            known = _or(tuple(f"{{{field}}}" for field in fields)) if len(fields) > 1 else "{text}"
            fault = f"gives a {name} of hindsight that cannot be filled ({error}); it may name {known}"
            raise broken(method, "needs", fault) from None


def _proposals(method: Method, proposals: Any) -> None:
    """Checks the settings of proposals; True and False are allowed, too."""
    if isinstance(proposals, bool):
        return
    if not isinstance(proposals, Proposing):
        raise broken(method, "needs", f"says proposals={proposals!r}; give True, False or Proposing(...)")
    words = {"validity": ("checker", "success", "likelihood", "agreement", "truth"), "continued_by": MODELS}
    for name, known in words.items():
        if getattr(proposals, name) not in known:
            raise broken(method, "needs", f"says {name}={getattr(proposals, name)!r}, which is not {_or(known)}")
    if not _within(proposals.temperature, 0, math.inf) or not math.isfinite(proposals.temperature):
        raise broken(method, "needs", f"says temperature={proposals.temperature!r:.40}; a number from 0 is wanted")
    for name in ("count", "longest", "tries"):
        value = getattr(proposals, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise broken(method, "needs", f"says {name}={value!r}, which is not a whole number from 1")


def sources(method: Method, result: Any) -> None:
    """Checks for one or more of :class:`Source`, each allowed by the needs of the method."""
    if isinstance(result, Source | str):
        raise broken(method, "sources", f"gave {result!r}; return a tuple: (Source.{str(result).upper()},)")
    if not isinstance(result, tuple | list) or not result:
        raise broken(method, "sources", f"gave {describe(result)}; return a tuple of one or more harness.types.Source")
    if len(result) > MOST_SOURCES:
        raise broken(
            method, "sources", f"gave {len(result):,} sources; every prompt would appear as many times: give a few"
        )
    needed = {
        Source.TEACHER: (method.needs.teacher != "none", 'teacher="text" or "signal"'),
        Source.MIXED: (method.needs.joint, "joint=Mixture(...) or Speculation(...)"),
        Source.REPLAY: (method.needs.replay, "replay=N, the size of the buffer"),
    }
    graded = tuple(s for s in result if s in (Source.DATA, Source.REPLAY)) if method.needs.rewards else ()
    if graded:
        fault = f"asks for Source.{graded[0].name} with rewards; graded texts must answer the prompts of their step"
        raise broken(method, "sources", fault)
    for source in result:
        if not isinstance(source, Source):
            raise broken(method, "sources", f"gave {source!r} among {result!r}; each must be a harness.types.Source")
        allowed, what = needed.get(source, (True, ""))
        if not allowed:
            raise broken(method, "sources", f"asks for Source.{source.name}; say needs = Needs({what})")


def values(method: Method, result: Any, logits: Tensor) -> None:
    """Checks an objective: [N] floating-point numbers with a gradient, for ``logits`` [N, V]."""
    import torch

    n, v = logits.shape
    wanted = f"one floating-point value per token is wanted, [{n}] here"
    if not isinstance(result, torch.Tensor):
        fix = "does it lack a return?" if result is None else "return a tensor computed from tokens.student"
        raise broken(method, "objective", f"gave {describe(result)}; {wanted}: {fix}")
    if result.layout != torch.strided or result.device != logits.device:
        kind = f"a {str(result.layout).removeprefix('torch.')} tensor on {result.device}"
        raise broken(method, "objective", f"gave {kind}; a dense one on {logits.device} is wanted, as the logits are")
    if result.shape != (n,):
        fix = {
            0: "take out .sum() or .mean(), the harness averages over tokens",
            1: "each token of the slice has its own value",
        }.get(result.dim(), "sum over the vocabulary with .sum(-1)")
        fix = "add .squeeze(-1)" if result.shape == (n, 1) and v != 1 else fix
        raise broken(method, "objective", f"gave {describe(result)}; {wanted}: {fix}")
    if not result.is_floating_point():
        raise broken(method, "objective", f"gave {describe(result)}; {wanted}: compute with .float()")
    if not result.requires_grad and torch.is_grad_enabled() and logits.requires_grad:
        raise broken(method, "objective", f"gave {describe(result)} {DETACHED}")


DETACHED = (
    "without a gradient path to the student; compute it from tokens.student or tokens.logits without .detach(), "
    ".data, .item(), argmax or torch.no_grad()"
)


def weights(method: Method, result: Any, n: int, values: bool = True) -> None:
    """Checks weights: None, or [N] finite non-negative numbers; without ``values`` no device is asked for them."""
    import torch

    if result is None:
        return
    wanted = f"expected [{n}] finite values from 0, one per token, or None"
    if not isinstance(result, torch.Tensor) or result.shape != (n,) or result.is_complex():
        raise broken(method, "weight", f"gave {describe(result)}; {wanted}")
    if result.layout != torch.strided or result.is_meta:
        raise broken(
            method, "weight", f"gave a tensor that holds no values of its own ({result.layout}, {result.device})"
        )
    if not values:
        return
    smallest = float(result.min()) if n else 0.0  # NaN if any weight is NaN, which fails the comparison below
    if not smallest >= 0:
        raise broken(method, "weight", f"gave a weight of {smallest:g}; {wanted}")
    if not bool(torch.isfinite(result).all()):
        raise broken(method, "weight", f"gave an infinite weight; {wanted}")


def features(method: Method, name: str, result: Any, n: int) -> None:
    """[N, ...] numbers from ``name``: sequence_features, measure or step_features."""
    import torch

    if not isinstance(result, torch.Tensor) or result.dim() < 1 or len(result) != n:
        fault = f"gave {describe(result)}; a tensor [{n}, ...] is wanted, one row per token"
        raise broken(method, name, fault)


def metrics(method: Method, result: Mapping[str, Any], n: int) -> None:
    """Checks metrics: a tensor [N] or a scalar each, under a name that the loop does not use itself."""
    import torch

    if not isinstance(result, dict):
        fault = (
            f"set tokens.metrics to {describe(result)}; add to the dict that is there: tokens.metrics[name] = values"
        )
        raise broken(method, "objective", fault)
    for name, value in result.items():
        fault = f"set tokens.metrics[{name!r:.40}] to {describe(value)}"
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w @%./+-]{0,59}", name):
            raise broken(method, "objective", f"{fault}; a name has up to 60 letters, digits and _ @ % . / + -")
        if name in REPORTED:
            raise broken(method, "objective", f"{fault}; the loop reports that itself, choose another name")
        if not isinstance(value, torch.Tensor) or value.shape not in ((n,), ()) or value.is_complex():
            raise broken(method, "objective", f"{fault}; a tensor [{n}] is wanted, one value per token")


@contextlib.contextmanager
def unchanged(method: Method, part: str, arguments: Any) -> Iterator[None]:
    """Raises BadInput if a part changes an input tensor in place, because the batch shares it with others.

    ``arguments`` is a dataclass such as Tokens. Compares the versions that torch counts, which costs microseconds.
    """
    before = [(name, value, value._version) for name, value in tensors(arguments)]
    yield
    for name, value, version in before:
        if value._version != version:
            raise broken(method, part, f"changes {name} in place, which is shared; {OWN_COPY}")


OWN_COPY = "compute with a copy: .clone(), or x = x + 1 for x += 1"


def tensors(holder: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a dataclass with their names, those of its dataclasses included."""
    import torch

    for name, value in vars(holder).items():
        if isinstance(value, torch.Tensor) and not value.is_inference():
            yield f"{type(holder).__name__.lower()}.{name}", value
        elif dataclasses.is_dataclass(value):
            yield from tensors(value)


def _or(choices: tuple[str, ...]) -> str:
    return f"{', '.join(choices[:-1])} or {choices[-1]}"
