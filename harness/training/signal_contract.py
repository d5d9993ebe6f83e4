"""The contract of a teacher signal, which turns a batch into the teacher's logits, and the shipped signals.

``training.signal`` names a signal: a shipped one, the path of a file, or a plugin's under the entry point group
``harness.signals``. A signal of your own is a class with a ``name``::

    class Softer(TeacherSignal):
        \"\"\"The live teacher at temperature 2.\"\"\"

        name = "softer"

        def read(self, batch):
            hidden, head = self.given.live.hidden(batch), self.given.live.head
            return FullLogits(head.logits(hidden) / 2)

N is the number of response tokens of a batch, V the size of the shared vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from harness import contract_checks, error_location, registry, user_code
from harness.error_location import describe, short
from harness.errors import BadInput, RunFailed
from harness.recipe import Training
from harness.training.batching import Batch
from harness.training.served_teacher import ServedTeacher
from harness.training.signals import CachedTeacher, HiddenStateLogits, LiveTeacher, SignalCache, TeacherLogits
from harness.types import Source


@dataclass(frozen=True)
class SignalInputs:
    """The inputs of a signal. ``caches(kind, k)`` fills and opens a cache for each source of fixed text.

    ``k`` is None for hidden states, else the number of likeliest tokens to keep; ``kind`` is part of the cache's key.
    """

    live: LiveTeacher | ServedTeacher
    vocab: int
    training: Training
    caches: Callable[[str, int | None], Mapping[Source, SignalCache]]


class TeacherSignal:
    """Reads the teacher's distribution. Set up once per training run, then called for every batch."""

    name: ClassVar[str]
    exact: ClassVar[bool] = True  # the whole distribution; methods that need it are refused on an inexact signal
    source: ClassVar[str] = "live"  # the source of the values for fixed text, for the convention card
    served: ClassVar[bool] = False  # whether a teacher on a server supports it: the likeliest tokens are enough
    takes_top_k: ClassVar[bool] = False  # whether ``training.top_k`` matters; it is then part of the training's id

    def __init__(self, given: SignalInputs):
        self.given = given

    def read(self, batch: Batch) -> TeacherLogits:
        """The teacher's logits for the N response tokens of ``batch``."""
        raise NotImplementedError(f"signal {self.name} has no read(self, batch)")

    def tokens(self, batch: Batch) -> int:
        """Tokens of the batch that go through the teacher model; cached ones do not count."""
        return batch.tokens

    def facts(self) -> dict[str, Any]:
        """The facts of the signal for the convention card and the record."""
        return {"top_k": None, "cached": []}


