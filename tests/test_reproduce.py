"""``harness reproduce``: rows and questions of papers run by the ordinary loop; what cannot be run is named."""

import json
from pathlib import Path

import numpy as np
import pytest
from sample_records import make_record, make_rows

from harness.cli import main
from harness.papers import page, spec
from harness.papers.reproduce import ReproduceRequest, Reproduction
from harness.records import reported
from harness.records.store import Store
from harness.stats import intervals
from results.scripts import answer

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PARITY = str(Path(__file__).parent / "plugin/parity_plugin.py")


def fact(value, source="assumed"):
    return f"{{ value = {json.dumps(value)}, source = {json.dumps(source)} }}"


def told(value, status="known"):
    return {"value": value, "status": status, "source": "a test"}


@pytest.fixture
def paper(models, prompts_file, tmp_path, monkeypatch):
    """A made-up paper of two cells, a task by path and one whose data is not here, on random models."""
    (tmp_path / "data/parity").mkdir(parents=True)
    (tmp_path / "data/parity/test.jsonl").write_text("".join(f'{{"number": {i}}}\n' for i in range(4)))
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HARNESS_HUB", "http://127.0.0.1:9")
    cell = {"dataset": "made up", "family": "maths", "metric": told("accuracy"), "decoding": told(None, "unknown")}
    cell |= {"judge": told(None), "student": told("s"), "teacher": told("t")}
    cells = [
        cell | {"id": "parity", "task": PARITY, "value": told(75.0), "n": told(4), "count": told(3, "deduced")},
        cell | {"id": "amc23", "task": "amc23", "value": told(50.0), "n": told(40), "count": told(20, "deduced")},
    ]
    printed = {"schema_version": 1, "kind": "reported", "id": "made_up", "method": "kd", "title": "Made up"}
    printed |= {"authors": [], "year": None, "url": "", "about": "a test", "notes": [], "cells": cells}
    results = tmp_path / "results"
    (results / "reported").mkdir(parents=True)
    (results / "reported/made_up.json").write_text(json.dumps(printed))
    estimate = dict.fromkeys(spec.LENGTHS, 10) | {"device": "cpu-core"}
    lines = ['reported = "made_up"\nmethod = "kd"\nabout = "A test."\n[paper]\nseeds = [3, 4]']
    lines += ["[pair.tiny]", 'cells = ["parity", "amc23"]', "[pair.tiny.models]"]
    lines += [f"student = {fact(str(models[0]))}", f"teacher = {fact(str(models[1]))}", "[pair.tiny.data]"]
    lines += [f"prompts = {fact(str(prompts_file))}", f"labelled = {fact(str(prompts_file))}", "[pair.tiny.training]"]
    lines += [f"steps = {fact(2)}", f"batch = {fact(2)}", f"max_tokens = {fact(64)}", "[pair.tiny.rollout]"]
    lines += [f"max_new_tokens = {fact(6)}", "[pair.tiny.teacher_text]", f"max_new_tokens = {fact(6)}"]
    lines += ["[pair.tiny.estimate]", *(f"{key} = {fact(value)}" for key, value in estimate.items())]
    file = tmp_path / "made_up.toml"
    file.write_text("\n".join(lines))
    return file, results


def test_a_cell_that_cannot_be_had_is_named_and_the_rest_runs(paper, capsys):
    file, results = paper
    assert main(["reproduce", str(file), "--results", str(results), "--json"]) == 1
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    (missing,) = found["missing"]
    assert missing["cell"] == "amc23" and "$HARNESS_DATA/amc23/test.jsonl" in missing["reason"]
    assert "could not run kd on amc23" in captured.err
    parity, amc = found["cells"]
    assert parity["seeds"] == [3, 4] and parity["theirs"] == 75 and 0 <= parity["ours"] <= 100
    error = (parity["high"] - parity["low"]) / (2 * 1.959964)
    expected = (parity["ours"] - 75) / np.hypot(error, parity["theirs_error"])
    assert parity["gap_in_errors"] == pytest.approx(expected)
    assert amc["ours"] is None and amc["theirs"] == 50
    text = (results / "reproductions/made_up-paper.md").read_text("utf-8")
    assert "| parity | 75 (3 of 4, deduced) | 21.7 |" in text and "| amc23 | 50 (20 of 40, deduced)" in text
    assert "## Not run" in text and "not measured" in text
    assert json.loads((results / "reproductions/made_up-paper.json").read_text("utf-8")) == found


