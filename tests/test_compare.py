"""``harness compare``, and rows that stand together at equal steps or equal cost."""

import copy
import json
import math
import re

import pytest
from sample_records import NOTE, make_record, make_rows

import harness
from harness.cli import main
from harness.leaderboard import formats, labels
from harness.leaderboard.table import View, leaderboard, render
from harness.leaderboard.text_tables import amount, percent, spread
from harness.metrics import PERCENT
from harness.records.store import Store
from harness.stats import intervals

TASK = "humaneval@micro"


def right(count, total=40):
    return (1.0,) * count + (0.0,) * (total - count)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def add(store, method, scores, cost=None, **changes):
    record = make_record(method, scores=scores, **changes)
    record["cost"] = record["cost"] | (cost or {})
    store.add(record, make_rows(scores))
    return record


def compare(store, capsys, *words):
    code = main(["compare", *words, "--results", str(store.root)])
    captured = capsys.readouterr()
    return code, captured.out.strip(), captured.err.strip()


def test_a_sure_difference_is_one_sentence_with_all_it_rests_on(store, capsys):
    add(store, "kd", right(10))
    add(store, "gkd", right(20))
    code, said, _ = compare(store, capsys, "kd", "gkd", "--task", "humaneval")
    assert code == 0 and said.count("\n") == 0
    assert f"On {TASK} (pass@1, 40 problems × 1 seed) gkd is better than kd by 25.0 points [95 % +" in said
    assert "(50.0 against 25.0; p = 0.002, exact McNemar)" in said and "no more problems or seeds are needed" in said
    assert "kd is worse than gkd by 25.0 points [95 % -" in compare(store, capsys, "gkd", "kd", "--task", TASK)[1]


def test_an_open_question_says_what_would_settle_it(store, capsys):
    add(store, "kd", right(20))
    add(store, "vcrd", (0.0, 0.0, *right(21, 38)))
    _, said, aside = compare(store, capsys, "kd", "vcrd", "--task", TASK)
    assert "vcrd (reconstruction) is not distinguishable from kd" in said and "more problems would settle" in said
    assert NOTE in aside and "generated problems" in aside and "one training seed each" in aside


def test_numbers_needed_are_those_of_the_statistics(store, capsys):
    for seed, (a, b) in enumerate([(18, 22), (20, 22), (16, 20)]):
        add(store, "kd", right(a), seed=seed)
        add(store, "gkd", right(b), seed=seed)
    code, out, _ = compare(store, capsys, "kd", "gkd", "--task", TASK, "--json")
    (found,) = json.loads(out)["comparisons"]
    assert code == 0 and found["seeds"] == [0, 1, 2] and found["problems"] == 40
    scores = [[list(right(k)) for k in row] for row in ((18, 20, 16), (22, 22, 20))]
    expected = intervals.compare(*scores, seeds=intervals.pooled_seed_variance(scores))
    assert found["comparison"]["difference"] == pytest.approx(expected.difference)
    assert found["comparison"]["p"] == pytest.approx(expected.p) == found["p_holm"]
    more = intervals.problems_needed(expected, 3) - 40
    assert found["more_problems"] == (None if more == math.inf else max(more, 0))


def test_several_tasks_are_adjusted_together(store, capsys):
    for task in (TASK, "amc23@micro"):
        add(store, "kd", right(20), task=task)
        add(store, "gkd", (*right(21, 26), *right(0, 14)), task=task)
    _, out, _ = compare(store, capsys, "kd", "gkd", "--task", TASK, "--task", "amc23", "--json")
    first, second = json.loads(out)["comparisons"]
    assert first["p_holm"] == min(1, 2 * first["comparison"]["p"]) == second["p_holm"]


