"""Instruction tasks: prompts, verdicts, win rates on recorded judgements, and the length-controlled rate."""

import csv
import dataclasses
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from harness.tasks.alpaca_eval import AlpacaEval
from harness.tasks.evol_instruct import EvolInstruct
from harness.tasks.vicuna_bench import VicunaBench
from openai_stub import serving
from scipy.special import expit

from harness import data
from harness.errors import BadInput
from harness.grading.instruction import length_control
from harness.grading.instruction.length_control import (
    FOLDS,
    GAMED_WEIGHT,
    fit_logistic,
    length_controlled,
    solve_logistic,
)
from harness.grading.judges.open_judge import open_judge
from harness.task import Data
from harness.types import Completion

SHARED = Path(os.environ.get("HARNESS_DATA", "")) / "alpaca_eval"
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the benchmark files below HARNESS_DATA")
V1, V2 = "alpaca_eval_gpt4", "weighted_alpaca_eval_gpt4_turbo"
MODELS = ("alpaca-7b", "gpt-3.5-turbo-1106", "wizardlm-13b")
BOARDS = {V1: f"data_AlpacaEval/{V1}_leaderboard.csv", V2: f"data_AlpacaEval_2/{V2}_leaderboard.csv"}


class Fixed:
    """A judge with a score for each candidate; None means no verdict."""

    def __init__(self, **scores):
        self.scores = scores

    def identity(self):
        return {"judge": "fixed"}

    def prefer(self, instruction, reference, candidate):
        return self.scores[candidate], "as told"


def alpaca_rows(n=3, dataset="vicuna"):
    return [{"dataset": dataset, "instruction": f"Ask {i}", "output": f"Say {i}", "generator": "g"} for i in range(n)]


def made(rows):
    return Data(rows=rows, sha256="0" * 64, source="made for the test")


def answers(*texts):
    return [Completion(str(i), 0, text, 1, "stop") for i, text in enumerate(texts)]


def graded(completions, verdicts):
    return [dataclasses.asdict(c) | dataclasses.asdict(v) for c, v in zip(completions, verdicts, strict=True)]


def test_an_item_is_an_instruction_asked_plainly_and_a_reference():
    first = AlpacaEval(made(alpaca_rows())).items[0]
    assert (first.id, first.reference, first.prompt.user) == ("0", "Say 0", "Ask 0")
    assert first.prompt.plain == "Instruction: Ask 0\nResponse:\n" and first.prompt.system is None
    assert first.meta["dataset"] == "vicuna"
    evolved = EvolInstruct(made([{"prompt": "Ask", "generated_text": "Say"}])).items[0]
    assert (evolved.prompt.user, evolved.reference) == ("Ask", "Say")


@pytest.mark.parametrize("row", [{}, {"instruction": "Ask"}, {"instruction": None, "output": "Say"}])
def test_a_row_without_a_text_is_named(row):
    with pytest.raises(BadInput, match="alpaca_eval: item 1 of made for the test has no text under"):
        AlpacaEval(made([*alpaca_rows(1), row]))


def test_grading_without_a_judge_names_the_option_and_loading_needs_none():
    task = AlpacaEval(made(alpaca_rows()))
    with pytest.raises(BadInput, match="task alpaca_eval is graded by a judge: give one with --judge"):
        task.grade_all(answers("x"))


def test_verdicts_keep_order_sample_and_score():
    task = AlpacaEval(made(alpaca_rows()), Fixed(win=1.0, tie=0.5, loss=0.0))
    several = [Completion("2", 1, "loss", 1, "stop"), Completion("0", 0, "win", 1, "stop")]
    verdicts = task.grade_all([*several, Completion("2", 0, "tie", 1, "length")])
    assert [(v.problem_id, v.sample, v.score, v.error) for v in verdicts] == [
        ("2", 1, 0.0, False),
        ("0", 0, 1.0, False),
        ("2", 0, 0.5, False),
    ]
    assert task.grade(task.items[0], "tie").score == 0.5


def test_an_unanswered_comparison_is_an_error_and_no_loss(tmp_path):
    with serving("ok", "nonsense", "400") as stub:
        judge = open_judge(f"openai:stub@{stub.url},parallel=1,protocol=alpacaeval-1", keep=tmp_path)
        task = AlpacaEval(made(alpaca_rows()), judge)
        verdicts = task.grade_all(answers("good", "good", "good"))
    assert [v.error for v in verdicts] == [False, True, True]
    assert [v.extracted for v in verdicts][1:] == ["unparsed", None]
    measures = task.measures(graded(answers("good", "good", "good"), verdicts))
    assert measures["unanswered"] == 2 and measures["parse_failure_rate"] == 0.5
    assert measures["win_rate"] == verdicts[0].score


