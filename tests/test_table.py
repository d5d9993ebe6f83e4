"""Leaderboards: one protocol per section, seeds aggregated, nothing claimed that was not measured."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from sample_records import NOTE, make_record, make_rows

from harness.errors import BadInput
from harness.leaderboard.formats import row_dicts
from harness.leaderboard.latex_tables import Wording
from harness.leaderboard.table import COLUMNS, leaderboard, load_results, render, update_between_markers
from harness.records.store import Store
from harness.stats.intervals import wilson

HALF = (1.0, 0.0) * 10


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def add(store, method="vcrd", scores=HALF, samples=1, **changes):
    record = make_record(method, scores=scores, **changes)
    store.add(record, make_rows(scores, samples))
    return record


def table(store, tasks=None, read=True):
    return leaderboard(store.all()[0], tasks, store.completions if read else None)


def rows_of(store, **keywords):
    (section,) = table(store, **keywords)
    return {row.label: row for row in section.rows}


def score(right, total=20):
    return (1.0,) * right + (0.0,) * (total - right)


# -- who stands in one row -----------------------------------------------------------------------------------


def test_seeds_are_averaged_and_counted(store):
    add(store, "kd", score(10), seed=0)
    add(store, "kd", score(14), seed=1)
    (row,) = rows_of(store).values()
    assert row.score == pytest.approx(0.6)
    assert (row.correct, row.total, row.seeds, row.truncated) == (24, 40, (0, 1), 2)
    assert len(row.run_ids) == 2
    assert row.low < 0.6 < row.high
    assert row.seconds == 1.5


def test_one_protocol_per_section_and_each_says_what_differs(store):
    add(store, "kd")
    add(store, "kd", protocol={"decoding": {"temperature": 0.8, "samples": 4}})
    add(store, "kd", protocol={"decoding": {"temperature": 0.6, "samples": 4}})
    sections = table(store)
    assert len(sections) == 3
    assert all(len(section.rows) == 1 for section in sections)
    assert sorted(section.differs for section in sections if section.differs.startswith("decoding")) == [
        "decoding.temperature=0.6",
        "decoding.temperature=0.8",
    ]
    assert len({section.title for section in sections}) == 3


def test_the_generated_world_never_shares_a_section_with_the_benchmark(store):
    add(store, "kd", task="humaneval")
    add(store, "kd", task="humaneval@micro")
    real, micro = table(store)
    assert (real.title, micro.title) == ("humaneval", "humaneval@micro")
    text = "micro world: generated problems, not the benchmark"
    assert text in render([micro], "md")
    assert text not in render([real], "md")


def test_settings_and_recipes_that_differ_are_never_averaged(store):
    add(store, "kd", settings={"beta": 0.1, "mode": "x"})
    add(store, "kd", settings={"beta": 0.3, "mode": "x"})
    assert set(rows_of(store)) == {"kd (beta=0.1)", "kd (beta=0.3)"}
    add(store, "kd", settings={"beta": 0.3, "mode": "x"}, recipe={"training": {"steps": 5, "batch": 2}})
    add(store, "gkd", recipe={"training": {"steps": 7, "batch": 2}})
    assert "kd (beta=0.3, training.steps=5)" in rows_of(store)
    assert "gkd (training.steps=7)" in rows_of(store)


def test_a_recipe_part_that_a_method_does_not_use_contradicts_nobody(store):
    add(store, "sft", recipe={"rollout": None})
    add(store, "gkd", recipe={"rollout": {"temperature": 1.0}})
    assert set(rows_of(store)) == {"sft", "gkd"}


def test_variants_are_methods_of_their_own(store):
    add(store, "vcrd")
    add(store, "vcrd", variant="shuffled", seed=1)
    assert set(rows_of(store)) == {"vcrd", "vcrd@shuffled"}


def test_the_newest_attempt_counts(store):
    first = add(store, "kd", score(2))
    add(store, "kd", score(9), attempt=1, supersedes=first["run_id"])
    (row,) = rows_of(store).values()
    assert row.score == pytest.approx(9 / 20)
    assert row.seeds == (0,)


# -- what a row may claim ------------------------------------------------------------------------------------


def test_gain_and_recovery(store):
    for method, right in (("untouched", 4), ("teacher", 20), ("sft", 8), ("kd", 12)):
        add(store, method, score(right))
    rows = rows_of(store)
    assert rows["kd"].over_baseline == pytest.approx(0.2)
    assert rows["kd"].recovery == pytest.approx(0.5)
    assert rows["sft"].over_baseline is None
    assert rows["sft"].recovery == pytest.approx(0.25)
    assert rows["untouched"].recovery is rows["teacher"].recovery is None


def test_no_gain_over_another_recipes_sft(store):
    add(store, "sft", recipe={"training": {"steps": 5}})
    add(store, "kd", recipe={"training": {"steps": 7}})
    assert all(row.over_baseline is None for row in rows_of(store).values())


def test_a_part_of_the_recipe_that_sft_does_not_use_costs_no_gain(store):
    add(store, "sft", score(8), recipe={"training": {"steps": 5}})
    add(store, "kd", score(12), recipe={"training": {"steps": 5, "signal": "hidden"}, "teacher_text": {"top_p": 1.0}})
    assert rows_of(store)["kd"].over_baseline == pytest.approx(0.2)


def test_no_recovery_between_another_students_marks(store):
    add(store, "untouched", score(4), student="another")
    add(store, "teacher", score(20), student="another")
    add(store, "kd", score(12))
    assert rows_of(store)["kd"].recovery is None


def test_references_are_shown_last_and_not_ranked(store):
    add(store, "teacher", score(20))
    add(store, "kd", score(12))
    add(store, "sft", score(8))
    (section,) = table(store)
    assert [(row.label, row.rank) for row in section.rows] == [("kd", 1), ("sft", 2), ("teacher", None)]


def test_a_row_of_one_record_keeps_the_records_interval(store):
    add(store, "kd", interval=[0.25, 0.75], interval_method="Wilson")
    (row,) = rows_of(store).values()
    assert (row.low, row.high, row.interval_method) == (0.25, 0.75, "Wilson")


def test_with_completions_rows_are_compared_problem_by_problem(store):
    """Ten problems won and none lost is certain in pairs, though the intervals overlap."""
    add(store, "best", score(110, 200))
    add(store, "rest", score(100, 200))
    assert rows_of(store)["rest"].p_best == pytest.approx(2 * 0.5**10)
    assert not rows_of(store)["rest"].tied
    unread = rows_of(store, read=False)["rest"]
    assert unread.tied
    assert "by counts" in render(table(store, read=False), "md")


def test_without_completions_seeds_do_not_multiply_the_problems(store):
    for seed in range(3):
        add(store, "kd", score(10), seed=seed)
    (row,) = rows_of(store, read=False).values()
    assert (row.low, row.high) == pytest.approx(wilson(10, 20))
    assert row.interval_method == "from counts"


def test_repeated_evaluations_of_an_untrained_model_do_not_count_as_seeds(store):
    for seed in range(2):
        add(store, "teacher", score(10), seed=seed)
    (row,) = rows_of(store).values()
    assert (row.low, row.high) == pytest.approx(wilson(10, 20))


def test_missing_completions_cost_the_pairing_not_the_table(store):
    add(store, "kd", score(12))
    record = add(store, "sft", score(8))
    (store.completions_dir / f"{record['run_id']}.jsonl").unlink()
    assert set(rows_of(store)) == {"kd", "sft"}
    assert "by counts" in render(table(store), "md")


def test_verdicts_not_reached_leave_a_win_rate(store):
    rows = make_rows((1.0, 0.0, 0.5))
    rows[1]["error"] = True
    record = make_record("kd", scores=(1.0, 0.5), metric="win_rate")
    store.add(record, rows)
    store.add(make_record("kd", scores=(1.0, 0.5), seed=1, metric="win_rate"), rows)
    (row,) = rows_of(store).values()
    assert row.interval_method == "over seeds and problems"
    assert row.low < 0.75 < row.high


def test_equal_scores_share_the_first_place(store):
    add(store, "kd", score(10))
    add(store, "sft", score(10))
    assert [row.rank for row in rows_of(store).values()] == [1, 1]
    assert render(table(store), "md").count("**50.0**") == 2


# -- asking for tasks ----------------------------------------------------------------------------------------


def test_tasks_are_selected_by_title_or_bare_name(store):
    add(store, "kd", task="amc23@micro")
    add(store, "kd", task="humaneval")
    add(store, "kd", task="humaneval@micro")
    for asked, expected in (
        (["amc23"], ["amc23@micro"]),
        (["humaneval"], ["humaneval"]),
        (["humaneval@real"], ["humaneval"]),
        (["humaneval@micro", "amc23", "amc23@micro"], ["humaneval@micro", "amc23@micro"]),
        (None, ["amc23@micro", "humaneval", "humaneval@micro"]),
    ):
        assert [section.task for section in table(store, asked)] == expected
    with pytest.raises(BadInput, match="humaneval@micro"):
        table(store, ["humanevil@micro"])


# -- how it looks --------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(store):
    add(store, "teacher", score(20))
    add(store, "vcrd", score(12))
    add(store, "a|b<_$%&", score(11))
    add(store, "sft", score(4))
    return store


@pytest.mark.parametrize("format", ["md", "csv", "json", "latex", "html"])
def test_the_reconstruction_is_named_under_every_table(mixed, format):
    add(mixed, "vcrd", task="mbpp@micro")
    text = render(table(mixed), format)
    assert text.count(f"vcrd: {NOTE}") >= 2
    assert "‡" in text or r"\ddagger" in text


def test_markdown_has_the_best_bold_the_second_underlined_and_ties_marked(mixed):
    text = render(table(mixed), "md")
    assert "| vcrd‡ | **60.0** |" in text
    assert r"| a\|b<\_$%& | <u>55.0</u>† |" in text
    widths = {line.replace(r"\|", "").count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_json_rows_have_stable_keys(mixed):
    rows = json.loads(render(table(mixed), "json"))
    assert len(rows) == 4
    assert rows[0]["label"] == "vcrd"
    assert list(rows[0]) == [
        "task", "protocol", "metric", "kind", "method", "details", "role", "reference", "reconstruction", "note",
        "student", "teacher", "settings", "score", "low", "high", "interval_method", "seeds", "correct", "total",
        "errors", "truncated", "teacher_tokens", "generated_tokens", "student_tokens", "seconds", "peak_memory_bytes",
        "steps", "flops", "run_ids", "convention", "training", "baseline", "over_baseline", "over_baseline_p",
        "recovery", "recovery_p", "rank", "p_best", "unit", "higher_is_better",
        "label", "tied_with_best", "protocol_differs", "view", "notes",
    ]  # fmt: skip
    assert rows == json.loads(json.dumps(row_dicts(table(mixed))))


def test_csv_reads_back(mixed):
    rows = list(csv.DictReader(io.StringIO(render(table(mixed), "csv"))))
    assert [row["method"] for row in rows] == ["vcrd", "a|b<_$%&", "sft", "teacher"]
    assert float(rows[0]["score"]) == 0.6
    assert json.loads(rows[0]["settings"]) == {}


def test_latex_is_escaped_and_booktabs(mixed):
    text = render(table(mixed), "latex")
    assert r"a$|$b$<$\_\$\%\&" in text
    assert r"\textbf{60.0}" in text
    assert r"\underline{55.0}$^\dagger$" in text
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1
    lines = [line for line in text.splitlines() if line.endswith(r"\\") and "&" in line]
    assert len({re.sub(r"\\&", "", line).count("&") for line in lines}) == 1


def test_latex_has_a_caption_a_label_renamed_rows_and_notes_of_its_width(mixed):
    rename = ("vcrd=\\textsc{vcrd}", "95 % interval=CI", "humaneval@micro=HumanEval")
    text = render(
        table(mixed), "latex", wording=Wording("Main result.", "tab:main", rename), columns=("95 % interval",)
    )
    begun, ended = (re.findall(rf"\\{verb}{{(\w+)}}", text) for verb in ("begin", "end"))
    assert begun == ["table", "threeparttable", "tabular", "tablenotes"]
    assert ended == ["tabular", "tablenotes", "threeparttable", "table"]
    assert r"\caption{Main result.}" in text and r"\label{tab:main}" in text and r"method & CI \\" in text
    assert r"\textsc{vcrd}$^\ddagger$ & " in text and text.count("\n\\item ") == 4
    assert r"\caption{HumanEval. pass@1" in render(table(mixed), "latex", wording=Wording(rename=rename[2:]))
    own = render(table(mixed), "latex")
    assert r"\label{tab:humaneval-micro}" in own and r"\caption{Scores on humaneval@micro: pass@1, " in own
    assert r"\caption{All tasks. Percent $\pm$ half" in render(table(mixed), "latex", grid=True, tasks=False)
    for wrong, reason in (("vcdr=V", "did you mean vcrd"), ("vcrd", "OLD=NEW")):
        with pytest.raises(BadInput, match=reason):
            render(table(mixed), "latex", wording=Wording(rename=(wrong,)))
    add(mixed, "vcrd", task="mbpp@micro")
    with pytest.raises(BadInput, match="--caption is for one table, but this prints 2"):
        render(table(mixed), "latex", wording=Wording("Main result."))


def test_latex_fits_its_page(store, tmp_path):
    """A wide table leaves out costs and takes smaller type, long names are broken, many rows go over pages."""
    for i in range(45):
        add(store, "kd", settings={"beta": i / 7, "a_setting_with_a_long_name": f"w{i} " * 12})
    (section,) = table(store)
    long = render([section], "latex")
    short = render([replace(section, rows=section.rows[:3])], "latex")
    assert r"\begin{longtable}{p{" in long and long.count(r"\label") == 1 and r"\begin{tabular}{p{" in short
    assert "left out, to fit the line" in short and " & score & " in short and "seconds &" not in short
    assert r"\scriptsize" in short and "seconds &" in render([section], "latex", columns=("seconds", "score"))
    few = render([replace(section, rows=[replace(section.rows[0], details="")])], "latex")
    assert r"\begin{tabular}{lr" in few and "kd & " in few
    if shutil.which("pdflatex") is None:
        return
    packages = r"\usepackage{booktabs,threeparttable,longtable}"
    page = "\n".join([r"\documentclass{article}", packages, r"\begin{document}", long, short, few, r"\end{document}"])
    (tmp_path / "page.tex").write_text(page, "utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0 and "Overfull" not in done.stdout and "too large" not in done.stdout, done.stdout[
        -2000:
    ]


def test_html_is_escaped(mixed):
    text = render(table(mixed), "html")
    assert "a|b&lt;_$%&amp;" in text
    assert "<strong>60.0</strong>" in text
    assert text.count("<tr>") == 5


def test_nothing_recorded_is_said(store):
    assert render(table(store), "md") == "No records."
    assert json.loads(render(table(store), "json")) == []
    assert render(table(store), "csv").startswith("task,protocol")
    with pytest.raises(BadInput, match="nothing is recorded"):
        table(store, ["humaneval"])


def test_an_unknown_format_is_named(store):
    with pytest.raises(BadInput, match="latex"):
        render([], "latx")


# -- README markers ------------------------------------------------------------------------------------------


def test_a_table_is_put_between_its_markers_and_nothing_else_changes(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n<!-- BEGIN board -->\nold\n<!-- END board -->\ntail\n")
    assert update_between_markers(readme, "| new |\n", "board")
    assert readme.read_text() == "# Title\n<!-- BEGIN board -->\n| new |\n<!-- END board -->\ntail\n"
    assert not update_between_markers(readme, "| new |", "board")


@pytest.mark.parametrize(
    "content",
    ["nothing", "<!-- BEGIN b -->", "<!-- END b --><!-- BEGIN b -->", "<!-- BEGIN b -->" * 2 + "<!-- END b -->"],
)
def test_missing_or_doubled_markers_are_one_line(tmp_path, content):
    readme = tmp_path / "README.md"
    readme.write_text(content)
    with pytest.raises(BadInput, match="BEGIN b"):
        update_between_markers(readme, "x", "b")
    assert readme.read_text() == content
    with pytest.raises(BadInput, match="cannot be read"):
        update_between_markers(tmp_path / "none.md", "x", "b")


# -- all records as one frame --------------------------------------------------------------------------------


def test_results_load_as_a_frame_with_the_documented_columns(store):
    first = add(store, "kd", score(12), settings={"beta": 0.3})
    add(store, "kd", score(13), settings={"beta": 0.3}, attempt=1, supersedes=first["run_id"])
    frame = load_results(store.root)
    assert list(frame.columns) == list(COLUMNS)
    assert frame["score"].tolist() == [0.6, 0.65]
    assert frame["latest"].tolist() == [False, True]
    assert frame.loc[0, "method"] == "kd"
    assert json.loads(frame.loc[0, "settings"]) == {"beta": 0.3}
    assert str(frame["created"].dtype).endswith("UTC]")


def test_an_empty_folder_is_an_empty_frame(store):
    frame = load_results(store.root)
    assert len(frame) == 0
    assert list(frame.columns) == list(COLUMNS)


def test_a_damaged_record_is_left_out_of_the_frame_with_a_warning(store):
    add(store, "kd")
    (store.records_dir / "bad.json").write_text("{")
    with pytest.warns(UserWarning, match=r"bad\.json"):
        frame = load_results(store.root)
    assert len(frame) == 1


def test_pandas_is_not_imported_for_a_leaderboard():
    code = "import sys, harness.leaderboard.table; sys.exit('pandas' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_columns_of_a_frame_are_documented():
    text = (Path(__file__).parent.parent / "results/README.md").read_text("utf-8")
    assert all(f"| `{name}` | {meaning} |" in text for name, meaning in COLUMNS.items())