def test_without_a_task_it_compares_on_all_that_both_have_and_together(store, capsys):
    for task in (TASK, "amc23@micro"):
        for method, count in (("kd", 10), ("gkd", 20)):
            add(store, method, right(count), task=task)
    add(store, "kd", right(3), task="mbpp@micro")
    _, said, _ = compare(store, capsys, "kd", "gkd")
    first, second, whole = said.splitlines()
    assert first.startswith("On amc23@micro (") and second.startswith(f"On {TASK} (")
    assert whole.startswith(f"On amc23@micro and {TASK} together (pass@1, 80 problems × 1 seed) gkd is better than kd")
    of_all = json.loads(compare(store, capsys, "kd", "gkd", "--json")[1])["together"]
    assert of_all["comparison"]["difference"] == 0.25 and of_all["p_holm"] == intervals.mcnemar(0, 20)
    assert json.loads(compare(store, capsys, "kd", "gkd", "--task", TASK, "--json")[1])["together"] is None


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ({"protocol": {"prompts_sha256": "a"}}, {"protocol": {"prompts_sha256": "a"}}, "have the same problems"),
        ({}, {"metric": "rougeL"}, "pass@1 and rougeL are different scores"),
        ({}, {"world": "real"}, "some problems are generated and some are real"),
        ({}, {"recipe": {"training": {"steps": 9}}}, "kd is not the same student on all tasks"),
        ({}, {"seed": 1}, "no seed is on all tasks"),
    ],
)
def test_problems_that_do_not_add_up_are_not_taken_together(store, capsys, first, second, reason):
    for task, changes in ((TASK, first), ("mbpp@micro", second)):
        worth = 0.5 if "metric" in changes else 1.0
        for method, count in (("kd", 10), ("gkd", 20)):
            add(
                store, method, tuple(worth * score for score in right(count)), **{"task": task} | copy.deepcopy(changes)
            )
    code, said, aside = compare(store, capsys, "kd", "gkd")
    assert code == 0 and len(said.splitlines()) == 2 and reason in aside


def test_a_task_that_was_not_asked_for_and_cannot_be_compared_is_left_out_aloud(store, capsys):
    for method in ("kd", "gkd"):
        add(store, method, right(10 if method == "kd" else 20))
        add(store, method, right(4), task="mbpp@micro", seed=int(method == "gkd"))
    code, said, aside = compare(store, capsys, "kd", "gkd")
    assert code == 0 and said.startswith(f"On {TASK}") and "left out: kd has the seeds 0 on mbpp@micro" in aside
    assert compare(store, capsys, "kd", "gkd", "--task", "mbpp")[0] == 2
    for words, reason in (
        (["kd", "gdk"], "unknown method among the records of all tasks 'gdk'; did you mean gkd"),
        (["kd", "far"], "kd and far have no task in common: kd is on humaneval@micro, mbpp@micro; far is on aime24"),
        (["kd", "gkd", "--cost", "tokens"], "--cost is the unit of --view compute"),
    ):
        if "far" in words:
            add(store, "far", right(4), task="aime24")
        code, _, error = compare(store, capsys, *words)
        assert code == 2 and reason in error


def test_the_shuffled_control_has_a_name(store, capsys):
    add(store, "vcrd", right(12), settings={"shuffle": False})
    add(store, "vcrd", right(11), settings={"shuffle": True})
    code, said, _ = compare(store, capsys, "vcrd", "vcrd@shuffled", "--task", TASK)
    assert code == 0 and "vcrd@shuffled (reconstruction) is not distinguishable from vcrd (reconstruction)" in said
    (section,) = leaderboard(store.all()[0])
    assert {row.method for row in section.rows} == {"vcrd", "vcrd@shuffled"}


def test_variants_and_recipes_are_told_apart(store, capsys):
    add(store, "gkd", right(12), variant="trl")
    add(store, "sft", right(10), recipe={"training": {"steps": 5}})
    add(store, "sft", right(14), recipe={"training": {"steps": 9}})
    code, said, _ = compare(store, capsys, "sft:training.steps=9", "gkd@trl", "--task", TASK)
    assert code == 0 and "gkd@trl" in said and "30.0 against 35.0" in said
    assert compare(store, capsys, "sft:training.steps=5", "sft:training.steps=9", "--task", TASK)[0] == 0
    code, _, error = compare(store, capsys, "sft", "gkd@trl", "--task", TASK)
    assert code == 2 and "sft is sft:training.steps=5 or sft:training.steps=9" in error


