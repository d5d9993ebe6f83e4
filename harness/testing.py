"""The conformance suite: what every method and every task must fulfil, ours and yours.

In your own tests::

    from harness.testing import check_method, check_task
    def test_method(): check_method(MyMethod)
    def test_task(): check_task(MyTask, rows)

Each check raises AssertionError saying which promise is broken. None needs a network, a GPU or a download.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import BadInput
from harness.method import Method, Needs, ReferencePoint, Sequences, Step, Tokens
from harness.task import Data, Task
from harness.types import Completion, Source, Verdict

STEP = Step(index=3, total=10, draw=0.25)


def check_method(found: type[Method], config: Any = None) -> None:
    """All promises of a method, on random logits of 13 tokens over 11 words, exact and top-k."""
    assert issubclass(found, Method), "a method subclasses harness.Method"
    assert isinstance(found.name, str) and found.name.isidentifier(), "name must be an identifier"
    assert found.__doc__, "the class docstring is the line that `harness list methods` shows"
    assert dataclasses.is_dataclass(found.Config) and found.Config.__dataclass_params__.frozen, (
        "Config is a frozen dataclass"
    )
    for field in dataclasses.fields(found.Config):
        assert field.metadata.get("help"), (
            f"setting {field.name} lacks a help text: make it with harness.options.option"
        )
    if issubclass(found, ReferencePoint):
        assert found.evaluates in {"student", "teacher"}
        return
    method = found(config)
    _check_declarations(method)
    if found.weight is not Method.weight:
        assert hasattr(method.config, "shuffle"), "a method with weights has a setting `shuffle`, its control"
    _check_values(method)


def _check_declarations(method: Method) -> None:
    needs = method.needs
    assert isinstance(needs, Needs) and needs.teacher in {"none", "text", "signal"}
    assert needs.step_unit in {"token", "line", "sentence"}
    for draw in (0.0, 0.5, 0.999):
        sources = method.sources(dataclasses.replace(STEP, draw=draw))
        assert sources and all(isinstance(s, Source) for s in sources), "sources are one or more harness.types.Source"
        assert Source.TEACHER not in sources or needs.teacher != "none", "teacher text needs a teacher"
        assert Source.MIXED not in sources or needs.joint, "Source.MIXED needs Needs.joint: how the two models mix"
        assert Source.REPLAY not in sources or needs.replay, "Source.REPLAY needs Needs.replay: the buffer's size"
    assert method.reduction in {"token", "sequence", "source"}, f"reduction {method.reduction!r} is unknown"


def _check_values(method: Method) -> None:
    import torch

    tokens = random_tokens(seed=0, method=method)
    values = method.objective(tokens)
    assert values.shape == (13,), f"objective must give one value per token, [13], not {list(values.shape)}"
    assert values.isfinite().all() and values.requires_grad, "values must be finite and differentiable"
    weights = method.weight(tokens)
    if weights is not None:
        assert weights.shape == (13,) and (weights >= 0).all() and weights.isfinite().all(), "weights [N] are >= 0"
    values.sum().backward()
    assert tokens.logits.grad is not None and tokens.logits.grad.isfinite().all(), "no gradient reached the student"
    assert tokens.teacher is None or tokens.teacher.grad is None, "a gradient reached the teacher"

    # A token's value depends on that token alone: the loop computes chunks, in any order.
    for keep in (slice(0, 5), slice(5, 13)):
        part = method.objective(random_tokens(seed=0, keep=keep, method=method))
        torch.testing.assert_close(
            part, values[keep].detach(), rtol=1e-5, atol=1e-6, msg="objective looks across tokens"
        )

    if method.needs.teacher == "signal" and not (method.needs.exact or method.needs.survey):
        coarse = method.objective(random_tokens(seed=0, k=4))
        assert coarse.shape == (13,) and coarse.isfinite().all(), "fails on a top-k signal with a tail bucket"
    half = method.objective(random_tokens(seed=0, dtype=torch.bfloat16, method=method))
    assert half.float().isfinite().all(), "fails on bfloat16 logits"


def random_tokens(
    seed: int, keep: slice = slice(None), k: int | None = None, dtype: Any = None, method: Method | None = None
) -> Tokens:
    """Thirteen response tokens of two sequences (8 and 5 long) over 11 words, with a teacher.

    ``k`` makes its signal a top-k one; ``method`` surveys the two sequences first, if it asks for that.
    """
    import torch

    from harness.training.signals import TopKReading

    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, 13, 11, generator=generator).to(dtype or torch.float32)
    labels = torch.randint(0, 11, (13,), generator=generator)
    log_prob = -torch.rand(13, generator=generator)
    validity = torch.randint(0, 2, (13, 2), generator=generator).float()
    sequence = torch.tensor([0] * 8 + [1] * 5)
    position = torch.cat([torch.arange(8), torch.arange(5)])
    length = torch.tensor([8] * 8 + [5] * 5)
    source = (Source.STUDENT, Source.TEACHER)
    survey = None
    if method is not None and method.needs.survey:
        log_q, log_p = (z.log_softmax(-1, torch.float32).gather(-1, labels[:, None])[:, 0] for z in (student, teacher))
        survey = method.survey(Sequences(log_p, log_q, log_prob, sequence, position, length, source, STEP))
        assert len(survey) == 13 and not survey.requires_grad and survey.isfinite().all(), (
            "a survey is finite, [13, ...]"
        )
    logits = student[keep].clone().requires_grad_()
    pair = (logits, teacher[keep])
    if k is not None:
        pair = TopKReading.of(teacher[keep], k).pair(logits, 0, len(logits))
    steps = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4, 4])[keep]
    tokens = Tokens(
        logits=logits,
        labels=labels[keep],
        student=pair[0],
        teacher=pair[1],
        sequence=sequence[keep],
        position=position[keep],
        length=length[keep],
        step_id=steps - steps[0],
        source=source,
        sampler_log_prob=log_prob[keep],
        validity=validity[keep],
        step=STEP,
        survey=None if survey is None else survey[keep],
    )
    if method is not None and method.needs.gate:
        tokens.gate = method.weight(tokens)
    return tokens


def check_task(found: type[Task], rows: Sequence[Mapping[str, Any]], judge: Any = None) -> Task:
    """All promises of a task on a few rows in its file format; returns the task for further checks."""
    for name in ("name", "version", "family", "metric"):
        assert isinstance(getattr(found, name, None), str), f"a task states its {name}"
    assert found.family in {"maths", "code", "instruction"}, f"family {found.family!r} is unknown"
    assert len(found.dataset.sha256) == 64 and len(found.dataset.commit) == 40, "the dataset must be pinned"
    assert not found.needs_judge or judge is not None, "a judged task is checked with a judge"
    task = found(Data(rows=rows, sha256="0" * 64, source="check", world="real"), judge)
    ids = [problem.id for problem in task.items]
    assert len(task.items) == len(rows) and len(set(ids)) == len(ids), "one problem a row, ids distinct"
    for problem in task.items:
        assert problem.prompt.user and problem.prompt.plain, f"{problem.id}: the prompt is empty"
    for text in ("", "\x00\ud800 junk \\boxed{", "```python\n", "9" * 5000, "((((" * 500):
        completions = [Completion(problem.id, 2, text, 0, "stop") for problem in task.items]
        verdicts = task.grade_all(completions)
        assert [(v.problem_id, v.sample) for v in verdicts] == [(i, 2) for i in ids], "one verdict each, in order"
        for verdict in verdicts:
            assert isinstance(verdict, Verdict) and 0 <= verdict.score <= 1 and verdict.reason, (
                "a verdict states a reason"
            )
        again = task.grade_all(completions)
        assert [v.score for v in again] == [v.score for v in verdicts], "the same text got two verdicts"
    if rows:
        try:
            found(Data(rows=[{}], sha256="0" * 64, source="check"), judge)
        except BadInput:
            return task
        raise AssertionError("a row without fields must be refused with BadInput")
    return task
