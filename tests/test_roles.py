"""What a row is stands in its record: references, controls, baselines and reconstructions of any name."""

import json
import re
from pathlib import Path

import pytest
from sample_records import make_record, make_rows

from harness import registry
from harness.cli import main
from harness.leaderboard.table import leaderboard, render
from harness.method import Method, ReferencePoint
from harness.records.record import roles_of
from harness.records.store import Store

ROOT = Path(__file__).parent.parent
TASK = "humaneval@micro"


def right(count, total=40):
    return (1.0,) * count + (0.0,) * (total - count)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def add(store, method, count, **changes):
    record = make_record(method, scores=right(count), **changes)
    store.add(record, make_rows(right(count)))
    return record


def as_it_comes(side):
    return {"role": "reference", "evaluates": side, "baseline": False}


@pytest.fixture
def strangers(store):
    """Marks and a baseline under names that nobody registered, one of them with the best score."""
    add(store, "oracle", 40, who=as_it_comes("teacher"), recipe={"student": {"id": "micro-teacher"}})
    add(store, "raw", 8, who=as_it_comes("student"))
    add(store, "plain", 12, who={"baseline": True})
    add(store, "clever", 24)
    return store


@pytest.mark.slow
def test_a_reference_of_any_name_is_ranked_nowhere(strangers, tmp_path, capsys):
    (section,) = leaderboard(strangers.all()[0], None, strangers.completions)
    ranks = {row.method: row.rank for row in section.rows}
    assert ranks == {"clever": 1, "plain": 2, "oracle": None, "raw": None}
    assert [row.method for row in section.rows][-2:] == ["oracle", "raw"]
    assert {row.method for row in section.rows if row.reference} == {"oracle", "raw"}
    where = ["--results", str(strangers.root)]
    assert main(["table", "--json", "--layout", "grid", *where]) == 0
    found = {line["method"]: line for line in json.loads(capsys.readouterr().out)}
    assert found["oracle"]["mean_rank"] is None and found["clever"]["mean_rank"] == 1
    for view in ("steps", "compute"):
        assert main(["table", "--view", view, *where]) == 0
        assert "| oracle | 100.0" in capsys.readouterr().out
    assert main(["compare", "raw", "clever", "--task", TASK, *where]) == 0
    assert "raw: took raw (not trained" in capsys.readouterr().err
    assert main(["board", "--out", str(tmp_path / "site"), *where]) == 0
    page = (tmp_path / "site/index.html").read_text("utf-8")
    views = re.findall(r"<table class=\"grid.*?</table>", page, re.DOTALL)
    assert len(views) == page.count("It is distinguishable from all others.") == page.count("clever ranks first") == 3
    for view in views:  # one task: rows stand in order, without a column of ranks
        rows = re.findall(r'<tr role="row"( class="mark")?>\s*<th scope="row".*?data-value="(\w+)"', view, re.DOTALL)
        mark = ' class="mark"'
        assert rows == [("", "clever"), ("", "plain"), (mark, "oracle"), (mark, "raw")]
    assert main(["plot", "--out", str(tmp_path / "scores.svg"), *where]) == 0
    assert main(["plot", "--kind", "pareto", "--cost", "flops", "--out", str(tmp_path / "pareto.svg"), *where]) == 0
    capsys.readouterr()


def test_a_student_as_it_came_is_not_exported_whatever_its_name(strangers, tmp_path, capsys):
    (record,) = [r for r in strangers.all()[0] if r["method"]["name"] == "oracle"]
    assert main(["export", record["run_id"], "--out", str(tmp_path / "x"), "--results", str(strangers.root)]) == 2
    assert "measures a model that was not trained" in capsys.readouterr().err