def test_an_untrained_model_stands_against_every_student(store, capsys):
    add(store, "teacher", right(40))
    for seed in (3, 4):
        add(store, "kd", right(10), seed=seed)
    code, said, _ = compare(store, capsys, "kd", "teacher", "--task", TASK)
    assert code == 0 and "× 2 seeds) teacher is better than kd" in said


@pytest.mark.parametrize(
    ("a", "b", "task", "message"),
    [
        ("kdd", "gkd", TASK, "unknown method among the records of humaneval@micro 'kdd'; did you mean"),
        ("kd", "gkd", "humanevil@micro", "unknown task among the records"),
        ("kd", "kd", TASK, "are the same records"),
        ("kd:steps=3", "gkd", TASK, "unknown setting in 'kd:steps=3'"),
        ("kd:mode=y", "gkd", TASK, "has no row with mode=y; mode is x"),
        ("kd", "far", TASK, "no seed is shared, so nothing can be paired; run far with --seed 0"),
        ("kd", "other", TASK, "share no protocol on humaneval@micro"),
        ("kd", "gone", TASK, "are missing, damaged or of other problems"),
        ("kd", "short", TASK, "answered different problems"),
    ],
)
def test_what_cannot_be_compared_is_one_line(store, capsys, a, b, task, message):
    add(store, "kd", right(10), settings={"mode": "x"})
    add(store, "gkd", right(12))
    add(store, "far", right(12), seed=7)
    add(store, "other", right(12), protocol={"decoding": {"temperature": 0.8}})
    gone = add(store, "gone", right(12))
    (store.completions_dir / f"{gone['run_id']}.jsonl").unlink()
    store.add(make_record("short", scores=right(12)), make_rows(right(12, 39)))
    code, out, error = compare(store, capsys, a, b, "--task", task)
    refusals = [line for line in error.splitlines() if not line.startswith("warning: ")]
    assert code == 2 and out == "" and len(refusals) == 1 and message in refusals[0]


def test_nothing_recorded_is_said(store, capsys):
    code, _, error = compare(store, capsys, "kd", "gkd", "--task", TASK)
    assert code == 2 and "nothing is recorded" in error


def test_two_shared_protocols_ask_for_one(store, capsys):
    for method in ("kd", "gkd"):
        for temperature in (0.2, 0.8):
            scores = right(10 if method == "kd" else 12)
            record = add(store, method, scores, protocol={"decoding": {"temperature": temperature}})
    code, _, error = compare(store, capsys, "kd", "gkd", "--task", TASK)
    assert code == 2 and "choose one with --protocol: " in error and "decoding.temperature=0.8" in error
    assert compare(store, capsys, "kd", "gkd", "--task", TASK, "--protocol", record["protocol"]["hash"][:8])[0] == 0


def test_seeds_of_one_side_alone_are_left_out_aloud(store, capsys):
    add(store, "kd", right(10))
    for seed in (0, 1):
        add(store, "gkd", right(12), seed=seed)
    code, _, aside = compare(store, capsys, "kd", "gkd", "--task", TASK)
    assert code == 0 and "seed 1 of gkd left out" in aside


def test_convention_cards_that_differ_beyond_the_method_are_said(store, capsys):
    add(store, "kd", right(10), convention={"divergence": "forward KL", "template": "aaa"})
    add(store, "gkd", right(12), convention={"divergence": "JSD", "template": "bbb"})
    _, _, aside = compare(store, capsys, "kd", "gkd", "--task", TASK)
    assert "convention cards differ beyond the methods: template aaa (kd) | bbb (gkd)" in aside
    assert "template aaa (kd) | bbb (gkd)" in render(leaderboard(store.all()[0]), "html")
    assert "| divergence | JSD | forward KL |" in render(leaderboard(store.all()[0]), "md", cards=True)


# -- equal steps, equal compute ------------------------------------------------------------------------------