def test_measures_of_both_orders_come_from_the_verdicts_alone(tmp_path):
    with serving(then="first") as stub:
        judge = open_judge(f"openai:stub@{stub.url}", EvolInstruct.judge_protocol, tmp_path)
        rows = [{"prompt": f"Ask {i}", "generated_text": "Said"} for i in range(6)]
        task = EvolInstruct(made(rows), judge)
        completions = answers(*["A longer word"] * 6)
        verdicts = task.grade_all(completions)
    assert {v.extracted for v in verdicts} == {"0|1"}
    measures = EvolInstruct(made(rows)).measures(graded(completions, verdicts))
    assert (measures["win_rate"], measures["ties"], measures["position_consistency"]) == (0.5, 6, 0.0)
    assert measures["length_gap"] == len("A longer word") - len("Said")
    assert measures["length_controlled"]["formula"] == "length_controlled_minimal"
    json.dumps(measures)


def test_the_judge_is_part_of_the_protocol():
    task = AlpacaEval(made(alpaca_rows()), Fixed())
    assert task.grader_identity() == {"engine": "judge", "judge": {"judge": "fixed"}}


def test_vicuna_bench_is_the_vicuna_part_under_the_same_ids():
    task = VicunaBench(made([*alpaca_rows(2, "koala"), *alpaca_rows(1)]))
    assert [p.id for p in task.items] == ["2"]


# --- recorded judgements -------------------------------------------------------------------------------------


def published(annotator, model, column):
    with (SHARED / "leaderboards" / BOARDS[annotator]).open(newline="") as file:
        return next(float(row[column]) for row in csv.DictReader(file) if row[""] == model)


def replayed(annotator, model):
    """The task, and the graded rows of a model's stored outputs under its recorded judgements."""
    folder = SHARED / "results" / model
    judge = open_judge(f"replay:{folder / annotator / 'annotations.json'}")
    task = AlpacaEval(data.read(AlpacaEval.dataset), judge)
    completions = answers(*[row["output"] for row in json.loads((folder / "model_outputs.json").read_text())])
    return task, graded(completions, task.grade_all(completions))


@needs_data
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("annotator", [V1, V2])
def test_recorded_judgements_give_the_published_win_rates(annotator, model):
    task, rows = replayed(annotator, model)
    measures = task.measures(rows)
    assert 100 * measures["win_rate"] == pytest.approx(published(annotator, model, "win_rate"), abs=1e-9)
    assert 100 * measures["standard_error"] == pytest.approx(published(annotator, model, "standard_error"), abs=1e-9)
    for ours, theirs in (("wins", "n_wins"), ("losses", "n_wins_base"), ("ties", "n_draws")):
        assert measures[ours] == published(annotator, model, theirs)
    assert 805 - measures["unanswered"] == published(annotator, model, "n_total")
    near = 0.1 if annotator == V2 else 0.6
    controlled = measures["length_controlled"]
    assert controlled["formula"].startswith("length_controlled_v1")
    assert 100 * controlled["win_rate"] == pytest.approx(
        published(annotator, model, "length_controlled_winrate"), abs=near
    )


@needs_data
def test_the_gamed_baselines_follow_from_published_weights():
    """Where a published fit stands, the gradient of the gamed rows must cancel that of the model's own."""
    difficulty = np.array(length_control.read_difficulty())
    weights_file = SHARED / "glm_weights" / V2 / "length_controlled_v1" / "baseline_gpt4_1106_preview.csv"
    with weights_file.open(newline="") as file:
        weights = {row[0]: np.array(row[1:], dtype=float) for row in list(csv.reader(file))[1:]}
    gamed = length_control.recovered(difficulty)
    held = np.stack([np.tanh(gamed.gap), gamed.difficulty], axis=1)
    strengths = {"alpaca-7b": 21.544, "gpt-3.5-turbo-1106": 2.7826, "wizardlm-13b": 1e3}
    sums = []
    for model, strength in strengths.items():
        rows = json.loads((SHARED / "results" / model / V2 / "annotations.json").read_text())
        label = np.array([0.5 if row["preference"] == 0 else row["preference"] - 1 for row in rows])
        gap = np.array([len(row["output_1"]) - len(row["output_2"]) for row in rows])
        x = np.stack([np.tanh(gap / gap.std(ddof=1)), difficulty, np.ones(805)], axis=1)
        w = weights[model]
        slope = x.T @ (expit(x @ w) - label) + np.sign(w) / strength
        assert abs(slope[2]) < 0.05  # the strength is the one that the fit had: theta has no gamed part
        sums.append(GAMED_WEIGHT * held.T @ expit(held @ w[:2]) + slope[:2])
    assert np.ptp(sums, axis=0) == pytest.approx([0, 0], abs=0.6)  # of about -12.7 and 39.3
    assert GAMED_WEIGHT * held.T @ gamed.preference == pytest.approx(np.mean(sums, axis=0), abs=0.02)


@needs_data
def test_real_files_hold_what_the_tasks_say():
    assert len(AlpacaEval(data.read(AlpacaEval.dataset)).items) == AlpacaEval.dataset.n
    assert len(EvolInstruct(data.read(EvolInstruct.dataset)).items) == EvolInstruct.dataset.n
    questions = (SHARED.parent / "vicuna_bench" / "question.jsonl").read_text().splitlines()
    asked = [json.loads(line)["turns"][0] for line in questions]
    assert [p.prompt.user for p in VicunaBench(data.read(VicunaBench.dataset)).items] == asked


