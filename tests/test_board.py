"""The board as files: complete, self-contained, replaced as a whole, and honest about what it could not show."""

import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from board_site import ATTACK, PAPER, SCORES, add, build, results

from harness.cli import main
from harness.errors import BadInput
from harness.metrics import PERCENT
from harness.records.store import Store
from harness.reports.board import items, site, words


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    return build(tmp_path_factory.mktemp("site"))


def test_every_record_has_a_page_and_every_link_a_target(board):
    pages = list(board.rglob("*.html"))
    assert len(pages) == 20  # 18 records, one of them superseded
    for page in pages:
        for link in re.findall(r'(?:href|src)="([^"]*)"', page.read_text("utf-8")):
            if link.startswith(("https://", "data:", "#")):
                assert not link.startswith("https://") or "src=" not in link
                continue
            assert (page.parent / unquote(link.partition("#")[0])).is_file(), f"{page.name} leads to {link}"


def test_scores_intervals_and_marks_are_those_of_the_leaderboard(board, tmp_path):
    from harness.leaderboard.table import leaderboard

    store = results(tmp_path / "again")
    text = (board / "index.html").read_text("utf-8")
    for section in leaderboard(store.all()[0], None, store.completions):
        for row in section.rows:
            assert f'data-value="{row.score}"' in text
            assert f"{100 * row.low:.1f}–{100 * row.high:.1f}" in text
    assert text.count('class="rec"') == 4  # vcrd in both tables, and in both at equal compute
    assert "reconstruction from the public abstract" in text


def test_what_papers_report_stands_apart(board):
    text = (board / "index.html").read_text("utf-8")
    assert text.count('data-kind="reported"') == 1 and "35.0" in text.partition('id="reported"')[2]
    assert "&lt;i&gt;student&lt;/i&gt;" in text and "<i>student</i>" not in text


def test_strangers_text_is_escaped_in_every_file(board):
    for path in board.rglob("*.*"):
        text = path.read_text("utf-8")
        assert "<script>window.pwned" not in text and "<img src=x" not in text and "<b>p1" not in text, path
    data = next((board / "data").glob("*.js")).read_text("ascii")
    assert "<" not in data
    read = json.loads(data.partition(",")[2].rstrip()[:-2])
    assert read["p0"]["text"] == ATTACK


def test_long_texts_are_cut_and_say_so(board):
    page = next(board.glob("runs/kd-*.html")).read_text("utf-8")
    assert "characters left out here" in page and page.count("long long") < 25_000
    assert all(path.stat().st_size < 20_000 for path in (board / "data").iterdir())


def test_a_page_holds_no_more_than_it_can(board, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.reports.board.run_page.PAGE_AT_MOST", 2000)
    site.build(results(tmp_path), tmp_path / "board")
    page = next((tmp_path / "board").glob("runs/kd-*.html")).read_text("utf-8")
    assert "more would make this page too heavy" in page and page.count('class="item"') < 6


def test_a_board_replaces_a_board_and_nothing_else(tmp_path):
    store, out = results(tmp_path / "results"), tmp_path / "out"
    site.build(store, out)
    (out / "runs/stale.html").write_text("")
    site.build(store, out)
    assert not (out / "runs/stale.html").exists() and not list(tmp_path.glob(".out*"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/index.html").write_text("my homepage")
    with pytest.raises(BadInput, match="holds files that are no board"):
        site.build(store, tmp_path / "mine")
    assert (tmp_path / "mine/index.html").read_text() == "my homepage"


def test_bad_input_is_one_line(tmp_path, capsys):
    assert main(["board", "--results", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not list(tmp_path.iterdir())
    store = results(tmp_path / "results")
    (tmp_path / "file").write_text("")
    assert main(["board", "--results", str(store.root), "--out", str(tmp_path / "file")]) == 2
    assert "is a file" in capsys.readouterr().err


def test_what_cannot_be_trusted_is_named_and_left_out(tmp_path, capsys):
    store = results(tmp_path / "results")
    edited, gone = sorted(store.records_dir.rglob("kd-amc23*.json"))
    edited.write_text(edited.read_text().replace('"family": "maths"', '"family": "magic"'))
    record = json.loads(gone.read_text())
    (store.root / record["completions"]["file"]).unlink()
    assert main(["board", "--results", str(store.root), "--json"]) == 0
    captured = capsys.readouterr()
    facts = json.loads(captured.out)
    assert any(edited.name in w for w in facts["warnings"]) and edited.name in captured.err
    front = Path(facts["index"])
    assert edited.name in front.read_text("utf-8")
    page = (front.parent / f"runs/{gone.stem}.html").read_text("utf-8")
    assert "completions of" in page and "magic" not in front.read_text("utf-8")


def test_without_curves_or_trained_rows_there_is_still_a_page(tmp_path):
    store = Store(tmp_path / "results")
    add(store, "untouched", 0, SCORES["untouched"])
    site.build(store, tmp_path / "board")
    assert "No curves are kept" in (tmp_path / "board/index.html").read_text("utf-8")
    with pytest.raises(BadInput, match="no records in"):
        site.build(Store(tmp_path / "nothing"), tmp_path / "papers", [PAPER])


def test_axes_are_round_and_hold_what_they_show():
    for low, high in ((0.304, 0.713), (0.0, 1.0), (0.5, 0.5), (0.481, 0.489), (0.9, 1.0), (0.0, 0.0)):
        axis = words.axis([low, high], PERCENT)
        assert 0 <= axis["low"] <= low and high <= axis["high"] + 1e-9 <= 1 + 2e-9 and axis["low"] < axis["high"]
        assert 2 <= len(axis["ticks"]) <= 7
        assert axis["ticks"][-1][0] == pytest.approx(axis["high"])


def test_file_names_are_harmless_and_distinct():
    runs = ["kd-amc23@micro-s0-12345678", "../../etc/passwd", "a/b", "a\\b", "a b", "…", "x" * 300, "x" * 301]
    names = words.file_names(runs)
    assert names[runs[0]] == runs[0] and len(set(names.values())) == len(runs)
    assert all("/" not in n and "\\" not in n and not n.startswith(".") and len(n) < 200 for n in names.values())


def test_script_json_cannot_end_a_script():
    assert json.loads(items.script_json({"a": ATTACK})) == {"a": ATTACK}
    assert not set("<>&\u2028") & set(items.script_json(ATTACK))
