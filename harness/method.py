"""The contract of a distillation method: a per-token objective, and what it needs to be computed.

A method answers four questions; only the last one has no default::

    needs      what of the teacher, and in which steps the text is cut      (attribute)
    sources    whose text this optimizer step trains on                     (once per step)
    weight     how the signal is spread over tokens                         (no gradient)
    objective  the divergence of every token, in nats                       (required)

The loop (:mod:`harness.training.loop`) owns everything else: batching, forward passes, accumulation, clipping,
precision, optimizer, rollouts, checkpoints, cost. With c_t = 1 (``reduction = "token"``) or
c_t = 1/|y| (``"sequence"``) and w_t the weights, it minimises over each whole optimizer step

    L = sum_t c_t w_t objective_t / sum_t c_t w_t

whatever the micro-batches, the accumulation and the number of processes. Weights thus re-allocate signal:
multiplying all of them by a constant changes nothing.

Objectives see chunks of tokens. The full [tokens, vocabulary] logits of a batch never exist, so an
objective may not look across tokens; ``weight`` may, within a step of the text (see ``Needs.step_unit``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from harness.types import Source

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Needs:
    """What a method asks of the harness; the cost accounting and the early refusals follow from it.

    teacher: ``none``; ``text`` (its samples); ``signal`` (its distribution, exact or top-k with tail)
    step_unit: ``token``, ``line`` or ``sentence``: the piece of text whose tokens ``weight`` sees together
    proposals: both models propose a next step at every step of the text and a checker scores the two
    """

    teacher: str = "none"
    step_unit: str = "token"
    proposals: bool = False


@dataclass(frozen=True)
class Step:
    """Where training stands. ``draw`` is uniform in [0, 1), equal on all processes, new at every step."""

    index: int
    total: int
    draw: float


@dataclass
class Tokens:
    """A chunk of N response tokens, never cutting a step of the text. S is the size of the support.

    The support is the shared vocabulary for an exact teacher signal. For a cached top-k signal it is the K
    cached tokens and one bucket for all others: ``student`` and ``teacher`` are then log-probabilities of
    K + 1 events, and any divergence of theirs is a lower bound of the full one.
    """

    logits: Tensor  # [N, V] student logits over the shared vocabulary, with gradient
    labels: Tensor  # [N] the token that the text has here
    student: Tensor  # [N, S] student logits on the support, with gradient
    teacher: Tensor | None  # [N, S] teacher logits on the support, without gradient
    sequence: Tensor  # [N] which sequence of the micro-batch
    position: Tensor  # [N] 0-based place in the response
    length: Tensor  # [N] response length of the token's sequence
    step_id: Tensor  # [N] consecutive number of the step of the text, see Needs.step_unit
    source: tuple[Source, ...]  # of each sequence, indexed by ``sequence``
    sampler_log_prob: Tensor | None  # [N] log-probability under the sampler, NaN where text is data
    validity: Tensor | None  # [N, 2] of the teacher's and the student's proposed step, NaN if unknown
    step: Step
    metrics: dict[str, Tensor] = field(default_factory=dict)  # [N] values to log, filled by the method

    def from_source(self, source: Source) -> Tensor:
        """[N] bool: which tokens belong to text of ``source``."""
        import torch

        member = torch.tensor([s == source for s in self.source], device=self.sequence.device)
        return member[self.sequence]


@dataclass(frozen=True)
class NoSettings:
    """The configuration of a method without hyper-parameters."""


class Method(ABC):
    """A distillation method. See the module docstring for what belongs here and what does not."""

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    Config: ClassVar[type] = NoSettings
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # "trl": settings that gkd@trl starts from
    needs: Needs = Needs()  # a property where it depends on the configuration
    reduction: ClassVar[str] = "token"
    note: ClassVar[str] = ""  # printed wherever the method's numbers are, e.g. that it is a reconstruction

    def __init__(self, config: Any = None):
        self.config = self.Config() if config is None else config
        self.state: dict[str, Any] = {}  # numbers and tensors that change while training; checkpointed

    def sources(self, step: Step) -> tuple[Source, ...]:
        """Whose text this step trains on; with several, every prompt appears once for each."""
        return (Source.DATA,)

    @abstractmethod
    def objective(self, tokens: Tokens) -> Tensor:
        """[N] value of every token in nats, differentiable in ``tokens.logits`` and ``tokens.student``."""

    def weight(self, tokens: Tokens) -> Tensor | None:
        """[N] non-negative weights, computed without gradient; None weighs all tokens alike."""
        return None

    def after_step(self, step: Step, report: Mapping[str, float]) -> None:  # noqa: B027 (optional, not forgotten)
        """Moves ``state``, once per optimizer step, from ``report``: means over the step and all processes."""

    def card(self) -> dict[str, Any]:
        """What the convention card says of this method besides what the loop knows."""
        return {}


class ReferencePoint(Method):
    """Not a method but a model evaluated as it comes, so that a table can show gain and recovery."""

    evaluates: ClassVar[str]  # "student" or "teacher"

    def objective(self, tokens: Tokens) -> Tensor:
        raise TypeError(f"{self.name} is evaluated, never trained")


def texts_of(method: Method, steps: int) -> set[Source]:
    """Whose text any step of a run can ask for: ``sources`` is a function of the step, so its corners decide."""
    if isinstance(method, ReferencePoint):
        return set()
    corners, draws = {0, steps // 2, max(steps - 1, 0)}, (0.0, 0.25, 0.5, 0.75, 1.0 - 1e-9)
    return {s for i in corners for draw in draws for s in method.sources(Step(i, max(steps, 1), draw))}
