"""Bad files given to every command that reads them: one line or a file left out by name, never a trace."""

import json
import os
import re

import pytest
from sample_records import make_record, make_rows

from harness.cli import main
from harness.records.record import content_hash
from harness.records.store import Store

COMMANDS = {
    "table": ["table"],
    "table csv": ["table", "--format", "csv"],
    "table html": ["table", "--format", "html"],
    "grid": ["table", "--format", "json"],
    "compute": ["table", "--view", "compute"],
    "compare": ["compare", "sft", "kd", "--task", "humaneval@micro"],
    "board": ["board", "--out", "OUT/board"],
    "plot": ["plot", "--kind", "scores", "--out", "OUT/scores.svg"],
    "pareto": ["plot", "--kind", "pareto", "--out", "OUT/pareto.svg"],
    "curves": ["plot", "--kind", "curves", "--out", "OUT/curves.svg"],
    "export": ["export", "--format", "parquet", "--out", "OUT/export"],
    "show": ["show", "RUN"],
}
ENDINGS = (0, 1, 2)
SHOWN = re.compile(r"Traceback|Error\b.*\n.*File \"")


@pytest.fixture
def results(tmp_path):
    """Two sound methods of two seeds each; the record that is damaged is a third seed of the second one."""
    store = Store(tmp_path / "results")
    for method in ("sft", "kd"):
        for seed in (0, 1):
            store.add(make_record(method, seed=seed), make_rows())
    return store


def run(words, store, capsys, run_id=""):
    words = [w.replace("OUT", str(store.root.parent)).replace("RUN", run_id) for w in words]
    code = main([*words, "--results", str(store.root)])
    said = capsys.readouterr()
    assert code in ENDINGS and not SHOWN.search(said.err), (words, said.err)
    assert code == 0 or len(said.err.splitlines()) >= 1
    assert not set(said.out + said.err) & {"\x1b", "\x07", "\ud800"} and "internal error" not in said.err
    return code, said


# -- sealed, but odd --------------------------------------------------------------------------------------------------

ODD = [
    None,
    True,
    -1,
    0,
    1e308,
    10**30,
    "",
    "\x1b]0;x\x07",
    "=1+1|[a](b)\n",
    "../../x",
    [],
    [[]],
    {},
    {"a": []},
    "\ud800",
]


def places(value, path=()):
    """Every place in a record, the record itself left out."""
    for key, item in value.items() if isinstance(value, dict) else ():
        yield (*path, key)
        yield from places(item, (*path, key))


FIXED = {"content_sha256", "schema_version", "created"}
ENTRY = [("completions", key) for key in ("file", "sha256", "n")]
PLACES = [place for place in places(make_record("kd", seed=2)) if place[0] not in FIXED] + ENTRY
READERS = ("table", "compare", "show")


def sealed(record, place, value):
    """``record`` with ``value`` at ``place``, sealed again as a stranger could."""
    made = json.loads(json.dumps(record))
    part = made
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    return made | {"content_sha256": content_hash(made)}


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_a_sealed_record_with_an_odd_value_stops_no_reader(results, capsys, place):
    path = results.add(make_record("kd", seed=2), make_rows())
    record = json.loads(path.read_text())
    for value in ODD:
        path.write_text(json.dumps(sealed(record, place, value)))
        for name in READERS:
            run(COMMANDS[name], results, capsys, path.stem)


# -- files that are no records ----------------------------------------------------------------------------------------


def _text(content):
    return lambda path: path.write_bytes(content)


BAD = {
    "empty": _text(b""),
    "not UTF-8": _text(b'{"a": "\xff"}'),
    "not JSON": _text(b"{"),
    "brackets": _text(b"[" * 100_000),
    "digits": _text(b'{"schema_version": ' + b"9" * 5000 + b"}"),
    "a list": _text(b"[]"),
    "a number": _text(b"1"),
    "NaN": _text(b'{"schema_version": NaN}'),
    "pipe": lambda path: os.mkfifo(path),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path),
    "link out": lambda path: path.symlink_to("/etc/passwd"),
    "folder": lambda path: path.mkdir(),
}


# All commands read records through the store: one of them meets every bad file, the others two.
MEETINGS = [("table", bad) for bad in BAD]
MEETINGS += [(name, bad) for name in COMMANDS if name not in ("table", "show") for bad in ("brackets", "pipe")]


@pytest.mark.parametrize(("command", "bad"), MEETINGS)
def test_a_bad_file_among_the_records_is_left_out_by_name(results, capsys, command, bad):
    path = results.records_dir / "humaneval@micro/kd/bad.json"
    BAD[bad](path)
    code, said = run(COMMANDS[command], results, capsys)
    assert code == 0 or command == "curves"
    assert bad == "folder" or "bad.json" in said.err


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_file_given_by_name_is_one_line(results, capsys, bad, tmp_path):
    path = tmp_path / "given"
    BAD[bad](path)
    for words in (
        ["show", str(path)],
        ["show", "method", str(path)],
        ["show", "task", str(path)],
        ["show", "recipe", str(path)],
        ["grade", "--task", "amc23@micro", "--samples", str(path)],
        ["run", "--method", str(path), "--task", "amc23", "--recipe", "micro"],
        ["run", "--method", "sft", "--task", str(path), "--recipe", "micro"],
        ["run", "--method", "sft", "--task", "amc23", "--recipe", str(path)],
        ["run", "--method", "sft", "--task", "alpaca_eval@real", "--recipe", "micro", "--judge", f"replay:{path}"],
        ["run", "--method", "sft", "--task", "amc23", "--recipe", "micro", "--set", f"data.labelled={path}"],
        ["reproduce", f"{path}"],
    ):
        if bad == "empty" and "recipe" in " ".join(words[-2:]):
            continue  # an empty file is a recipe of defaults
        code, said = run(words, results, capsys)
        assert code == 2 and len(said.err.splitlines()) == 1, (words, said.err)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (os.mkfifo, "tokenizer.json is not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "tokenizer.json is not a regular file"),
        (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 10**12), "tokenizer.json has 1,000,000 MB"),
    ],
)
def test_a_file_of_a_model_that_has_no_end_is_refused(tmp_path, place, said):
    from harness.errors import BadInput
    from harness.models import files

    (tmp_path / "config.json").write_text("{}")
    place(tmp_path / "tokenizer.json")
    with pytest.raises(BadInput, match=said):
        files.locate(str(tmp_path), weights=False)