def test_marks_and_baseline_are_found_by_role(strangers):
    (section,) = leaderboard(strangers.all()[0], None, strangers.completions)
    rows = {row.method: row for row in section.rows}
    assert rows["clever"].over_baseline == pytest.approx(12 / 40) and rows["clever"].baseline == "plain"
    assert rows["clever"].recovery == pytest.approx((24 - 8) / (40 - 8))
    assert "| over plain |" in render([section], "md")


def test_one_model_under_two_marks_is_one_mark(strangers):
    add(strangers, "raw2", 8, who=as_it_comes("student"))
    (section,) = leaderboard(strangers.all()[0], None, strangers.completions)
    assert next(row for row in section.rows if row.method == "clever").recovery == pytest.approx(0.5)
    add(strangers, "raw3", 9, who=as_it_comes("student"))  # two scores of one model: neither is the mark
    (section,) = leaderboard(strangers.all()[0], None, strangers.completions)
    assert next(row for row in section.rows if row.method == "clever").recovery is None


def test_nothing_but_references_is_a_table_without_ranks(store, tmp_path, capsys):
    add(store, "oracle", 40, who=as_it_comes("teacher"))
    (section,) = leaderboard(store.all()[0], None, store.completions)
    assert [row.rank for row in section.rows] == [None]
    assert main(["plot", "--out", str(tmp_path / "x.svg"), "--results", str(store.root)]) == 2
    assert "only models evaluated without training" in capsys.readouterr().err


# -- records written before roles were a field --------------------------------------------------------------


def before(name="any", student="s", spec=None, settings=None, reconstruction=False):
    method = {"name": name, "variant": None, "reconstruction": reconstruction, "settings": settings or {}}
    return {"method": method, "student": student, "spec": {"student": {"id": student}} | (spec or {})}


TRAINED = {"training": {"steps": 5}, "teacher": {"id": "t"}}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (before(), ("reference", "student", False, False)),
        (before(spec={"student": {"id": "t"}}), ("reference", "teacher", False, False)),
        (before(spec=TRAINED), ("competitor", None, False, False)),
        (before("teacher", spec=TRAINED), ("competitor", None, False, False)),
        (before("untouched", spec=TRAINED), ("competitor", None, False, False)),
        (before(spec=TRAINED | {"teacher": None}), ("competitor", None, True, False)),
        (before(spec=TRAINED, settings={"shuffle": True}), ("control", None, False, False)),
        (before(spec=TRAINED, settings={"shuffle": False}), ("competitor", None, False, False)),
        (before(spec=TRAINED, reconstruction=True), ("competitor", None, False, True)),
    ],
)
def test_the_older_form_says_the_same_in_other_fields(record, expected):
    found = roles_of(record)
    assert (found.role, found.evaluates, found.baseline, found.reconstruction) == expected


def test_published_records_have_the_roles_of_their_methods():
    """The one reader of the older form agrees with the contract for every published record."""
    for root in ("results/micro", "results/objectives"):
        for record in Store(ROOT / root).all()[0]:
            found, method = roles_of(record), registry.find(registry.METHODS, record["method"]["name"])
            assert found.reference is issubclass(method, ReferencePoint)
            assert found.evaluates == getattr(method, "evaluates", None)
            assert found.baseline is method.baseline
            # A method that became exact since leaves its earlier records what they were.
            assert found.reconstruction or not method.reconstruction
            assert (found.role == "control") is (record["method"]["settings"].get("shuffle") is True)


def test_every_registered_method_says_what_it_is():
    found = {entry.name: registry.find(registry.METHODS, entry.name) for entry in registry.entries(registry.METHODS)}
    assert [name for name, method in found.items() if method.baseline] == ["sft"]
    for method in found.values():
        assert method.reconstruction is method.note.startswith("reconstruction")
        assert method().role == ("reference" if issubclass(method, ReferencePoint) else "competitor")


def test_a_control_is_told_by_its_setting():
    method = registry.find(registry.METHODS, "vcrd")
    assert method(method.Config(shuffle=True)).role == "control" and isinstance(method(), Method)