@pytest.fixture
def arms(store):
    """Two methods at 10 steps, the cheap one also at 30, where it costs what the dear one does."""
    for method, steps, seconds, count in (("sft", 10, 10.0, 10), ("gkd", 10, 30.0, 16), ("sft", 30, 29.0, 14)):
        recipe = {"training": {"steps": steps, "batch": 2}}
        add(store, method, right(count), cost={"steps": steps, "seconds": seconds}, recipe=recipe)
    add(store, "untouched", right(4))
    return store


def board(store, view):
    return leaderboard(store.all()[0], None, store.completions, view)


def test_equal_steps_stand_in_sections_of_their_own(arms):
    few, many = board(arms, View("steps"))
    assert (few.view, many.view) == ("equal steps: 10", "equal steps: 30")
    assert [row.label for row in few.rows] == ["gkd", "sft", "untouched"]
    assert [(row.label, row.rank) for row in many.rows] == [("sft", 1), ("untouched", None)]
    assert few.rows[0].over_baseline == pytest.approx(6 / 40)


def test_equal_steps_print_one_table_for_rows_that_have_company(arms, capsys):
    add(arms, "gkd", right(11), task="amc23@micro", recipe={"training": {"steps": 30, "batch": 2}}, cost={"steps": 30})
    assert main(["table", "--view", "steps", "--layout", "grid", "--results", str(arms.root)]) == 0
    said = capsys.readouterr().out
    assert re.findall(r"### Equal steps: (\d+)", said) == ["10", "30"] and said.count("| method |") == 2
    assert main(["table", "--view", "steps", "-t", TASK, "--layout", "grid", "--results", str(arms.root)]) == 0
    said = capsys.readouterr().out
    assert said.count("### Equal steps: 10") == said.count("| method |") == 1
    assert "no other row has as many steps: sft (training.steps=30)" in said


