"""The families beside completions: what they try is reproducible, and what breaks a promise is reported."""

import os
import time

import pytest

from harness.errors import BadInput
from harness.grading.judges.judgement import Judgement
from harness.grading.maths.task import Judged
from results.scripts.grading import (
    fuzz,
    fuzz_families,
    fuzz_files,
    fuzz_judges,
    fuzz_notations,
    fuzz_records,
    fuzz_values,
)
from results.scripts.grading.fuzz_families import Trial


def test_the_page_counts_outcomes_and_lists_faults(monkeypatch, capsys):
    made = [Trial("a", "fine"), Trial("a", "fine"), Trial("b", "bad", fault="it broke"), Trial("b", "so-so", note="hm")]
    monkeypatch.setattr(fuzz_notations, "trials", lambda n, seed: iter(made[:n]))
    page, faults = fuzz_families.page("notations", 4, 0)
    assert faults == 1 and "| a | fine | 2 |" in page and "b: it broke" in page and "b: hm" in page
    assert fuzz.main(["--of", "notations", "--n", "4"]) == 1
    assert fuzz.main(["--of", "notations", "--n", "2"]) == 0
    capsys.readouterr()
    with pytest.raises(
        BadInput, match="no fuzz family 'x'; there are notations, files, mistakes, judges, records, values"
    ):
        fuzz_families.trials("x", 1, 0)


def test_notations_are_graded_and_can_be_had_again():
    one, two = (list(fuzz_notations.trials(40, 3)) for _ in range(2))
    assert one == two != list(fuzz_notations.trials(40, 4)) and len(one) == 40
    assert not [trial for trial in one if trial.outcome == "no verdict"]


@pytest.mark.parametrize(
    ("judged", "faults"),
    [(Judged(True, "", "x"), "a wrong answer passes"), (Judged(False, "", "x", error=True), "no verdict")],
)
def test_a_wrong_answer_that_passes_and_a_missing_verdict_are_faults(monkeypatch, judged, faults):
    monkeypatch.setattr(fuzz_notations, "grade", lambda golds, texts: [judged] * len(texts))
    found = [trial for trial in fuzz_notations.trials(50, 0) if trial.fault]
    assert found and {trial.outcome for trial in found} == {faults}


def test_an_answer_of_one_gold_is_put_to_another_that_shares_none():
    from random import Random

    plain = [case for case in fuzz_notations.cases() if case.kind not in {"boxes", "decorated"}]
    for seed in range(30):
        case = fuzz_notations._exchanged(Random(seed), plain)
        theirs = {c.answer for c in plain if c.gold == case.gold and c.kind == case.kind and c.right}
        assert case.answer not in theirs and not case.right


def test_a_command_that_raises_or_hangs_is_a_fault(monkeypatch, tmp_path):
    def main(words):
        if words == ["raise"]:
            raise ValueError("odd")
        if words == ["hang"]:
            while True:
                pass
        if words == ["wait"]:
            time.sleep(600)
        if words == ["kill"]:
            os.kill(os.getpid(), 9)
        print("one line")
        return 2

    monkeypatch.setattr("harness.cli.main", main)
    monkeypatch.setattr(fuzz_files, "LIMIT_S", 1)
    said = {word: fuzz_files._fault(*fuzz_files._run([word], tmp_path)) for word in ("raise", "hang", "kill", "fine")}
    monkeypatch.setattr(fuzz_files, "WAIT_S", 0.5)
    said |= {"wait": fuzz_files._fault(*fuzz_files._run(["wait"], tmp_path))}
    assert said == {
        "raise": "a traceback: ValueError: odd",
        "hang": "used more than 1 s of CPU time",
        "wait": "did not end within 0.5 s",
        "kill": "ended by signal 9",
        "fine": "",
    }
    assert fuzz_files._fault(2, "") == "exit 2 without a message" and fuzz_files._fault(0, "") == ""


def test_a_damaged_file_goes_to_a_command_that_reads_it(monkeypatch):
    words = []
    monkeypatch.setattr(fuzz_files, "_run", lambda asked, folder: words.append(asked) or (0, ""))
    found = list(fuzz_files.trials(30, 0))
    assert not any(trial.fault for trial in found)
    assert {asked[0] for asked in words} >= {"table", "sweep", "check", "grade"}


def test_an_internal_error_of_a_command_is_a_fault():
    line = "harness: internal error: ValueError: odd at x.py:1"
    assert fuzz_files._fault(1, f"warning: a\n{line}\n") == line


def test_sealed_records_with_odd_values_stop_no_command():
    found = list(fuzz_records.trials(12, 5))
    assert len(found) == 12 and not [trial.fault for trial in found if trial.fault]


@pytest.mark.parametrize(
    ("shown", "said", "fault"),
    [
        ("table", "| a\x1b[31m |", "prints"),
        ("table csv", "method\n=act()\n", "a cell that acts"),
        ("table csv", "method\n-3.5\n", ""),
        ("table json", '[{"score": NaN}]', "score is nan"),
        ("table json", "[", "no JSON"),
        ("table html", "<td><script>act()</script></td>", "HTML that acts"),
        ("table latex", "\\input{act}", "LaTeX that acts"),
        ("table grid", "| [go](javascript:act()) |", "Markdown that acts"),
        ("table grid", "| \\[go\\](javascript:act()) |", ""),
        ("table", "warning: x: left out: y", ""),
    ],
)
def test_what_acts_is_found(tmp_path, shown, said, fault):
    found = fuzz_records.fault_of(shown, 0, said, tmp_path, "run")
    assert (fault in found) if fault else not found
    assert "failed" in fuzz_records.fault_of("table", 1, "harness: failed: x", tmp_path, "run")


def test_claimed_values_are_read_and_can_be_had_again():
    one, two = (list(fuzz_values.trials(150, 1)) for _ in range(2))
    assert one == two != list(fuzz_values.trials(150, 2))
    assert not [trial.fault for trial in one if trial.fault]
    assert {trial.outcome for trial in one} == {"accepted", "refused", "wrong"}


def test_a_wrong_value_that_is_accepted_and_an_exception_are_faults(monkeypatch):
    monkeypatch.setattr(fuzz_values, "accepts", lambda *_: True)
    assert any("another value is accepted" in trial.fault for trial in fuzz_values.trials(30, 0))

    def raises(*_):
        raise TypeError("odd")

    monkeypatch.setattr(fuzz_values, "accepts", raises)
    assert any("TypeError: odd" in trial.fault for trial in fuzz_values.trials(30, 0))


class Says:
    def __init__(self, outcome):
        self.outcome = outcome

    def judge(self, comparisons):
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return [self.outcome]


@pytest.mark.parametrize(
    ("outcome", "fault"),
    [
        (Judgement(0.5, "a tie"), ""),
        (Judgement(None, "no reply"), ""),
        (BadInput("a wrong key"), ""),
        (Judgement(1.5, "much better"), "a score of 1.5"),
        (Judgement(0.5, "a\nb"), "not one printable line"),
        (ValueError("odd"), "ValueError: odd"),
    ],
)
def test_what_a_judge_may_do(monkeypatch, outcome, fault):
    monkeypatch.setattr(fuzz_judges, "open_judge", lambda *_: Says(outcome))
    (trial,) = fuzz_judges.trials(1, 0)
    assert (fault in trial.fault) if fault else not trial.fault
