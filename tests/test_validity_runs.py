"""Estimators of validity end to end: trainings in an arena, graders of training prompts, refusals before any work."""

import json

import pytest

from harness import recipe
from harness.cli import main
from harness.errors import BadInput
from harness.leaderboard import rows
from harness.plan import RunRequest, prepare
from harness.students import train_run
from harness.training import verdicts

pytestmark = pytest.mark.slow

ESTIMATORS = {
    "likelihood": [],
    "step-likelihood": ["step=span", "span=5", "relative=log_odds", "scope=rest"],
    "verifier": ["relative=cases", "own_step=true", "student_only=1", "normaliser=tokens"],
    "success": ["tries=1", "continued_by=student"],
    "agreement": ["tries=2", "proposals=2", "proposal_temperature=1"],
    "truth": ["relative=ratio"],
}
SMALL = ["training.steps=2", "training.batch=3", "data.limit=6", "evaluation.limit=2", "rollout.max_new_tokens=20"]


def trained(tmp_path, settings, interrupt=None, name="results"):
    words = [f"method.{s}" for s in settings] + SMALL
    asked = RunRequest(["vcrd"], ["amc23"], "arena-several", settings=words, results=tmp_path / name)
    plan = prepare(asked)
    return train_run(plan, plan.trainings[0], interrupt or (lambda *_: None))


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_every_estimator_trains_and_tells_of_its_weights(tmp_path, name):
    outcome = trained(tmp_path, [f"validity={name}", *ESTIMATORS[name]])
    facts = outcome.weights
    assert 0 <= facts["moved"] <= 1 and 0 <= facts["least"] <= facts["mean"] <= facts["most"] <= 2
    cases = [
        sum(row[c] for c in ("both_valid", "teacher_valid", "student_valid", "neither_valid")) for row in outcome.curve
    ]
    # A step that the checker does not know is in none of the four cases.
    assert all((0 if name == "verifier" else 0.99) < total < 1.01 for total in cases)
    if name == "likelihood":
        assert "validity" not in facts
        return
    # What estimating cost is part of the run's cost, and told by itself.
    assert 0 < facts["validity"]["generated_tokens"] < outcome.cost.generated_tokens
    assert 0 < facts["validity"]["teacher_forward_tokens"] < outcome.cost.teacher_forward_tokens
    by_line = name not in ("verifier", "step-likelihood")
    assert (sum(facts["validity"]["compared"].values()) > 0) == by_line


def test_a_resumed_run_tells_the_same_of_its_weights(tmp_path):
    class Stop(Exception):
        pass

    def interrupt(stage, done, total, words):
        if stage == "train" and done == 2:
            raise Stop

    settings = ["validity=agreement", "tries=1"]
    whole = trained(tmp_path, settings, name="whole")
    SMALL.append("training.checkpoint_every=1")
    try:
        with pytest.raises(Stop):
            trained(tmp_path, settings, interrupt, name="cut")
        resumed = trained(tmp_path, settings, name="cut")
    finally:
        SMALL.remove("training.checkpoint_every=1")
    seconds = {"seconds": 0.0}
    assert whole.weights["validity"] | seconds == resumed.weights["validity"] | seconds
    assert {k: v for k, v in whole.weights.items() if k != "validity"} == {
        k: v for k, v in resumed.weights.items() if k != "validity"
    }


