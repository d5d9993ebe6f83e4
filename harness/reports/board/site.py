"""Writes records as a folder of pages that open from ``file://`` and load nothing from elsewhere.

    index.html            methods by tasks, at equal compute or at equal steps
    tasks/<task>.html     one task under one protocol: the table, score against cost, learning curves
    runs/<run_id>.html    one record: score and cost, curves, every problem with prompt, reference and verdict
    compare.html          any two rows or runs, problem by problem, with the difference, its interval and p
    papers.html           printed numbers of papers, and their audit
    assets, data          scripts and packed data that the pages load

Unchanged files of the last build of the same folder are reused. Completions are untrusted text: templates
escape everything, scripts set text as text, and a page runs only scripts of its own folder.
"""

from __future__ import annotations

import http.server
import os
import sys
import tempfile
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness import safe_read
from harness.errors import BadInput, RunFailed
from harness.leaderboard import ALL, COMPUTE, STEPS
from harness.leaderboard.equal_compute import View
from harness.leaderboard.rows import LeaderboardRow, Section, leaderboard
from harness.records.store import Store, no_records
from harness.reports.board import comparison_page, overview, papers_page, run_page, task_page
from harness.reports.board.pages import ASSETS, MARK, Site

Progress = Callable[[str, int, int, str], None]


@dataclass(frozen=True)
class Built:
    """The outcome of :func:`build`: the pages of the board, the files reused from the last build, and the warnings."""

    pages: int
    reused: int
    warnings: list[str]


def build(
    store: Store,
    out: Path,
    papers: Sequence[Mapping[str, Any]] = (),
    progress: Progress = lambda *_: None,
    questions: bool = True,
) -> Built:
    """Writes the site into ``out`` atomically. ``questions``: with the prompts and references of the problems.

    An earlier board at ``out`` is replaced; any other folder that is not empty is refused with BadInput.
    """
    records, warnings = store.all()
    if not records:
        safe_read.warn(warnings)
        raise no_records(store.root)
    _check(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
            site = Site(store, records, list(warnings), papers, Path(scratch) / "board", out, questions)
            site.out.mkdir()
            _pages(site, progress)
            site.finish()
            if out.exists():
                os.replace(out, Path(scratch) / "before")
            os.replace(site.out, out)
    except OSError as error:
        raise RunFailed(f"the board could not be written to {out} ({error.strerror or error})") from None
    return Built(site.pages, site.reused, site.warnings)


def _check(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise BadInput(f"--out {out} is a file; name a folder")
    if not out.is_dir() or not any(out.iterdir()):
        return
    front = out / "index.html"
    if not front.is_file() or MARK not in front.read_text("utf-8", errors="replace")[:2000]:
        raise BadInput(f"--out {out} holds files that do not belong to a board; name a new or an empty folder")


def _pages(site: Site, progress: Progress) -> None:
    sections = leaderboard(site.records, None, site.scores)
    site.sections = [s for s in sections if any(run in site.by_run for row in s.rows for run in row.run_ids)]
    site.views = _views(site)
    for name in ASSETS:
        site.asset(name)

    # A page for every record; those of rows first, then attempts that later ones supersede.
    places: dict[str, tuple[Section | None, LeaderboardRow | None]] = dict.fromkeys(site.by_run, (None, None))
    for section in site.sections:
        for row in section.rows:
            places |= dict.fromkeys((run for run in row.run_ids if run in site.by_run), (section, row))
    question_files = run_page.Questions(site)
    for done, (run, place) in enumerate(places.items(), 1):
        run_page.write(site, site.by_run[run], *place, question_files)
        progress("pages", done, len(places), "")
    progress("tables and comparisons", 0, 0, "")
    for section in site.sections:
        task_page.write(site, section)
    comparison_page.write(site)
    if site.papers:
        papers_page.write(site)
    overview.write(site)


def _views(site: Site) -> dict[str, list[Section]]:
    """The sections of each view by name, the most informative first; a view without two rows to compare is left out."""
    views: dict[str, list[Section]] = {COMPUTE: [], STEPS: [], ALL: site.sections}
    for task in dict.fromkeys(section.task for section in site.sections):
        for kind in (COMPUTE, STEPS):
            try:
                sections = leaderboard(site.records, [task], site.scores, View(kind))
            except BadInput as error:  # no row's cost is known
                if str(error) not in site.warnings:
                    site.warnings.append(str(error))
                continue
            # Of several numbers of steps, the one with most rows represents the task.
            best: dict[str, Section] = {}
            for section in sections:
                known = best.get(section.protocol)
                if known is None or _trained(section) > _trained(known):
                    best[section.protocol] = section
            views[kind] += [section for section in best.values() if _trained(section) > 1]
    return {kind: sections for kind, sections in views.items() if sections}


def _trained(section: Section) -> int:
    return sum(not row.reference for row in section.rows)


# Serves a board only to this machine, for browsers that refuse files, and over an SSH tunnel.


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Logs nothing: requests are not worth a line."""


def site_server(folder: Path, port: int) -> http.server.ThreadingHTTPServer:
    """A server of ``folder`` on 127.0.0.1; port 0 takes a free one. Raises BadInput where the port is taken."""
    try:
        return http.server.ThreadingHTTPServer(("127.0.0.1", port), partial(_Quiet, directory=str(folder)))
    except OSError as error:
        raise BadInput(f"--serve {port}: {error.strerror}; choose another port, or 0 for any free one") from None


def serve_forever(folder: Path, port: int, show: bool = False) -> None:
    """Serves ``folder`` until Ctrl-C; ``show`` opens it in a browser."""
    with site_server(folder, port) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        print(f"{address}  (Ctrl-C stops it)", file=sys.stderr, flush=True)
        if show:
            webbrowser.open(address)
        with suppress(KeyboardInterrupt):
            server.serve_forever()
