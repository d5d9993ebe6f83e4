"""Figures and learning curves: they hold the numbers of the records, in every format, and refuse in one line."""

import itertools
import math
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from board_site import results

from harness.cli import main
from harness.leaderboard import formats, labels
from harness.leaderboard.compare import compare
from harness.leaderboard.equal_compute import View
from harness.leaderboard.rows import leaderboard, order
from harness.records import curves
from harness.records.store import Store
from harness.reports.plots import curves as curve_plots
from harness.reports.plots import differences, pareto, theme

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return results(tmp_path_factory.mktemp("results"))


def words_of(path):
    return [text.text for text in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.slow
def test_scores_are_drawn_as_recorded_in_every_format(store, tmp_path, capsys):
    out = tmp_path / "new/scores.svg"
    assert main(["plot", "--results", str(store.root), "--theme", "auto", "--out", str(out)]) == 0
    assert capsys.readouterr().out.split() == [str(out), str(out.with_suffix(".png"))]
    drawn = words_of(out)
    for section in leaderboard(store.all()[0], None, store.completions):
        assert all(f"{100 * row.score:.1f}" in drawn for row in section.rows if not row.reference)
    assert "vcrd‡" in drawn and any("reconstruction" in word for word in drawn)
    text = out.read_text()
    assert (
        "prefers-color-scheme:dark" in text
        and "var(" not in text  # plain colours, which every program shows
        and f"fill: {theme.colour('ink')}" in text
        and f"fill:{theme.colour('ink', 'dark')}" in text
        and not re.search(r"https?://(?!www\.w3\.org)", text)
    )
    for name, start in (("a.png", b"\x89PNG"), ("a.pdf", b"%PDF"), ("b.svg", b"<?xml")):
        path = tmp_path / name
        assert main(["plot", "--results", str(store.root), "--task", "amc23", "--out", str(path)]) == 0
        assert path.read_bytes().startswith(start)
    assert "var(" not in (tmp_path / "b.svg").read_text()  # for programs that know no CSS


def test_a_figure_drawn_twice_is_the_same_file(store, tmp_path):
    for name in ("a.svg", "b.svg"):
        words = ["--kind", "pareto", "--cost", "teacher_tokens", "--out", str(tmp_path / name)]
        assert main(["plot", "--results", str(store.root), *words]) == 0
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_the_frontier_is_what_none_other_beats(store):
    (section,) = leaderboard(store.all()[0], ["humaneval@micro"], store.completions)
    rows = [row for row in section.rows if not row.reference]
    for cost in pareto.COSTS:
        edge = pareto.frontier(rows, cost)
        for row in rows:
            beaten = any(
                o.score >= row.score and pareto.cost(o, cost) <= pareto.cost(row, cost) for o in edge if o != row
            )
            assert (row in edge) != beaten


def test_curves_are_means_and_ranges_over_the_seeds(store, tmp_path, capsys):
    records, _ = store.all()
    sections = leaderboard(records, ["humaneval@micro"], store.completions)
    series = curve_plots.series(sections, {record["run_id"]: record for record in records}, store.root)
    assert [one.label for one in series] == ["kd", "sft", "vcrd"]
    step, mean, low, high = series[0].table("loss")[0]
    assert (step, low, high) == (1, 0.5, 1.0) and mean == 0.75
    out = tmp_path / "curves.png"
    assert main(["plot", "--results", str(store.root), "--kind", "curves", "--theme", "dark", "--out", str(out)]) == 0
    assert out.stat().st_size > 5000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "x.gif"], "ends in none of .svg, .png, .pdf"),
        (["--out", "x.png", "--theme", "auto"], "--theme auto is for .svg"),
        (["--kind", "pareto", "--cost", "money"], "is not among seconds"),
        (["--kind", "curves", "--metric", "joy"], "is not among loss, on_policy"),
        (["--task", "amc24"], "unknown task"),
        (["--results", "nowhere"], "no records in nowhere"),
        (["--kind", "pareot"], "did you mean pareto?"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(store, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(["plot", "--results", str(store.root), *words]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and not list(tmp_path.iterdir())


def test_the_published_picture_is_what_the_records_say():
    published = Store(ROOT / "results/micro")
    records = published.all()[0]
    drawn = words_of(ROOT / "results/micro/leaderboard.svg")
    sections = leaderboard(records, None, published.completions, View("compute"))
    lines = [line for line in formats.grid_lines(sections) if not line.reference]
    assert len(lines) == 9 and all(
        labels.plain_label(line.label) + "‡" * line.reconstruction in drawn for line in lines
    )
    ranks = [f"{line.mean_rank:.1f}" for line in lines]
    assert [word for word in drawn if re.fullmatch(r"\d+\.\d", word or "")] == ranks
    by_run = {record["run_id"]: record for record in records}
    base, leads = differences.of_sections(sections, by_run, published.completions, "gkd")
    (kd,) = (lead for lead in leads if lead.label == "kd (340 steps)")
    (expected,) = compare(records, "gkd:training.steps=200", "kd:training.steps=340", ["humaneval@micro"],
                          published.completions)  # fmt: skip
    (mark,) = (mark for title, mark in kd.marks.items() if title.startswith("humaneval"))
    assert mark.difference == pytest.approx(100 * expected.comparison.difference) and base == "gkd (200 steps)"


def test_differences_refuse_unknown_rows_and_stand_by_rank(store, tmp_path, capsys):
    words = ["plot", "--results", str(store.root), "--kind", "differences", "--task", "humaneval@micro"]
    assert main([*words, "--against", "nobody", "--out", str(tmp_path / "x.svg")]) == 2
    assert "row to compare with" in capsys.readouterr().err and not list(tmp_path.iterdir())
    assert main([*words, "--out", str(tmp_path / "x.svg")]) == 0
    drawn = words_of(tmp_path / "x.svg")  # letters are outlines here: none but in the adaptive file
    assert drawn == [] and (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    records = store.all()[0]
    sections = leaderboard(records, ["humaneval@micro"], store.completions)
    base, leads = differences.of_sections(sections, {r["run_id"]: r for r in records}, store.completions)
    assert base == "sft" and [lead.label for lead in leads] == ["vcrd‡", "kd", "sft"]
    assert [bool(lead.marks) for lead in leads] == [True, True, False]


def test_names_beside_points_are_whole_and_apart(store):
    records = store.all()[0]
    sections = leaderboard(records, ["humaneval@micro"], store.completions)
    figure = pareto.figure(sections, "flops", order(sections))
    figure.canvas.draw()
    found = [text for text in figure.axes[0].texts if text.get_text() in ("kd", "sft", "vcrd‡")]
    boxes = [text.get_window_extent() for text in found]
    assert len(found) == 3 and not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert len(pareto._log_ticks(326e9, 1.37e12)) >= 4


def test_of_many_rows_those_on_the_line_have_names(store):
    """Long names neither shrink the axes nor leave the figure."""
    (section,) = leaderboard(store.all()[0], ["humaneval@micro"], store.completions)
    one = next(row for row in section.rows if not row.reference)
    long = "a long setting=0.123456, " * 6
    rows = [
        replace(one, details=f"{long}x={i}", score=i / 40, flops=1e9 * (1 + i % 7), run_ids=(str(i),))
        for i in range(40)
    ]
    section = replace(section, rows=rows)
    drawn = pareto.figure([section], "flops", [row.label for row in rows], size=(9.6, 4.6), titled=False)
    drawn.canvas.draw()
    (axes,) = drawn.axes
    written = [text.get_text() for text in axes.texts if text.get_text()]
    best = [row.details for row in pareto.frontier(rows, "flops")]
    assert len(written) == len(best) < 24 and all(any(b.split()[-1] in w for w in written) for b in best)
    assert axes.bbox.width > 0.7 * drawn.bbox.width and not axes.get_title()


def test_inline_figures_keep_their_ids_apart_and_strangers_names_as_text(store):
    from matplotlib.figure import Figure

    with theme.drawing():
        figure = Figure(figsize=(2, 2))
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], gid="c0", label="x")
        axes.set_title("<script>$x$ & 'y'</script>")
    texts = [theme.inline_svg(figure, 'a "label" & <b>', p, {"c0": "</title><script>"}) for p in ("p", "q")]
    ids = [set(re.findall(r'\bid="([^"]+)"', text)) for text in texts]
    assert ids[0] and not ids[0] & ids[1]
    for text, found in zip(texts, ids, strict=True):
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= found
        assert "<script" not in text and ElementTree.fromstring(text.replace("xlink:", "")) is not None


def test_a_curve_is_thinned_to_means_that_keep_its_ends():
    for n in (1, 7, 99, 100, 101, 250, 999, 4000):
        raw = [{"step": i + 1, "seconds": float(i), "loss": float(i)} for i in range(n)]
        points = curves.thin(raw)
        assert len(points) <= curves.POINTS and points[-1]["step"] == n and points[-1]["seconds"] == n - 1
        steps = [0, *(point["step"] for point in points)]
        for before, after, point in zip(steps, steps[1:], points, strict=False):
            assert point["loss"] == pytest.approx((before + after - 1) / 2, rel=1e-5)
    assert curves.thin([]) == []
    assert curves.thin([{"step": 1, "loss": math.nan}]) == [{"step": 1, "loss": None}]


def test_a_damaged_curve_is_no_curve(tmp_path):
    path = curves.keep(tmp_path, "t", "kd", 0, [{"step": 1, "loss": 2.0}])
    assert curves.read(tmp_path, "t") == [{"step": 1, "loss": 2.0}]
    for content in ("", "[]", "{}", '{"points": [{"loss": 1}]}', '{"points": 3}', '{"points": [4]}', "\xff"):
        path.write_text(content, "latin-1")
        assert curves.read(tmp_path, "t") == []
    assert curves.read(tmp_path, "none") == [] and curves.keep(tmp_path, "u", "kd", 0, []) is None
    assert [p.name for p in path.parent.iterdir()] == ["t.json"]


def test_colours_are_told_apart_by_value():
    for scheme in (0, 1):
        values = [pair[scheme] for name, pair in theme.COLOURS.items() if name not in ("accent",)]
        assert len(set(values)) == len(values)
    looks = {theme.of_series(i) for i in range(32)}
    assert len(looks) == 32
