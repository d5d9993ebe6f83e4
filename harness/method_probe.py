"""Runs a method on a few synthetic tokens to check its contract before any model is loaded.

``harness run`` tries every method while planning; ``harness check --method`` and :mod:`harness.testing` print and
assert the same checks. They use thirteen tokens of two sequences over a vocabulary of eleven, with the sources, signal
and segments that the method declares, at the first and the last step of training, and take milliseconds.
"""

from __future__ import annotations

import io
import types
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from harness import contract_checks, error_location, method_contract, method_settings
from harness.errors import BadInput
from harness.method import Method, Pairs, ReferencePoint, Sequences, Step, Tokens, WholeStep
from harness.types import Source

if TYPE_CHECKING:
    from torch import Tensor

    from harness.recipe import Training

N, V = 13, 11
LENGTHS = (8, 5)
LINES = (0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4, 5)  # segments where these are lines or sentences
SLICES = ((0, 5), (5, 12), (12, 13))
TEXTS = ((0, 8), (8, 13))  # the slices of a method that reads whole texts
# Pairs with the tokens of a teacher that splits the texts differently and has nine words, five of them shared.
STUDENT_PAIRS = (0, 0, 1, -1, 2, 3, 4, 5, 6, 6, 7, 8, 9)
TEACHER_PAIRS = (0, 1, 1, 2, 3, 3, 4, 5, 6, 7, 7, 8, -1, 9)
TEACHER_LENGTHS, W, SHARED = (8, 6), 9, ((1, 0), (2, 8), (4, 3), (5, 4), (9, 7))
MIDWAY = Step(index=3, total=10, draw=0.25)
DRAWS = (0.0, 0.5, 1.0 - 1e-9)
OPTIONAL = {  # fields of Tokens that are None unless a method needs them
    "teacher": 'needs = Needs(teacher="signal")',
    "sequence_features": "Needs(sequence_features=True) and a method sequence_features(self, sequences)",
    "validity": "Needs(proposals=True)",
    "pairs": "Needs(exact=True, pairing=Pairing())",
    "step_features": "Needs(step_features=True) and a method step_features(self, values, whole)",
    "reference_log_prob": "Needs(reference=True)",
    "gate": "Needs(gate=True) and a method weight(self, tokens)",
    "sampler_log_prob": "sampled text: harness.method.recorded_or(tokens.sampler_log_prob, log_q) serves both",
}


