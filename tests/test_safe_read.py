"""Files of strangers: every odd one is refused in one line, and nothing is read outside the folder."""

import csv
import io
import os

import pytest
from sample_records import make_record, make_rows

from harness import recipe, safe_read
from harness.cli import main
from harness.data import parse
from harness.errors import BadInput
from harness.leaderboard.formats import csv_text
from harness.records.store import Store

BAD = {
    "deep": b"[" * 100_000,
    "deep and closed": b"[" * 65 + b"]" * 65,
    "digits": b"1" * 5000,
    "large": b"[1e999]",
    "nan": b"[NaN]",
    "not UTF-8": b'"\xff"',
    "NUL": b'{"a": 1}\0',
    "empty": b"",
}


@pytest.mark.parametrize("raw", BAD.values(), ids=BAD.keys())
def test_an_odd_value_is_refused_with_its_reason(raw):
    with pytest.raises(BadInput, match="is not"):
        safe_read.value(raw)


def test_an_ordinary_value_is_read():
    quoted = b'"' + b"[" * 200 + b'"'
    assert safe_read.value(b'\xef\xbb\xbf{"a": [-1.5, 2]}') == {"a": [-1.5, 2]}
    assert safe_read.value(quoted) == "[" * 200
    assert safe_read.value(b"[" * 64 + b"]" * 64)


def test_only_regular_files_below_the_folder_are_read(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    (tmp_path / "secret").write_text("1")
    (folder / "own").write_text("1")
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "in").symlink_to(folder / "own")
    os.mkfifo(folder / "pipe")
    assert safe_read.content(folder / "in", 10, folder) == b"1"
    for name in ("out", "pipe", "../secret", "/dev/zero", ".", "gone", "a\0b"):
        with pytest.raises(BadInput):
            safe_read.content(folder / name, 10, folder)
    with pytest.raises(BadInput, match="more than"):
        safe_read.content(folder / "own", 0, folder)


@pytest.mark.parametrize("raw", [b"\x1f\x8b", b"\x1f\x8bx" * 9, b"plain"])
def test_a_damaged_gzip_is_refused(raw, tmp_path):
    with pytest.raises(BadInput, match="not a complete gzip file"):
        parse(raw, tmp_path / "test.jsonl.gz")


@pytest.mark.parametrize("raw", [b"x = " + b"[" * 5000, b"x = " + b"1" * 5000, b"\xff\0", b"x = 1979-13-45"])
def test_an_odd_recipe_is_one_line(raw, tmp_path):
    (tmp_path / "odd.toml").write_bytes(raw)
    with pytest.raises(BadInput, match="not TOML"):
        recipe.load(str(tmp_path / "odd.toml"))


def test_a_record_with_edited_completions_is_left_out_by_name(tmp_path, capsys):
    store = Store(tmp_path)
    store.add(make_record(), make_rows())
    (file,) = store.completions_dir.iterdir()
    file.write_text(file.read_text() + "\n")
    records, warnings = store.all()
    assert not records and len(warnings) == 1 and "left out" in warnings[0] and file.name in warnings[0]
    for command in (["table"], ["board"], ["plot"], ["export", "--out", str(tmp_path / "out")]):
        assert main([*command, "--results", str(tmp_path)]) == 2
        assert "left out" in capsys.readouterr().err


def test_cells_cannot_act():
    written = csv_text([{"a": "=1+1", "b": -1.5, "c": "-x", "d": "\x1b[31m", "e": "ok"}], ["a", "b", "c", "d", "e"])
    (line,) = list(csv.DictReader(io.StringIO(written)))
    assert line == {"a": "'=1+1", "b": "-1.5", "c": "'-x", "d": "\\x1b[31m", "e": "ok"}
