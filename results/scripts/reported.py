"""Papers' tables from spreadsheets: ``python -m results.scripts.reported FOLDER`` writes ``results/reported/*.json``.

FOLDER holds one CSV per paper with the columns of ``COLUMNS``. ``reported.toml`` next to this file says what a
spreadsheet cannot: title, sources and their licences, which methods a paper proposes, corrections with their reasons,
and statements about the cells that the audit checks. A file that is there already keeps its ``cells``.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.records import reported

COLUMNS = (
    "paper", "source", "locator", "method", "student", "teacher", "benchmark", "metric", "value", "unit", "n", "seeds",
    "spread", "status", "note",
)  # fmt: skip
KEPT = Path(__file__).parents[1] / "reported"
_UNITS = {"MT-Bench 1-10": "MT-Bench 1 to 10"}
_MIXED = "percent (COMET and ROUGE-L x100)"
_NONE = {"", "not stated"}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("folder", type=Path, help="the CSV files")
    words.add_argument("--out", type=Path, default=KEPT, help="where the JSON files go (default: results/reported)")
    chosen = words.parse_args()
    papers = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
    for name, facts in papers.items():
        path = chosen.out / f"{name}.json"
        path.write_text(text(paper(name, facts, rows(chosen.folder / f"{name}.csv"))), "utf-8")
        reported.load(path)  # what was written is what the harness reads
        print(path)


def rows(path: Path) -> list[dict[str, str]]:
    """The lines of one spreadsheet. Raises BadInput when its columns are others."""
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise BadInput(f"{path}: columns are {reader.fieldnames}, expected {list(COLUMNS)}")
        return list(reader)


def paper(name: str, facts: Mapping[str, Any], lines: list[dict[str, str]]) -> dict[str, Any]:
    """The content of one file. Raises BadInput for a line whose source ``facts`` do not describe."""
    old = KEPT / f"{name}.json"
    cells = json.loads(old.read_text("utf-8"))["cells"] if old.exists() else []
    printed = [cell for line in lines for cell in _cells(name, facts, line)]
    return {
        "schema_version": 1,
        "kind": "reported",
        "id": name,
        "method": facts.get("method"),
        **{key: facts.get(key) for key in ("title", "authors", "year", "url", "about")},
        "notes": facts.get("notes", []) + [_correction_text(correction) for correction in facts.get("correction", [])],
        "cells": cells,
        "sources": {
            key: {inner: value for inner, value in source.items() if inner not in ("match", "match_locator")}
            for key, source in facts["source"].items()
        },
        "claims": facts.get("claim", []),
        "printed": printed,
    }


def text(content: Mapping[str, Any]) -> str:
    """JSON with one printed cell a line, so that a change of one cell is a change of one line."""
    head = json.dumps(dict(content) | {"printed": []}, indent=1, ensure_ascii=False)
    lines = ",\n".join("  " + json.dumps(cell, ensure_ascii=False) for cell in content["printed"])
    return head.replace('"printed": []', f'"printed": [\n{lines}\n ]') + "\n"


def _cells(name: str, facts: Mapping[str, Any], line: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The cell of a line, then the costs that its note states."""
    line = dict(line)
    for correction in facts.get("correction", []):
        if all(line[key] == value for key, value in correction["when"].items()):
            line |= correction["set"]
    note, judge = line["note"], None
    # DistiLLM-2's notes carry the judge, the column of a table with three, and counts that the audit finds itself.
    if match := re.match(r"judge (GPT-\S+?)(?:; |$)", note):
        judge, note = match[1], note[match.end() :]
    setting = None
    if note in ("on-policy", "off-policy", "batched on-policy"):
        setting, note = note, ""
    note = re.sub(r"^(count \d+ of \d+|NO INTEGER COUNT of [^;]*)?; ", "", note)
    n = line["n"]
    if n.endswith("?"):
        n, note = n[:-1], "; ".join(filter(None, [note, f"n {n[:-1]} is uncertain"]))
    cell = {
        "source": _source(name, facts, line),
        "locator": line["locator"],
        "setting": setting,
        "method": line["method"],
        "student": line["student"],
        "teacher": line["teacher"],
        "benchmark": line["benchmark"],
        "metric": line["metric"],
        "unit": _unit(line),
        "value": line["value"],
        "n": int(n) if n else None,
        "samples": _samples(line),
        "judge": judge,
        "seeds": None if line["seeds"] in _NONE else line["seeds"],
        "spread": line["spread"] or None,
        "status": line["status"],
        "note": note or None,
    }
    cell = {key: value for key, value in cell.items() if value is not None}
    yield cell
    yield from _costs(cell, facts)


def _costs(cell: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Cost cells out of the notes, once a row: the spreadsheets write them beside a score."""
    first = facts.get("costs_beside")
    if cell["benchmark"] != first or "note" not in cell:
        return
    keys = ("source", "locator", "method", "student", "teacher")
    shared = {key: cell[key] for key in keys} | {"benchmark": "training cost"}
    for whose, value in re.findall(r"(teacher|student) (\d[\d.]*e\d+)", cell["note"]):
        yield shared | {"metric": f"{whose} FLOPs", "unit": "FLOPs", "value": value, "status": cell["status"]}
    if match := re.fullmatch(r"GPU hours (\S+)", cell["note"]):
        yield shared | {"metric": "GPU hours", "unit": "GPU hours", "value": match[1], "status": cell["status"]}


def _source(name: str, facts: Mapping[str, Any], line: Mapping[str, str]) -> str:
    for key, source in facts["source"].items():
        if (line["paper"], line["source"]) == tuple(source["match"]) and line["locator"] == source.get(
            "match_locator", line["locator"]
        ):
            return key
    raise BadInput(f"{name}.csv: no source of reported.toml matches {line['paper']!r}, {line['source']!r}")


def _unit(line: Mapping[str, str]) -> str:
    if line["unit"] == _MIXED:
        return {"COMET": "COMET x100", "ROUGE-L": "ROUGE-L x100", "accuracy": "percent"}[line["metric"]]
    return _UNITS.get(line["unit"], line["unit"])


def _samples(line: Mapping[str, str]) -> int | None:
    """Completions a problem, where the metric says so: avg@12, pass@64, greedy, or avg@32 on named benchmarks only.

    pass@1 alone says nothing: it may be one completion or the mean of many.
    """
    if "greedy" in line["metric"]:
        return 1
    match = re.match(r"(?:avg|pass)@(\d+)\b", line["metric"])
    if match and match[0] != "pass@1":
        return int(match[1])
    named = re.search(r"avg@(\d+) on (\w+) and (\w+)", line["metric"])
    return int(named[1]) if named and line["benchmark"].startswith((named[2], named[3])) else None


def _correction_text(correction: Mapping[str, Any]) -> str:
    changed = ", ".join(f"{key} is given as {value!r}" for key, value in correction["set"].items())
    where = ", ".join(f"{key} {value!r}" for key, value in correction["when"].items())
    return f"Of the cells with {where}, {changed}: {correction['reason']}."


if __name__ == "__main__":
    main()
