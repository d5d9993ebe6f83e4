"""Equal compute: one definition, which every command takes."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from sample_records import make_record, make_rows

from harness.cli import main
from harness.errors import BadInput
from harness.estimate.shapes import token_flops
from harness.leaderboard import equal_compute, together
from harness.leaderboard.inference import Group, Matrix
from harness.leaderboard.table import View, leaderboard
from harness.papers import reproduce
from harness.records.store import Store
from harness.stats import intervals

ROOT = Path(__file__).parent.parent
MICRO = ROOT / "results/micro"
TASK = "humaneval@micro"
NINE = {"sft", "seqkd", "kd", "rkl", "gkd", "opd", "distillm2", "vcrd", "vcrd@shuffled"}
NAMES = re.compile(r'<th scope="row" role="rowheader" data-value="(.*?)"')


def right(count, total=40):
    return (1.0,) * count + (0.0,) * (total - count)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def add(store, method, steps, tokens, count=10, parameters=(1000, 5000), **changes):
    spec = {"training": {"steps": steps}}
    record = make_record(method, scores=right(count), recipe=spec, **changes)
    record["parameters"] = dict(zip(("student", "teacher"), parameters, strict=True))
    spent = dict(zip(("student_tokens", "teacher_forward_tokens", "generated_tokens"), tokens, strict=True))
    record["cost"] = record["cost"] | spent | {"steps": steps}
    store.add(record, make_rows(right(count)))
    return record


def section_of(store, **view):
    (section,) = leaderboard(store.all()[0], None, store.completions, View("compute", **view))
    return section


def test_the_published_table_has_all_nine_methods_at_the_budget(capsys):
    for task in ("amc23", "humaneval"):
        assert main(["table", "--view", "compute", "--task", task, "--results", str(MICRO), "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)
        assert {row["method"] for row in rows if not row["reference"]} == NINE and len(rows) == 11
        assert {row["method"] for row in rows if row["reference"]} == {"untouched", "teacher"}
        (view,) = {row["view"] for row in rows}
        assert view == "equal compute: 715 GFLOPs of training, as vcrd at 200 steps, within a factor of 1.15"
        (left,) = [note for note in rows[0]["notes"] if note.startswith("left out")]
        assert all(f"{name} (training.steps=200)" in left for name in ("distillm2", "sft", "seqkd", "kd", "rkl", "opd"))


def test_operations_are_counted_by_one_function(store):
    record = add(store, "kd", 10, (100, 40, 7))
    assert equal_compute.cost(record) == token_flops(1000, 5000, 100, 40, 7) == equal_compute.flops(record)
    assert equal_compute.cost(record, "tokens") == 147 and equal_compute.cost(record, "seconds") == 1.5
    (section,) = leaderboard(store.all()[0])
    assert section.rows[0].flops == equal_compute.flops(record)
    with pytest.raises(BadInput, match="unknown unit of cost 'flopz'; did you mean flops"):
        equal_compute.cost(record, "flopz")


def test_a_student_that_reads_for_itself_is_counted_at_its_own_size():
    alone = make_record("opsd", scores=right(10), parameters={"student": 1000, "teacher": None})
    alone["teacher"] = None
    alone["cost"] |= {"student_tokens": 100, "teacher_forward_tokens": 40, "generated_tokens": 7}
    assert equal_compute.flops(alone) == 1000 * (6 * 100 + 2 * 40 + 2 * 7)
    frozen = make_record("gopd", scores=right(10), parameters={"student": 1000, "teacher": 5000})
    frozen["cost"] |= alone["cost"] | {"reference_forward_tokens": 30}
    assert equal_compute.flops(frozen) == 1000 * (6 * 100 + 2 * 30 + 2 * 7) + 5000 * 2 * 40
    assert equal_compute.cost(frozen, "tokens") == 177


@pytest.mark.parametrize(
    ("a", "b", "same"), [(1, 1.15, True), (1.15, 1, True), (1, 1.16, False), (0, 0, True), (0, 1, False)]
)
def test_two_costs_are_equal_within_a_factor_either_way(a, b, same):
    assert equal_compute.alike(a, b) is same is equal_compute.alike(b, a)


def test_reproduce_leaves_alone_what_the_table_calls_equal(tmp_path):
    """Whatever the decision keeps at its steps is what the view shows beside the target, and the other way round."""
    store = Store(tmp_path / "results")
    base = {
        name: [add(store, name, 100, (tokens, 0, 0))]
        for name, tokens in (("target", 1000), ("near", 1140), ("far", 1160), ("less", 880), ("least", 860))
    }
    found = reproduce.decide_budget(base, "target", "", "flops", tmp_path / "budget.json")
    shown = {row.method for row in section_of(store, anchor="target").rows}
    assert set(found.steps) == {"far", "least"} and shown == {"target", "near", "less"}
    assert "within a factor of 1.15" in found.rule


def test_the_anchor_is_the_row_whose_budget_most_methods_have(store):
    """The dearest of the base runs is not taken where the others were trained to match another."""
    add(store, "dear", 100, (9000, 0, 0))
    add(store, "gkd", 100, (3000, 0, 0))
    add(store, "cheap", 100, (1000, 0, 0))
    add(store, "cheap", 300, (3000, 0, 0))
    assert "as gkd at 100 steps" in section_of(store).view
    assert "as dear at 100 steps" in section_of(store, anchor="dear").view
    with pytest.raises(BadInput, match="unknown anchor among the rows 'gdk'; did you mean gkd"):
        section_of(store, anchor="gdk")


def test_all_rows_at_the_budget_stand_and_all_others_are_named(store):
    for beta in (0.1, 0.9):
        add(store, "gkd", 100, (1000, 0, 0), settings={"beta": beta})
    add(store, "gkd", 200, (2000, 0, 0), settings={"beta": 0.1})
    add(store, "kd", 100, (1010, 0, 0))
    section = section_of(store)
    assert {row.label for row in section.rows} == {"gkd (beta=0.1)", "gkd (beta=0.9)", "kd"}
    (left,) = section.aside
    assert "gkd (beta=0.1, training.steps=200): 12 MFLOPs" in left


def test_a_row_of_unknown_size_is_named_with_the_reason(store):
    add(store, "kd", 100, (1000, 0, 0))
    add(store, "gkd", 100, (1000, 0, 0), parameters=(None, None))
    section = section_of(store)
    assert [row.method for row in section.rows] == ["kd"]
    assert "gkd" in section.aside[0] and "the parameters of micro-student are not known" in section.aside[0]
    assert {row.method for row in section_of(store, cost="tokens").rows} == {"kd", "gkd"}


def test_no_row_of_known_size_is_one_line(store, capsys):
    add(store, "kd", 100, (1000, 0, 0), parameters=(None, None))
    where = ["--results", str(store.root)]
    assert main(["table", "--view", "compute", *where]) == 2
    error = capsys.readouterr().err
    assert "not known" in error and "--cost tokens" in error and error.count("\n") == 1
    assert main(["table", "--view", "compute", "--cost", "tokens", *where]) == 0
    assert main(["plot", "--kind", "pareto", "--cost", "flops", "--out", str(store.root / "x.svg"), *where]) == 2
    assert "not known" in capsys.readouterr().err


def test_every_command_has_the_same_units(capsys):
    for command in (["table"], ["compare", "a", "b", "--task", "t"]):
        assert main([*command, "--cost", "joules"]) == 2
        assert "flops" in capsys.readouterr().err


def test_a_median_weighs_out_the_seed_that_waited(store):
    records = [add(store, "kd", 10, (100, 0, 0), seed=seed) for seed in range(3)]
    records[0]["cost"]["seconds"] = 900.0
    assert equal_compute.median_cost(records, "seconds") == 1.5
    assert equal_compute.measured_alike(Group(records, None), Group(records[1:], None), "seconds") is None


@pytest.mark.slow
def test_board_and_plot_take_the_same_view(tmp_path, capsys):
    root = tmp_path / "results"
    shutil.copytree(MICRO / "records/amc23@micro", root / "records/amc23@micro")
    (root / "completions").mkdir()
    for file in (MICRO / "completions").glob("*-amc23@micro-*"):
        shutil.copy(file, root / "completions" / file.name)
    assert main(["board", "--out", str(tmp_path / "site"), "--results", str(root)]) == 0
    page = (tmp_path / "site/index.html").read_text("utf-8")
    head, first = re.findall(r'<section class="view" data-view="compute".*?</section>', page, re.DOTALL)
    assert "at equal compute</h1>" in head and "715 GFLOPs of training, as vcrd at 200 steps" in first
    assert first.count("<table") == 1 and {name.partition(" ")[0] for name in NAMES.findall(first)} >= NINE
    svg = tmp_path / "scores.svg"
    assert main(["plot", "--view", "compute", "--theme", "auto", "--out", str(svg), "--results", str(root)]) == 0
    drawn = svg.read_text("utf-8")
    assert "715 GFLOPs of training, as vcrd at 200 steps" in drawn and "left out, not within a factor" in drawn
    capsys.readouterr()


def test_the_seeds_of_all_tasks_are_those_of_one_student():
    """A row counts for all tasks together only with the same seeds on each: a number of seeds makes no student."""

    def group(task, seeds, scores):
        records = [make_record("kd", task, seed) for seed in seeds]
        return Group(records, Matrix(tuple("abcd"), np.array(scores)))

    one, other = [[1, 0, 0, 0], [1, 1, 1, 1]], [[0, 0, 0, 1], [1, 1, 0, 1]]
    rows = [("kd", "a", group("a", (0, 1), one)), ("kd", "b", group("b", (0, 1), other))]
    whole = together.pooled_over_tasks(rows, 2)
    assert whole == intervals.pooled_seed_variance([np.hstack([one, other])]) and whole.value > 0
    rows[1] = ("kd", "b", group("b", (0, 2), other))
    assert together.pooled_over_tasks(rows, 2) is None
