"""The board as files: complete, self-contained, replaced as a whole, reused where unchanged, honest about gaps."""

import json
import re
import shutil
import threading
import urllib.request
from pathlib import Path
from urllib.parse import unquote

import pytest
from board_site import ATTACK, PAPER, SCORES, add, build
from sample_records import make_record, make_rows

from harness.cli import main
from harness.errors import BadInput
from harness.leaderboard.compare import compare
from harness.leaderboard.formats import render
from harness.leaderboard.rows import leaderboard
from harness.metrics import PERCENT
from harness.records.store import Store
from harness.reports.board import formatting, pages, run_page, site


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    return build(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def store(board):
    return Store(board.parent / "results")


@pytest.fixture
def copied(board, tmp_path):
    """A board and its results that a test may change."""
    shutil.copytree(board.parent, tmp_path / "copied")
    return Store(tmp_path / "copied/results"), tmp_path / "copied/board"


def data(board, pattern):
    """What the data files of this name hold, the first by name first."""
    found = sorted((board / "data").glob(f"{pattern}.js"))
    assert found, pattern
    return [pages.unpacked(path.read_bytes()) for path in found]


@pytest.mark.slow
def test_every_record_has_a_page_and_every_link_a_target(board):
    found = list(board.rglob("*.html"))
    assert len(found) == 24
    for page in found:
        text = page.read_text("utf-8")
        for link in re.findall(r'(?:href|src)="([^"]*)"', text):
            if link.startswith(("https://", "data:", "#")):
                assert not link.startswith("https://") or "src=" not in link
                continue
            assert (page.parent / unquote(link.partition("#")[0])).is_file(), f"{page.name} leads to {link}"
        for name in re.findall(r'data-(?:file|questions)="([^"]+)"', text):
            assert (board / f"data/{name}.js").is_file(), name


def test_the_grid_comes_first_at_equal_compute_and_cells_lead_on(board, store):
    text = (board / "index.html").read_text("utf-8")
    first, *others = re.findall(r'<section class="view" data-view="(\w+)"( hidden)?', text)
    assert first == ("compute", "") and {kind for kind, _ in others} == {"compute", "steps", "all"}
    assert "rank" in re.search(r"<h1[^>]*>(.*?)</h1>", text)[1]
    for section in leaderboard(store.all()[0], ["humaneval@micro"], store.completions):
        for row in section.rows:
            link = f"humaneval@micro-{section.protocol[:12]}.html#all/{row.run_ids[0]}"
            cell = re.search(rf'<a href="tasks/{re.escape(link).replace("@", "%40")}">(.*?)</a>', text)
            assert f">{100 * row.score:.1f}<" in cell[1]


def test_a_task_has_the_numbers_of_the_leaderboard(board, store):
    for section in leaderboard(store.all()[0], None, store.completions):
        file = formatting.task_file(section.task, section.protocol)
        text = (board / f"tasks/{file}.html").read_text("utf-8")
        for row in section.rows:
            assert f'data-value="{row.score}"' in text
            assert f"{100 * row.low:.1f}–{100 * row.high:.1f}" in text
        assert "Copy CSV" in text and "Copy LaTeX" in text
        (copies,) = data(board, f"c-{file}")
        kinds = set(re.findall(r'data-of="(\w+)"', text))
        assert copies.keys() == kinds and copies["all"]["CSV"] == render([section], "csv", tasks=True)


def test_differences_are_those_of_the_command(board, store):
    records = store.all()[0]
    (expected,) = compare(records, "kd", "vcrd", ["humaneval@micro"], store.completions)
    (found,) = data(board, "pairs-humaneval@micro-*")
    names = [row["label"] for row in found["rows"]]
    a, b = names.index("kd"), names.index("vcrd‡")
    i, j, difference, low, high, p, test, seeds, *_ = next(x for x in found["pairs"] if {x[0], x[1]} == {a, b})
    sign = 1 if (i, j) == (a, b) else -1
    ends = sorted((sign * low, sign * high))
    assert [sign * difference, *ends] == pytest.approx(
        [expected.comparison.difference, *expected.comparison.interval], abs=1e-5
    )
    assert p == pytest.approx(expected.comparison.p, rel=1e-3) and (test, seeds) == (expected.comparison.test, 2)
    assert len(found["pairs"]) == 4 * 3 / 2


def test_comparing_opens_with_two_methods_of_equal_compute(tmp_path):
    """Not with one method at two budgets, though these are the two best rows."""
    store, spent = Store(tmp_path / "results"), make_record()["cost"]
    for method, budget, scores in (
        ("kd", 4, (1, 1, 1, 1)), ("kd", 1, (1, 1, 1, 0)), ("vcrd", 1, (1, 0, 1, 0)), ("sft", 1, (1, 0, 0, 0)),
    ):  # fmt: skip
        cost = {key: value * budget for key, value in spent.items()} | {"steps": 10 * budget}
        made = make_record(method, scores=scores, cost=cost, recipe={"training": {"steps": 10 * budget}})
        store.add(made, make_rows(scores))
    site.build(store, tmp_path / "board", questions=False)
    text = (tmp_path / "board/compare.html").read_text("utf-8")
    (task,) = json.loads(re.search(r'id="tasks">(.*?)</script>', text)[1])
    (found,) = data(tmp_path / "board", "pairs-*")
    a, b = (next(row for row in found["rows"] if row["runs"][0][1] == run) for run in task["pair"])
    assert (a["name"], b["name"]) == ("vcrd", "kd") and a["flops"] == b["flops"] and "10 steps" in b["label"]


def test_a_run_has_its_completions_curve_and_card(board):
    (run, *_) = data(board, "vcrd-humaneval*s0*")
    assert [row["text"] for row in run["rows"]][:2] == [ATTACK, "half a \ud83d sign"]
    assert run["rows"][2]["finish"] == "length" and "characters left out here" in run["rows"][2]["text"]
    assert run["rows"][0]["reason"] == ATTACK and run["prompt"] == "\n  Exactly <this>\n"
    assert len(run["points"]) == 30 and "Convention" in [name for name, _ in run["facts"]]
    assert {row["kind"] for row in run["rows"]} == {"right", "wrong"}


def test_what_papers_report_stands_apart(board):
    text = (board / "papers.html").read_text("utf-8")
    assert "35.0" in text and "&lt;i&gt;student&lt;/i&gt;" in text and "<i>student</i>" not in text
    assert "35.0" not in (board / "index.html").read_text("utf-8")


def test_strangers_text_is_escaped_in_every_file(board):
    for path in board.rglob("*.*"):
        text = path.read_text("utf-8")
        assert "<script>window.pwned" not in text and "<img src=x" not in text and "<b>p1" not in text, path
    assert all(re.fullmatch(r'boardData\("[^<>&]*","[\w+/=]*"\);\n', p.read_text()) for p in board.glob("data/*.js"))


def test_a_page_holds_no_more_than_it_can(store, monkeypatch):
    monkeypatch.setattr("harness.reports.board.run_page.RUN_AT_MOST", 2000)
    rows = store.completions(store.all()[0][0])
    shown, left = run_page.shown(rows, PERCENT)
    assert len(shown) + left == 6 and left > 0


def test_what_is_unchanged_is_reused_and_what_changed_is_not(copied):
    own, out = copied
    everything = {p.relative_to(out): p.read_bytes() for p in out.rglob("*.*")}
    again = site.build(own, out, [PAPER])
    assert again.reused == len(everything) - 1  # all but the list of keys
    assert {p.relative_to(out): p.read_bytes() for p in out.rglob("*.*")} == everything
    add(own, "gkd", 0, SCORES["kd"])
    more = site.build(own, out, [PAPER])
    assert more.pages == again.pages + 1 and 20 < more.reused < again.reused
    text = (out / "index.html").read_text("utf-8")
    assert "gkd" in text and list(out.glob("runs/gkd-*.html"))


def test_a_board_replaces_a_board_and_nothing_else(copied, tmp_path):
    store, out = copied
    (out / "runs/stale.html").write_text("")
    site.build(store, out, [PAPER])
    assert not (out / "runs/stale.html").exists() and not list(out.parent.glob(".board*"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/index.html").write_text("my homepage")
    with pytest.raises(BadInput, match="holds files that do not belong to a board"):
        site.build(store, tmp_path / "mine")
    assert (tmp_path / "mine/index.html").read_text() == "my homepage"


def test_bad_input_is_one_line(store, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for given, message in (
        (["--results", str(tmp_path / "none")], "no records"),
        (["--results", str(store.root), "--out", str(tmp_path / "file")], "is a file"),
        (["--results", str(store.root), "--serve", "70000"], "a port is between"),
    ):
        assert main(["board", *given]) == 2
        captured = capsys.readouterr().err
        assert message in captured and captured.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_board_is_served_to_this_machine_alone(board):
    found = site.site_server(board, 0)
    port = found.server_address[1]
    assert found.server_address[0] == "127.0.0.1"
    threading.Thread(target=found.serve_forever, daemon=True).start()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/assets/board.css") as answer:
        assert answer.headers["Content-Type"] == "text/css"
    with pytest.raises(BadInput, match="choose another port"):
        site.site_server(board, port)
    found.shutdown()
    found.server_close()


def test_what_cannot_be_trusted_is_named_and_left_out(copied, capsys, monkeypatch):
    monkeypatch.setattr("harness.records.reported.papers", lambda *_: [])
    own, _ = copied
    edited, gone = sorted(own.records_dir.rglob("kd-amc23*.json"))
    edited.write_text(edited.read_text().replace('"family": "maths"', '"family": "magic"'))
    record = json.loads(gone.read_text())
    (own.root / record["completions"]["file"]).unlink()
    assert main(["board", "--results", str(own.root), "--json", "--no-questions"]) == 0
    captured = capsys.readouterr()
    facts = json.loads(captured.out)
    assert any(edited.name in w for w in facts["warnings"]) and edited.name in captured.err
    front = Path(facts["index"])
    assert edited.name in front.read_text("utf-8")
    page = (front.parent / f"runs/{gone.stem}.html").read_text("utf-8")
    assert "completions of" in page and "magic" not in front.read_text("utf-8")
    assert "were left out of this board" in page and not list((front.parent / "data").glob("q-*"))


def test_without_curves_or_trained_rows_there_is_still_a_page(tmp_path):
    own = Store(tmp_path / "results")
    add(own, "untouched", 0, SCORES["untouched"])
    site.build(own, tmp_path / "board")
    assert "untouched" in (tmp_path / "board/index.html").read_text("utf-8")
    assert data(tmp_path / "board", "t-humaneval*")[0]["metrics"] == []
    with pytest.raises(BadInput, match="no records in"):
        site.build(Store(tmp_path / "nothing"), tmp_path / "papers", [PAPER])


def test_axes_are_round_and_hold_what_they_show():
    for low, high in ((0.304, 0.713), (0.0, 1.0), (0.5, 0.5), (0.481, 0.489), (0.9, 1.0), (0.0, 0.0)):
        axis = formatting.axis([low, high], PERCENT)
        assert 0 <= axis["low"] <= low and high <= axis["high"] + 1e-9 <= 1 + 2e-9 and axis["low"] < axis["high"]
        assert 2 <= len(axis["ticks"]) <= 7
        assert axis["ticks"][-1][0] == pytest.approx(axis["high"])


def test_backticks_are_code_and_stay_text():
    assert formatting.code("`a<b>` and <i>") == "<code>a&lt;b&gt;</code> and &lt;i&gt;"
    assert formatting.code("one ` alone") == "one ` alone"


def test_file_names_are_harmless_and_distinct():
    runs = ["kd-amc23@micro-s0-12345678", "../../etc/passwd", "a/b", "a\\b", "a b", "…", "x" * 300, "x" * 301]
    names = formatting.file_names(runs)
    assert names[runs[0]] == runs[0] and len(set(names.values())) == len(runs)
    assert all("/" not in n and "\\" not in n and not n.startswith(".") and len(n) < 200 for n in names.values())


def test_script_json_cannot_end_a_script():
    assert json.loads(pages.script_json({"a": ATTACK})) == {"a": ATTACK}
    assert not set("<>&\u2028") & set(pages.script_json(ATTACK))
