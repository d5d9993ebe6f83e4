"""Rewards of the data's own grader: groups, advantages, hindsight, costs, and refusals before any work."""

import json
import math
from pathlib import Path

import pytest
import torch
from harness.methods._rewards import advantages, credit
from tiny_runs import BATCH, SETTINGS, STEPS, Thirds, make, pair, quiet, result

from harness.cli import main
from harness.errors import BadInput, RunFailed
from harness.method import Asking, Hindsight, Method, Needs, Step, WholeStep
from harness.plan import RunRequest, prepare
from harness.training.loop import train
from harness.training.rollouts import Rollouts
from harness.training.verdicts import GeneratedGrader, TextGrade
from harness.types import Source

PARITY = str(Path(__file__).parent / "plugin/parity_plugin.py")


@pytest.fixture(scope="module")
def place(prompts_file, tmp_path_factory):
    return pair(tmp_path_factory.mktemp("pair")), prompts_file, tmp_path_factory.mktemp("runs")


class Says:
    """One verdict on everything."""

    name = "says"

    def __init__(self, score):
        self.score = score

    def verdicts(self, asked, texts):
        return [TextGrade(self.score, "so it is")] * len(texts)


def collected(job):
    seen, collect = [], Rollouts.collect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rollouts, "collect", lambda *args: seen.append(collect(*args)) or seen[-1])
        return seen, train(job, quiet)


def whole(rewards, prompts, lengths=None, longest=10):
    sequence = torch.repeat_interleave(torch.arange(len(rewards)), torch.tensor(lengths or [1] * len(rewards)))
    reward = torch.tensor(rewards, dtype=torch.float64)
    return WholeStep(sequence, (Source.STUDENT,) * len(rewards), prompts, Step(0, 9, 0.5), reward, longest)


def test_advantages_are_within_a_group_and_unknown_scores_count_for_nothing():
    nan = math.nan
    step = whole([1.0, 0.0, 0.0, 0.5, 0.5, nan, nan, 1.0], (0, 0, 0, 1, 1, 1, 2, 2))
    found = advantages(step, "none").tolist()
    assert found == pytest.approx([2 / 3, -1 / 3, -1 / 3, 0, 0, 0, 0, 0])
    scaled = advantages(step, "group").tolist()
    assert scaled[:3] == pytest.approx([f / (3**-0.5 + 1e-4) for f in found[:3]]) and scaled[3:] == [0.0] * 5
    deviation = torch.tensor([1.0, 0, 0, 0.5, 0.5, 1.0]).std().item()
    assert advantages(step, "step").tolist() == pytest.approx([f / (deviation + 1e-4) for f in found])


def test_a_constant_divides_the_sum_of_all_terms():
    step = whole([1.0, 0.0], (0, 0), lengths=[3, 1], longest=10)
    found = credit(step, scale="none", mean="constant")
    assert found[:, 0].tolist() == [0.5, 0.5, 0.5, -0.5] and found[:, 1].tolist() == pytest.approx([4 / 20] * 4)


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_equal_rewards_move_nothing(place, score):
    job = make("grpo@dapo", *place, steps=2, settings={"redraw": "step"})
    job.data.grader = Says(score)
    before = result(make("grpo@dapo", *place, steps=1, learning_rate=0.0)).weights
    found = result(job)
    assert all(row["loss"] == 0 == row["grad_norm"] and row["groups_alike"] == 1 for row in found.curve)
    assert [row["text_reward"] for row in found.curve] == [score] * 2 and torch.equal(found.weights, before)


def test_every_prompt_has_its_group_and_everything_is_charged(place):
    """The texts of a prompt differ, the first is the one that it would have alone, and each is graded."""
    seen, outcome = collected(make("grpo@dapo", *place, settings={"redraw": "step"}))
    one, _ = collected(make("opd", *place, steps=1))
    for step in seen:
        assert [s.place for s in sorted(step, key=lambda s: s.place)] == list(range(3 * BATCH))
        groups = [[s for s in step if s.place % BATCH == k] for k in range(BATCH)]
        assert all(len({s.example for s in group}) == 1 for group in groups)
        assert sum(len({s.response for s in group}) for group in groups) > 2 * BATCH
    first = sorted((s for s in seen[0] if s.place < BATCH), key=lambda s: s.place)
    assert [s.response for s in first] == [s.response for s in sorted(one[0], key=lambda s: s.place)]
    cost = outcome.cost.as_dict()
    assert cost["graded_texts"] == STEPS * 3 * BATCH and cost["grading_seconds"] > 0
    assert cost["generated_tokens"] == sum(len(s.response) for step in seen for s in step)
    assert cost["teacher_forward_tokens"] == 0 and "graded_texts" not in train(make("kd", *place), quiet).cost.as_dict()


