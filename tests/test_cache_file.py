"""Cache files: what a crash or a stranger did to a line costs that line, and is told."""

import os

import pytest

from harness.durable import CacheFile
from harness.errors import BadInput
from harness.grading.judges.models import CachedReply, JudgementCache
from harness.models import generation_cache
from harness.training import teacher_texts

DAMAGED = [
    b"{",
    b"[1]",
    b"7",
    b"null",
    b"\xff\xfe",
    b"[" * 5000,
    b'{"key": 1, "a": 1}',
    b'{"a": 1}',
    b'{"key": "x", "a": ' + b"9" * 5000 + b"}",
]


def parse(fields):
    return fields if fields.keys() == {"a"} else None


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_lines_are_left_out_and_counted(tmp_path, capsys, damage):
    kept = CacheFile(tmp_path, {"of": 1})
    kept.add({"one": {"a": 1}, "two": {"a": 2}})
    assert dict(kept.read(parse)) == {"one": {"a": 1}, "two": {"a": 2}} and not capsys.readouterr().err
    first, second = kept.path.read_bytes().splitlines()
    kept.path.write_bytes(b"\n".join([first, damage, second, damage, b"", damage[:1]]))
    again = CacheFile(tmp_path, {"of": 1})
    assert dict(again.read(parse)) == {"one": {"a": 1}, "two": {"a": 2}}
    (warning,) = capsys.readouterr().err.splitlines()
    assert str(kept.path) in warning and "3 damaged lines are skipped" in warning


def test_a_line_without_end_costs_what_follows_it_and_not_the_memory(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("harness.durable.LONGEST_LINE", 100)
    kept = CacheFile(tmp_path, {})
    kept.add({"one": {"a": 1}})
    os.truncate(kept.path, 10**12)  # a hole, which holds no line end
    assert dict(CacheFile(tmp_path, {}).read(parse)) == {"one": {"a": 1}}
    assert "a damaged line is skipped" in capsys.readouterr().err


@pytest.mark.parametrize(
    "place", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to("x")]
)
def test_a_cache_is_a_file_of_its_own(tmp_path, place):
    kept = CacheFile(tmp_path, {})
    kept.path.unlink()
    place(kept.path)
    with pytest.raises(BadInput, match="is a link or not a regular file; delete it"):
        CacheFile(tmp_path, {})
    assert not (tmp_path / "x").exists()


def test_a_line_torn_by_a_crash_is_told_and_the_next_one_is_whole(tmp_path, capsys):
    kept = CacheFile(tmp_path, {})
    kept.add({"one": {"a": 1}})
    kept.path.write_bytes(kept.path.read_bytes() + b'{"key": "two", "a')
    again = CacheFile(tmp_path, {})
    assert dict(again.read(parse)) == {"one": {"a": 1}}
    again.add({"three": {"a": 3}})
    assert dict(CacheFile(tmp_path, {}).read(parse)) == {"one": {"a": 1}, "three": {"a": 3}}
    assert capsys.readouterr().err.count("a damaged line is skipped") == 2


@pytest.mark.parametrize(
    "fields",
    [
        '"share": 1.5, "reply": ""',
        '"share": true',
        '"share": NaN',
        '"share": 0.5, "reply": 1',
        '"share": 0.5, "else": ""',
        '"reply": ""',
    ],
)
def test_odd_judgements_are_asked_for_again(tmp_path, capsys, fields):
    kept = JudgementCache(tmp_path, {})
    kept.add("a", CachedReply(0.5, "yes", "m"))
    kept.path.write_bytes(kept.path.read_bytes() + f'{{"key": "b", {fields}}}\n'.encode())
    again = JudgementCache(tmp_path, {})
    assert again["a"] == CachedReply(0.5, "yes", "m") and "b" not in again
    assert "a damaged line is skipped" in capsys.readouterr().err


@pytest.mark.parametrize(
    "fields", [{}, {"text": 1, "tokens": 1, "finish": ""}, {"text": "", "tokens": "1", "finish": ""}]
)
def test_odd_texts_are_generated_again(fields):
    assert generation_cache._answer(fields) is None and teacher_texts._read(fields) is None
