"""The audit of printed tables: each published finding comes out of the code, made-up clean tables give none."""

import copy
import json
from pathlib import Path

import pytest

from harness.cli import main
from harness.papers.audit import comparisons, counts, means, report
from harness.papers.audit.counts import CountReading
from harness.records import printed, reported

RESULTS = Path(__file__).parent.parent / "results"


@pytest.fixture(scope="module")
def papers():
    return reported.papers(RESULTS)


@pytest.fixture(scope="module")
def audits(papers):
    return {paper["id"]: report.audit(paper, papers) for paper in papers}


def found(audit, kind, *words):
    """The findings of one kind that say all of ``words`` in statement, place or arithmetic."""
    return [
        f for f in audit.findings
        if f.kind == kind and all(w in " ".join([f.where, f.statement, *f.arithmetic]) for w in words)
    ]  # fmt: skip


# -- what is known of the published tables -----------------------------------------------------------------------


@pytest.mark.slow
def test_every_statement_about_the_tables_is_computed_and_one_does_not_hold(audits):
    claims = {claim.text: claim for audit in audits.values() for claim in audit.claims}
    assert len(claims) == 25 and all(claim.arithmetic for claim in claims.values())
    # Two equal values among 27 cells come about by chance about once in twenty columns.
    assert [text for text, claim in claims.items() if not claim.holds] == [
        "GKD and DistiLLM share 44.61 on Evol-Instruct: a copying slip"
    ]


@pytest.mark.parametrize(
    ("paper", "kind", "words"),
    [
        ("distillm2", "count", ("Table 3, GSM8K", "10 of 10 cells are whole counts of 1319")),
        ("distillm2", "count", ("Table 3, MATH", "10 of 10 cells are whole counts of 5000")),
        ("distillm2", "count", ("Table 4, MBPP", "10 of 10 cells are whole counts of 378")),
        ("distillm2", "count", ("59.92", "59.76", "60.37", "no half or quarter count")),
        ("distillm2", "count", ("30.73", "30.49", "31.10", "no half or quarter count")),
        ("distillm2", "count", ("42.24", "42.07", "42.68", "no half or quarter count")),
        ("distillm2", "heads", ("Table 4", "DS-Coder-6.7B-Instruct", "Qwen2.5-Coder-7B-Instruct", "look exchanged")),
        ("distillm2", "mean", ("75.61", "(75.61 + 74.60)/2 = 75.105")),
        ("distillm2", "count", ("Table 2, Evol-Instruct", "quarter counts of 218", "SeqKD 0/3", "GKD 3/3")),
        ("distillm2", "count", ("32.84 (DistiLLM-2, Danube2-1.8B) is none of the quarter counts of 218",)),
        ("distillm2", "differ", ("Evol-Instruct", "47.13", "47.24")),
        ("distillm2", "differ", ("Evol-Instruct", "32.84", "32.80")),
        ("distillm2", "repeat", ("GKD 57.74, DistiLLM 58.18", "Qwen2-1.5B", "Danube2-1.8B")),
        ("distillm2", "repeat", ("44.61",)),
        ("distillm2", "count", ("Table 6, Evol-Instruct", "7 of 8 cells are whole counts of 416")),
        ("distillm2", "order", ("DistiLLM-2 is above DistiLLM", "26.37 > 26.12", "19.30 < 20.49")),
        ("distillm2", "order", ("DistiLLM-2 is above DistiLLM", "18.59 < 20.21")),
        ("distillm2", "differ", ("GKD, GPT-2", "24.58", "23.75", "+0.25 as the gain over the best other")),
        ("distillm2", "differ", ("DistiLLM (SRKL), GPT-2", "25.74", "26.12")),
        ("distillm2", "seeds", ("no seeds are stated for 256 scores",)),
        ("minillm", "repeat", ("two rows print the same 3 values", "GPT-2 120M", "OPT-125M")),
        ("pw_opsd", "gain", ("mean of four, Qwen3-4B", "over evaluation seeds alone")),
        ("luffy", "count", ("MATH-500", "16 of 16 cells are whole counts of 500")),
        ("luffy", "count", ("Minerva", "16 of 16 cells are whole counts of 272")),
        ("qwen3-opd", "seeds", ("no seeds are stated",)),
        ("thinkingmachines", "doubt", ("EXTRAPOLATED", "70")),
        ("opsd", "doubt", ("LATER VERSIONS PRINT OTHER NUMBERS",)),
    ],
)
def test_a_finding_comes_out_of_the_code(audits, paper, kind, words):
    assert found(audits[paper], kind, *words), "\n".join(f.statement for f in audits[paper].findings if f.kind == kind)