def test_the_ratio_is_1_on_fresh_text_and_is_not_on_an_epochs(place):
    fresh, kept = (train(make("grpo@dapo", *place, settings={"redraw": r}), quiet).curve for r in ("step", "epoch"))
    assert [row["ratio"] for row in fresh] == pytest.approx([1.0] * STEPS, abs=1e-5)
    assert all(row["clipped"] == 0 and row["buffer_age"] == 0 for row in fresh)
    assert [row["buffer_age"] for row in kept] == [0.0, 1.0, 0.0] and abs(kept[1]["ratio"] - 1) > 1e-4
    assert kept[0]["loss"] == fresh[0]["loss"]


def test_the_teacher_is_told_of_another_right_text_or_of_what_was_wrong(place):
    seen, outcome = collected(
        make("sdpo", *place, settings={"group": 2, "solution": "<{text}>", "feedback": "[{text}]"})
    )
    tokenizer, kinds = outcome.tokenizer, set()
    decode = lambda ids: tokenizer.decode(ids, skip_special_tokens=True)  # noqa: E731
    for step in seen:
        for s in step:
            (other,) = (o for o in step if o.place % BATCH == s.place % BATCH and o is not s)
            prompt, text = decode(s.prompt), decode(s.response)
            told = (
                f"<{decode(other.response)}>" if other.reward >= 0.5 else f"[{len(text)}!]" if s.reward < 0.5 else None
            )
            kinds.add(told and told[0])
            after = "\n\nNow solve the problem above correctly.\n"
            assert (s.teacher_prompt and decode(s.teacher_prompt)) == (told and f"{prompt}{told}{after}")
    assert kinds == {"<", "[", None}
    shares = [
        sum(len(s.response) for s in step if s.teacher_prompt) / sum(len(s.response) for s in step) for step in seen
    ]
    assert [row["informed"] for row in outcome.curve] == pytest.approx(shares)


def test_a_prompt_in_hindsight_that_no_context_holds_is_none(place):
    job = make("sdpo", *place, steps=1, settings={"solution": "x" * 300 + "{text}", "told": "never"})
    seen, outcome = collected(job)
    assert all(s.teacher_prompt is None for s in seen[0]) and outcome.curve[0]["grad_norm"] == 0


def test_a_grader_without_any_verdict_ends_the_run(place):
    job = make("grpo", *place)
    job.data.grader = Says(None)
    with pytest.raises(RunFailed, match="failed on all 18 texts: so it is"):
        train(job, quiet)


def test_the_generated_world_says_which_line_is_wrong():
    from harness.micro import world

    rows = [e for e in world.examples("labelled") if e.meta["family"] == "maths"][:3]
    first, *rest = rows[1].response.split("\n")
    spoilt = first.replace("=", "= 1", 1)
    right, wrong, empty = GeneratedGrader().verdicts(rows, [rows[0].response, "\n".join([spoilt, rest[0]]), ""])
    assert right == TextGrade(1.0, "right") and empty == TextGrade(0.0, "The answer is wrong.")
    assert "=" in first and wrong == TextGrade(0.0, f"This line is wrong: {spoilt}")


def test_kdrl_anneals_in_a_straight_line(place):
    curve = train(make("kdrl", *place), quiet).curve
    assert [row["beta"] for row in curve] == pytest.approx([0.2, 0.101, 0.002])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Needs(teacher="signal", hindsight=Hindsight("{prompt}"), asking=Asking()), "add rewards=True"),
        (Needs(teacher="signal", hindsight=Hindsight("{prompt}"), rewards=True), "and asking=Asking"),
        (Needs(teacher="signal", hindsight="x", rewards=True), "give a Hindsight or None"),
        (Needs(teacher="signal", hindsight=Hindsight("{hint}"), rewards=True, asking=Asking()), "may name {prompt}, "),
        (Needs(teacher="signal", hindsight=Hindsight("", told="no"), rewards=True, asking=Asking()), "told='no'"),
        (Needs(rewards=True), "asks for Source.DATA with rewards"),
    ],
)
def test_needs_that_contradict_rewards_are_refused(asked, message):
    from harness import method_contract

    class Odd(Method):
        name, needs = "odd", asked

        def objective(self, tokens):
            return tokens.student.sum(-1)

    with pytest.raises(BadInput, match=message):
        method_contract.needs(Odd())
        method_contract.sources(Odd(), Odd().sources(Step(0, 9, 0.5)))


