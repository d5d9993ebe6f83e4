"""Shared parts of all pages of the board: results, templates, the writer, and reuse of the last build.

Templates escape everything. A page runs one inline script, whose hash its policy names; that script loads the files in
``assets`` and ``data``. A page opened from ``file://`` cannot fetch, but it can add a ``<script>``: data are script
files that pass packed JSON to the page.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.leaderboard.rows import Section, order
from harness.records.record import Record
from harness.records.store import Store
from harness.reports.board import formatting

MARK = "harness board"  # in every page: marks a folder as a board, which may be replaced
POLICY = (
    "default-src 'none'; style-src 'self' file: 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "script-src 'sha256-{}' 'strict-dynamic'"
)
# Starts a page: loads the scripts that its root element names, in order.
LOADER = (
    '"use strict";{const d=document.documentElement.dataset;for(const n of d.code.split(" ")){'
    'const s=document.createElement("script");s.src=d.up+"assets/"+n+".js";s.async=false;document.head.append(s)}}'
)
ASSETS = ("board.css", "board.js", "chart.js", "task.js", "problems.js", "run.js", "compare.js")
MADE = "made.json"  # in the folder of a board: the key of every file, so that the next build reuses unchanged ones
_SOURCES = ("reports", "leaderboard", "records", "stats", "papers", "metrics.py", "evaluation/questions.py")


@dataclass
class Site:
    """The results that become pages."""

    store: Store
    records: list[Record]
    warnings: list[str]
    papers: Sequence[Mapping[str, Any]]
    out: Path
    before: Path  # the board of an earlier build, possibly missing
    questions: bool = True  # whether prompts and references are shown
    sections: list[Section] = field(default_factory=list)  # all rows
    views: dict[str, list[Section]] = field(default_factory=dict)  # by name: compute, steps, all
    pages: int = 0
    reused: int = 0
    keys: dict[str, str] = field(default_factory=dict)
    _slim: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @cached_property
    def by_run(self) -> dict[str, Record]:
        return {record["run_id"]: record for record in self.records}

    @cached_property
    def files(self) -> dict[str, str]:
        """The file name of each run, without its ending."""
        return formatting.file_names(self.by_run)

    @cached_property
    def order(self) -> list[str]:
        return order(self.sections)

    @cached_property
    def last(self) -> dict[str, str]:
        """The keys of the files of the last build."""
        try:
            keys = json.loads((self.before / MADE).read_text("utf-8"))
            return {name: key for name, key in keys.items() if isinstance(key, str)}
        except (OSError, ValueError, AttributeError):
            return {}

    @cached_property
    def templates(self) -> Any:
        import jinja2

        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("harness.reports.board"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= formatting.FILTERS
        digest = base64.b64encode(hashlib.sha256(LOADER.encode("utf-8")).digest()).decode("ascii")
        environment.globals |= {
            "mark": MARK,
            "policy": POLICY.format(digest),
            "loader": LOADER,
            "papers": bool(self.papers),
        }
        return environment

    def scores(self, record: Record) -> list[dict[str, Any]]:
        """The graded completions of a record without their texts, read once. Raises BadInput like the store."""
        run = record["run_id"]
        if run not in self._slim:
            keep = ("problem_id", "sample", "score", "error")
            self._slim[run] = [{key: row[key] for key in keep if key in row} for row in self.store.completions(record)]
        return self._slim[run]

    def page(self, name: str, template: str, code: str, key: Any, context: Callable[[], Mapping[str, Any]]) -> None:
        """Writes one page, or reuses it from the last build. ``code`` names the scripts that it runs."""

        def render() -> bytes:
            text = self.templates.get_template(template).render(code=code, up="../" * name.count("/"), **context())
            # A lone surrogate in a name becomes a character reference, which browsers show as a replacement sign.
            return text.encode("utf-8", "xmlcharrefreplace")

        self._file(name, [template, code, bool(self.papers), key], render)
        self.pages += 1

    def data(self, name: str, key: Any, content: Callable[[], Any]) -> None:
        """Writes ``content()`` as ``data/<name>.js``, packed."""
        self._file(f"data/{name}.js", key, lambda: packed(name, content()))

    def asset(self, name: str) -> None:
        source = resources.files("harness.reports.board") / "templates" / name
        self._file(f"assets/{name}", "", source.read_bytes)

    def finish(self) -> None:
        (self.out / MADE).write_text(json.dumps(self.keys, indent=0), "utf-8")

    def _file(self, name: str, key: Any, content: Callable[[], bytes]) -> None:
        inputs = json.dumps([sources(), key], sort_keys=True, default=str)
        self.keys[name] = hashlib.sha256(inputs.encode("utf-8", "replace")).hexdigest()[:16]
        path, before = self.out / name, self.before / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.last.get(name) == self.keys[name] and before.is_file():
            try:
                os.link(before, path)
            except OSError:  # a file system without hard links
                shutil.copy2(before, path)
            self.reused += 1
        else:
            path.write_bytes(content())


def packed(name: str, value: Any) -> bytes:
    """A script file that passes ``value`` to the page as JSON, gzipped and in base64: safe for any strings."""
    plain = json.dumps(value, ensure_ascii=True, separators=(",", ":"), default=str)
    inside = base64.b64encode(gzip.compress(plain.encode("ascii"), 9, mtime=0)).decode("ascii")
    return f'boardData({script_json(name)},"{inside}");\n'.encode("ascii")


def unpacked(content: bytes) -> Any:
    """The value in a file of :func:`packed`."""
    inside = content.decode("ascii").rpartition(',"')[2].partition('"')[0]
    return json.loads(gzip.decompress(base64.b64decode(inside)))


def script_json(value: Any) -> str:
    """JSON that is safe between script tags and in a script file, for any strings."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), default=str)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def readable(site: Site, record: Record) -> tuple[list[dict[str, Any]] | None, str]:
    """The scores of a record's completions, or None and the reason why they cannot be read."""
    try:
        return site.scores(record), ""
    except BadInput as error:
        return None, str(error)


_known: dict[str, str] = {}


def sources() -> str:
    """A hash of the code that makes pages: another version builds all of them again."""
    if "sources" not in _known:
        total = hashlib.sha256()
        for part in _SOURCES:
            place = Path(str(resources.files("harness"))) / part
            for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
                if path.is_file() and path.suffix in (".py", ".j2", ".js", ".css", ".toml", ".json"):
                    total.update(path.name.encode() + path.read_bytes())
        _known["sources"] = total.hexdigest()[:16]
    return _known["sources"]