def test_findings_carry_arithmetic_and_neutral_words(audits):
    for audit in audits.values():
        for finding in audit.findings:
            assert finding.arithmetic and finding.where and len(finding.statement) > 10
            for word in ("fraud", "fake", "wrong", "lie", "cheat", "error in", "mistake", "false"):
                assert word not in f" {finding.statement.lower()} ".replace("lies", ""), finding.statement


def test_untouched_students_above_every_method_are_in_the_replications_cells(audits):
    claims = {c.text[:13]: c for c in audits["independent-reruns"].claims}
    assert claims["Community run"].holds and "51.8" in claims["Community run"].arithmetic[0]


# -- made-up tables ----------------------------------------------------------------------------------------------

CELL = {
    "source": "paper", "locator": "Table 1", "student": "S", "teacher": "T", "benchmark": "Set", "metric": "accuracy",
    "unit": "percent", "n": 200, "seeds": "3 training seeds", "spread": "0.4", "status": "primary",
}  # fmt: skip


def made_up(*cells, proposed=("Ours",)):
    """A paper's file of ``cells``, each a change of CELL."""
    source = {"paper": "Made up", "text": "made up", "url": "", "licence": "none", "proposed": list(proposed)}
    base = {"schema_version": 1, "kind": "reported", "id": "made-up", "method": None, "title": "Made up", "cells": []}
    base |= {"authors": [], "year": None, "url": "", "about": "Made up.", "notes": [], "sources": {"paper": source}}
    return base | {"printed": [CELL | cell for cell in cells]}


CLEAN = [
    {"method": method, "benchmark": benchmark, "value": value}
    for method, row in {
        "SFT": ("40.50", "31.00", "55.50", "42.33"),
        "KD": ("43.00", "33.50", "58.00", "44.83"),
        "Ours": ("47.50", "36.00", "62.50", "48.67"),
    }.items()
    for benchmark, value in zip(("A", "B", "C", "Average"), row, strict=True)
]


def test_a_clean_table_has_no_finding_worth_a_look():
    assert report.audit(made_up(*CLEAN)).notable == []


def dirty(index, **change):
    cells = copy.deepcopy(CLEAN)
    cells[index] |= change
    return report.audit(made_up(*cells)).notable


@pytest.mark.parametrize(
    ("index", "change", "kind"),
    [
        (0, {"value": "40.61"}, "count"),  # no part of 200, and the mean no longer fits
        (3, {"value": "43.33"}, "mean"),
        (11, {"value": "48.76"}, "mean"),  # two digits exchanged
    ],
)
def test_one_changed_cell_is_found(index, change, kind):
    assert kind in {finding.kind for finding in dirty(index, **change)}


def test_missing_seeds_and_a_gain_within_its_error_are_found():
    cells = [{k: v for k, v in (CELL | cell).items() if k not in ("seeds", "spread")} for cell in CLEAN]
    paper = made_up() | {"printed": cells}
    kinds = {finding.kind for finding in report.audit(paper).notable}
    assert kinds == {"seeds", "gain"}  # n 200 gives 3.5 points a cell: no gain of 4 exceeds sqrt(2) of that


def test_two_rows_that_print_the_same_are_found():
    rows = (("SFT", "31.52"), ("KD", "38.41"), ("Ours", "44.07"))
    cells = [
        {"method": name, "benchmark": f"Set {i}", "value": f"{float(value) + 3.17 * i:.2f}", "unit": "ROUGE-L x100"}
        for name, value in rows
        for i in range(3)
    ]
    assert not found(report.audit(made_up(*cells)), "repeat")
    same = [cell | {"method": "Other"} for cell in cells if cell["method"] == "KD"]
    (finding,) = found(report.audit(made_up(*cells, *same)), "repeat", "two rows print the same 3 values")
    assert finding.notable and "KD" in finding.statement and "Other" in finding.statement


def test_a_value_of_two_tables_is_found_and_an_equal_one_is_not():
    again = CLEAN[0] | {"locator": "Table 2"}
    assert not report.audit(made_up(*CLEAN, again)).notable
    (finding,) = report.audit(made_up(*CLEAN, again | {"value": "41.00"})).notable
    assert finding.kind == "differ" and "41.00 - 40.50 = +0.50" in finding.arithmetic[0]


def test_rounding_of_the_printed_places_is_no_finding():
    cells = [{"method": "A", "benchmark": b, "value": v, "n": 300} for b, v in (("X", "33.33"), ("Y", "66.67"))]
    for mean in ("50.0", "50.00", "50"):
        shown = made_up(*cells, {"method": "A", "benchmark": "AVG", "value": mean, "n": 300})
        assert not [f for f in report.audit(shown).notable if f.kind == "mean"], mean
    wrong = made_up(*cells, {"method": "A", "benchmark": "AVG", "value": "50.1"})
    assert [f for f in report.audit(wrong).notable if f.kind == "mean"]


