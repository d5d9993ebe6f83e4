"""Writes records as a folder of pages that open from ``file://`` and load nothing from elsewhere.

    index.html            leaderboard, score against cost, learning curves, reported numbers
    runs/<run_id>.html    one record: card, curves, exact prompt, completions with verdicts
    compare.html          two methods problem by problem; loads data/<n>.js when needed

Completions are untrusted text: templates escape everything, and a page runs only its own script.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import safe_read
from harness.errors import BadInput, RunFailed
from harness.leaderboard.rows import LeaderboardRow, Section, leaderboard
from harness.leaderboard.views import COMPUTE, View
from harness.records.record import Record
from harness.records.store import Store
from harness.reports.board import index, items, run_page, words
from harness.reports.board.pages import MARK, Site


def build(
    store: Store,
    out: Path,
    papers: Sequence[Mapping[str, Any]] = (),
    progress: Callable[[str, int, int, str], None] = lambda *_: None,
) -> tuple[int, list[str]]:
    """Writes the site into ``out`` in one step; returns the number of pages and the warnings.

    An earlier board at ``out`` is replaced; any other folder that is not empty is refused with BadInput.
    """
    records, warnings = store.all()
    if not records:
        safe_read.warn(warnings)
        raise BadInput(f"no records in {store.root}; harness run makes them, --results names another folder")
    _check(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
            site = Site(store, records, list(warnings), papers, Path(scratch) / "board")
            site.out.mkdir()
            _pages(site, progress)
            if out.exists():
                os.replace(out, Path(scratch) / "before")
            os.replace(site.out, out)
    except OSError as error:
        raise RunFailed(f"the board could not be written to {out} ({error.strerror or error})") from None
    return site.pages, site.warnings


def _check(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise BadInput(f"--out {out} is a file; name a folder")
    if not out.is_dir() or not any(out.iterdir()):
        return
    front = out / "index.html"
    if not front.is_file() or MARK not in front.read_text("utf-8", errors="replace")[:2000]:
        raise BadInput(f"--out {out} holds files that are no board; name a new or an empty folder")


def _pages(site: Site, progress: Callable[[str, int, int, str], None]) -> None:
    found = leaderboard(site.records, None, site.store.completions)
    site.sections = [s for s in found if any(run in site.by_run for row in s.rows for run in row.run_ids)]
    site.equal = _at_equal_compute(site)
    names = words.file_names(site.by_run)
    figures = run_page.Figures(site.store.root)
    rows = [(section, row) for section in site.sections for row in section.rows]
    done, shown = 0, set()
    diffs: dict[tuple[str, ...], str] = {}
    for number, (section, row) in enumerate(rows):
        parts = []
        for run in row.run_ids:
            if run in site.by_run:
                parts.append(_run(site, site.by_run[run], names, figures, section, row))
                shown.add(run)
                done += 1
                progress("pages", done, len(site.records), "")
        if parts and all(part is not None for part in parts):
            diffs[row.run_ids] = f"data/{number}.js"
            items.write(site.out / diffs[row.run_ids], [site.by_run[run] for run in row.run_ids], parts)
    for run in site.by_run.keys() - shown:  # superseded attempts have pages, too
        _run(site, site.by_run[run], names, figures, None, None)
    site.write("index.html", "index.html.j2", ["board.js"], **index.context(site, names, diffs))
    site.write("compare.html", "compare.html.j2", ["board.js", "compare.js"], **items.context(site.sections, diffs))


def _at_equal_compute(site: Site) -> list[Section]:
    """The sections at equal compute that differ from those of all rows; none if no cost is known."""
    try:
        found = leaderboard(site.records, None, site.store.completions, View(COMPUTE))
    except BadInput as error:
        site.warnings.append(str(error))
        return []
    trained = {(s.task, s.protocol): sum(not row.reference for row in s.rows) for s in site.sections}
    rows = [(s, sum(not row.reference for row in s.rows)) for s in found]
    return [section for section, n in rows if 1 < n < trained.get((section.task, section.protocol), 0)]


def _run(
    site: Site,
    record: Record,
    names: Mapping[str, str],
    figures: run_page.Figures,
    section: Section | None,
    row: LeaderboardRow | None,
) -> list[dict[str, Any]] | None:
    """Writes the page of one record; returns its completions, or None if they cannot be read."""
    try:
        rows, missing = site.store.completions(record), None
    except BadInput as error:
        rows, missing = None, str(error)
        site.warnings.append(missing)
    context = run_page.context(record, rows, missing, figures, section, row)
    site.write(f"runs/{names[record['run_id']]}.html", "run.html.j2", ["board.js", "run.js"], **context)
    return rows
