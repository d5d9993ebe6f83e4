"""What a record says of its speed, and how soon commands answer that have nothing to compute."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from harness import answered, measured, plan
from harness.cli import main, parser

PARITY = str(Path(__file__).parent / "plugin/parity_plugin.py")

COST = {
    "student_tokens": 3_000_000,
    "generated_tokens": 1_000_000,
    "teacher_forward_tokens": 2_000_000,
    "seconds": 100.0,
    "eval_seconds": 4.0,
    "eval_generated_tokens": 1000,
}
SIZES = {"student": 10**9, "teacher": 7 * 10**9}


def test_a_record_says_its_tokens_a_second_and_its_share_of_a_known_peak():
    found = measured.speed_of(COST, SIZES, "bfloat16", "NVIDIA H100 80GB HBM3")
    assert found["training_tokens_per_second"] == 40_000 and found["evaluation_tokens_per_second"] == 250
    # 6 a weight and trained token, 2 of a sampled one and of the teacher, over 100 s of 989e12 a second
    spent = 10**9 * (6 * 3e6 + 2 * 1e6) + 2 * 7 * 10**9 * 2e6
    assert found["share_of_peak"] == pytest.approx(spent / 100 / 989e12)
    half = measured.speed_of(COST, SIZES, "bfloat16", "NVIDIA H100 80GB HBM3", processes=2)
    assert half["share_of_peak"] == pytest.approx(found["share_of_peak"] / 2)


@pytest.mark.parametrize(
    ("cost", "sizes", "device", "keys"),
    [
        (COST, SIZES, "cpu", {"training_tokens_per_second", "evaluation_tokens_per_second"}),
        (COST, SIZES | {"teacher": None}, "NVIDIA A100-SXM4-80GB", {"training_tokens_per_second"}),
        (COST | {"seconds": 0.0, "student_tokens": 0}, SIZES, "cpu", {"evaluation_tokens_per_second"}),
        (COST | {"seconds": 0.0, "eval_generated_tokens": 0}, SIZES, "cpu", set()),
    ],
)
def test_what_is_not_known_is_left_out(cost, sizes, device, keys):
    assert keys <= measured.speed_of(cost, sizes, "bfloat16", device).keys() <= keys | {"evaluation_tokens_per_second"}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A recipe, the command of a run of two methods with it, and the records that it printed."""
    folder = tmp_path_factory.mktemp("recorded")
    recipe = folder / "own.toml"
    recipe.write_text(
        "world = 'micro'\n[models]\nstudent = 'micro:student'\nteacher = 'micro:teacher'\n"
        "[evaluation]\nlimit = 2\nmax_new_tokens = 4\n"
    )
    words = ["run", "-t", "amc23", "--recipe", str(recipe), "--results", str(folder / "results")]
    words += ["-m", "untouched", "teacher"]
    command = [sys.executable, "-P", "-m", "harness", *words, "--json"]  # -P: reads no working folder
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return recipe, words, json.loads(done.stdout)["records"]


def test_a_recorded_run_is_returned_without_torch_and_transformers(recorded):
    recipe, words, made = recorded
    code = "import sys; from harness.cli import main; assert main(sys.argv[1:]) == 0; "
    code += "print(bool({'torch', 'transformers'} & sys.modules.keys()))"
    for form in (["--json"], []):
        command = [sys.executable, "-c", code, *words, *form]
        done = subprocess.run(command, cwd=recipe.parent, capture_output=True, text=True, check=True)
        printed, _, loaded = done.stdout.strip().rpartition("\n")
        assert loaded == "False"
        assert all(f"{one['run_id']}: already recorded" in done.stderr for one in made)
        again = [one | {"reused": True} for one in made]
        assert (json.loads(printed)["records"] == again) if form else ("untouched" in printed)