def test_what_is_had_is_never_run_again(paper, capsys, monkeypatch):
    file, results = paper
    assert main(["reproduce", str(file), "--results", str(results), "--only", "parity"]) == 0
    files = {path: path.read_bytes() for path in (results / "records").rglob("*.json")}
    assert len(files) == 2
    monkeypatch.setattr("harness.training.loop.train", lambda *_: pytest.fail("trained a second time"))
    assert main(["reproduce", str(file), "--results", str(results), "--only", "parity"]) == 0
    assert {path: path.read_bytes() for path in (results / "records").rglob("*.json")} == files
    records = Store(results).all()[0]
    assert all(
        r["spec"]["training"]["batch"] == 2 and r["spec"]["teacher_text"]["max_new_tokens"] == 6 for r in records
    )


def test_a_model_that_cannot_be_had_stops_nobody_else(paper, capsys):
    file, results = paper
    printed = json.loads((results / "reported/made_up.json").read_text())
    printed["cells"][1] |= {"task": PARITY, "value": told(75.0), "n": told(4), "count": told(3, "deduced")}
    (results / "reported/made_up.json").write_text(json.dumps(printed))
    text = file.read_text().replace('cells = ["parity", "amc23"]', 'cells = ["parity"]')
    pair = text[text.index("[pair.tiny]") :].replace("pair.tiny", "pair.gone").replace('["parity"]', '["amc23"]')
    start = pair.index("student = ")
    pair = pair[:start] + f"student = {fact('./nowhere')}" + pair[pair.index("\n", start) :]
    file.write_text(f"{text}\n{pair}")
    assert main(["reproduce", str(file), "--results", str(results), "--seed", "0"]) == 1
    captured = capsys.readouterr()
    assert "no model folder at ./nowhere" in captured.out and "| parity | 75" in captured.out
    assert len(list((results / "records").rglob("*.json"))) == 1


# -- the question, in the micro world ------------------------------------------------------------------------

SMALL = """
reported = "vcrd"
method = "vcrd"
about = "The question with two arms and a control; the method is a reconstruction."
[micro]
recipe = "micro"
tasks = ["amc23@micro", "alpaca_eval@micro"]
seeds = [0]
target = "vcrd"
control = "vcrd@shuffled"
references = ["untouched"]
[[micro.arm]]
name = "sft"
[[micro.arm]]
name = "vcrd@shuffled"
method = "vcrd"
settings = { shuffle = true }
[[micro.arm]]
name = "vcrd"
[micro.estimate]
"""


def test_the_question_runs_end_to_end_at_equal_steps_and_equal_compute(tmp_path, capsys, monkeypatch):
    estimate = "\n".join([*(f"{key} = {fact(10)}" for key in spec.LENGTHS), f"device = {fact('cpu-core')}"])
    (tmp_path / "small.toml").write_text(SMALL + estimate)
    results = tmp_path / "results"
    words = [
        "reproduce",
        str(tmp_path / "small.toml"),
        "--scale",
        "micro",
        "--results",
        str(results),
        "--cost",
        "flops",
    ]
    for setting in ("training.steps=2", "training.batch=2", "evaluation.limit=3", "data.limit=4"):
        words += ["--set", setting]
    assert main([*words, "--dry-run"]) == 0
    assert "equal compute" in capsys.readouterr().out and not results.exists()
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["missing"] == [] and len(found["answer"]) == 4
    assert {(f["view"], f["scope"], f["other"]) for f in found["findings"]} == {
        (view, scope, other)
        for view in ("steps", "compute")
        for scope in ("all tasks", "amc23@micro", "alpaca_eval@micro")
        for other in ("sft", "vcrd@shuffled")
    }
    assert set(found["budget"]["steps"]) == {"sft"} and found["budget"]["steps"]["sft"] > 2
    shuffled = next(r for r in Store(results).all()[0] if r["method"]["settings"].get("shuffle"))
    assert shuffled["convention"]["token_weights"].endswith("/shuffled")
    monkeypatch.setattr("harness.training.loop.train", lambda *_: pytest.fail("trained a second time"))
    assert main(words) == 0
    text = capsys.readouterr().out
    assert text.strip() == (results / "reproductions/small-micro.md").read_text("utf-8").strip()
    for word in ("reconstruction", "## Equal steps", "## Equal compute", "not comparable", "generated problems"):
        assert word in text
    # The three arms, and sft again at equal compute; the reference is not trained.
    assert "3 methods, 1 training seeds (0), 4 trained students, 10 records" in text


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (["--cost", "tokens"], "--cost is for the paper's question; give --scale micro or --scale small, too"),
        (["--view", "steps"], "--view is for the paper's question"),
        (["--scale", "micro", "--view", "steps", "--cost", "tokens"], "--cost is the unit of equal compute"),
    ],
)
def test_options_that_nothing_would_read_are_refused(words, refusal, tmp_path, capsys):
    assert main(["reproduce", "vcrd", "--dry-run", *words, "--results", str(tmp_path)]) == 2
    assert refusal in capsys.readouterr().err