def test_the_record_and_its_row_tell_of_the_weights(tmp_path, capsys):
    words = ["--set", "method.validity=agreement", "--set", "method.tries=1", "--set", "method.kappa=0.01"]
    words += [word for setting in SMALL for word in ("--set", setting)]
    asked = ["--method", "vcrd", "--recipe", "arena-erring", "--task", "math500", "--results", str(tmp_path), *words]
    assert main(["run", *asked]) == 0
    said = capsys.readouterr()
    assert "of the signal, less than 5 %" in said.err
    assert "its token weights move 0." in said.out and "so they have almost no effect" in said.out
    (file,) = (tmp_path / "records").rglob("*.json")
    record = json.loads(file.read_text())
    assert record["weights"]["moved"] < 0.05 and record["weights"]["means"]["both_valid"] >= 0
    assert main(["show", record["run_id"], "--results", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "weights    signal moved: 0." in shown and "weights    cost of estimating: " in shown
    assert rows.leaderboard([record])[0].rows[0].task == "math500@derivations"


@pytest.fixture
def gsm8k(tmp_path):
    """Training prompts in the format of a benchmark's training file, and their recipe's section."""
    path = tmp_path / "train.jsonl"
    answers = [("How many is 2 + 3?", "2 + 3 = 5\n#### 5"), ("How many is 4 + 4?", "4 + 4 = 8\n#### 8")]
    path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in answers))
    return path


def test_answers_to_training_prompts_are_graded_by_the_task_whose_rows_they_are(gsm8k):
    from harness.training_data import examples

    found = recipe.DataSources(prompts=str(gsm8k), grader="gsm8k")
    grader, asked = verdicts.grader_of(found), examples.load(str(gsm8k), found, labelled=False)
    texts = ["It is 5.\n#### 5", "#### 7", "four and four are \\boxed{8}", ""]
    scores = [said.score for said in grader.verdicts([asked[0], asked[0], asked[1], asked[1]], texts)]
    assert scores[:2] == [1.0, 0.0] and scores[3] == 0.0
    assert verdicts.grader_of(recipe.DataSources(prompts=str(gsm8k))) is None


@pytest.mark.parametrize(
    ("grader", "said"),
    [
        ("gsm8q", "unknown task 'gsm8q'; did you mean gsm8k"),
        ("alpaca_eval", "needs a judge; name a task that grades by itself"),
        ("amc23", "data.grader=amc23 cannot read"),
    ],
)
def test_a_grader_that_cannot_grade_the_prompts_is_refused(gsm8k, grader, said):
    with pytest.raises(BadInput, match=said):
        verdicts.grader_of(recipe.DataSources(prompts=str(gsm8k), grader=grader))
    with pytest.raises(BadInput, match=f"data.grader={grader}: generated prompts have their own grader"):
        verdicts.grader_of(recipe.DataSources(grader=grader))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["method.validity=verifier"], "needs a step checker"),
        (["method.validity=success"], "set data.grader to the task whose rows these are"),
    ],
)
def test_an_estimator_that_the_data_lacks_is_refused_with_those_that_work(gsm8k, tmp_path, settings, said):
    files = [f"data.prompts={gsm8k}", f"data.labelled={gsm8k}"]
    asked = RunRequest(["vcrd"], ["amc23"], settings=[*settings, *files], results=tmp_path / "results")
    with pytest.raises(BadInput, match=said) as refused:
        prepare(asked)
    assert "method.validity=likelihood (or step-likelihood, agreement, truth)" in str(refused.value)


def test_steps_that_the_text_has_not_are_refused_before_training(tmp_path, capsys):
    path = tmp_path / "short.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{n} + 1?", "response": str(n + 1)}) + "\n" for n in range(8)))
    settings = ["method.step=sentence", "method.text=data", "method.on_policy=0", f"data.labelled={path}", *SMALL]
    words = [word for setting in settings for word in ("--set", setting)]
    asked = ["--method", "vcrd", "--recipe", "arena-several", "--task", "amc23", "--results", str(tmp_path), *words]
    assert main(["run", *asked]) == 2
    assert "has an end of a sentence before its own; set another unit of a step (token, line" in capsys.readouterr().err


def test_more_proposals_than_memory_holds_are_refused(tmp_path):
    from harness.estimate import memory_check

    words = ["method.validity=success", "method.tries=256", "method.proposals=64", "training.batch=1000000"]
    asked = RunRequest(["vcrd"], ["amc23"], "arena-several", settings=words, results=tmp_path)
    with pytest.raises(BadInput, match=r"the proposals of one step need about .* GB of main memory"):
        memory_check.check(prepare(asked), lambda _: None)