class FullLogits:
    """Teacher logits [N, V] that are completely in memory, as the signal of a batch."""

    def __init__(self, logits: Tensor):
        self.logits = logits

    def pair(self, logits: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        return logits, self.logits[start:stop]

    def over(self, start: int, stop: int) -> FullLogits:
        return self


class LiveSignal(TeacherSignal):
    """The teacher's own forward pass for every batch."""

    name = "live"

    def read(self, batch: Batch) -> HiddenStateLogits:
        assert isinstance(self.given.live, LiveTeacher), "the plan refuses a served teacher here"
        return self.given.live.read(batch)


class HiddenSignal(TeacherSignal):
    """Exact: hidden states of fixed text from a cache; the student's own text goes through the teacher."""

    name = "hidden"
    source = "hidden states cached"

    def __init__(self, given: SignalInputs):
        super().__init__(given)
        # Fill the caches before the first step: the teacher runs once over all fixed text.
        self.k = self._width()
        kind = self.name if self.k is None else f"top-{self.k}"
        self.cached = CachedTeacher(given.caches(kind, self.k), given.live, self.k)

    def _width(self) -> int | None:
        return None

    def read(self, batch: Batch) -> TeacherLogits:
        return self.cached.read(batch)

    def tokens(self, batch: Batch) -> int:
        return self.cached.tokens(batch)

    def facts(self) -> dict[str, Any]:
        caches = self.cached.caches
        about: dict[str, Any] = {"top_k": self.k, "cached": [str(source) for source in caches]}
        # Bytes on disk per response token, to compare signals.
        if caches:
            tokens = {source: sum(cache.lengths) for source, cache in caches.items()}
            stored = sum(cache.bytes_per_token * tokens[source] for source, cache in caches.items())
            about["bytes_per_token"] = round(stored / max(sum(tokens.values()), 1), 1)
        return about


class TopKSignal(HiddenSignal):
    """Inexact: the K likeliest tokens, and one bucket for the remaining mass."""

    name = "top-k"
    source = "cached"
    exact = False
    served = True
    takes_top_k = True

    def _width(self) -> int:
        # A vocabulary smaller than K is kept completely, with an empty bucket.
        return min(self.given.training.top_k, self.given.vocab)


# -- a signal of one's own ---------------------------------------------------------------------------------------------


def signal_called(name: str) -> type[TeacherSignal]:
    """The signal of that name, path or plugin. Raises BadInput for an unknown one, or one that breaks its contract."""
    cls = registry.find(registry.SIGNALS, name)
    if not is_own(cls):
        return cls
    contract_checks.refuse_misspelt(cls, TeacherSignal, "signal", ("given",))
    for part in ("exact", "served", "takes_top_k"):
        if not isinstance(getattr(cls, part), bool):
            raise BadInput(_broken(cls, part, f"is {short(getattr(cls, part))}, which is not True or False"))
    if not isinstance(cls.source, str) or len(cls.source) > 60 or not cls.source.isprintable():
        raise BadInput(_broken(cls, "source", f"is {short(cls.source)}; up to 60 printable characters are wanted"))
    if cls.read is TeacherSignal.read:
        raise BadInput(_broken(cls, "read", "is missing; def read(self, batch) gives the teacher's logits of a batch"))
    for part, arguments in (("__init__", "(self, given)"), ("read", "(self, batch)"), ("tokens", "(self, batch)")):
        if not _takes(getattr(cls, part), 2):
            raise BadInput(_broken(cls, part, f"takes other arguments than {arguments}"))
    return cls


def is_own(cls: type[TeacherSignal]) -> bool:
    """Whether the code of a signal is a user's."""
    return user_code.identity(cls) != user_code.OURS


def _takes(function: Callable[..., Any], count: int) -> bool:
    """Whether a function can be called with ``count`` arguments."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    return True


def _broken(cls: type[TeacherSignal], part: str, reason: str) -> str:
    own = any(part in vars(base) for base in cls.__mro__[: cls.__mro__.index(TeacherSignal)])
    return f"{error_location.of(cls, part if own else None)}: {part} of signal {cls.name} {reason}"


class CheckedSignal(TeacherSignal):
    """A signal of one's own, each of whose answers is checked. Raises RunFailed with FILE:LINE of the part.

    It has no ``name``, so the registry does not offer it.
    """

    def __init__(self, signal: TeacherSignal):
        self.signal, self.cls = signal, type(signal)
        if not isinstance(getattr(signal, "given", None), SignalInputs):
            raise RunFailed(_broken(self.cls, "__init__", "keeps no self.given; call super().__init__(given)"))
        super().__init__(signal.given)
        self.first = True

    def read(self, batch: Batch) -> TeacherLogits:
        # Values are checked in the first batch only, because each check waits for the device.
        first, self.first = self.first, False
        return CheckedLogits(self.cls, self._call(self.signal.read, batch), first)

    def tokens(self, batch: Batch) -> int:
        number = self._call(self.signal.tokens, batch)
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise RunFailed(_broken(self.cls, "tokens", f"gave {describe(number)}; a whole number from 0 is wanted"))
        return number

    def facts(self) -> dict[str, Any]:
        facts = self._call(self.signal.facts)
        if not isinstance(facts, dict):
            raise RunFailed(_broken(self.cls, "facts", f"gave {describe(facts)}; a dict is wanted"))
        if fault := contract_checks.unrecordable(facts):
            raise RunFailed(_broken(self.cls, "facts", fault))
        return super().facts() | facts

    def _call(self, part: Callable[..., Any], *arguments: Any) -> Any:
        with error_location.faults_as(RunFailed, called=self.cls):
            return part(*arguments)


class CheckedLogits:
    """The reading of a batch by a signal of one's own: [n, S] student and teacher logits of the same n tokens."""

    def __init__(self, cls: type[TeacherSignal], reading: Any, first: bool):
        self.cls, self.reading, self.first = cls, reading, first
        if not all(callable(getattr(reading, part, None)) for part in ("pair", "over")):
            fix = "FullLogits(logits)" if isinstance(reading, Tensor) else "FullLogits(logits) of logits [N, V]"
            raise RunFailed(_broken(cls, "read", f"gave {describe(reading)}; {fix} is wanted"))

    def over(self, start: int, stop: int) -> CheckedLogits:
        with error_location.faults_as(RunFailed, called=self.cls):
            return CheckedLogits(self.cls, self.reading.over(start, stop), self.first)

    def pair(self, logits: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        with error_location.faults_as(RunFailed, called=self.cls):
            pair = self.reading.pair(logits, start, stop)
        if not isinstance(pair, tuple) or len(pair) != 2 or not all(isinstance(one, Tensor) for one in pair):
            raise self._wrong(f"{describe(pair)}; student and teacher logits [n, S] are wanted, two tensors")
        student, teacher = pair
        if student.dim() != 2 or len(student) != stop - start or student.shape != teacher.shape:
            shapes = f"{list(student.shape)} and {list(teacher.shape)}"
            wanted = f"[{stop - start}, S] each" if student is not logits else f"{list(logits.shape)} each"
            raise self._wrong(f"student and teacher logits of {shapes}; {wanted} are wanted")
        if not teacher.is_floating_point():
            raise self._wrong(f"{describe(teacher)}; floating-point logits are wanted")
        if logits.requires_grad and not student.requires_grad:
            raise self._wrong("student logits without their gradient; index the ones that are given")
        if self.first and _probabilities(teacher):
            raise self._wrong("probabilities, not logits: every row sums to 1; add .log()")
        return student, teacher.detach()  # the teacher's weights take no gradient

    def _wrong(self, reason: str) -> RunFailed:
        return RunFailed(_broken(self.cls, "read", f"gave {reason}"))


def _probabilities(rows: Tensor) -> bool:
    """Whether all rows [n, S] are distributions. Two rows are enough: logits of a model do not sum to 1 twice."""
    few = rows[:2].detach().float()
    return few.shape[-1] > 1 and len(few) > 0 and bool((few >= 0).all() and ((few.sum(-1) - 1).abs() < 1e-3).all())
