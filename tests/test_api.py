"""The Python interface gives what the commands give."""

import json
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import harness
from harness import api
from harness.cli import main
from harness.evaluation import questions
from harness.types import Problem, Prompt

ROOT = Path(__file__).parent.parent
MICRO = ROOT / "results/micro"
UNTOUCHED = "untouched-amc23@micro-s0-3ff79cd2"
TINY = (
    "[training]\nsteps = 2\nbatch = 2\nmax_tokens = 64\n"
    "[rollout]\nmax_new_tokens = 4\n[teacher_text]\nmax_new_tokens = 4\n"
)


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_public_names_are_listed_and_load():
    assert dir(harness) == sorted(harness.__all__)
    for name in harness.__all__:
        assert getattr(harness, name) is not None
    for function in (harness.run, harness.compare, harness.leaderboard, harness.completions, harness.grade):
        assert function.__doc__ and function.__annotations__["return"]


def test_a_function_stays_in_front_of_the_module_of_its_name():
    code = "import harness.run, harness.leaderboard as h; import harness; print(harness.run, harness.leaderboard)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.count("<function") == 2


def test_importing_the_package_loads_no_torch():
    code = "import sys, harness; print('torch' in sys.modules, 'pandas' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["False", "False"]


def test_run_trains_records_and_returns_the_record_again(tiny_world, tmp_path):
    recipe, parity = tiny_world(TINY), ROOT / "tests/plugin/parity_plugin.py"
    asked = dict(methods=["sft", "kd"], tasks=parity, seeds=[0, 1], recipe=recipe, results=tmp_path / "results")
    settings = {"training.steps": 2}
    frame = harness.run(**asked, settings=settings, progress=False)
    assert list(frame.method) == ["sft", "sft", "kd", "kd"] and list(frame.seed) == [0, 1, 0, 1]
    assert list(frame.steps) == [2] * 4 and not frame.reused.any()
    assert [*harness.load_results(tmp_path / "results"), "reused"] == list(frame)
    again = harness.run(**asked, settings=settings, progress=False)
    assert again.reused.all() and list(again.run_id) == list(frame.run_id)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"methods": "sftt"}, "sftt"),
        ({"tasks": "amc32"}, "amc32"),
        ({"seeds": -1}, "-1 is not a whole number"),
        ({"seeds": [True]}, "True is not a whole number"),
        ({"settings": {"training.stepz": 1}}, "stepz"),
        ({"settings": {"steps": 1}}, "dotted key"),
        ({"recipe": "no_such.toml"}, "no_such.toml"),
        ({"judge": "openai:m"}, "--judge"),
    ],
)
def test_run_refuses_what_the_command_refuses(change, message, tmp_path):
    asked = {"methods": "sft", "tasks": "amc23", "results": tmp_path} | change
    with pytest.raises(harness.BadInput, match=message):
        harness.run(**asked)


def test_leaderboard_is_the_table(capsys):
    assert main(["table", "--task", "amc23", "--results", str(MICRO), "--format", "json", "--view", "compute"]) == 0
    printed = json.loads(capsys.readouterr().out)
    frame = harness.leaderboard("amc23", results=MICRO, view="compute")
    assert list(frame.label) == [row["label"] for row in printed]
    assert list(frame.score) == [row["score"] for row in printed]


