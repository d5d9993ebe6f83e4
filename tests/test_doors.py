"""Judges, metrics and teacher signals of one's own: found by file, named in identities, refused in one line."""

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from harness import metrics, registry
from harness.errors import BadInput, RunFailed
from harness.evaluation import evaluate, measurement
from harness.evaluation.benchmarks import locate
from harness.grading.judges.judgement import Judge, Judgement, PairToJudge, judge_all
from harness.grading.judges.open_judge import open_judge, split
from harness.metrics import metric_of
from harness.testing import check_judge
from harness.training.signal_contract import CheckedSignal, SignalInputs, is_own, signal_called
from harness.types import Decoding

ROOT = Path(__file__).parent.parent
BLOCKS = [
    block
    for page in ("add-a-task", "add-a-judge")
    for block in re.findall(r"```python\n(.*?)```", (ROOT / f"docs/{page}.md").read_text("utf-8"), re.DOTALL)
]
TASK, JUDGE, METRIC, SIGNAL = BLOCKS


def rows(*scores, errors=()):
    return [
        {"problem_id": str(i // 2), "sample": i % 2, "score": s, "error": i in errors, "finish": "stop", "reason": "r"}
        for i, s in enumerate(scores)
    ]


@pytest.fixture
def task(tmp_path):
    lines = (TASK + METRIC).replace('"instruction", "accuracy"', '"tool use", "best@n"')
    (tmp_path / "even_odd.py").write_text(lines)
    found, _ = locate(str(tmp_path / "even_odd.py"))
    from harness.task import Data

    return found(Data([{"number": 5}, {"number": 6}], "0" * 64, "test"))


def test_a_judge_in_a_file_is_found_checked_and_identified(tmp_path):
    (tmp_path / "most_digits.py").write_text(JUDGE)
    judge = open_judge(str(tmp_path / "most_digits.py"))
    check_judge(judge)
    assert judge.code.startswith("file sha256:")
    assert [j.score for j in judge_all(judge, [PairToJudge("1", "i", "1", "22"), PairToJudge("2", "i", "", "")])] == [
        1,
        0.5,
    ]
    with pytest.raises(BadInput, match="takes no argument"):
        open_judge(f"{tmp_path}/most_digits.py:x")
    before = judge.code
    (tmp_path / "most_digits.py").write_text(JUDGE.replace("ours > theirs", "ours < theirs"))
    assert open_judge(str(tmp_path / "most_digits.py")).code != before


@pytest.mark.parametrize(
    "spec, expected",
    [
        ("a.py:b:c", ("a.py", "b:c")),
        ("replay:x.py", ("replay", "x.py")),
        ("replay:a.py:b", ("replay", "a.py:b")),
        ("longest", ("longest", "")),
    ],
)
def test_the_words_of_a_judge(spec, expected):
    assert split(spec) == expected


BROKEN = [None, [], [Judgement(2.0, "r")], [0.5], [Judgement(True, "r")], [Judgement(0.5, None)]]


@pytest.mark.parametrize("given", BROKEN)
def test_a_judge_that_breaks_its_contract_is_refused(given):
    class Broken(Judge):
        name = "broken"

        def judge(self, comparisons):
            return given

    with pytest.raises(RunFailed, match=r"test_doors\.py"):
        judge_all(Broken(), [PairToJudge("1", "i", "r", "c")])


def test_a_metric_of_a_tasks_own_file(task):
    graded = rows(0.2, 0.6, 1.0, 0.0)
    score = evaluate.score(task, graded)
    assert task.family == "tool use" and score.value == pytest.approx(0.8)
    assert score.metric_card["by_problem"] == {"0": 0.6, "1": 1.0}
    assert metrics.of_record({"metric": "best@n", "metric_card": score.metric_card}).by_problem([]) == {
        "0": 0.6,
        "1": 1.0,
    }
    assert measurement.protocol_of(task, Decoding(), None, "t")["metric_code"].startswith("file sha256:")


def test_an_unknown_metric_is_refused_with_its_place(tmp_path):
    (tmp_path / "t.py").write_text(TASK.replace('"accuracy"', '"accurcy"'))
    with pytest.raises(BadInput, match=r"t.py:\d+: task even_odd: unknown metric 'accurcy'.*accuracy"):
        locate(str(tmp_path / "t.py"))


def test_only_metrics_of_judges_leave_errors_out():
    graded = rows(1.0, 1.0, 0.0, 0.0, errors=(2, 3))
    made = {name: cls() for name, cls in metrics.SHIPPED.items()}
    values = {name: metric.aggregate([*metric.by_problem(graded).values()]) for name, metric in made.items()}
    assert values == {"accuracy": 0.5, "pass@1": 0.5, "rougeL": 0.5, "lm-eval": 0.5} | {
        "win_rate": 1.0,
        "rating_of_turns": 1.0,
    }


def test_shipped_metrics_in_percent_add_nothing_to_records():
    cards = {name: metrics.card(cls(), {"0": 1.0}) for name, cls in metrics.SHIPPED.items()}
    assert {name for name, card in cards.items() if card} == {"rougeL", "rating_of_turns"}
    assert {e.name for e in registry.entries(registry.METRICS)} == set(metrics.SHIPPED)
    assert metric_of(registry.find(registry.TASKS, "amc23")).name == "accuracy"


def test_a_signal_in_a_file_trains_and_enters_the_training_id(tmp_path):
    from harness.plan import RunRequest, prepare

    (tmp_path / "softer.py").write_text(SIGNAL)

    def spec(*settings):
        request = RunRequest(["kd"], ["amc23"], "micro", settings=settings, results=tmp_path / "r")
        return prepare(request).trainings[0].spec

    own = spec(f"training.signal={tmp_path}/softer.py")
    assert own["training"]["signal"] == "softer" and own["signal_code"].startswith("file sha256:")
    assert "signal_code" not in spec("training.signal=live")
    with pytest.raises(BadInput, match="live"):
        spec("training.signal=lve")
    (tmp_path / "softer.py").write_text(SIGNAL.replace('    name = "softer"', '    name = "softer"\n    exact = False'))
    with pytest.raises(BadInput, match="signal softer cannot give that"):
        request = RunRequest(["akl"], ["amc23"], "micro", results=tmp_path / "r")
        prepare(dataclasses.replace(request, settings=[f"training.signal={tmp_path}/softer.py"]))


OWN = """
import math, torch
from harness.training.signal_contract import FullLogits, TeacherSignal


class Mine(TeacherSignal):
    name = "mine"
    {body}
"""
READ = "def read(self, batch): return FullLogits(torch.zeros(3, 5))"


def signal_of(folder, body):
    (folder / "mine.py").write_text(OWN.format(body=body))
    return signal_called(str(folder / "mine.py"))


@pytest.mark.parametrize(
    "body, said",
    [
        ("pass", "read of signal mine is missing; def read"),
        ("def read(self): pass", r"read of signal mine takes other arguments than \(self, batch\)"),
        (
            f"{READ}\n    def __init__(self): pass",
            r"__init__ of signal mine takes other arguments than",
        ),
        (f"{READ}\n    exact = 'no'", "exact of signal mine is 'no', which is not True or False"),
        (f"{READ}\n    source = 5", "source of signal mine is 5; up to 60 printable"),
        (f"{READ}\n    def token(self, batch): return 0", "did you mean tokens"),
    ],
)
def test_a_signal_that_breaks_its_contract_is_refused_before_any_work(tmp_path, body, said):
    with pytest.raises(BadInput, match=rf"mine\.py:\d+: .*{said}"):
        signal_of(tmp_path, body)


@pytest.mark.parametrize(
    "body, said",
    [
        ("def read(self, batch): return torch.zeros(3, 5)", r"read .* gave a tensor \[3, 5\].*; FullLogits\(logits\)"),
        ("def read(self, batch): pass", r"gave None; FullLogits\(logits\) of logits \[N, V\] is wanted"),
        ("def read(self, batch): return FullLogits(torch.zeros(2, 5))", r"of \[3, 5\] and \[2, 5\]; \[3, 5\] each are"),
        ("def read(self, batch): return FullLogits(torch.zeros(3, 4))", r"of \[3, 5\] and \[3, 4\]; \[3, 5\] each are"),
        ("def read(self, batch): return FullLogits(torch.zeros(3, 5).long())", "floating-point logits are wanted"),
        ("def read(self, batch): return FullLogits([[0.0]])", "student and teacher logits .* are wanted, two tensors"),
        ("def read(self, batch): return FullLogits(torch.full((3, 5), 0.2))", r"gave probabilities, .*; add \.log"),
        ("def read(self, batch): return batch.nothing", "AttributeError"),
        (f"{READ}\n    def tokens(self, batch): return -5", "tokens of signal mine gave int -5; a whole number from 0"),
        (f"{READ}\n    def facts(self): pass", "facts of signal mine gave None; a dict is wanted"),
        (f"{READ}\n    def facts(self): return {{'x': torch.ones(2)}}", "facts of signal mine holds a tensor"),
        (f"{READ}\n    def __init__(self, given): pass", r"keeps no self\.given; call super"),
    ],
)
def test_every_answer_of_a_signal_is_checked(tmp_path, body, said):
    cls = signal_of(tmp_path, body)
    batch, student = SimpleNamespace(tokens=3), torch.zeros(3, 5, requires_grad=True)
    with pytest.raises(RunFailed, match=rf"mine\.py:\d+: .*{said}"):
        signal = CheckedSignal(cls(SignalInputs(None, 5, None, None)))
        signal.read(batch).over(0, 3).pair(student, 0, 3)
        signal.tokens(batch), signal.facts()


def test_only_signals_that_a_recipe_can_name_are_listed():
    names = [entry.name for entry in registry.entries(registry.SIGNALS)]
    assert names == ["hidden", "live", "top-k"] and all(not is_own(signal_called(name)) for name in names)


def test_a_sound_signal_passes_and_its_logits_take_no_gradient(tmp_path):
    cls = signal_of(tmp_path, "def read(self, batch): return FullLogits(torch.ones(3, 5, requires_grad=True) * 2)")
    signal = CheckedSignal(cls(SignalInputs(None, 5, None, None)))
    student = torch.zeros(3, 5, requires_grad=True)
    own, theirs = signal.read(None).pair(student, 0, 3)
    assert own is student and not theirs.requires_grad and theirs.tolist() == [[2.0] * 5] * 3
    assert signal.facts() == {"top_k": None, "cached": []}
