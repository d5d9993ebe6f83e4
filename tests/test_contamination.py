"""Test problems in training data: what is found and what is not, and what a run does about it."""

import json
import os
import time
from pathlib import Path

import pytest

from harness.cli import main
from harness.evaluation import benchmarks
from harness.recipe import DataSources
from harness.task import Task
from harness.training_data import examples
from harness.training_data.left_out import OVERLAP_WORDS, overlap
from harness.types import Example, Problem, Prompt, Turn

HERE = Path(__file__).parent
PARITY = str(HERE / "plugin/parity_plugin.py")
LONG = "A farmer has 12 hens and 5 cows; each hen lays 2 eggs. How many eggs are there?"


class Asked:
    """As much of a task as the check reads."""

    measures_itself = False

    def __init__(self, *texts):
        self.items = [Problem(str(i), Prompt(text, text)) for i, text in enumerate(texts)]


def found(problems, prompts, answers=None):
    answers = answers or [None] * len(prompts)
    pool = [Example(f"r{i}", Prompt(p, p), a) for i, (p, a) in enumerate(zip(prompts, answers, strict=True))]
    shared = overlap({"prompts": pool}, Asked(*problems))
    return {(p, row) for p, _, row in shared.whole}, {(p, row) for p, _, row in shared.shared}


@pytest.mark.parametrize(
    "prompt",
    [
        LONG,
        LONG.upper(),
        f"{LONG} Think step by step.",
        f"Solve this. {LONG}",
        LONG.replace(" ", "  \n"),
        LONG.replace(";", " --").replace("--", ""),
        LONG.replace("12", "$12$").replace("5", "\\(5\\)"),
        f'"{LONG}"',
    ],
)
def test_a_problem_is_found_whole(prompt):
    whole, _ = found([LONG, "another problem"], ["something else", prompt])
    assert whole == {("0", "r1")}


@pytest.mark.parametrize(
    "prompt",
    [
        LONG.replace("12", "13"),
        LONG.replace("each hen", "every hen"),
        LONG.removesuffix("are there?"),
        "How many eggs are there?",
        LONG.replace("hens and 5 cows", "hens and cows"),
        "",
        "?!",
    ],
)
def test_another_problem_is_not(prompt):
    assert found([LONG, "another problem"], ["something else", prompt])[0] == set()


def test_signs_of_arithmetic_are_words():
    assert found(["What is 3 + 4?", "x"], ["What is 3 - 4?", "What is 3 + 4"])[0] == {("0", "r1")}
    assert found(["What is 3 + 4?", "x"], ["What is 34?", "What is 3 4 + ?"])[0] == set()


def test_a_short_problem_is_found_where_it_is_the_whole_prompt_alone():
    assert found(["Is 5 even?", "Is 6 even?"], ["Is 5 even?", "I ask: Is 6 even?"])[0] == {("0", "r0")}


def test_instructions_that_all_share_are_no_part_of_a_problem():
    wrapped = "Please answer the question below with a number: {} Write it into a box at the end."
    prompts = [f"Solve step by step and show your work: {text}" for text in (LONG, "Is 5 even?", "Who?")]
    assert found([wrapped.format(LONG), wrapped.format("Why?")], prompts)[0] == {("0", "r0")}
    # The instruction alone, in both, is no overlap.
    other = [wrapped.format(text) for text in ("When?", "Where to?")]
    assert found([wrapped.format(LONG), wrapped.format("Why?")], other) == (set(), set())


def test_answers_and_earlier_turns_are_searched_too():
    assert found([LONG, "x"], ["q", "q2"], ["", f"For example: {LONG}"])[0] == {("0", "r1")}
    history = (Turn("user", LONG), Turn("assistant", "24"))
    pool = [Example("r0", Prompt("And with 3 cows?", "", history=history), "24")]
    assert overlap({"labelled": pool}, Asked(LONG, "x")).whole == (("0", "labelled", "r0"),)