def test_budgets_that_differ_by_task_stand_above_the_grid_not_in_its_headings(arms, capsys):
    add(arms, "kd", right(9), task="amc23@micro", cost={"steps": 10, "seconds": 2.0})
    words = ["table", "--view", "compute", "--cost", "seconds", "--layout", "grid", "--results", str(arms.root)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert (
        f"| method | amc23@micro | {TASK} |" in said and f"{TASK}: pass@1, 40 problems, equal compute: 30 s of" in said
    )
    assert f"not measured, so not ranked over all tasks: gkd (training.steps=10): amc23@micro; kd: {TASK}" in said


def test_equal_compute_gives_the_cheap_method_its_longer_run(arms):
    (section,) = board(arms, View("compute", "seconds"))
    assert section.view == "equal compute: 30 s of training, as gkd at 10 steps, within a factor of 1.15"
    assert [(row.method, row.steps, row.rank) for row in section.rows] == [
        ("gkd", 10, 1), ("sft", 30, 2), ("untouched", 10, None)
    ]  # fmt: skip
    assert section.rows[0].over_baseline == pytest.approx(2 / 40)


def test_a_method_without_a_run_at_the_budget_is_named(arms):
    (section,) = board(arms, View("compute", "seconds", anchor="sft"))
    assert section.view.startswith("equal compute: 10 s of training, as sft at 10 steps")
    assert [r.method for r in section.rows] == ["sft", "untouched"]
    (left,) = section.aside
    assert "gkd (training.steps=10): 30 s" in left and "sft (training.steps=30): 29 s" in left and left in section.notes


def test_cost_can_be_counted_in_tokens(arms):
    (section,) = board(arms, View("compute", cost="tokens"))
    assert "tokens" in section.view and {"gkd", "sft"} <= {row.method for row in section.rows}


def test_seconds_of_another_machine_are_not_compared(arms):
    add(arms, "kd", right(9), cost={"steps": 10, "seconds": 30.0}, provenance={"commit": None, "cpu": "another"})
    (section,) = board(arms, View("compute", "seconds", anchor="gkd"))
    assert "kd" not in {row.method for row in section.rows}
    assert any("kd: timed on another machine" in note for note in section.notes)


def test_table_views_from_the_command_line(arms, capsys):
    where = ["--results", str(arms.root)]
    assert main(["table", "--view", "compute", "--cost", "seconds", *where]) == 0
    assert "equal compute: 30 s of training, as gkd" in capsys.readouterr().out
    assert main(["table", "--view", "compute", "--anchor", "kdd", *where]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert main(["table", "--anchor", "gkd", *where]) == 2
    assert main(["table", "--format", "csv", "--layout", "both", *where]) == 2


def test_the_grid_has_methods_by_tasks(store, capsys):
    for task, count in ((TASK, 10), ("amc23@micro", 14)):
        add(store, "vcrd", right(count), task=task)
        add(store, "kd", right(8), task=task)
    add(store, "sft", right(3), task=TASK)
    where = ["--results", str(store.root)]
    assert main(["table", *where]) == 0
    text = capsys.readouterr().out
    assert "| method | amc23@micro | humaneval@micro |" in text and "| vcrd‡ | **35.0 (0.0–100.0)**" in text
    assert (
        "| sft | – | 7.5 (" in text and "ranked over all tasks: sft: amc23@micro" in text and "### amc23@micro" in text
    )
    assert main(["table", "--layout", "grid", "--format", "latex", *where]) == 0
    latex = capsys.readouterr().out
    assert latex.count(r"\begin{tabular}{lrr}") == 1 and r"\textbf{35.0 (0.0--100.0)}" in latex
    assert main(["table", "--layout", "grid", "--json", *where]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["method"] == "vcrd" and rows[0]["tasks"][TASK]["rank"] == 1 and rows[-1]["method"] == "sft"


def test_records_of_another_protocol_are_named_and_left_out_of_the_table(store, capsys):
    add(store, "kd", right(10))
    add(store, "gkd", right(12))
    stray = add(store, "sft", right(39), protocol={"decoding": {"temperature": 0.8}})
    where = ["--results", str(store.root)]
    assert main(["table", "--layout", "grid", *where]) == 0
    captured = capsys.readouterr()
    assert f"so left out of their table: {stray['run_id']}" in captured.err
    assert "97.5" not in captured.out and "| gkd | **30.0 (" in captured.out
    assert main(["table", "--json", *where]) == 0
    captured = capsys.readouterr()
    assert {row["protocol"] for row in json.loads(captured.out) if row["method"] == "sft"} == {
        stray["protocol"]["hash"]
    }
    assert "left out of their table" in captured.err
    assert main(["table", "--protocol", stray["protocol"]["hash"][:10], *where]) == 0
    captured = capsys.readouterr()
    assert "**97.5**" in captured.out and "gkd" not in captured.out and "warning" not in captured.err
    assert main(["table", "--protocol", "zzz", *where]) == 2


def test_records_that_cannot_be_trusted_are_left_out_aloud(store, capsys):
    kept, edited, unknown = (add(store, method, right(10)) for method in ("kd", "gkd", "sft"))
    for record, old, new in ((edited, '"score": 0.25', '"score": 0.95'), (unknown, '_version": 1', '_version": 7')):
        path = store.path_of(record)
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new))
    assert main(["table", "--results", str(store.root)]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("left out: ") == 2 and "95.0" not in captured.out and "sft" not in captured.out
    assert f"{edited['run_id']}.json: left out: was edited" in captured.err and "schema version 7" in captured.err
    with pytest.warns(UserWarning, match="left out"):
        assert set(harness.load_results(store.root)["run_id"]) == {kept["run_id"]}
    copy = store.path_of(kept).with_name("copy.json")
    copy.write_bytes(store.path_of(kept).read_bytes())
    assert main(["table", "--results", str(store.root)]) == 0  # a copy is left out by name
    assert "copy.json" in capsys.readouterr().err


# -- which rows were taken -----------------------------------------------------------------------------------


def spent(steps, tokens):
    cost = {"steps": steps, "student_tokens": tokens, "teacher_forward_tokens": 0, "generated_tokens": 0}
    return {"cost": cost, "recipe": {"training": {"steps": steps}}}


@pytest.fixture
def two_runs(store):
    """kd at the steps of vcrd loses to it, and at the cost of vcrd wins."""
    add(store, "kd", right(4), **spent(200, 1000))
    add(store, "kd", right(36), **spent(340, 1700))
    add(store, "vcrd", right(20), **spent(200, 1700))
    return store


def test_two_rules_that_disagree_choose_nothing(two_runs, capsys):
    code, out, error = compare(two_runs, capsys, "kd", "vcrd", "--task", TASK)
    assert code == 2 and out == "" and error.count("\n") == 0
    assert "kd is kd:training.steps=200 or kd:training.steps=340" in error
    assert "--view steps" in error and "--view compute" in error


@pytest.mark.parametrize(
    ("words", "said", "taken"),
    [
        (["--view", "steps"], "better than kd:training.steps=200", "by equal steps"),
        (
            ["--view", "compute"],
            "worse than kd:training.steps=340",
            "by equal compute (flops, within a factor of 1.15)",
        ),
    ],
)
def test_a_view_chooses_and_says_what_else_there_is(two_runs, capsys, words, said, taken):
    code, out, aside = compare(two_runs, capsys, "kd", "vcrd", "--task", TASK, *words)
    other = {"200": "340", "340": "200"}[said[-3:]]
    assert code == 0 and said in out and f"1 run, seed 0) {taken}, others of this name" in aside
    assert f"others of this name: kd:training.steps={other}" in aside and "vcrd: took vcrd (200 steps; 1 run" in aside


@pytest.mark.parametrize("asked", ["kd:training.steps=340", "kd[training.steps=340]"])
def test_a_row_can_be_named_and_the_others_are_still_told(two_runs, capsys, asked):
    code, out, _ = compare(two_runs, capsys, asked, "vcrd", "--task", TASK, "--json")
    (found,) = json.loads(out)["comparisons"]
    first, second = found["taken"]
    assert code == 0 and first["selector"] == found["a"] == "kd:training.steps=340" and first["steps"] == 340
    assert first["others"] == ["kd:training.steps=200"] and second["others"] == []
    assert first["run_ids"][0].startswith("kd-humaneval@micro-s0-")


def test_a_view_that_no_two_rows_share_is_refused(two_runs, capsys):
    add(two_runs, "gkd", right(20), **spent(50, 99))
    code, _, error = compare(two_runs, capsys, "gkd", "vcrd", "--task", TASK, "--view", "steps")
    assert code == 2 and "no two rows have equal steps" in error and "gkd has 50 steps, vcrd has 200 steps" in error


def test_one_row_of_each_name_needs_no_rule(store, capsys):
    add(store, "kd", right(4), **spent(200, 1000))
    add(store, "vcrd", right(20), **spent(50, 9000))
    assert compare(store, capsys, "kd", "vcrd", "--task", TASK)[0] == 0


def test_both_rules_may_lead_to_the_same_two_rows(store, capsys):
    add(store, "kd", right(4), **spent(200, 1000))
    add(store, "kd", right(30), **spent(900, 9000))
    add(store, "gkd", right(20), **spent(200, 1050))
    code, out, aside = compare(store, capsys, "kd", "gkd", "--task", TASK)
    assert code == 0 and "kd:training.steps=200" in out and "by equal recipe and equal compute" in aside


def test_every_listed_selector_leads_to_its_row(store, capsys):
    """Whatever tells rows apart, what a refusal lists can be typed."""
    codes = ("file sha256:0123456789abcdef", "file sha256:fedcba9876543210")
    for code in codes:
        recipe = {"method": {"name": "kd", "settings": {}, "origin": code}}
        add(store, "kd", right(10), recipe=recipe)
    add(store, "kd", right(11), settings={"mode": [1, 2]})
    add(store, "gkd", right(20))
    _, _, error = compare(store, capsys, "kd", "gkd", "--task", TASK)
    listed = [word.strip("'") for word in error.partition("kd is ")[2].split(" or ")]
    assert len(listed) == len(set(listed)) == 3
    for selector in listed:
        code, _, aside = compare(store, capsys, selector, "gkd", "--task", TASK)
        assert code == 0 and f"took {selector} (" in aside


# -- labels, grid and numbers --------------------------------------------------------------------------------


def test_a_hash_is_named_only_where_the_id_beside_it_leaves_it_open():
    def names(*students):
        recipes = [{"student": {"id": name, "sha256": digest * 64}} for name, digest in students]
        return labels.names([make_record("kd", recipe=recipe) for recipe in recipes])

    assert names(("a", "1"), ("b", "2")) == ["kd (student.id=a)", "kd (student.id=b)"]
    told = names(("a", "1"), ("b", "2"), ("b", "3"))
    assert told[1:] == ["kd (student.id=b, student.sha256=22222222…)", "kd (student.id=b, student.sha256=33333333…)"]
    assert labels.plain_label("kd (student.id=a, training.steps=340)") == "kd (student a, 340 steps)"


def test_a_template_is_no_part_of_a_label_and_a_long_text_is_cut():
    template = "{prompt}\n\nHere is a reference solution:\n{response}\n\nNow solve it in your own words"
    rows = [
        make_record("opsd", recipe={"asking": {"template": template}}),
        make_record("kd", recipe={"asking": None}),
        make_record("kd", settings={"template": template}),
        make_record("kd", settings={"template": f"{template}, please"}),
    ]
    one, none, *two = labels.names(rows)
    assert one == "opsd" and len({none, *two}) == 3
    assert all("\n" not in name and "{prompt} Here is a reference" in name and len(name) < 100 for name in two)


def test_prompts_that_a_method_takes_from_the_labelled_examples_are_in_no_label():
    rows = [
        make_record("kd", recipe={"prompts": "1" * 64}),
        make_record("sft", recipe={"labelled": "2" * 64}),
        make_record("opsd", recipe={"prompts": "2" * 64, "asking": {"template": "{response}"}}),
    ]
    assert labels.names(rows) == ["kd", "sft", "opsd"]
    assert labels.names([*rows, make_record("gkd", recipe={"prompts": "3" * 64})])[0] == "kd (prompts=11111111…)"


def twins():
    """Pairs of records that differ in one thing alone."""
    origin = lambda code: {"recipe": {"method": {"name": "kd", "settings": {}, "origin": code}}}  # noqa: E731
    return [
        (origin("file sha256:0123456789abcdef"), origin("file sha256:fedcba9876543210")),
        (origin("harness"), {}),
        ({"settings": {"beta": 0.1}}, {}),
        ({"settings": {"beta": None}}, {"settings": {}}),
        ({"settings": {"k": 1}}, {"settings": {"k": "1"}}),
        ({"settings": {"layers": {}}}, {"settings": {}}),
        ({"recipe": {"rollout": None}}, {"recipe": {"rollout": {"temperature": 1.0}}}),
        ({"recipe": {"prompts": "a" * 64}}, {"recipe": {"prompts": "a" * 63 + "b"}}),
        ({"student": "one"}, {"student": "two"}),
    ]


@pytest.mark.parametrize("pair", twins(), ids=str)
def test_no_two_rows_of_a_table_have_one_label(store, pair):
    for changes in pair:
        add(store, "kd", right(10), **changes)
    (section,) = leaderboard(store.all()[0])
    assert len({row.label for row in section.rows}) == len(section.rows) == 2
    assert all(row.label.startswith("kd") for row in section.rows)


@pytest.mark.parametrize("pair", twins(), ids=str)
def test_no_two_lines_of_a_grid_have_one_label(store, pair):
    """Each task has one of the two rows, so that neither table needs to tell them apart and the grid does."""
    for task, changes in zip((TASK, "amc23@micro"), pair, strict=True):
        add(store, "kd", right(10), task=task, **changes)
    found = formats.grid_lines(leaderboard(store.all()[0]))
    assert len({line.label for line in found}) == len(found) == 2


def test_a_method_with_a_task_missing_leads_nothing(store, capsys):
    """Best on one of three tasks, absent from two: no mean rank, and the cells that lack are named."""
    tasks = (TASK, "amc23@micro", "mbpp@micro")
    for place, method in enumerate(("kd", "gkd", "rkl")):
        for task in tasks:
            add(store, method, right(20 - place), task=task)
    add(store, "early", right(39), task=TASK)
    add(store, "teacher", right(40), task=TASK)
    found = formats.grid_lines(leaderboard(store.all()[0]))
    assert [line.label for line in found] == ["kd", "gkd", "rkl", "early", "teacher"]
    assert [line.mean_rank for line in found] == [1, 2, 3, None, None]
    assert set(found[3].missing) == {"amc23@micro", "mbpp@micro"}
    assert main(["table", "--layout", "grid", "--results", str(store.root)]) == 0
    text = capsys.readouterr().out
    assert "| early | – |" in text and "not ranked over all tasks: early: amc23@micro, mbpp@micro" in text
    assert "ranked over all tasks: early: amc23@micro, mbpp@micro; teacher" not in text


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (PERCENT.signed(0.0), "0.0"), (PERCENT.signed(-0.0001), "0.0"), (PERCENT.signed(0.0004), "0.0"),
        (PERCENT.signed(-0.0006), "-0.1"), (PERCENT.signed(0.25), "+25.0"), (percent(-0.001), "0 %"),
        (percent(-0.11), "-11 %"), (amount(999_999), "1 M"), (amount(950, "B"), "950 B"),
        (amount(12_300), "12.3 k"), (amount(4.56e6, "B"), "4.56 MB"), (amount(0), "0"),
        (spread(1.0, 0.975, 1.0), "100.0 (97.5–100.0)"), (spread(0.0, 0.0, 0.09), "0.0 (0.0–9.0)"),
        (spread(0.5, 0.4, 0.6), "50.0 ±10.0"), (spread(0.95, 0.9, 1.0), "95.0 ±5.0"),
    ],
)  # fmt: skip
def test_numbers_are_written_without_oddities(written, expected):
    assert written == expected


