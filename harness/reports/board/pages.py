"""Shared parts of all pages of the board: the records and facts derived from them, templates, the writer.

Templates escape everything, and the policy of a page names the hash of its own script, so no other script runs.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.leaderboard.rows import Section, order
from harness.records.record import Record
from harness.records.store import Store
from harness.reports.board import words

MARK = "harness board"  # in every page: marks a folder as a board, which may be replaced
CHROME = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; script-src"


@dataclass
class Site:
    """The results that become pages."""

    store: Store
    records: list[Record]
    warnings: list[str]
    papers: Sequence[Mapping[str, Any]]
    out: Path
    sections: list[Section] = field(default_factory=list)
    equal: list[Section] = field(default_factory=list)  # the same at equal compute
    pages: int = 0

    @cached_property
    def by_run(self) -> dict[str, Record]:
        return {record["run_id"]: record for record in self.records}

    @cached_property
    def order(self) -> list[str]:
        return order(self.sections)

    @cached_property
    def templates(self) -> Any:
        import jinja2

        found = jinja2.Environment(
            loader=jinja2.PackageLoader("harness.reports.board"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        found.filters |= words.FILTERS
        found.globals |= {"mark": MARK, "source": lambda name: found.loader.get_source(found, name)[0]}
        return found

    def write(self, name: str, template: str, scripts: Sequence[str], **context: Any) -> None:
        """Renders one page. ``scripts`` are the template files whose code it runs; no other script may run."""
        code = "\n".join(self.templates.globals["source"](script) for script in scripts)
        digest = base64.b64encode(hashlib.sha256(code.encode("utf-8")).digest()).decode("ascii")
        policy = f"{CHROME} 'sha256-{digest}' 'strict-dynamic'"
        text = self.templates.get_template(template).render(
            code=code, policy=policy, up="../" * name.count("/"), **context
        )
        path = self.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # A lone surrogate in sampled text becomes a character reference, which browsers show as a replacement sign.
        path.write_text(text, "utf-8", errors="xmlcharrefreplace")
        self.pages += 1
