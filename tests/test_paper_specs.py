"""Papers as runs: rows of printed tables, what cannot be run, questions without a control, published records reused."""

import json
import re
from pathlib import Path

import pytest
from sample_records import make_record, make_rows

from harness.cli import main
from harness.papers import paper_cost, printed_rows, spec
from harness.papers.reproduce import ReproduceRequest, Reproduction
from harness.records import reported
from harness.records.store import Store

pytestmark = pytest.mark.usefixtures("no_hub")  # a dry run asks for configuration and tokenizer

ROOT = Path(__file__).parent.parent
PAPERS = (
    "abkd",
    "distillm",
    "distillm2",
    "gkd",
    "minillm",
    "opsd",
    "pw_opsd",
    "qwen3-opd",
    "taid",
    "thinkingmachines",
    "vcrd",
)


def test_every_paper_that_is_asked_for_has_a_file():
    assert set(PAPERS) <= set(spec.names())


@pytest.mark.parametrize("name", PAPERS)
def test_a_dry_run_says_what_it_takes_and_what_is_left_out(name, tmp_path, capsys, monkeypatch):
    assert main(["reproduce", name, "--dry-run", "--results", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    found = spec.load(name)
    assert all(f"left out: {what}: {why}" in text for what, why in found.left_out.items())
    assert "device-hours" in text or "nothing can be run here" in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", PAPERS)
def test_the_micro_question_names_known_methods_and_is_costed(name, capsys):
    question = spec.load(name).questions["micro"]
    assert question.target in {arm.name for arm in question.arms} and len(question.baselines) >= 2
    assert main(["reproduce", name, "--scale", "micro", "--view", "steps", "--dry-run", "--json"]) == 0
    pieces = json.loads(capsys.readouterr().out)["pieces"]
    assert {piece["arm"] for piece in pieces} == {arm.name for arm in question.arms} | set(question.references)


def test_a_printed_row_becomes_a_run_with_its_own_method():
    found, paper = spec.load("abkd"), reported.find("abkd")
    (pair,) = found.pairs
    rows = {row.cell: row for row in printed_rows.printed_rows_of(pair, paper)}
    assert list(rows) == ["qwen/SeqKD/GSM8K", "qwen/KD/GSM8K", "qwen/ABKD/GSM8K"]
    outcome = Reproduction(found, ReproduceRequest(only=["qwen/KD/GSM8K"]), paper)
    (cost,) = paper_cost.estimates(outcome)
    assert cost.arm == "kd (qwen)" and cost.cells == ("qwen/KD/GSM8K",) and not outcome.missing


MINE = """
reported = "abkd"
method = "abkd"
about = "Made up."
[shared.training]
steps = { value = 2, source = "assumed" }
[pair.p.printed]
locator = "Table 12, PDF p. 43 (absent from the arXiv version)"
student = "Qwen2.5-1.5B-Instruct"
rows = { "KD" = "kd", "ABKD" = "nowhere" }
benchmarks = { "GSM8K" = "gsm8k", "MATH" = "no_such_task" }
[pair.p.models]
student = { value = "Qwen/Qwen2.5-1.5B-Instruct", source = "the table" }
teacher = { value = "Qwen/Qwen2.5-Math-7B-Instruct", source = "the table" }
[pair.p.data]
prompts = { value = "data:gsm8k/train.jsonl", source = "assumed" }
labelled = { value = "data:gsm8k/train.jsonl", source = "assumed" }
[pair.p.estimate]
prompts = { value = 10, source = "assumed" }
prompt_tokens = { value = 10, source = "assumed" }
response_tokens = { value = 10, source = "assumed" }
answer_tokens = { value = 10, source = "assumed" }
device = { value = "A100-80GB", source = "assumed" }
[left_out]
"RL" = "needs a reward"
"""


def test_what_is_not_at_hand_is_named_and_the_rest_is_costed(tmp_path, capsys):
    (tmp_path / "mine.toml").write_text(MINE)
    assert main(["reproduce", str(tmp_path / "mine.toml"), "--dry-run", "--json", "--results", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [piece["arm"] for piece in found["pieces"]] == ["kd (p)"] and found["left_out"] == {"RL": "needs a reward"}
    reasons = {m["cell"]: m["reason"] for m in found["missing"]}
    assert reasons["p/KD/MATH"] == "there is no task no_such_task here"
    assert reasons["p/ABKD/GSM8K"] == "there is no method nowhere here"
    assumed = found["pieces"][0]["assumed"]
    assert "training.batch = 32 (assumed: the recipe's default)" in assumed


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"KD" = "kd"', '"KDD" = "kd"', "unknown row of Table 12"),
        ('"MATH" = ', '"MATHS" = ', "unknown benchmark of Table 12"),
        ('student = "Qwen2.5-1.5B-Instruct"', 'student = "Qwen9"', "prints no 'Table 12"),
        ('student = "Qwen2.5-1.5B-Instruct"\n', "", "printed.student must be text"),
        ('rows = { "KD" = "kd", "ABKD" = "nowhere" }', "rows = {}", "printed.rows must be"),
        ("[pair.p.printed]", "[pair.p.printed]\npage = 3", "unknown key 'page'"),
        ('"RL" = "needs a reward"', '"RL" = 3', "left_out must say in text why"),
    ],
)
def test_a_malformed_row_names_the_place(tmp_path, capsys, old, new, message):
    assert old in MINE
    (tmp_path / "mine.toml").write_text(MINE.replace(old, new, 1))
    assert main(["reproduce", str(tmp_path / "mine.toml"), "--dry-run", "--results", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_scale_that_the_file_does_not_ask_is_refused(capsys):
    assert main(["reproduce", "vcrd", "--scale", "small", "--dry-run"]) == 2
    assert "asks nothing of the small world" in capsys.readouterr().err


def test_published_records_are_graded_again_and_nothing_is_trained(tmp_path, capsys, monkeypatch):
    """The answer of a paper whose rows all stand in results/objectives: the same scores under the current protocol."""
    monkeypatch.setattr("harness.students.train_run", lambda *_: pytest.fail("something was trained"))
    published = ROOT / "results/objectives"
    text = (ROOT / "harness/papers/abkd.toml").read_text("utf-8").replace('["untouched", "teacher"]', '["untouched"]')
    (tmp_path / "abkd.toml").write_text(text)
    words = ["reproduce", str(tmp_path / "abkd.toml"), "--scale", "micro", "--view", "steps", "--seed", "0", "1"]
    assert main([*words, "--published", str(published), "--results", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert not found["missing"] and {f["other"] for f in found["findings"]} == {"sft", "seqkd", "kd", "rkl"}
    then = {(r["training_id"], r["task"]): r for r in Store(published).all()[0]}
    made = Store(tmp_path).all()[0]
    assert len(made) == 11
    for record in made:
        old = then[record["training_id"], record["task"]]
        assert record["score"] == old["score"] and record["cost"] == old["cost"]
        assert record["provenance"] == old["provenance"] and record["protocol"]["hash"] != old["protocol"]["hash"]
        assert f"graded again from the completions of {old['run_id']}: 0 of 150 verdicts differ" in record["warnings"]


def test_a_record_of_other_prompts_or_decoding_is_not_taken(tmp_path, capsys, monkeypatch):
    from harness.rerun import graded_again

    (record,) = Store(ROOT / "results/objectives").all()[0][:1]
    protocol = dict(record["protocol"])
    assert graded_again._asked_alike(record, protocol)
    for key in graded_again.ASKED:
        assert not graded_again._asked_alike(record, protocol | {key: "other"})
    assert graded_again._asked_alike(record, protocol | {"version": "99", "grader": {}})


# -- beside what was measured --------------------------------------------------------------------------------


def test_printed_cells_stand_beside_ours_with_what_differs(tmp_path, capsys):
    store = Store(tmp_path / "results")
    scores = (1.0,) * 30 + (0.0,) * 10
    store.add(make_record("gkd", task="gsm8k", scores=scores), make_rows(scores))
    store.add(make_record("kd", task="gsm8k", scores=scores), make_rows(scores))
    assert main(["table", "--task", "gsm8k", "--reported", "--results", str(store.root)]) == 0
    ours, theirs = capsys.readouterr().out.split("### Printed in papers' tables, not measured here")
    line = next(line for line in theirs.splitlines() if "abkd: Table 12" in line and "| kd |" in line)
    assert "75.0 [" in line and "student: Qwen/Qwen2.5-1.5B-Instruct there" in line and "problems: 1319 there" in line
    assert "not measured here" in next(line for line in theirs.splitlines() if "| abkd |" in line)
    assert "abkd" not in ours and "take no part in any rank" in theirs


def test_generated_problems_have_no_printed_cells(tmp_path, capsys):
    store = Store(tmp_path / "results")
    store.add(make_record("kd", task="gsm8k@micro", scores=(1.0, 0.0)), make_rows((1.0, 0.0)))
    assert main(["table", "--task", "gsm8k@micro", "--reported", "--results", str(store.root)]) == 0
    assert "Printed in papers" not in capsys.readouterr().out


def test_the_board_shows_printed_cells_of_measured_tasks_apart(tmp_path):
    store = Store(tmp_path / "results")
    scores = (1.0,) * 30 + (0.0,) * 10
    store.add(make_record("kd", task="gsm8k", scores=scores), make_rows(scores))
    assert main(["board", "--results", str(store.root), "--out", str(tmp_path / "board")]) == 0
    board = tmp_path / "board"
    theirs = (board / "papers.html").read_text("utf-8")
    (abkd,) = re.findall(r'<section [^>]*"p-abkd">.*?</section>', theirs, re.DOTALL)
    assert "Qwen2.5-Math-7B-Instruct" in abkd and "seqkd on gsm8k (printed: 75.8)" in abkd
    assert "never ranked with measured scores" in theirs
    # Where measured rows stand, no printed one does.
    for page in (board / "index.html", *(board / "tasks").glob("*.html")):
        ours = page.read_text("utf-8")
        assert 'data-value="kd"' in ours and "abkd" not in ours and "75.8" not in ours, page.name
