"""The micro world: generated problems are sound, its splits disjoint, its models what the manifest says."""

import hashlib
import json
import subprocess
import sys
from dataclasses import asdict
from itertools import islice

import pytest

from harness.errors import BadInput
from harness.grading.judges.generated import ProgrammaticJudge
from harness.micro import code, instruction, maths, world
from harness.micro.phrasing import FORMS, understand

SPLITS = ("labelled", "validation")
ASKED = "Please drop the first word, then reverse the order: mouse ocean lemon"
CODE = {"family": "code", "stub": "def f(xs):\n", "entry_point": "f"}
# The first digits of generated files; they change only together with ``world.VERSION``.
ROWS = {"amc23": "cac960528aa8b5ac", "humanevalplus": "8b9561ad3961e093", "alpaca_eval": "426a177ed60a0f30"}


def test_every_task_has_its_own_problems_in_its_own_format():
    for task in world.TASKS:
        data = world.dataset(task)
        assert data.world == "micro" and len(data.rows) == world.TEST_SIZE
        assert json.loads(json.dumps(data.rows)) == data.rows
    assert world.dataset("aime24").rows[0].keys() == {"id", "problem", "solution", "answer"}
    assert isinstance(world.dataset("amc23").rows[0]["answer"], float)
    assert len(world.dataset("aime24").rows[0]["answer"]) == 3
    assert world.dataset("humaneval").rows == world.dataset("humanevalplus").rows  # one file, as in the real ones
    assert len({world.dataset(task).sha256 for task in world.TASKS}) == len(world.TASKS) - len(world.SAME_PROBLEMS)


def test_rows_are_the_same_on_every_machine():
    rows = {task: world.dataset(task).sha256[:16] for task in ("amc23", "humanevalplus", "alpaca_eval")}
    assert rows == ROWS


def test_a_task_without_generated_problems_is_refused_with_those_that_have_some():
    with pytest.raises(BadInput, match=r"'vicuna_bench' has no micro version.*aime24.*olympiadbench"):
        world.dataset("vicuna_bench")
    with pytest.raises(BadInput, match="unknown split 'tests'"):
        world.examples("tests")


def test_no_problem_is_in_two_splits_nor_in_the_teachers_stream():
    prompts = [e.prompt.plain for split in world.SIZES for e in world.examples(split)]
    originals = [task for task in world.TASKS if task not in world.SAME_PROBLEMS]
    prompts += [e.prompt.plain for task in originals for e in world.held_out(task)]
    assert len(prompts) == len(set(prompts))
    fresh = {e.prompt.plain for e in islice(world.training_stream(seed=1), 3000)}
    assert fresh.isdisjoint(prompts)


def test_unlabelled_prompts_hold_no_response_and_families_take_turns():
    prompts = world.examples("prompts")
    assert all(example.response is None for example in prompts)
    assert [example.meta["family"] for example in prompts[:6]] == ["maths", "code", "instruction"] * 2
    for split in world.SIZES:
        alone = world.examples(f"instruction/{split}")
        assert alone == [example for example in world.examples(split) if example.meta["family"] == "instruction"]
    assert all(example.response for split in SPLITS for example in world.examples(split))


@pytest.mark.parametrize("split", SPLITS)
def test_right_responses_are_solved_and_every_step_of_them_is_valid(split):
    for example in world.examples(split):
        assert world.solved(example, example.response), example.id
        prefix = ""
        for line in example.response.split("\n"):
            assert world.check_step(example.meta, prefix, line) == 1.0, (example.id, line)
            assert world.check_step(example.meta, prefix + line[:2], line[2:]) == 1.0
            prefix += line + "\n"
        assert world.check_step(example.meta, prefix, "") == 1.0
        assert world.check_step(example.meta, "", "") == 0.0


def test_a_slip_makes_its_own_step_wrong_and_not_the_steps_that_build_on_it():
    meta = maths.Chain(4, (("+", 9), ("*", 3)), "").meta
    assert world.check_step(meta, "", "4 + 9 = 3") == 0.0
    assert world.check_step(meta, "4 + 9 = 3\n", "3 * 3 = 9\n") == 1.0
    assert world.check_step(meta, "4 + 9 = 3\n3 * 3 = 9\n", r"\boxed{9}") == 1.0
    assert world.check_step(meta, "four\n", "2 * 3 = 6") is None

    meta = {
        "family": "instruction",
        "instruction": "Please drop the first word, then reverse the order: mouse ocean lemon",
    }
    assert world.check_step(meta, "", "behead: lemon ocean") == 0.0
    assert world.check_step(meta, "behead: lemon ocean\n", "reverse: ocean lemon") == 1.0
    assert world.check_step(meta, "nothing\n", "reverse: ocean lemon") is None


