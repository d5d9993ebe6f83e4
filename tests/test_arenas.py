"""The arenas: derivations are sound and many, splits disjoint, shipped models what the manifest says."""

import hashlib
import json
from dataclasses import asdict
from itertools import islice
from random import Random

import pytest

from harness import recipe
from harness.errors import BadInput
from harness.evaluation.benchmarks import open_task
from harness.micro import arenas, derivations, world
from harness.micro.derivations import Habit

META = {"family": "derivations", "groups": [[3, "+", 4], [5, "*", 3]], "joins": ["-"], "answer": "3", "slice": True}


@pytest.mark.parametrize("habit", [Habit(), Habit(own=0.0), Habit(own=0.8, last_first=True)])
def test_every_derivation_is_solved_and_every_step_of_it_valid(habit):
    rng = Random(0)
    for problem in (derivations.draw(rng, habit=habit) for _ in range(300)):
        assert derivations.solved(problem.meta, problem.response)
        prefix = ""
        for line in (*problem.lines, ""):
            assert world.check_step(problem.meta, prefix, line) == 1.0
            prefix += line + "\n"
        assert world.check_step(problem.meta, "", "") == 0.0


@pytest.mark.parametrize(
    ("done", "line", "valid"),
    [
        ("", "3 + 4 = 7", 1.0),
        ("", "4 + 3 = 7", 1.0),
        ("", "5 * 3 = 4", 1.0),
        ("", "3 * 5 = 4", 1.0),
        ("", "5 * 3 = 5", 0.0),
        ("", "7 - 4 = 3", 0.0),  # not known yet
        ("5 * 3 = 4\n", "3 + 4 = 7", 1.0),
        ("5 * 3 = 4\n", "5 * 3 = 4", 0.0),  # done already
        ("5 * 3 = 4\n3 + 4 = 7\n", "7 - 4 = 3", 1.0),
        ("5 * 3 = 4\n3 + 4 = 7\n", "4 - 7 = 8", 0.0),  # a difference has a first side
        ("5 * 3 = 5\n3 + 4 = 7\n", "7 - 5 = 2", 1.0),  # an earlier slip does not count
        ("5 * 3 = 4\n3 + 4 = 7\n7 - 4 = 3\n", r"\boxed{3}", 1.0),
        ("5 * 3 = 4\n3 + 4 = 7\n7 - 4 = 3\n", r"\boxed{4}", 0.0),
        ("nothing\n", "3 + 4 = 7", None),
    ],
)
def test_steps_are_right_in_any_order_that_the_problem_allows(done, line, valid):
    assert world.check_step(META, done, line) == valid


def test_steps_that_say_the_same():
    assert world.same_step(META, "", "3 + 4 = 7", "4 + 3 = 7")
    assert not world.same_step(META, "", "3 + 4 = 7", "3 + 4 = 8")
    assert not world.same_step(META, "", "3 - 4 = 10", "4 - 3 = 10")
    assert world.same_step({"family": "maths"}, "", "a ", "a")


def test_a_writer_that_slips_does_so_on_the_slice_alone():
    rng = Random(1)
    wrong = {True: 0, False: 0}
    for _ in range(400):
        problem = derivations.draw(rng, habit=Habit(own=0.5, slips=True))
        wrong[problem.meta["slice"]] += not derivations.solved(problem.meta, problem.response)
    assert wrong[False] == 0 and wrong[True] > 50


def test_problems_are_in_one_split_and_in_no_stream():
    keys = [{p.key for p in problems} for problems in arenas._splits().values()]
    assert sum(map(len, keys)) == len(set().union(*keys)) == sum(arenas.SIZES.values())
    asked = {e.prompt.plain for split in arenas.SIZES for e in arenas.examples(split)}
    assert not asked & {e.prompt.plain for e in islice(arenas.stream(11, Habit()), 3000)}
    assert all(e.response is None for e in world.examples("derivations/prompts"))


def test_the_problems_are_the_same_on_every_machine():
    found = {task: world.dataset(task, "derivations").sha256[:16] for task in derivations.TASKS}
    assert found == {"amc23": "9639fea9c51ae7ab", "math500": "cb363b6e1aa9ba4f"}
    with pytest.raises(BadInput, match="'gsm8k' has no derivations version; those that have one: amc23, math500"):
        open_task("gsm8k@derivations")


@pytest.mark.parametrize("name", list(arenas.ARENAS))
def test_each_arena_has_a_recipe_with_its_models(name):
    found = recipe.load(f"arena-{name}")
    assert found.world == "derivations" and found.models.student == f"micro:derivations/{arenas.ARENAS[name].student}"
    assert found.models.teacher == f"micro:derivations/{arenas.ARENAS[name].teacher}"
    assert open_task("amc23", found.world).title == "amc23@derivations"


def test_shipped_files_are_those_of_the_manifest():
    build = pytest.importorskip("harness.micro.build_arenas")
    manifest = json.loads((arenas.WEIGHTS / "manifest.json").read_text())
    for name, facts in manifest["models"].items():
        files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(arenas.model_path(name).iterdir())}
        assert files == facts["files"]
        assert facts["stage"] == json.loads(json.dumps(asdict(build.STAGES[name])))


def test_the_arenas_are_what_they_say():
    """Floor and ceiling of each; and in the slice the student is right where its teacher is wrong."""
    manifest = json.loads((arenas.WEIGHTS / "manifest.json").read_text())["models"]
    solved = {
        name: {side: facts[side]["correct"] / 300 for side in ("test", "validation")}
        for name, facts in manifest.items()
    }
    for side in ("test", "validation"):
        assert solved["teacher"][side] > 0.98 and 0.35 < solved["early"][side] < 0.65
        assert 0.2 < solved["student"][side] < 0.5 and 0.3 < solved["ahead"][side] < 0.6
    for facts in (manifest["mistaken"], manifest["ahead"]):
        assert facts["test"]["slice_total"] > 50
    share = {name: manifest[name]["test"]["slice_correct"] / manifest[name]["test"]["slice_total"] for name in manifest}
    assert share["mistaken"] < 0.1 and share["ahead"] > 0.3


def test_the_build_of_a_model_repeats_bit_for_bit(tmp_path):
    build = pytest.importorskip("harness.micro.build_arenas")
    for name in ("a", "b"):
        build.build_model("student", tmp_path / name, steps=3)
        build.build_model("ahead", tmp_path / name, steps=2)
    files = [(tmp_path / n / "ahead" / "model.safetensors").read_bytes() for n in ("a", "b")]
    assert files[0] == files[1]
    assert build.main(["--out", str(tmp_path), "--steps", "0"]) == 2


def test_every_command_knows_the_world_of_the_arenas(tmp_path, capsys):
    from harness.cli import main

    assert main(["check", "--task", "amc23@derivations"]) == 0
    assert "conforms" in capsys.readouterr().out
    problems = open_task("math500@derivations").items
    rows = [{"problem_id": p.id, "text": r"\boxed{0}"} for p in problems]
    file = tmp_path / "gkd-math500@derivations-s0-0123abcd.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["grade", "--task", "math500", "--samples", str(file)]) == 0  # the file's name says which world
    assert "math500@derivations" in capsys.readouterr().out
    assert main(["grade", "--task", "math500@micro", "--samples", str(file)]) == 2
    assert "holds completions of the derivations world, not of math500@micro" in capsys.readouterr().err
