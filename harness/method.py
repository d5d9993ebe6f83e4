"""The contract of a distillation method: a per-token objective, and what it needs to be computed.

A method defines these parts; only the last one has no default::

    needs              what it reads of the teacher, and the segments of text    (attribute)
    sources            whose text this optimizer step trains on                  (once per step)
    sequence_features  values of whole sequences: returns, per-sequence settings (no gradient)
    step_features      values of the whole optimizer step: ranks, means, pairs   (no gradient)
    weight             how the signal is distributed over tokens                 (no gradient)
    objective          the divergence of every token, in nats                    (required)

The loop (:mod:`harness.training.loop`) owns everything else: batching, forward passes, accumulation, clipping,
precision, optimizer, rollouts, checkpoints, cost. With w_t the weights and c_t by the method's ``reduction``, it
minimises over each whole optimizer step, independent of micro-batches, accumulation and number of processes,

    L = sum_t c_t w_t objective_t / sum_t c_t w_t

token      c_t = 1: every token counts equally
sequence   c_t = 1/|y|: every sequence counts equally
source     c_t = 1/(tokens of the step whose text has the same source): every source counts equally

Weights only redistribute signal: multiplying all of them by a constant changes nothing. A method that sums the means
over k sources of its step multiplies its objective by k.

Letters in the shapes of tensors, here and in :mod:`harness.training` and :mod:`harness.models`::

    N  tokens of a slice or micro-batch          V  shared vocabulary
    B  sequences of a micro-batch                S  support of the objective: V, or K + 1 for a top-k signal
    M  tokens of the teacher's own reading       W  vocabulary of the teacher, if it differs
    L  length that sequences are padded to       K  tokens of a top-k signal
    n  rows of a part of N (a chunk or slice)    d  hidden size

Objectives get slices of tokens. The full [tokens, vocabulary] logits of a batch never exist, so an objective
cannot look across tokens; ``weight`` can, within a segment of text (see ``Needs.segment``).
With ``Needs.pairing`` the teacher reads the text in its own tokens, even of another tokenizer, and the objective
looks across the tokens of a pair (:mod:`harness.token_pairs`), which no slice cuts; with ``Needs.whole`` across whole
texts. ``sequence_features`` gets both log-probabilities of every token of whole sequences before their objective;
``step_features`` gets the values of ``measure`` for every token of the optimizer step, on all processes.

A method with weights has a setting ``shuffle`` (default False). With it, the loop gives the same weights
to other tokens of the optimizer step: the control ``NAME@shuffled`` that ``harness run --control`` adds. A setting
``temperature`` is that of the loss; unless it is 1, the method is refused on a top-k signal, whose tail was
formed at 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from harness.token_pairs import Pairing as Pairing
from harness.token_pairs import Pairs as Pairs
from harness.types import Decoding, Source

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Mixture:
    """Every token is drawn from ``teacher_share`` p + (1 - ``teacher_share``) q, p teacher and q student."""

    teacher_share: float


@dataclass(frozen=True)
class Speculation:
    """The student proposes every token; a token outside the teacher's ``top_k`` likeliest is drawn from the teacher.

    ``student`` and ``teacher`` give the temperature and nucleus that each of them samples with.
    """

    top_k: int
    student: Decoding
    teacher: Decoding


@dataclass(frozen=True)
class Proposing:
    """How both models propose next steps at every step of a text, and what scores each proposal in [0, 1].

    validity: ``checker`` (the data's own step checker); ``success`` (the share of ``tries`` continuations that the
        data's own grader finds right); ``likelihood`` (the teacher's mean probability of the step's tokens, relative to
        its likeliest own step); ``agreement`` (the share of ``tries`` steps of the teacher that say the same);
        ``truth`` (the teacher's probability that the step is correct, when asked)
    count: steps that each model proposes at a place; the validities of several are averaged
    temperature: of their sampling; 0 is greedy. If a model wrote the text, the text is its first proposal
    longest: maximum number of tokens of a step
    continued_by: ``teacher`` or ``student``, for ``success``
    """

    validity: str = "checker"
    count: int = 1
    temperature: float = 0.0
    longest: int = 48
    tries: int = 4
    continued_by: str = "teacher"


@dataclass(frozen=True)
class Asking:
    """Who teaches, and under which prompt, if not the recipe's teacher under the student's prompt.

    template: of the teacher's user turn, over the fields of the example: ``{prompt}``, ``{response}`` (the reference)
        and the other columns of the row; "" keeps the student's prompt. With a template the student answers the
        labelled examples
    model: ``teacher`` (the recipe's), ``initial`` (the student before training, frozen), ``ema`` (a moving average of
        the student) or ``live`` (the student itself, without gradient)
    decay: of the moving average, per optimizer step
    """

    template: str = ""
    model: str = "teacher"
    decay: float = 0.999


@dataclass(frozen=True)
class Hindsight:
    """A teacher's own prompt, built from the graded texts of the student, see ``Needs.hindsight``.

    template: over ``{prompt}``, ``{solution}`` and ``{feedback}``, which may be empty
    solution, feedback: over ``{text}``: another right text of the prompt; what the grader said about a wrong text
    least, own: the lowest score of a right text; whether a text may be its own solution
    told: when to give feedback: ``alone`` (if there is no solution), ``always`` or ``never``
    """

    template: str
    solution: str = "{text}"
    feedback: str = "{text}"
    least: float = 1.0
    own: bool = False
    told: str = "alone"


@dataclass(frozen=True)
class Needs:
    """What a method needs from the harness. Cost accounting and early checks follow from it.

    teacher: ``none``; ``text`` (its samples); ``signal`` (its distribution, exact or top-k with tail)
    segment: ``token``, ``line``, ``sentence``, ``statement`` (of a program) or ``span`` (of ``span`` tokens): the piece
        of text whose tokens ``weight`` sees together
    whole: ``weight`` sees whole texts, and so does an objective with ``pairing``; their logits exist at once
    pairing: the teacher reads texts in its own tokens, after its own prompt, and these are paired with the student's;
        None if both read the same ids. With pairing the signal must be the whole distribution
    proposals: both models propose a next step at every step of the text, and each is scored, see :class:`Proposing`;
        True is its default
    asking: who teaches and under which prompt, see :class:`Asking`; None: the recipe's, under the student's
    rewards: the data's own grader scores every text, in [0, 1], for ``step_features``, which then needs no ``measure``.
        If ``sources`` returns a source several times in a row, every prompt gets as many responses
    hindsight: the teacher's prompt follows from rewards, see :class:`Hindsight`
    reference: ``tokens.reference_log_prob`` is the log-probability under the student before training, frozen
    exact: the signal must be the whole distribution; a top-k one is refused before any work
    gate: ``Method.weight`` multiplies nothing; the objective reads its values, or the shuffled ones, as
        ``tokens.gate``
    sequence_features: ``Method.sequence_features`` is called before the objective (the signal must be exact then, too)
    step_features: ``Method.measure`` and ``Method.step_features`` are called before the objective; the extra
        forward pass of the student is charged
    ranks: how many likeliest tokens the method reads; more than the vocabulary has are refused before any work
    redraw: ``step`` samples the student's text again at every step; ``epoch`` samples the responses to all prompts when
        an epoch begins and trains on them until it ends
    joint: how Source.MIXED text is sampled from both models
    replay: how many of the student's latest responses Source.REPLAY draws from; 0 keeps none
    full: Source.REPLAY samples from the student until the buffer is full, not only while it is empty
    validate_every: optimizer steps between validations; 0 makes none. ``report`` then holds
        ``validation_loss``: the student's mean -log q per token, in nats, on held-out labelled examples
    """

    teacher: str = "none"
    segment: str = "token"
    span: int = 8
    whole: bool = False
    proposals: bool | Proposing = False
    pairing: Pairing | None = None
    asking: Asking | None = None
    rewards: bool = False
    hindsight: Hindsight | None = None
    reference: bool = False
    exact: bool = False
    gate: bool = False
    sequence_features: bool = False
    step_features: bool = False
    ranks: int = 0
    redraw: str = "step"
    joint: Mixture | Speculation | None = None
    replay: int = 0
    full: bool = False
    validate_every: int = 0


SEGMENTS = ("token", "line", "sentence", "statement", "span")  # pieces of text whose tokens are weighted together


@dataclass(frozen=True)
class Step:
    """The state of training. ``draw`` is uniform in [0, 1), equal on all processes, new at every step.

    ``epoch`` counts the passes over the prompts that are made before this step, ``epochs`` those of the whole run; both
    have fractions: 1.25 is a quarter into the second epoch.
    """

    index: int
    total: int
    draw: float
    epoch: float = 0.0
    epochs: float = 1.0


@dataclass
class Tokens:
    """A slice of N response tokens that never cuts a segment. S is the size of the support.

    The support is the shared vocabulary for an exact teacher signal. For a cached top-k signal it is the K
    cached tokens and one bucket for all others: ``student`` and ``teacher`` are then log-probabilities of
    K + 1 events, and any divergence of theirs is a lower bound of the full one.
    """

    logits: Tensor  # [N, V] student logits over the shared vocabulary, with gradient
    labels: Tensor  # [N] the token of the text
    student: Tensor  # [N, S] student logits on the support, with gradient
    teacher: Tensor | None  # [N, S] teacher logits on the support, without gradient; [M, W] with pairs
    sequence: Tensor  # [N] which sequence of the micro-batch
    position: Tensor  # [N] 0-based place in the response
    length: Tensor  # [N] response length of the token's sequence
    segment_id: Tensor  # [N] consecutive number of the step of the text, see Needs.segment
    source: tuple[Source, ...]  # of each sequence, indexed by ``sequence``
    sampler_log_prob: Tensor | None  # [N] log-probability under the sampler, NaN where text is data
    validity: Tensor | None  # [N, 2] of the teacher's and the student's proposed step, NaN if unknown
    step: Step
    gate: Tensor | None = None  # [N] see Needs.gate
    sequence_features: Tensor | None = None  # [N, ...] what Method.sequence_features returned for these tokens
    step_features: Tensor | None = None  # [N, ...] what Method.step_features returned for these tokens
    special: Tensor | None = None  # [N] bool: the text's token is a special one of the tokenizer
    pairs: Pairs | None = None  # which tokens of both sides are compared, see Needs.pairing
    reference_log_prob: Tensor | None = None  # [N] under the student before training, see Needs.reference
    informed: Tensor | None = None  # [N] bool: the teacher reads this text in hindsight, see Needs.hindsight
    metrics: dict[str, Tensor] = field(default_factory=dict)  # [N] values to log, filled by the method

    def from_source(self, *sources: Source) -> Tensor:
        """[N] bool: which tokens belong to text of one of ``sources``."""
        return _from_source(self.source, self.sequence, sources)


@dataclass(frozen=True)
class Sequences:
    """The N response tokens of B whole sequences, before any objective. Nothing here has a gradient."""

    log_p: Tensor  # [N] log-probability of the text's token under the teacher, in nats
    log_q: Tensor  # [N] and under the student as it is now
    sampler_log_prob: Tensor | None  # [N] and under its sampler, NaN where text is data
    sequence: Tensor  # [N] which sequence of the micro-batch; ascending
    position: Tensor  # [N] 0-based place in the response
    length: Tensor  # [N] response length of the token's sequence
    source: tuple[Source, ...]  # [B]
    step: Step

    def from_source(self, *sources: Source) -> Tensor:
        """[N] bool: which tokens belong to text of one of ``sources``."""
        return _from_source(self.source, self.sequence, sources)

    def sampler(self) -> Tensor:
        """[N] ``sampler_log_prob``, and the student's own where the text has no recorded sampler."""
        return recorded_or(self.sampler_log_prob, self.log_q)

    def table(self, values: Tensor) -> Tensor:
        """[B, L] the values [N] of each sequence in a row, 0 after its end."""
        rows = values.new_zeros(len(self.source), int(self.length.max()))
        rows[self.sequence, self.position] = values
        return rows

    def flat(self, rows: Tensor) -> Tensor:
        """[N] of a table [B, L]: the inverse of :meth:`table`."""
        return rows[self.sequence, self.position]

    def mean(self, values: Tensor) -> Tensor:
        """[N] the mean of the values [N] over each token's sequence."""
        return self.table(values).sum(1)[self.sequence] / self.length

    def discounted(self, rewards: Tensor, discount: float) -> Tensor:
        """[N] sum over t' >= t in the sequence of discount^(t' - t) rewards_t'."""
        rows = self.table(rewards)
        for t in range(rows.shape[1] - 2, -1, -1):
            rows[:, t] += discount * rows[:, t + 1]
        return self.flat(rows)


@dataclass(frozen=True)
class WholeStep:
    """The M response tokens of an optimizer step on all processes, in an order that does not depend on these."""

    sequence: Tensor  # [M] which text of the step; ascending
    source: tuple[Source, ...]  # of each text
    prompt: tuple[int, ...]  # of each text: the place of its prompt, equal for texts that answer one prompt
    step: Step
    reward: Tensor | None = None  # [texts] the grader's score in [0, 1], NaN where it reached none, see Needs.rewards
    longest: int = 1  # tokens that a sampled response has at most: rollout.max_new_tokens
    informed: tuple[bool, ...] = ()  # of each text: the teacher reads it in hindsight, see Needs.hindsight

    def mean(self, values: Tensor) -> Tensor:
        """[texts] the mean of the values [M] over each text."""
        return self.total(values) / self.sequence.bincount(minlength=len(self.source))

    def total(self, values: Tensor) -> Tensor:
        """[texts] the sum of the values [M] over each text, in float64."""
        sums = values.double().new_zeros(len(self.source))
        return sums.index_add_(0, self.sequence, values.double())


def _from_source(of: tuple[Source, ...], sequence: Tensor, sources: tuple[Source, ...]) -> Tensor:
    import torch

    return torch.tensor([s in sources for s in of], device=sequence.device)[sequence]


def recorded_or(sampler_log_prob: Tensor | None, log_q: Tensor) -> Tensor:
    """[N] the recorded log-probabilities, and ``log_q`` without gradient where there is none."""
    now = log_q.detach()
    return now if sampler_log_prob is None else now.where(sampler_log_prob.isnan(), sampler_log_prob.to(now.dtype))


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
    reduction: str = "token"  # a property where it depends on the configuration
    note: ClassVar[str] = ""  # printed with the method's numbers, e.g. its assumptions
    without_checker: ClassVar[str] = ""  # the settings that need no step checker or grader, see Needs.proposals
    reconstruction: ClassVar[bool] = False  # the published formula is not known; marked with its numbers
    baseline: ClassVar[bool] = False  # tables state other methods' scores as differences from this one

    def __init__(self, config: Any = None):
        self.config = self.Config() if config is None else config
        self.state: dict[str, Any] = {}  # numbers and tensors that change while training; checkpointed

    @property
    def role(self) -> str:
        """The role of this method in tables: ``competitor``, or ``control`` where its weights are shuffled."""
        return "control" if getattr(self.config, "shuffle", False) else "competitor"

    def sources(self, step: Step) -> tuple[Source, ...]:
        """Whose text this step trains on; with several, every prompt appears once for each."""
        return (Source.DATA,)

    @abstractmethod
    def objective(self, tokens: Tokens) -> Tensor:
        """[N] value of every token in nats, differentiable in ``tokens.logits`` and ``tokens.student``."""

    def sequence_features(self, sequences: Sequences) -> Tensor:
        """[N, ...] features of whole sequences for the objective, see ``Needs.sequence_features``; without gradient."""
        raise NotImplementedError(f"{self.name} needs sequence features but computes none")

    def measure(self, tokens: Tokens) -> Tensor:
        """[N, k] the input of ``step_features`` for each token, see ``Needs.step_features``; without gradient."""
        raise NotImplementedError(f"{self.name} needs step features but measures nothing")

    def step_features(self, values: Tensor, whole: WholeStep) -> Tensor:
        """[M, ...] from the values of ``measure`` for every token of the step, [M, k]; without gradient."""
        raise NotImplementedError(f"{self.name} needs step features but computes none")

    def weight(self, tokens: Tokens) -> Tensor | None:
        """[N] non-negative weights, computed without gradient; None weights all tokens equally."""
        return None

    def after_step(self, step: Step, report: Mapping[str, float]) -> None:  # noqa: B027 (optional, not forgotten)
        """Updates ``state`` once per optimizer step from ``report``: means over the step and all processes."""

    def card(self) -> dict[str, Any]:
        """Entries of the convention card that only the method knows."""
        return {}


class ReferencePoint(Method):
    """A model evaluated without training, so that a table can show gain and recovery."""

    evaluates: ClassVar[str]  # "student" or "teacher"
    role = "reference"

    def objective(self, tokens: Tokens) -> Tensor:
        raise TypeError(f"{self.name} is evaluated, never trained")


def texts_of(method: Method, steps: int) -> set[Source]:
    """The sources that any step of a run can request, found by calling ``sources`` at sample steps and draws."""
    if isinstance(method, ReferencePoint):
        return set()
    corners, draws = {0, steps // 2, max(steps - 1, 0)}, (0.0, 0.25, 0.5, 0.75, 1.0 - 1e-9)
    texts = {s for i in corners for draw in draws for s in method.sources(Step(i, max(steps, 1), draw))}
    # The replay rate may depend on state that changes during training, so both of its sources are always possible.
    return texts | {Source.STUDENT, Source.REPLAY} if method.needs.replay else texts