# --- the length-controlled rate ------------------------------------------------------------------------------


def simulated(n=400, seed=0):
    """Preferences drawn from the model itself: phi -1.5, psi 0.8, theta 0.3."""
    rng = np.random.default_rng(seed)
    gap, difficulty = rng.normal(200, 500, n), rng.normal(0, 1, n)
    label = expit(-1.5 * np.tanh(gap / gap.std(ddof=1)) + 0.8 * difficulty + 0.3)
    return gap, difficulty, label


def test_the_fit_finds_the_weights_that_made_the_labels():
    gap, difficulty, label = simulated()
    reference = np.full(len(gap), 5000)
    found = length_controlled(label.tolist(), reference, reference - gap, difficulty)
    assert found.formula == "length_controlled_noreg"
    assert found.weights == pytest.approx((-1.5, 0.8, 0.3), abs=0.01)
    assert found.win_rate == pytest.approx(expit(0.8 * difficulty + 0.3).mean(), abs=1e-3)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_fit_is_the_one_of_alpaca_eval():
    pandas = pytest.importorskip("pandas")
    winrate = pytest.importorskip("alpaca_eval.metrics.glm_winrate")
    gap, difficulty, label = simulated(150, seed=1)
    label = np.clip(label + np.random.default_rng(2).normal(0, 0.3, len(label)), 0, 1)
    weight = np.where(np.arange(len(label)) < 50, GAMED_WEIGHT, 1.0)
    x = np.stack([np.tanh(gap / 500), difficulty, weight == 1.0], axis=1).astype(float)
    frame = pandas.DataFrame(x, columns=["length", "difficulty", "model"]).assign(preference=label)
    try:
        theirs = winrate.fit_LogisticRegressionCV(
            frame, "preference", is_ytrue_proba=True, n_splits=FOLDS, sample_weight=pandas.Series(weight)
        )
    except TypeError as error:
        pytest.skip(f"this scikit-learn is too new for alpaca_eval: {error}")
    assert fit_logistic(x, label, weight) == pytest.approx(theirs.coef_[0], abs=2e-3)


def test_the_solver_meets_the_conditions_of_the_minimum():
    gap, difficulty, label = simulated(100)
    x, weight = np.stack([np.tanh(gap / 500), difficulty, 0 * gap], axis=1), np.full(len(gap), 0.7)
    w = solve_logistic(x, label, weight, 0.5)
    slope = 0.5 * x.T @ (weight * (expit(x @ w) - label))
    assert slope[:2] == pytest.approx(-np.sign(w[:2]), abs=1e-4)
    assert w[2] == 0.0


def test_equal_lengths_leave_the_win_rate_alone():
    found = length_controlled([1.0, 0.0, 1.0, 1.0] * 100, [10] * 400, [10] * 400)
    assert found.win_rate == pytest.approx(0.75, abs=0.01)


def test_unanswered_items_are_predicted_and_too_few_give_nothing():
    gap, difficulty, label = simulated()
    reference = np.full(len(gap), 5000)
    holes = [None if i % 10 == 0 else score for i, score in enumerate(label.tolist())]
    whole = length_controlled(label.tolist(), reference, reference - gap, difficulty)
    assert length_controlled(holes, reference, reference - gap, difficulty).win_rate == pytest.approx(
        whole.win_rate, abs=5e-3
    )
    assert length_controlled([0.5, None, None, 1.0, 1.0, 0.0], [1] * 6, [2] * 6) is None


def test_gamed_baselines_are_read_from_alpaca_evals_own_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    assert length_control.read_difficulty() is None and length_control.read_gamed() is None
    folder = tmp_path / "alpaca_eval"
    folder.mkdir()
    header = "index,preference,std_delta_len,instruction_difficulty,not_gamed_baseline,model\n"
    (folder / "df_gamed.csv").write_text(header + "0,0.25,-1.5,0.5,False,verbose\n")
    gamed = length_control.read_gamed()
    assert (gamed.preference[0], gamed.gap[0], gamed.difficulty[0]) == (0.25, -1.5, 0.5)
    assert gamed.formula == "length_controlled_v1"
    (folder / "df_gamed.csv").write_text(header + "0,0.25,-1.5,0.5,False,verbose\n1,oops,1,1,False,verbose\n")
    with pytest.raises(BadInput, match=r"df_gamed\.csv:3: no number under 'preference'"):
        length_control.read_gamed()


def test_standard_error_is_the_spread_of_the_predictions():
    gap, difficulty, label = simulated()
    reference = np.full(len(gap), 5000)
    found = length_controlled(label.tolist(), reference, reference - gap, difficulty)
    predicted = expit(found.weights[1] * difficulty + found.weights[2])
    assert found.standard_error == pytest.approx(predicted.std(ddof=1) / math.sqrt(len(predicted)), rel=1e-9)