def test_steps_of_programs_are_judged_by_what_they_do():
    meta = {
        "family": "code",
        "stub": "def f(xs):\n",
        "entry_point": "f",
        "lines": ["    xs = [x + 2 for x in xs]", "    return xs"],
    }
    assert world.check_step(meta, "", "    xs = [2 + y for y in xs]") == 1.0
    assert world.check_step(meta, "", "    xs = [x + 3 for x in xs]") == 0.0
    assert world.check_step(meta, "", "    xs = [x + 2 for x in") == 0.0
    assert world.check_step(meta, "", "xs = [x + 2 for x in xs]") == 0.0
    assert world.check_step(meta, "", "    xs = list(map(lambda x: x + 2, xs))") is None


def test_a_program_is_solved_by_meaning_and_never_executed(tmp_path):
    meta = {
        "family": "code",
        "stub": "def f(xs):\n",
        "entry_point": "f",
        "answer": "    xs = sorted(xs, reverse=True)\n    return xs",
    }
    assert code.solved(meta, "    ys = sorted(xs)\n    return ys[::-1]")
    assert not code.solved(meta, "    return sorted(xs)")
    assert not code.solved(meta, "    return sorted(xs, reverse=True")
    touched = tmp_path / "touched"
    assert not code.solved(meta, f"    open({str(touched)!r}, 'w')\n    return sorted(xs, reverse=True)")
    assert not touched.exists()


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("def f(xs):\n    return xs[::0]", code.Mistaken),
        ("def f(xs):\n    return [x % 0 for x in xs]", code.Mistaken),
        ("def f(xs):\n    return sum(xs) + xs", code.Mistaken),
        ("def f(xs):\n    return ys", code.Mistaken),
        ("def f(xs):\n    return [x * 999999999999 * 999999999999 for x in xs]", code.Beyond),
        ("def f(xs):\n    return __import__('os')", code.Beyond),
        ("def f(xs):\n    while True: pass", code.Beyond),
        ("def g(xs):\n    return xs", code.Mistaken),
        ("\0", code.Mistaken),
        ("(" * 500, code.Mistaken),
    ],
)
def test_the_interpreter_refuses_what_it_cannot_or_should_not_do(source, error):
    with pytest.raises(error):
        code.call(source, "f", [3, 1, 2])


def test_canonical_programs_pass_their_own_asserts_when_python_runs_them():
    for task in ("humanevalplus", "mbppplus"):
        for row in world.dataset(task).rows[:40]:
            names: dict = {}
            exec(row["prompt"] + row["canonical_solution"], names)
            if "test" in row:
                exec(row["test"] + f"check({row['entry_point']})", names)
            else:
                exec(row["assertion"], names)
            for (argument,) in row["base_input"] + row["plus_input"]:
                body = [line[4:] for line in row["canonical_solution"].splitlines() if line.startswith("    ")]
                assert names[row["entry_point"]](list(argument)) == code.evaluate(body, argument)


def test_every_form_of_a_sentence_has_one_reading():
    for length, forms in FORMS.items():
        phrases = [f"do thing {i} to them" for i in range(length)]
        for form in forms:
            assert understand(form.format(*phrases)) == phrases
    assert understand("do this") is None


def test_an_instruction_is_understood_from_its_text_alone():
    for task in instruction.TASKS:
        for example in world.held_out(task):
            assert instruction.read(example.meta["instruction"]).answer == example.meta["answer"]
    assert instruction.read("Tell me about the moon.") is None


def test_the_judge_prefers_right_to_wrong_to_none_and_ties_equals():
    judge = ProgrammaticJudge()
    right, wrong, none = "Answer: lemon ocean", "reverse: a\nAnswer: ocean lemon", "lemon ocean"
    assert judge.prefer(ASKED, wrong, right)[0] == 1.0
    assert judge.prefer(ASKED, right, wrong)[0] == 0.0
    assert judge.prefer(ASKED, right, right)[0] == judge.prefer(ASKED, none, none)[0] == 0.5
    assert judge.prefer(ASKED, none, wrong) == (1.0, "candidate wrong, reference without an answer")
    with pytest.raises(BadInput, match="understands only generated instructions"):
        judge.prefer("Tell me about the moon.", "", "")