def test_runs_of_thirteen_words_are_counted():
    words = [f"w{i}" for i in range(20)]
    problem = " ".join(words)
    prompts = [" ".join(["a", *words[2 : 2 + OVERLAP_WORDS], "b"]), " ".join(["c", *words[2 : 1 + OVERLAP_WORDS], "d"])]
    whole, shared = found([problem, "x"], prompts)
    assert whole == set() and shared == {("0", "r0")}
    # A run does not reach from one text into the next.
    assert found([problem, "x"], [" ".join(words[:7]), " ".join(words[7:14])]) == (set(), set())


def test_a_task_that_asks_by_itself_is_not_judged():
    task = Asked(LONG)
    task.measures_itself = True
    assert overlap({"prompts": []}, task) is None and overlap({}, Asked()) is None


def test_ten_thousand_prompts_take_a_moment():
    import random

    dice = random.Random(0)
    texts = [" ".join(f"w{dice.randrange(3000)}" for _ in range(80)) for _ in range(10_000)]
    began = time.process_time()
    whole, _ = found([*texts[:500:7], "x"], texts)
    assert len(whole) == len(texts[:500:7]) and time.process_time() - began < 20


@pytest.mark.parametrize("chosen", ["refuse", "drop", "keep"])
@pytest.mark.parametrize("method", ["sft", "kd"])
def test_a_run_refuses_drops_or_keeps_and_records(method, chosen, tiny_world, tmp_path, capsys):
    rows = [{"prompt": f"Is {i} even or odd?", "response": "even"} for i in (7, 3, 8)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = tiny_world(
        "[training]\nsteps = 1\nbatch = 2\nmax_tokens = 64\n[teacher_text]\nmax_new_tokens = 4\n",
        prompts=tmp_path / "p.jsonl",
    )
    words = ["run", "--method", method, "--task", PARITY, "--recipe", str(recipe), "--json"]
    words += ["--results", str(tmp_path / "results"), "--set", f"data.contaminated={chosen}"]
    assert main(words) == (2 if chosen == "refuse" else 0)
    printed = capsys.readouterr()
    held = "row 2 holds problem 3 of parity (1 of its 4 problems are in the training data)"
    if chosen == "refuse":
        (line,) = printed.err.strip().splitlines()
        assert held in line and "set data.contaminated to drop" in line
        return
    (record,) = json.loads(printed.out)["records"]
    pool = {"sft": "labelled", "kd": "prompts"}[method]
    assert record["data"]["contamination"] == {"problems": 4, "found_whole": 1, "sharing_13_words": 1}
    assert record["data"][pool]["examples"] == (2 if chosen == "drop" else 3)
    said = "1 training examples with a problem of parity are left out" if chosen == "drop" else held
    assert any(said in warning for warning in record["warnings"])


def test_the_micro_world_is_disjoint_from_its_tasks():
    from harness import recipe

    sources = recipe.load("micro").data
    names = ("prompts", "labelled", "validation")
    pools = {n: examples.load(getattr(sources, n), sources, labelled=n != "prompts") for n in names}
    for name in ("amc23", "humaneval", "alpaca_eval", "gsm8k", "math500", "mbpp"):
        task: Task = benchmarks.open_unjudged(f"{name}@micro")
        assert overlap(pools, task).whole == ()


@pytest.mark.slow
@pytest.mark.skipif("HARNESS_DATA" not in os.environ, reason="needs the benchmark files below HARNESS_DATA")
def test_the_public_training_file_that_holds_test_problems_is_found():
    """DAPO-Math-17k, processed: 8 problems of AMC 2023 stand in it to the letter, more with other spaces or signs."""
    source = "data:train_prompts/dapo_math_17k/dapo_math_17k.jsonl"
    if not (Path(os.environ["HARNESS_DATA"]) / source.removeprefix("data:")).is_file():
        pytest.skip("the file is not below HARNESS_DATA")
    pool = examples.load(source, DataSources(), labelled=True)
    amc = overlap({"labelled": pool}, benchmarks.open_unjudged("amc23@real"))
    assert {"3", "5", "15", "18", "19", "22", "30", "32"} <= {problem for problem, *_ in amc.whole}
    aime = overlap({"labelled": pool}, benchmarks.open_unjudged("aime24@real"))
    assert aime.whole == ()