def test_compare_is_the_command(capsys):
    assert main(["compare", "gkd", "vcrd", "--task", "amc23", "--results", str(MICRO), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)["comparisons"][0]
    frame = harness.compare("gkd", "vcrd", "amc23", results=MICRO)
    assert list(frame) == list(api.COMPARED)
    row = frame.iloc[0]
    assert row.sentence == printed["sentence"] and row.p_holm == printed["p_holm"]
    assert [row.low, row.high] == printed["comparison"]["interval"]


def test_compare_takes_every_task_of_both_and_all_of_them_together(capsys):
    assert main(["compare", "gkd", "vcrd", "--results", str(MICRO), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    frame = harness.compare("gkd", "vcrd", results=MICRO, together=True)
    assert list(frame.sentence) == [each["sentence"] for each in [*printed["comparisons"], printed["together"]]]
    assert frame.problems.iloc[-1] == sum(frame.problems.iloc[:-1])


@pytest.mark.parametrize("change", [{"view": "budget"}, {"cost": "euros"}])
def test_a_view_or_cost_that_is_unknown_is_refused(change):
    with pytest.raises(harness.BadInput, match="choose from"):
        harness.leaderboard(results=MICRO, **change)


def test_completions_carry_prompt_and_reference():
    frame = harness.completions(UNTOUCHED, results=MICRO)
    assert list(frame)[:5] == ["problem_id", "sample", "prompt", "reference", "text"] and len(frame) == 150
    first = frame.iloc[0]
    assert first.prompt.startswith("Compute 2 + 3 * 4 - 3") and first.reference == "6"
    assert frame.score.sum() == 45


@pytest.mark.parametrize(
    ("reference", "shown"),
    [
        (None, None),
        ("6", "6"),
        (("only",), "only"),
        (("one", "another"), "one\n\nor\n\nanother"),
        (SimpleNamespace(answer="6"), "6"),
        ({"text": "a reply"}, "a reply"),
        ((("punctuation:no_comma", {}),), "(('punctuation:no_comma', {}),)"),
        (["9" * 5000, 1], None),
    ],
)
def test_a_reference_is_shown_as_a_person_reads_it(reference, shown):
    assert questions.reference_text(Problem("0", Prompt("", ""), reference)) == shown


def test_completions_of_other_data_come_without_questions(tmp_path, monkeypatch):
    from harness.micro import world

    monkeypatch.setattr(world, "dataset", lambda *_: (_ for _ in ()).throw(harness.BadInput("no data here")))
    with pytest.warns(UserWarning, match="no data here"):
        frame = harness.completions(UNTOUCHED, results=MICRO)
    assert frame.prompt.isna().all() and len(frame) == 150


def test_grade_takes_a_file_rows_or_a_frame(tmp_path):
    rows = [{"problem_id": "0", "sample": 0, "text": r"\boxed{6}"}, {"problem_id": "1", "sample": 0, "text": "none"}]
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    import pandas

    outcomes = [harness.grade("amc23@micro", given) for given in (path, rows, pandas.DataFrame(rows))]
    assert [outcome.score for outcome in outcomes] == [0.5] * 3
    assert list(outcomes[0].verdicts.score) == [1.0, 0.0]


@pytest.mark.parametrize("row, message", [([1], "row 1 is not a mapping"), ({"text": {1, 2}}, "row 1: set")])
def test_grade_names_the_row_that_is_wrong(row, message):
    with pytest.raises(harness.BadInput, match=message):
        harness.grade("amc23@micro", [row])


def test_grade_names_no_temporary_file():
    with pytest.raises(harness.BadInput) as refused:
        harness.grade("amc23@micro", [{"problem_id": "no such", "sample": 0, "text": ""}])
    assert str(refused.value).startswith("samples.jsonl:1")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"methods": None}, "methods=None is not a name"),
        ({"methods": {"gkd": 1}}, "is not a name; give a name, the path of a file, or a list"),
        ({"methods": [harness.Method]}, "or the path of the file that has it"),
        ({"tasks": 3}, "tasks=3 is not a name"),
        ({"tasks": []}, "tasks is empty"),
        ({"settings": ["training.steps=3"]}, "is not a mapping of keys to values"),
        ({"seeds": []}, "no seed given"),
        ({"seeds": "0"}, "seeds: '0' is not a whole number"),
        ({"seeds": None}, "seeds=None is not a whole number"),
        ({"seeds": np.arange(-1, 2)}, "is not a whole number from 0"),
        ({"seeds": np.int64(3), "methods": "gdk"}, "unknown method 'gdk'"),
        ({"methods": ""}, "methods: '' is not a name"),
        ({"methods": b"gkd"}, "methods=b'gkd' is not a name"),
        ({"results": 3}, "3 is no results folder"),
        ({"recipe": {"training": {}}}, "is not a name or the path of a file"),
        ({"protocol": 3}, "protocol=3 is not a name"),
        ({"track": "w"}, "unknown tracker: --track 'w'"),
    ],
)
def test_a_notebook_s_slip_is_told_before_any_work(asked, message, tmp_path):
    with pytest.raises(harness.BadInput, match=message):
        harness.run(**{"methods": "gkd", "tasks": "amc23", "results": tmp_path / "results"} | asked)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: harness.leaderboard([], results=MICRO), "tasks is empty"),
        (lambda: harness.compare(["gkd"], "vcrd", "amc23", results=MICRO), "is not a row"),
        (lambda: harness.compare("gkd", "vcrd", [], results=MICRO), "tasks is empty"),
        (lambda: harness.grade("amc23@micro", None), "are not rows"),
        (lambda: harness.grade(["amc23"], []), "is not a task; give one name"),
        (lambda: harness.load_results(__file__), "is a file"),
        (lambda: harness.load_results([MICRO]), "is no results folder"),
        (lambda: harness.completions(None, results=MICRO), "run_id=None is no run id"),
        (lambda: harness.leaderboard(results=MICRO, anchor="gkd"), 'anchor is for view="compute"'),
        (lambda: harness.compare("gkd", "vcrd", results=MICRO, cost="tokens"), 'cost is for view="compute"'),
    ],
)
def test_slips_of_the_other_functions_are_told(call, message):
    with pytest.raises(harness.BadInput, match=message):
        call()


def test_without_a_folder_they_read_that_of_the_commands(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_RESULTS", str(MICRO))
    assert len(harness.load_results()) == len(harness.load_results(MICRO)) > 0
    run_id = harness.load_results().run_id[0]
    assert len(harness.completions(run_id)) == 150
    monkeypatch.delenv("HARNESS_RESULTS")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(harness.BadInput, match="no records in results"):
        harness.leaderboard()


def test_a_results_folder_that_is_not_there_is_told(tmp_path):
    with pytest.warns(UserWarning, match="does not exist"):
        assert harness.load_results(tmp_path / "none").empty


def test_names_behind_commas_are_several(tmp_path):
    found = harness.compare("kd", "gkd", "amc23,humaneval", results=MICRO, view="steps")
    assert list(found.task) == ["amc23@micro", "humaneval@micro"]
    with pytest.raises(harness.BadInput, match="unknown method 'gdk'"):
        harness.run("kd,gdk", "amc23", results=tmp_path)