def test_arms_with_steps_of_their_own_are_compared_at_equal_compute_alone(tmp_path, capsys):
    """The steps are those at which all cost the same; an arm that does not is run again with others."""
    estimate = "\n".join([*(f"{key} = {fact(10)}" for key in spec.LENGTHS), f"device = {fact('cpu-core')}"])
    text = SMALL.replace(', "alpaca_eval@micro"', "").replace('name = "sft"', 'name = "sft"\nsteps = 1')
    half, file = text.replace('name = "vcrd"\n', 'name = "vcrd"\nsteps = 2\n'), tmp_path / "own.toml"
    whole = half.replace('name = "vcrd@shuffled"', 'name = "vcrd@shuffled"\nsteps = 2')
    words = ["reproduce", str(file), "--scale", "micro", "--results", str(tmp_path / "results")]
    words += ["--set", "training.batch=2", "evaluation.limit=3", "data.limit=4"]
    for content, more, refusal in (
        (half, [], "give every arm steps of its own"),
        (whole.replace("steps = 1", "steps = 0"), [], "arm sft: steps 0 is not a whole number"),
        (whole, ["--view", "steps"], "own asks at equal compute alone in the micro world"),
    ):
        file.write_text(content + estimate)
        assert main([*words, *more]) == 2 and refusal in capsys.readouterr().err
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["missing"] == [] and {f["view"] for f in found["findings"]} == {"compute"} == set(found["views"])
    assert found["budget"]["base"] == {"sft": 1, "vcrd@shuffled": 2, "vcrd": 2}
    # Three base runs; of the likelihood's only the one that costs as much as the others is compared.
    assert set(found["budget"]["steps"]) == {"sft"} and len(Store(tmp_path / "results").all()[0]) == 5
    shown = {run["arm"]: run["run_ids"] for run in found["runs"] if run["view"] == "compute"}
    (run,) = shown["sft"]
    assert Store(tmp_path / "results").get(run)["cost"]["steps"] == found["budget"]["steps"]["sft"]


def outcome(tmp_path, gains, n=60, seeds=5):
    """An outcome whose arms answer ``gains`` problems more than sft on each of two tasks."""
    store = Store(tmp_path / "results")
    found = Reproduction(
        spec.load("vcrd"),
        ReproduceRequest("micro", results=store.root, views=("steps",)),
        reported.find("vcrd"),
        {},
        [],
    )
    rng = np.random.default_rng(0)
    for task in ("amc23@micro", "humaneval@micro"):
        hard = rng.permutation(n)
        for arm, gain in gains.items():
            for seed in range(seeds):
                solved = set(hard[: 20 + gain + int(rng.integers(-1, 2))].tolist())
                scores = [float(i in solved) for i in range(n)]
                name = arm.partition("@")[0]
                settings = {"shuffle": "@" in arm} if name == "vcrd" else {}
                record = make_record(name, task=task, seed=seed, scores=scores, settings=settings)
                store.add(record, make_rows(scores))
                found.records.setdefault(("steps", arm, task), []).append(store.get(record["run_id"]))
    return found, store


