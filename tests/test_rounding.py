"""The published page on rounding is what its numbers say, and a row of one seed says what that leaves open."""

import importlib.util
import json
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from sample_records import make_record

from harness.leaderboard import footnotes, labels
from harness.leaderboard.inference import Group
from harness.records.store import Store

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("rounding", ROOT / "results/scripts/rounding.py")
    module = sys.modules["rounding"] = importlib.util.module_from_spec(spec)  # where dataclasses look it up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def facts(script):
    return json.loads((script.OUT / "rounding.json").read_text("utf-8"))


def test_the_page_is_made_from_the_numbers(script, facts):
    assert (script.OUT / "README.md").read_text("utf-8") == script.page(facts)
    for cell in facts["cells"]:
        assert len(cell["variants"]) == 1 + len(script.VARIANTS)
        for side in cell["variants"].values():
            assert sum(side["scores"]) / len(side["scores"]) == pytest.approx(side["score"])


def test_what_the_page_says_holds(script, facts):
    """The sentences that no number is filled into."""
    assert all(line["p"] > 0.05 for line in script.shifts(facts)), "a side scores higher throughout"
    assert all(line["p_larger"] > 0.05 for line in script.spreads(facts)), "kernels spread more than seeds"


def test_the_readme_has_the_numbers_of_the_page(script, facts):
    shown = " ".join((ROOT / "README.md").read_text("utf-8").split())
    fixed, own = ([f"{100 * n:.1f}" for n in (k.rounding, k.seeds, k.widest)] for k in script.kinds(facts))
    assert f"moves a score by {fixed[0]} points (SD); another seed moves it by {fixed[1]}." in shown
    assert f"is {own[0]} points for another CPU, {own[1]} for another seed, and {own[2]} in the worst row." in shown


def groups(*scores, world="micro"):
    task = "amc23@micro" if world == "micro" else "amc23"
    return [
        Group([make_record(f"kd{i}", task, seed) | {"score": score} for seed, score in enumerate(row)], None)
        for i, row in enumerate(scores)
    ]


def test_a_row_of_one_seed_says_what_it_leaves_open():
    assert footnotes.single_seeds(groups([0.4, 0.5])) == []
    (note,) = footnotes.single_seeds(groups([0.4], [0.4, 0.5, 0.6]))
    assert note.startswith("one seed: another seed or another CPU moves such a score by about 10.0 points (SD")
    (note,) = footnotes.single_seeds(groups([0.4]))
    assert f"about {footnotes.MICRO_POINTS:g} points" in note
    (note,) = footnotes.single_seeds(groups([0.4], world="real"))
    assert "run two more seeds" in note
    assert footnotes.deviation(groups([0.4, 0.6], [0.5])) is None


def test_the_spread_between_seeds_is_that_of_the_published_rows():
    rows = defaultdict(list)
    for record in Store(ROOT / "results/micro").all()[0]:
        rows[labels.name_of(record["method"]), record["cost"]["steps"], record["task"]].append(record)
    found = footnotes.deviation([Group(row, None) for row in rows.values()])
    assert round(100 * found, 1) == footnotes.MICRO_POINTS