def test_the_baseline_is_right_about_half_of_the_time_so_that_win_rates_tell_something():
    judge = ProgrammaticJudge()
    for task, asked, reference in (
        ("alpaca_eval", "instruction", "output"),
        ("evol_instruct", "prompt", "generated_text"),
    ):
        perfect = [
            judge.prefer(row[asked], row[reference], instruction.read(row[asked]).response)[0]
            for row in world.dataset(task).rows
        ]
        assert set(perfect) == {0.5, 1.0} and 0.65 < sum(perfect) / len(perfect) < 0.85


def test_what_a_model_is_asked_in_training_is_what_the_tasks_ask():
    from harness.evaluation.benchmarks import open_task

    for task in world.TASKS:
        asked = [problem.prompt.plain for problem in open_task(task, "micro").items]
        assert asked == [example.prompt.plain for example in world.held_out(task)]


def test_the_tokenizer_is_lossless_and_cuts_prompt_and_response_apart():
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(world.model_path("teacher"))
    for text in ('def f(x: List[float]) -> bool:\n\t  """ é ∑ 漢 12345 \r\n\n\n   """', " a  b ", "<|im_end|>"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    for example in world.examples("labelled"):
        prompt, response = tokenizer(example.prompt.plain).input_ids, tokenizer(example.response).input_ids
        assert tokenizer(example.prompt.plain + example.response).input_ids == prompt + response
        assert tokenizer.decode(response) == example.response
    assert all(len(tokenizer(str(number)).input_ids) == 1 for number in range(maths.MODULUS))


def test_shipped_files_are_those_of_the_manifest():
    manifest = json.loads((world.WEIGHTS / "manifest.json").read_text())
    assert manifest["world"] == world.VERSION
    found = {}
    for role in ("teacher", "student"):
        for path in sorted(world.model_path(role).iterdir()):
            found[f"{role}/{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
            assert path.stat().st_size < 1.45e6, path
    assert found == {name: sha for model in manifest["models"].values() for name, sha in model["files"].items()}
    assert sum(path.stat().st_size for path in world.WEIGHTS.rglob("*") if path.is_file()) < 4e6


def test_shipped_models_share_the_tokenizer_and_the_recipes_of_the_code():
    build = pytest.importorskip("harness.micro.build")
    shipped = [(world.model_path(role) / "tokenizer.json").read_text() for role in build.ROLES]
    assert shipped[0] == shipped[1]
    models = json.loads((world.WEIGHTS / "manifest.json").read_text())["models"]
    for role, recipe in build.RECIPES.items():
        assert models[role]["recipe"] == json.loads(json.dumps(asdict(recipe)))


@pytest.mark.slow
def test_the_shipped_teacher_solves_nearly_all_and_the_student_leaves_room():
    measure = pytest.importorskip("harness.micro.build").measure
    sample = [example for task in ("amc23", "humaneval", "alpaca_eval") for example in world.held_out(task)[:60]]
    teacher = measure(world.model_path("teacher"), sample)
    student = measure(world.model_path("student"), sample)
    for family in world.FAMILIES:
        assert teacher[family]["correct"] >= 0.95 * teacher[family]["total"]
        assert 0.1 < student[family]["correct"] / student[family]["total"] < 0.7


@pytest.mark.slow
def test_a_build_repeats_bit_for_bit_and_learns(tmp_path):
    build = pytest.importorskip("harness.micro.build")
    stages = (build.BuildStage("fresh", 24), build.BuildStage("labelled", 4, rate=0.3))
    recipe = build.BuildRecipe(1, 32, 2, 64, stages, seed=3, batch=8, vector_rate=0.03)
    runs = [build.build(recipe, tmp_path / name) for name in ("a", "b")]
    assert runs[0] == runs[1]
    assert sum(runs[0][-4:]) < 0.8 * sum(runs[0][:4])
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_build_command_refuses_nonsense_in_one_line(tmp_path, capsys):
    build = pytest.importorskip("harness.micro.build")
    assert build.main(["--out", str(tmp_path), "--steps", "0"]) == 2
    assert capsys.readouterr().err == "error: --steps 0: at least one step is needed\n"


def test_the_world_needs_no_torch():
    script = "import sys, harness.micro.world as w; w.dataset('amc23'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
