"""Numbers printed in papers: ``results/reported/<id>.json``, checked against ``reported.schema.json``.

A reported number is not a record: it has no completions, no seal and mostly no protocol. Tables show it next to
measured rows and never rank it among them.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from harness import safe_read
from harness.errors import BadInput, unknown

Paper = dict[str, Any]
KIND = "reported"
FACTS = ("metric", "value", "n", "count", "decoding", "judge", "student", "teacher")
KEY = ("source", "locator", "setting", "method", "student", "teacher", "benchmark", "metric")
_CHECKOUT = Path(__file__).resolve().parents[2] / "results" / "reported"


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a paper's file."""
    return json.loads(Path(__file__).with_name("reported.schema.json").read_text("utf-8"))


def papers(results: Path | str = "results") -> list[Paper]:
    """All reported papers known to ``results``, by id.

    Files are in ``reported`` below ``results`` or next to it (``results/micro`` finds ``results/reported``). Files that
    ship with the harness are included unless a closer file has the same id. Raises BadInput naming the first malformed
    file.
    """
    by_name: dict[str, Paper] = {}
    for path in _files(Path(results)):
        if path.stem not in by_name:
            by_name[path.stem] = load(path)
    return [by_name[name] for name in sorted(by_name)]


def find(name: str, results: Path | str = "results") -> Paper:
    """The paper called ``name``. Raises BadInput offering the known ones."""
    paths = list(_files(Path(results)))
    for path in paths:
        if path.stem == name:
            return load(path)
    if not paths:
        raise BadInput(f"no paper {name!r}: there is no file reported/{name}.json below {results} or next to it")
    raise unknown("paper", name, {path.stem for path in paths})


def names(results: Path | str = "results") -> list[str]:
    """The ids of the files that :func:`find` can read; reads none."""
    return sorted({path.stem for path in _files(Path(results))})


def row_of(paper: Paper, cell: dict[str, Any]) -> dict[str, Any]:
    """A printed cell under the names of a leaderboard's columns; what the paper does not state is None."""
    return {
        "task": cell["task"],
        "metric": cell["metric"]["value"],
        "kind": KIND,
        "method": paper["method"],
        "student": cell["student"]["value"],
        "teacher": cell["teacher"]["value"],
        "score": cell["value"]["value"] / 100,
        "correct": cell["count"]["value"],
        "total": cell["n"]["value"],
    }


def load(path: Path) -> Paper:
    """One paper's file. Raises BadInput that says what is wrong, and where."""
    import jsonschema

    try:
        paper = safe_read.value(safe_read.content(path, safe_read.RECORD))
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    errors = jsonschema.Draft202012Validator(schema()).iter_errors(paper)
    if fault := jsonschema.exceptions.best_match(errors):
        raise BadInput(f"{path}: {_place(paper, fault)}: {fault.message[:200]}")
    if paper["id"] != path.stem:
        raise BadInput(f"{path}: its id is {paper['id']!r}; make the file's name and the id equal")
    seen = set()
    for cell in paper["cells"]:
        where = f"{path}: cell {cell['id']}"
        if cell["id"] in seen:
            raise BadInput(f"{where} is listed twice; give every cell its own id")
        seen.add(cell["id"])
        n, count = cell["n"]["value"], cell["count"]["value"]
        if count is not None and (n is None or not 0 <= count <= n):
            raise BadInput(f"{where}: count {count} of n {n} is not possible")
        if count is not None and abs(100 * count / n - cell["value"]["value"]) > 50 / n + 0.06:
            raise BadInput(f"{where}: {count} of {n} is {100 * count / n:.2f}, not {cell['value']['value']}")
    _check_printed(path, paper)
    return paper


def cell_of(paper: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The cell called ``name``. Raises BadInput offering the known ones."""
    for cell in paper["cells"]:
        if cell["id"] == name:
            return cell
    raise unknown(f"cell of paper {paper['id']}", name, {cell["id"] for cell in paper["cells"]})


def standard_error(cell: Mapping[str, Any]) -> float | None:
    """The binomial standard error of a cell, in points; None where n is unknown."""
    share, n = cell["value"]["value"] / 100, cell["n"]["value"]
    return 100 * math.sqrt(share * (1 - share) / n) if n else None


def _check_printed(path: Path, paper: Paper) -> None:
    """Raises BadInput if a printed cell names no source of the file, or if two are the same cell of the paper."""
    first_places: dict[tuple[str, ...], int] = {}
    for number, cell in enumerate(paper.get("printed", [])):
        where = f"{path}: {_cell_place(number, cell)}"
        if cell["source"] not in paper["sources"]:
            raise BadInput(f"{where}: {unknown('source', cell['source'], paper['sources'])}")
        key = tuple(cell.get(part, "") for part in KEY)
        if key in first_places:
            raise BadInput(
                f"{where}: printed[{first_places[key]}] is the same cell; give one of them a setting or leave it out"
            )
        first_places[key] = number


def _place(paper: Any, fault: Any) -> str:
    """The place of a fault; for a printed cell with its names."""
    path = list(fault.absolute_path)
    if len(path) >= 2 and path[0] == "printed" and isinstance(cell := paper["printed"][path[1]], dict):
        return ".".join([_cell_place(path[1], cell), *map(str, path[2:])])
    return fault.json_path


def _cell_place(number: int, cell: Mapping[str, Any]) -> str:
    names = (cell.get(part) for part in ("locator", "method", "student", "benchmark"))
    return f"printed[{number}] ({', '.join(str(name) for name in names if name)})"


def _files(results: Path) -> Iterator[Path]:
    for folder in dict.fromkeys((results / KIND, Path(os.path.realpath(results)).parent / KIND, _CHECKOUT)):
        yield from sorted(folder.glob("*.json"))
    from importlib import resources

    try:
        shipped = resources.files("harness.reported")
    except ModuleNotFoundError:  # a checkout: the folder above is the same
        return
    files = [Path(str(p)) for p in shipped.iterdir() if p.name.endswith(".json")]
    yield from sorted(files, key=lambda p: p.name)