def cell_of(value, **facts):
    return printed.of(made_up({"method": "A", "value": value, **facts}))[0]


@pytest.mark.parametrize(
    ("value", "reading", "fits"),
    [
        ("59.76", CountReading(164, 1), True),
        ("59.92", CountReading(164, 1), False),
        ("59.92", CountReading(164, 4, 1, True), False),
        ("53.65", CountReading(164, 1), False),  # 88/164 is 53.658
        ("53.65", CountReading(164, 1, 1, True), True),
        ("44.61", CountReading(218, 4), True),
        ("0", CountReading(7, 1), True),
        ("100", CountReading(7, 1), True),
        ("100.5", CountReading(7, 1), False),
        ("14", CountReading(7, 1), True),
        ("15", CountReading(7, 1), False),
    ],
)
def test_a_count_is_a_count(value, reading, fits):
    assert counts.fits(cell_of(value), reading) is fits


def test_the_density_is_the_share_of_values_that_are_counts():
    assert counts.density(CountReading(10, 1), 0) == pytest.approx(11 / 101)
    assert counts.density(CountReading(164, 1), 2) == pytest.approx(165 / 10001)
    assert counts.density(CountReading(5000, 1), 1) == 1.0


def test_a_mean_without_all_its_members_is_not_judged():
    cells = printed.of(
        made_up({"method": "A", "benchmark": "mean of five sets", "value": "1"}, {"method": "A", "value": "9"})
    )
    (finding,) = means.check(cells)
    assert not finding.notable and "cannot be checked" in finding.statement


def test_heads_need_levels_of_both_models():
    assert list(comparisons.check(printed.of(made_up({"method": "teacher", "value": "50"})))) == []


# -- the command -------------------------------------------------------------------------------------------------


def test_the_command_prints_text_and_json(capsys):
    assert main(["check", "paper", "minillm", "--results", str(RESULTS)]) == 0
    text = capsys.readouterr().out
    assert "* main table: two rows print the same 3 values" in text and "holds: The SFT row" in text
    assert main(["check", "paper", "minillm", "skd", "--json", "--results", str(RESULTS)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["paper"] for one in found] == ["minillm", "skd"] and found[0]["findings"][0]["arithmetic"]
    assert any(cell["value"] == "23.2" for f in found[0]["findings"] for cell in f["cells"])


@pytest.mark.slow
def test_all_papers_are_audited_without_a_name(capsys):
    assert main(["check", "paper", "--json", "--results", str(RESULTS)]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 14


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["paper", "minilm"], "unknown paper 'minilm'; did you mean minillm"),
        (["papers"], "write harness check paper NAME"),
        (["paper", "minillm", "--task", "amc23"], "check paper takes names of papers only"),
    ],
)
def test_the_command_refuses_in_one_line(capsys, words, message):
    assert main(["check", *words, "--results", str(RESULTS)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cells: cells[1].update(page=3), "'page' was unexpected"),
        (lambda cells: cells[1].pop("locator"), "'locator' is a required property"),
        (lambda cells: cells[1].update(value="about 3"), "does not match"),
        (lambda cells: cells[1].update(unit="points"), "'points' is not one of"),
        (lambda cells: cells[1].update(source="elsewhere"), "unknown source 'elsewhere'"),
        (lambda cells: cells.append(dict(cells[1])), "printed[1] is the same cell"),
    ],
)
def test_a_bad_cell_is_named_with_its_file(tmp_path, capsys, change, message):
    paper = made_up(*CLEAN)
    change(paper["printed"])
    (tmp_path / "reported").mkdir()
    (tmp_path / "reported/made-up.json").write_text(json.dumps(paper))
    assert main(["check", "paper", "made-up", "--results", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "made-up.json: printed[" in error and message in error and error.count("\n") == 1


# -- the pages ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_pages_are_those_that_the_script_makes():
    from results.scripts import papers

    for path, content in papers.pages().items():
        assert path.read_text("utf-8") == content, f"{path.name}: make it anew with python -m results.scripts.papers"


@pytest.mark.slow
def test_the_table_of_papers_and_releases_is_the_one_that_the_script_makes():
    from results.scripts import paper_release

    shown = paper_release.PAGE.read_text("utf-8")
    assert shown == paper_release.page(), "make it anew with python -m results.scripts.paper_release"
    for words in ("DistiLLM-2", "ABKD", "AKL", "OPSD", "G-OPD", "GKD"):
        assert f"| {words} |" in shown
    # The effect is that of the recorded verdicts: 280 of 450 right against 126.
    assert "| `minillm@paper` | `minillm@trl` | -34.2 [" in shown and "62.2 to 28.0, 3 seeds" in shown