@pytest.mark.parametrize(
    ("gains", "baselines", "control"),
    [
        ({"sft": 0, "gkd": 0, "vcrd@shuffled": 0, "vcrd": 20}, "beats sft, gkd", "where the weights fall matters"),
        (
            {"sft": 0, "gkd": 0, "vcrd@shuffled": 20, "vcrd": 20},
            "beats sft, gkd",
            "the gain does not survive the control",
        ),
        (
            {"sft": 20, "gkd": 0, "vcrd@shuffled": 0, "vcrd": 0},
            "loses to sft; is not distinguishable from gkd",
            "no gain",
        ),
        ({"sft": 0, "gkd": 0, "vcrd@shuffled": 20, "vcrd": 0}, "beats none", "the same weights do better shuffled"),
    ],
)
def test_the_answer_is_what_the_records_say(tmp_path, gains, baselines, control):
    found, store = outcome(tmp_path, gains)
    findings = page.findings_of(found, store.completions)
    said = page.words(found, findings)
    assert baselines in said[0] and control in said[1]
    text = page.answer_page(found, findings, page.standings(found, store.completions), store.completions)
    assert all(line in text for line in said)
    pooled = next(f for f in findings if f.scope == "all tasks" and f.other == "sft")
    assert pooled.problems == 120 and pooled.seeds == (0, 1, 2, 3, 4)
    raw = [f.comparison.p for f in findings if f.scope == "all tasks"]
    assert [f.p_holm for f in findings if f.scope == "all tasks"] == intervals.holm(raw)


def test_too_little_is_said_to_be_too_little(tmp_path):
    found, store = outcome(tmp_path, {"vcrd": 0})
    findings = page.findings_of(found, store.completions)
    assert findings == [] and "there is no answer" in page.words(found, findings)[0]


def test_tasks_without_a_common_seed_are_compared_one_by_one(tmp_path):
    found, store = outcome(tmp_path, {"sft": 0, "vcrd": 20})
    for (_, _, task), rows in found.records.items():
        rows[:] = [row for row in rows if (row["seed"] < 2) == (task == "amc23@micro")]
    findings = page.findings_of(found, store.completions)
    assert [f.scope for f in findings] == ["amc23@micro", "humaneval@micro"]
    assert [(m["arm"], m["cell"], m["reason"]) for m in found.missing] == [
        ("sft", "all tasks", "sft and vcrd share no seed on all tasks")
    ]


def test_the_published_answer_is_what_the_records_say():
    """The page and the two sentences that quote it, from the records as they are."""
    found, text, facts = answer.written("vcrd", ROOT / "results/micro")
    assert (ROOT / "results/micro/reproductions/vcrd-micro.md").read_text("utf-8").strip() == text.strip()
    over_all = [f for f in facts["findings"] if f["scope"] == "all tasks"]
    (control,) = (f for f in over_all if (f["view"], f["other"]) == ("steps", found.question.control))
    compared = control["comparison"]
    points, low, high = (f"{100 * n:+.1f}" for n in (compared["difference"], *compared["interval"]))
    losses = [f["other"] for f in over_all if (f["view"], f["verdict"]) == ("compute", "worse")]
    for file in ("README.md", "results/micro/README.md"):
        shown = " ".join((ROOT / file).read_text("utf-8").split())
        assert f"({points} points, 95 % {low} to {high}, over {control['problems']} problems and five seeds)" in shown
        assert f"At equal compute it loses to plain {' and '.join(losses)}." in shown


@pytest.mark.parametrize("name", ["minillm", "distillm2"])
def test_the_answers_of_the_small_world_are_what_their_records_say(name):
    _, text, facts = answer.written(name, ROOT / "results/small", "small")
    assert (ROOT / f"results/small/reproductions/{name}-small.md").read_text("utf-8").strip() == text.strip()
    page = " ".join((ROOT / f"results/papers/{name}.md").read_text("utf-8").split())
    assert facts["missing"] == [] and all(line in page for line in facts["answer"])


def test_the_answer_of_the_arena_instruction_is_what_its_records_say():
    folder = ROOT / "results/instruction"
    _, text, facts = answer.written(str(folder / "instruction.toml"), folder)
    assert (folder / "reproductions/instruction-micro.md").read_text("utf-8").strip() == text.strip()
    shown = " ".join((folder / "README.md").read_text("utf-8").split())
    of = {(f["view"], f["other"]): f for f in facts["findings"] if f["scope"] == "all tasks"}
    beaten_by = [of["compute", name] for name in ("seqkd", "kd", "rkl")]
    assert all(f["verdict"] == "worse" for f in beaten_by)
    first, second, third = (f"{-100 * f['comparison']['difference']:.1f}" for f in beaten_by)
    assert f"loses to seqkd, kd and rkl by {first}, {second} and {third} points" in shown
    for other in ("gkd", "vcrd@shuffled"):
        assert f"{abs(100 * of['steps', other]['comparison']['difference']):.1f}" == "0.0"
    assert "differs by 0.0 points from gkd and by 0.0 from its own weights shuffled" in shown