def probe(method: Method, steps: int = 10, top_k: int | None = None) -> Iterator[str]:
    """Checks a configured method; yields a line per passed check.

    ``steps`` is the length of the training, ``top_k`` that of a top-k signal. The method itself is not changed. Raises
    BadInput with FILE:LINE for the first part that breaks its contract.
    """
    if isinstance(method, ReferencePoint):
        yield "a reference point: evaluated without training"
        return
    method_settings.check(type(method))
    tried = method_settings.made(type(method), method.config)
    yield "settings: each has a default, of its type and in its range"
    with _called(method, "needs"):
        _ = tried.needs, tried.reduction  # properties of user code may raise
    method_contract.needs(tried)
    yield "needs and reduction"
    steps = max(steps, 1)
    # Check every step of a training of ordinary length, so that one with an impossible request never begins.
    with _called(method, "sources"):
        every = [tried.sources(Step(i, steps, draw)) for i in range(0, steps, steps // 1000 + 1) for draw in DRAWS]
    for sources in every:
        method_contract.sources(tried, sources)
    yield "sources: texts that its needs allow"
    k = top_k if tried.needs.teacher == "signal" else None
    moves = False
    for index, draw in ((0, DRAWS[0]), (0, DRAWS[-1]), (steps // 2, DRAWS[1]), (steps - 1, DRAWS[1])):
        step = Step(min(index, steps - 1), steps, draw)
        report, gradient = _slices(tried, step, k)
        moves |= bool(gradient.any())
        with _called(method, "after_step"):
            tried.after_step(step, types.MappingProxyType(report))
    _state(tried)
    # A setting at its limit may legitimately make every value 0; the defaults may not.
    if not moves and method.config == type(method).Config():
        raise method_contract.broken(method, "objective", f"has a gradient of 0 everywhere {method_contract.DETACHED}")
    signal = f" on a top-{k} signal" if k else ""
    yield f"objective: one floating-point value per token, with a gradient to the student's logits{signal}"
    yield "weight, sequence_features, metrics and after_step; a state that a checkpoint can keep"
    with _called(method, "card"):
        card = tried.card()
    if not isinstance(card, dict):
        raise method_contract.broken(method, "card", f"gave {error_location.describe(card)}; a dict is wanted")
    if fault := contract_checks.unrecordable(card):
        raise method_contract.broken(method, "card", f"gave a dict that {fault}")
    with _called(method, "role"):
        _ = tried.role
    method_contract.facts(tried)
    yield "card"


def check(method: Method, training: Training, cap: float | None = None) -> None:
    """Raises BadInput for a method that a training of this recipe cannot support. ``cap``: rollout.importance_cap."""
    from harness.training.signal_contract import signal_called  # imports torch

    list(probe(method, training.steps))
    if cap is not None and weighs_by_sampler(method):
        raise BadInput(
            f"rollout.importance_cap={cap:g} weights a token by q / the engine's probability of it, which method "
            f"{method.name} does itself: leave it out, or run {method.name} separately"
        )
    needs, k, signal = method.needs, training.top_k, signal_called(training.signal)
    if signal.exact or needs.teacher != "signal":
        return
    if needs.exact or needs.sequence_features:
        why = "needs the teacher's whole distribution"
    elif getattr(method.config, "temperature", 1.0) != 1.0:
        why = f"has a loss temperature of {method.config.temperature:g}, and the bucket of the rest was formed at 1"
    else:
        list(probe(method, training.steps, k))
        return
    name = f"a top-{k} signal" if signal.takes_top_k else f"signal {signal.name}"
    raise BadInput(f"method {method.name} {why}: {name} cannot give that; set training.signal=hidden (cached) or live")


def random_tokens(
    seed: int,
    keep: slice = slice(None),
    k: int | None = None,
    dtype: Any = None,
    method: Method | None = None,
    step: Step = MIDWAY,
    unlikelier: float = 0.0,
) -> Tokens:
    """Thirteen response tokens of two sequences (lengths 8 and 5) over a vocabulary of 11, with a teacher.

    ``k`` gives a top-k signal; ``keep`` selects a slice; the sampler found its tokens ``unlikelier`` by so many nats.
    With ``method`` the sources are those of ``step``, sequence features are computed if needed, and fields that the
    method does not need are None.
    """
    import torch

    from harness.training.signals import TopKLogits

    # Everything that a method may read, for all N tokens; a slice is cut from it at the end.
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, N, V, generator=generator).to(dtype or torch.float32)
    labels = torch.randint(0, V, (N,), generator=generator)
    log_prob: Any = -torch.rand(N, generator=generator) - unlikelier
    validity: Any = torch.randint(0, 2, (N, 2), generator=generator).float()
    sequence = torch.repeat_interleave(torch.arange(2), torch.tensor(LENGTHS))
    position = torch.cat([torch.arange(n) for n in LENGTHS])
    length = torch.tensor(LENGTHS)[sequence]
    source: tuple[Source, ...] = (Source.STUDENT, Source.TEACHER)
    reference: Any = -torch.rand(N, generator=torch.Generator().manual_seed(seed + 1)).mul(3)
    # A given method sees only what its needs grant, so that it fails here if it reads more.
    steps, needs = torch.tensor(LINES), None
    if method is not None:
        needs, sources = method.needs, tuple(method.sources(step))
        # Of several the two ends, which differ if two kinds of text share a step.
        source = (sources[0], sources[-1])
        sampled = torch.tensor([s not in (Source.DATA, Source.TEACHER) for s in source])[sequence]
        log_prob = log_prob.where(sampled, float("nan")) if sampled.any() else None
        validity = validity if needs.proposals else None
        steps = torch.arange(N) if needs.segment == "token" else steps
    features = None
    if needs is not None and needs.sequence_features:
        log_q, log_p = (z.log_softmax(-1, torch.float32).gather(-1, labels[:, None])[:, 0] for z in (student, teacher))
        sequences = Sequences(log_p, log_q, log_prob, sequence, position, length, source, step)
        with torch.no_grad(), _called(method, "sequence_features"):
            features = method.sequence_features(sequences)
        method_contract.features(method, "sequence_features", features, N)
    # Student and teacher on one support: the vocabulary, each its own vocabulary, none, or K tokens and the rest.
    logits = student[keep].clone().requires_grad_()
    pair, pairs = (logits, teacher[keep]), None
    if needs is not None and needs.pairing is not None:
        theirs, pairs = _pairs(keep, generator)
        pair = (logits, theirs.to(logits.dtype))
    if needs is not None and needs.teacher != "signal":
        pair = (logits, None)
    elif k is not None:
        pair = TopKLogits.of(teacher[keep], k).pair(logits, 0, len(logits))
    tokens = Tokens(
        logits=logits,
        labels=labels[keep],
        student=pair[0],
        teacher=pair[1],
        sequence=sequence[keep],
        position=position[keep],
        length=length[keep],
        segment_id=steps[keep] - steps[keep][0],
        source=source,
        sampler_log_prob=None if log_prob is None else log_prob[keep],
        validity=None if validity is None else validity[keep],
        step=step,
        sequence_features=None if features is None else features[keep],
        special=labels[keep] == 0,
        reference_log_prob=None if needs is not None and not needs.reference else reference[keep],
        pairs=pairs,
        informed=sequence[keep] == 0,
    )
    if needs is not None and needs.step_features:
        # The features of the whole step; a slice shows its part.
        whole = tokens if keep == slice(None) else random_tokens(seed, slice(None), k, dtype, method, step, unlikelier)
        of_all = step_features(method, tokens) if whole is tokens else whole.step_features
        tokens.step_features = of_all if whole is tokens else of_all[keep]
    if needs is not None:
        tokens.gate = weigh(method, tokens) if needs.gate else None
    return tokens


def _pairs(keep: slice, generator: Any) -> tuple[Any, Pairs]:
    """The teacher's logits [m, W] for a slice of the student's tokens, and their pairs."""
    import torch

    teacher, labels = torch.randn(14, W, generator=generator), torch.randint(0, W, (14,), generator=generator)
    own, theirs = torch.tensor(STUDENT_PAIRS), torch.tensor(TEACHER_PAIRS)
    start, stop, _ = keep.indices(N)
    ends = [0, *(int(((theirs >= 0) & (theirs <= own[:n].max())).nonzero().max()) + 1 for n in range(1, N)), 14]
    rows = slice(ends[start], ends[stop])
    sequence = torch.repeat_interleave(torch.arange(2), torch.tensor(TEACHER_LENGTHS))
    position = torch.cat([torch.arange(n) for n in TEACHER_LENGTHS])
    shared = torch.tensor(SHARED)
    alone = [torch.tensor([i for i in range(n) if i not in shared[:, k]]) for k, n in enumerate((V, W))]
    first, inside = int(own[keep][own[keep] >= 0].min()), (own[keep], theirs[rows])
    numbers = [torch.where(of >= 0, of - first, -1) for of in inside]
    count = torch.tensor((6, 4)).repeat_interleave(torch.tensor(LENGTHS))[keep]
    return teacher[rows], Pairs(
        *numbers, labels[rows], sequence[rows], position[rows], count, shared, (alone[0], alone[1]), 1.3
    )


def _reads_texts(method: Method) -> bool:
    """Whether the objective looks across whole texts, which no slice then cuts."""
    return method.needs.pairing is not None and method.needs.whole


def step_features(method: Method, tokens: Tokens) -> Any:
    """[N, ...] the step features of tokens that form a whole optimizer step, with texts that all answer one prompt."""
    import torch

    with torch.no_grad():
        if type(method).measure is Method.measure:  # it reads only rewards
            measured = torch.zeros(len(tokens.labels), 0)
        else:
            with _called(method, "measure", tokens):
                measured = method.measure(tokens)
            method_contract.features(method, "measure", measured, len(tokens.labels))
        prompts = (0,) * len(tokens.source)
        # The first text is right and has hindsight; a response has twice as many tokens as here at most.
        first = (True, *[False] * (len(prompts) - 1))
        reward, longest = torch.tensor(first, dtype=torch.float64), 2 * int(tokens.length.max())
        whole = WholeStep(tokens.sequence, tokens.source, prompts, tokens.step, reward, longest, first)
        with _called(method, "step_features"):
            features = method.step_features(measured, whole)
    method_contract.features(method, "step_features", features, len(tokens.labels))
    return features


def weigh(method: Method, tokens: Tokens) -> Any:
    """The method's weights of a slice, computed as in the loop."""
    import torch

    with torch.no_grad(), _called(method, "weight", tokens):
        weights = method.weight(tokens)
    method_contract.weights(method, weights, len(tokens.logits))
    return None if weights is None else weights.float()


def value(method: Method, tokens: Tokens) -> tuple[Tensor, Tensor]:
    """The method's values [N] of a slice and the gradient [N, V] of their sum for ``tokens.logits``, both finite."""
    import torch

    with _called(method, "objective", tokens):
        values = method.objective(tokens)
    method_contract.values(method, values, tokens.logits)
    method_contract.metrics(method, tokens.metrics, len(tokens.logits))
    for name, metric in tokens.metrics.items():
        if not bool(torch.isfinite(metric).all()):
            fault = f"set tokens.metrics[{name!r}] to NaN or infinity on ordinary logits; guard its logarithms"
            raise method_contract.broken(method, "objective", fault)
    if not bool(torch.isfinite(values).all()):
        fault = "gave NaN or infinite values on ordinary logits; guard its logarithms"
        raise method_contract.broken(method, "objective", fault)
    try:
        (gradient,) = torch.autograd.grad(values.float().sum(), [tokens.logits], allow_unused=True)
    except Exception as error:  # user hooks and functions run here, and the graph may have been freed
        place = error_location.of_error(error) or error_location.of(type(method), "objective")
        none = "has no gradient; do not call .backward() or change tensors in place"
        fault = none if isinstance(error, RuntimeError) else "raises while its gradient is computed"
        message = error_location.message(error).split(". ")[0]
        raise BadInput(f"{place}: objective of method {method.name} {fault} ({message})") from error
    if gradient is None:
        fault = f"gave {error_location.describe(values)} {method_contract.DETACHED}"
        raise method_contract.broken(method, "objective", fault)
    if not bool(torch.isfinite(gradient).all()):
        raise method_contract.broken(
            method, "objective", "has a gradient of NaN or infinity on ordinary logits; guard its roots and divisions"
        )
    return values.detach(), gradient


def _slices(method: Method, step: Step, k: int | None) -> tuple[dict[str, float], Tensor]:
    """Compares the report and gradient of all tokens at once with those of slices, one of a single token."""
    tokens = random_tokens(0, k=k, method=method, step=step)
    if not method.needs.gate:
        weigh(method, tokens)
    whole, gradient = value(method, tokens)
    for keep in (slice(*bounds) for bounds in (TEXTS if _reads_texts(method) else SLICES)):
        part = random_tokens(0, keep, k=k, method=method, step=step)
        if not method.needs.gate:
            weigh(method, part)
        value(method, part)
    report = {"loss": float(whole.mean()), "grad_norm": 1.0, "learning_rate": 1e-3}
    report |= {name: float(metric.detach().float().mean()) for name, metric in tokens.metrics.items()}
    due = method.needs.validate_every
    return report | ({"validation_loss": 2.0} if due and (step.index + 1) % due == 0 else {}), gradient


def _state(method: Method) -> None:
    """Checks that the state survives a checkpoint, which holds numbers, text, tensors and lists of them."""
    import torch

    kept = io.BytesIO()
    if not isinstance(method.state, dict):
        fault = f"makes self.state {error_location.describe(method.state)}; it is a dict: self.state[name] = value"
        raise method_contract.broken(method, "after_step", fault)
    try:
        torch.save(method.state, kept)
        kept.seek(0)
        torch.load(kept, weights_only=True)
    except Exception as error:  # pickle and torch raise errors of many types
        fault = (
            "keeps in self.state what a checkpoint cannot save; keep numbers, text, tensors, lists and dicts of them"
        )
        raise method_contract.broken(method, "after_step", fault) from error


class _called:
    """Wraps the call of a part: exceptions become one line, which names the missing fields that it read."""

    def __init__(self, method: Method, part: str, tokens: Tokens | None = None):
        self.method, self.part, self.tokens = method, part, tokens

    def __enter__(self) -> None:
        self.watch = contract_checks.ProcessState()
        if self.tokens is not None:
            self.read: set[str] = set()
            self.copies = [(name, value, value.clone()) for name, value in method_contract.tensors(self.tokens)]
            self.kind, self.tokens.__class__ = type(self.tokens), _watching(self.read)

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        changed = self.watch.changed()
        if self.tokens is not None:
            self.tokens.__class__ = self.kind
        if isinstance(error, KeyboardInterrupt):
            return
        if changed is not None:
            raise method_contract.broken(self.method, self.part, changed[0]) from error
        if error is None:
            for name, value, before in self.copies if self.tokens is not None else ():
                if not bool(((value == before) | (value != value) & (before != before)).all()):
                    fault = f"changes {name} in place, which is shared; {method_contract.OWN_COPY}"
                    raise method_contract.broken(self.method, self.part, fault)
            return
        place = error_location.of_error(error) or error_location.of(type(self.method), self.part)
        fault = error_location.message(error)
        absent = [n for n in OPTIONAL if self.tokens is not None and n in self.read and getattr(self.tokens, n) is None]
        fixes = [f"; tokens.{name} is None without {OPTIONAL[name]}" for name in absent]
        raise BadInput(f"{place}: {self.part} of method {self.method.name}: {fault}{''.join(fixes)}") from error


def _watching(read: set[str]) -> type[Tokens]:
    """Tokens that record which of their fields are read."""

    class Watched(Tokens):
        def __getattribute__(self, name: str) -> Any:
            read.add(name)
            return super().__getattribute__(name)

    Watched.__name__ = Tokens.__name__  # the class name shown in error messages
    return Watched


def looks_across(method: Method, k: int | None = None) -> bool:
    """Whether a token's value depends on the other tokens of its slice; False for an objective that draws at random."""
    import torch

    method = type(method)(method.config)
    whole, again = (value(method, random_tokens(0, k=k, method=method))[0] for _ in range(2))
    if not torch.equal(whole, again):
        return False
    parts: Sequence[slice] = [slice(*bounds) for bounds in (TEXTS if _reads_texts(method) else ((0, 5), (5, 13)))]
    values = [value(method, random_tokens(0, keep, k=k, method=method))[0] for keep in parts]
    return not torch.allclose(torch.cat(values), whole, rtol=1e-5, atol=1e-6)


def weighs_by_sampler(method: Method) -> bool:
    """Whether a method's values on sampled text depend on the probabilities recorded by the sampler."""

    def values(draw: float, nats: float) -> list[float]:
        return value(method, random_tokens(0, method=method, step=Step(0, 10, draw), unlikelier=nats))[0].tolist()

    return any(values(draw, 0.0) != values(draw, 0.5) for draw in DRAWS)
