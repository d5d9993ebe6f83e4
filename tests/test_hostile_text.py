"""Text of strangers' records in every format: labels, task names and notes that try to act are printed as they are."""

import csv
import io
import json
import re

import pytest
from sample_records import make_record, make_rows

from harness.cli import main
from harness.leaderboard.table import leaderboard, render
from harness.model_card import model_card
from harness.records.store import Store
from harness.reports.board.pages import script_json

HOSTILE = [
    "<script>act()</script>",
    "</script><script>act()",
    "[go](javascript:act)",
    "![go](http://a.example/x.png)",
    "`act`|**act**",
    "=act()",
    "+act()",
    "-act()",
    "@act",
    "\\input{act}",
    "100%$#_{}~^&",
    "a\nb\r\n=c",
    "\x1b[31mact\x07",
    "\u202eact\u2028",
    '"><img src=x onerror=act()>',
    "<!-- END micro -->",
    "https://a.example",
]
TABLE_TAGS = {"section", "table", "caption", "thead", "tbody", "tr", "th", "td", "p", "strong", "u"}
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]")


@pytest.fixture
def records(tmp_path):
    """``records(text)``: two methods whose name, note, settings, task, metric and models say ``text``."""

    def made(text):
        who = {"name": text, "variant": text, "note": text, "paper": text, "reconstruction": True}
        store = Store(tmp_path / f"results{abs(hash(text))}")
        for seed in (0, 1):
            for scores, more in (((1.0, 0.0, 1.0, 1.0), {}), ((0.0, 0.0, 1.0, 0.0), {"settings": {text: text}})):
                named = {"student": text, "metric": text, "convention": {text: text}, "family": text}
                record = make_record("x", text, seed, scores, who=who, **named, **more)
                protocol = record["protocol"] | {"name": text, "dataset": {"source": text, "n": 4}}
                spec = record["spec"] | {"training": {"steps": 5}}
                store.add(record | {"protocol": protocol, "spec": spec, "warnings": [text]}, make_rows(scores))
        return store

    return made


def rendered(store, form, **layout):
    found, warnings = store.all()
    assert len(found) == 4 and not warnings
    return render(leaderboard(found, None, store.completions), form, **layout)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_record_acts_in_a_table(records, text):
    store = records(text)
    for form in ("md", "html", "latex"):
        said = rendered(store, form, grid=True, cards=True)
        assert not CONTROL.search(said), form
        if form == "md":
            plain = re.sub(r"\\.", "", said.replace("<u>", "").replace("</u>", ""))
            assert not re.search(r"<[A-Za-z/!]|\]\(|://", plain), plain
            lines = [re.sub(r"\\.", "", line) for line in said.splitlines() if line.startswith("|")]
            assert len({line.count("|") for line in lines[:4]}) == 1
        if form == "html":
            tags = set(re.findall(r"<(/?[A-Za-z!]+)", said))
            assert {tag.removeprefix("/") for tag in tags} <= TABLE_TAGS
        if form == "latex":  # a comment ends with its line
            assert "\\input" not in re.sub(r"^%.*$", "", said, flags=re.MULTILINE)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("tasks", [True, False])
def test_no_cell_and_no_heading_of_a_csv_file_is_a_formula(records, text, tasks):
    said = rendered(records(text), "csv", tasks=tasks)
    rows = list(csv.reader(io.StringIO(said)))
    assert len({len(row) for row in rows}) == 1 and len(rows) == 3
    for cell in (cell for row in rows for cell in row):
        assert not cell.startswith(("=", "+", "@", "\t", "\r")) and not re.match(r"-(?!\d)", cell), cell
    assert not CONTROL.search(said)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_record_acts_in_a_model_card(records, text):
    found, _ = records(text).all()
    told = {"equation": f"x\n```\n{text}", "prompts": text, "labelled": text}
    card = str(model_card(found, told))
    head, body = card.split("---\n\n", 1)
    outside = re.sub(r"```text\n.*?\n```|```python\n.*?\n```", "", body, flags=re.DOTALL)
    plain = re.sub(r"\\.|`[^`\n]*`", "", outside)
    allowed = "https://a.example" if text.startswith("https") else "\0"
    assert not re.search(r"<[A-Za-z/!]|\]\(|`", plain) and "://" not in plain.replace(allowed, "")
    assert not CONTROL.search(body) and "\n---\n" not in head[4:]


@pytest.mark.parametrize("text", HOSTILE)
def test_json_between_script_tags_holds_no_tag_and_reads_back(text):
    said = script_json({text: [text]})
    assert not set(said) & set("<>&\u2028\u2029") and json.loads(said) == {text: [text]}


@pytest.mark.parametrize("text", [HOSTILE[1], HOSTILE[2], HOSTILE[13], HOSTILE[14]])
def test_no_text_of_a_record_acts_on_the_board(records, text, tmp_path, capsys):
    store = records(text)
    assert main(["board", "--results", str(store.root), "--out", str(tmp_path / "board")]) == 0
    capsys.readouterr()
    for page in (tmp_path / "board").rglob("*.html"):
        said = page.read_text("utf-8")
        assert not re.search(r"<script>act|<img src=x|href=.?javascript", said), page.name
        assert "onerror=act()>" not in said or "&gt;" in said


def test_export_names_the_first_files_that_it_leaves_out_and_counts_the_rest(tmp_path, capsys):
    store = Store(tmp_path / "results")
    store.add(make_record(), make_rows())
    for number in range(30):
        (store.records_dir / f"bad{number:02}.json").write_text("{")
    assert main(["export", "--results", str(store.root), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 21 and "bad00.json" in said[0] and said[-1] == "warning: and 10 more"


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("a\x1b[31mb", "cannot be printed: a\\x1b[31mb"),
        ("a\nb", "cannot be printed"),
        ("a\0b", "cannot be printed"),
        ("\u202ea", "cannot be printed"),
        ("\ud800", "cannot be printed"),
        ("", "is empty"),
        ("x" * 5000, "has 5,000 characters"),
        (f"/tmp/{'x' * 300}", None),
    ],
)
@pytest.mark.parametrize(
    "words",
    [
        ["table", "--results", "WORD"],
        ["table", "--task", "WORD"],
        ["show", "method", "WORD"],
        ["run", "--method", "WORD", "--task", "amc23"],
        ["run", "--method", "sft", "--task", "WORD"],
        ["run", "--method", "sft", "--task", "amc23", "--set", "WORD"],
        ["run", "--method", "sft", "--task", "amc23", "--student", "WORD"],
        ["run", "--method", "sft", "--task", "alpaca_eval@micro", "--judge", "WORD"],
        ["run", "--method", "sft", "--task", "amc23", "--protocol", "WORD"],
        ["grade", "--task", "amc23@micro", "--samples", "WORD"],
        ["check", "--method", "WORD"],
    ],
)
def test_an_argument_that_nothing_can_be_called_is_one_line(word, told, words, capsys):
    if told is None and words[-2] in ("--task", "--set", "--protocol") and words[0] != "table":
        pytest.skip("a long word, and no file")
    code = main([word if w == "WORD" else w for w in words])
    said = capsys.readouterr().err
    assert code == 2 and len(said.splitlines()) == 1 and len(said) < 700
    assert (told or "") in said and not CONTROL.search(said) and "internal error" not in said