# -- from the command line ------------------------------------------------------------------------------------------

SHORT = "[training]\nsteps = 2\nbatch = 2\nmax_tokens = 64\n[rollout]\nmax_new_tokens = 4\n"


@pytest.fixture
def numbers(tmp_path):
    """Training prompts in the format of the parity task."""

    def write(*rows):
        path = tmp_path / "numbers.jsonl"
        path.write_text("".join(json.dumps({"number": n, "prompt": f"Is {n} even or odd?"}) + "\n" for n in rows))
        return path

    return write


def words(recipe, tmp_path, method="grpo", *settings):
    given = [word for setting in settings for word in ("--set", setting)]
    return ["run", "-m", method, "-t", PARITY, "--recipe", str(recipe), "--results", str(tmp_path / "results"), *given]


def test_a_run_with_the_grader_of_a_task_is_recorded_with_its_costs(tiny_world, numbers, tmp_path, capsys):
    recipe = tiny_world(SHORT, prompts=numbers(14, 15, 16))
    asked = words(recipe, tmp_path, "grpo@dapo", f"data.grader={PARITY}", "method.group=3")
    assert main([*asked, "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)["records"]
    assert record["cost"]["graded_texts"] == 2 * 2 * 3 and record["convention"]["rewards"] == "parity"
    assert record["spec"]["grader"]["task"] == "parity" and record["teacher"] is None
    assert record["data"]["contamination"] == {"problems": 4, "found_whole": 0, "sharing_13_words": 0}


def test_programs_are_graded_in_the_sandbox_and_say_what_failed(tmp_path):
    from harness import recipe
    from harness.training import verdicts
    from harness.training_data import examples

    prompt, escaped = 'def add(a, b):\n    """Return a + b."""\n', tmp_path / "escaped"
    row = {"task_id": "HumanEval/0", "prompt": prompt, "entry_point": "add", "canonical_solution": "    return a + b\n"}
    row |= {"base_input": [[1, 2], [0, 0]], "plus_input": [], "atol": 0, "contract": "", "test": ""}
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    sources = recipe.DataSources(prompts=str(tmp_path / "train.jsonl"), grader="humaneval")
    grader, asked = verdicts.grader_of(sources), examples.load(sources.prompts, sources, labelled=False)
    texts = ["    return a + b\n", "    return a - b\n", f"    open({str(escaped)!r}, 'w')\n    return 3\n"]
    right, wrong, escape = grader.verdicts(asked * 3, texts)
    assert right.score == 1 and wrong.score == 0 and wrong.reason == "failed base test 1: expected 3, got -1"
    assert escape.score == 0 and not escaped.exists()


def test_rewarded_prompts_hold_no_test_problem(tiny_world, numbers, tmp_path, capsys):
    recipe = tiny_world(SHORT, prompts=numbers(14, 3, 16))
    assert main(words(recipe, tmp_path, "grpo", f"data.grader={PARITY}")) == 2
    said = capsys.readouterr().err
    assert "holds problem 3 of parity" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        ("grpo", [], "needs a grader of answers to"),
        (
            "kdrl",
            ["method.group=1"],
            "method kdrl.group=1 is outside [2, inf] (texts per prompt, compared with each other",
        ),
        ("luffy", ["method.own=1", "method.traces=0"], "a group of one has nothing to be compared with"),
        ("sdpo", ["method.template={hint}"], "may name {prompt}, {solution} or {feedback}"),
    ],
)
def test_what_rewards_lack_stops_a_run_before_any_work(tiny_world, tmp_path, capsys, method, settings, said):
    assert main(words(tiny_world(SHORT), tmp_path, method, *settings)) == 2
    found = capsys.readouterr().err
    assert said in found and found.count("\n") == 1 and not (tmp_path / "results/work/training").exists()


def test_a_refusal_names_the_tasks_that_read_the_rows(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps({"question": "How many is 2 + 3?", "answer": "2 + 3 = 5\n#### 5"}) + "\n")
    files = [f"data.prompts={path}", f"data.labelled={path}"]
    with pytest.raises(BadInput, match=r"set data.grader to the task whose rows these are; gsm8k can read them"):
        prepare(RunRequest(["grpo"], ["amc23"], settings=files, results=tmp_path / "results"))


def test_these_tests_know_the_grader_and_the_groups():
    assert Thirds().verdicts([], []) == [] and SETTINGS["grpo"]["group"] == SETTINGS["sdpo"]["group"] == 3