def test_a_difference_within_noise_is_no_gain(store, capsys):
    add(store, "untouched", right(19))
    add(store, "teacher", right(40))
    add(store, "sft", right(20))
    add(store, "kd", (0.0, *right(21, 39)))
    add(store, "gkd", right(36))
    (section,) = leaderboard(store.all()[0], None, store.completions)
    rows = {row.method: row for row in section.rows}
    assert rows["kd"].over_baseline_p > 0.05 > rows["gkd"].over_baseline_p
    text = render([section], "md")
    assert "| over sft |" in text and "| (+2.5) |" in text and "| +40.0 |" in text and "in parentheses: not" in text
    assert "gain" not in text and "0 B" not in text and "0B" not in text and "-0" not in text


def test_an_interval_at_odds_with_the_test_says_what_each_of_them_is(store, capsys):
    """One seed: exact McNemar finds p = 0.0625 where the bootstrap's interval excludes 0."""
    add(store, "kd", (0.0,) * 5 + (1.0,) * 15)
    add(store, "gkd", (1.0,) * 20)
    _, sentence, _ = compare(store, capsys, "kd", "gkd", "-t", TASK)
    low = re.search(r"95 % \+(\S+) to", sentence)[1]
    assert float(low) > 0 and "not distinguishable" in sentence
    assert "p = 0.062, exact McNemar; the interval is a bootstrap over problems, and the test decides)" in sentence


def test_an_interval_of_one_task_beside_an_adjusted_p_says_so(store, capsys):
    for task in (TASK, "amc23@micro"):
        add(store, "kd", (0.0,) * 6 + (1.0,) * 15, task=task)
        add(store, "gkd", (1.0,) * 21, task=task)
    _, sentences, _ = compare(store, capsys, "-t", TASK, "amc23@micro", "kd", "gkd")
    assert sentences.count("p = 0.062, exact McNemar; the interval is for this task alone, where p = 0.031)") == 2