def test_a_card_is_shown_without_torch():
    """Nor does it leave its stand-in to a program that goes on: what was imported meanwhile has torch itself."""
    code = "import sys; from harness.cli import main; assert main(sys.argv[1:]) == 0; print('torch._C' in sys.modules);"
    code += "from importlib.util import find_spec; assert find_spec('torch').origin;"
    code += "import torch; from harness.losses import torch as given;"
    code += "print(given.Tensor is torch.Tensor and bool(given.ones(2).sum() == 2))"
    words = ["show", "method", "kdrl@wrong"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("method: kdrl") and done.stdout.endswith("False\nTrue\n"), done.stdout[-300:]


def test_a_folder_that_was_only_tried_for_writing_is_not_read(tmp_path):
    """Else every new file beside the results folder would have the run planned again."""
    heard = []
    with answered._listening(heard.append):
        tempfile.TemporaryFile(dir=tmp_path).close()
        assert heard == []
        os.listdir(tmp_path)
    assert heard == [str(tmp_path)]


@pytest.mark.parametrize("change", ["nothing", "setting", "variable", "recipe", "again", "record"])
def test_a_run_is_planned_again_when_anything_changed(recorded, monkeypatch, capsys, change):
    recipe, words, made = recorded
    monkeypatch.chdir(recipe.parent)

    def planned(request):
        raise AssertionError("planned")

    monkeypatch.setattr(plan, "prepare", planned)
    words = [*words, "--json", *{"setting": ["--set", "evaluation.limit=3"], "again": ["--again"]}.get(change, [])]
    if change == "variable":
        monkeypatch.setenv("HARNESS_PLUGINS", "0" if os.environ.get("HARNESS_PLUGINS") != "0" else "1")
    before = recipe.stat()
    if change == "recipe":
        os.utime(recipe, (1, 1))
    if change == "record":
        file = next((recipe.parent / "results/records").rglob("*.json"))
        kept = file.read_text("utf-8")
        file.write_text(kept.replace('"seed": 0', '"seed": 1'))
        assert main(words) == 2 and file.stem in capsys.readouterr().err  # damaged: one line, as a planned run says
        file.write_text(kept)
        return
    code = main(words)
    os.utime(recipe, ns=(before.st_atime_ns, before.st_mtime_ns))
    said = capsys.readouterr()
    assert (code == 0 and json.loads(said.out)["records"][0]["run_id"] == made[0]["run_id"]) == (change == "nothing")
    assert ("planned" in said.err) == (change != "nothing")


@pytest.mark.parametrize(
    ("path", "passing"),
    [
        ("results/own.toml", False),
        ("results-recipes/own.toml", False),
        ("workshop/own.toml", False),
        ("results/work/cache.json", True),
        ("results/records/a.json", True),
        ("/proc/self/maps", True),
        ("/process/own.toml", False),
        (json.__file__, True),
        (pytest.__file__, True),
        (os.path.join(sys.prefix, "src/own.toml"), False),
        (os.path.join(sys.base_prefix, "src/own.toml"), False),
    ],
)
def test_a_file_may_change_an_answer_wherever_it_lies(tmp_path, monkeypatch, path, passing):
    """Only what the system, Python and runs themselves leave behind says nothing of a plan."""
    monkeypatch.chdir(tmp_path)
    assert answered._passing(Path("results"))(path) == passing


def test_another_choice_of_recorded_cells_is_answered_from_them(recorded, monkeypatch, capsys):
    """Run together and asked for alone, in another order, or with the seed said; what one cell lacks is planned."""
    recipe, words, _ = recorded
    words = [word for word in words if word not in ("-m", "untouched", "teacher")]
    monkeypatch.chdir(recipe.parent)
    monkeypatch.setattr(plan, "prepare", lambda request: (_ for _ in ()).throw(AssertionError("planned")))
    for asked in ("teacher", "teacher,untouched", "teacher -s 0", "teacher -s 1"):
        known = asked != "teacher -s 1"
        capsys.readouterr()
        assert (main([*words, "--json", "-m", *asked.split()]) == 0) == known
        if known:
            found = [record["method"]["name"] for record in json.loads(capsys.readouterr().out)["records"]]
            assert found == asked.split()[0].split(",")
    # An option may be read by one method and not by another, so such commands are kept whole.
    assert not answered.Question(parser().parse_args([*words, "-m", "teacher", "--set", "evaluation.limit=2"])).cells


def test_code_of_ones_own_is_planned_every_time(tiny_world, tmp_path, capsys):
    path = tiny_world("[training]\nsteps = 1\n")
    assert main(["run", "-m", "untouched", "-t", PARITY, "--recipe", str(path), "--results", str(tmp_path / "r")]) == 0
    assert not (tmp_path / "r/work/answered").exists()
