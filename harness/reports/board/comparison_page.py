"""Any two rows or runs problem by problem: the page, and for each task the difference of every two rows with its test.

The differences are those of ``harness compare``. The page itself tests two single runs, from the problems that
it shows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from harness.errors import BadInput
from harness.leaderboard import COMPUTE, STEPS, compare, equal_compute, inference, labels
from harness.leaderboard.inference import Group
from harness.leaderboard.rows import LeaderboardRow, Section
from harness.reports.board import formatting, run_page
from harness.reports.board.pages import Site
from harness.stats.seed_variance import widened_tail

PAIRS_AT_MOST = 4000  # of one task; with more, the page names the command instead


def write(site: Site) -> None:
    """Writes ``compare.html`` and the differences of every section."""
    tasks = []
    for section in site.sections:
        rows = [row for row in section.rows if any(run in site.by_run for run in row.run_ids)]
        runs = [run for row in rows for run in row.run_ids if run in site.by_run]
        if len(runs) < 2:
            continue
        file = formatting.task_file(section.task, section.protocol)
        facts = [[site.by_run[run]["content_sha256"] for run in row.run_ids if run in site.by_run] for row in rows]
        readable, question_file = _readable(site, runs), f"q-{file}" if f"data/q-{file}.js" in site.keys else ""
        site.data(
            f"pairs-{file}", [facts, readable, question_file],
            lambda s=section, r=rows, ok=readable, q=question_file: _data(site, s, r, ok, q),
        )  # fmt: skip
        entry = {"file": file, "title": section.title, "runs": {run: site.files[run] for run in runs}}
        tasks.append(entry | {"pair": _first(site, section)})
    site.page(
        "compare.html", "compare.html.j2", "board problems compare", tasks,
        lambda: {"tasks": tasks, "title": "Compare", "here": "compare"},
    )  # fmt: skip


def _first(site: Site, section: Section) -> list[str]:
    """One run of each of the two rows that the page of ``section`` opens with; [] if there are not two.

    B is the best row and A the best of another method, which is not a variant or control of the first: among the rows
    of equal compute, else of equal steps, else among all, including reference points. Rows of the same two models go
    before others.
    """
    of = (section.task, section.protocol)
    views = [one for kind in (COMPUTE, STEPS) for one in site.views.get(kind, ()) if (one.task, one.protocol) == of]
    choices = [[row for row in one.rows if not row.reference] for one in (*views, section)]
    for rows in (*choices, section.rows):
        readable = [row for row in rows if any(run in site.by_run for run in row.run_ids)]
        pairs = [pair for pair in itertools.combinations(readable, 2) if _family(pair[0]) != _family(pair[1])]
        if pairs:
            best, other = next((pair for pair in pairs if _same_models(*pair)), pairs[0])
            return [next(run for run in row.run_ids if run in site.by_run) for row in (other, best)]
    return []


def _family(row: LeaderboardRow) -> str:
    """The method of a row without its variant."""
    return row.method.partition("@")[0]


def _same_models(a: LeaderboardRow, b: LeaderboardRow) -> bool:
    """Whether two rows have the same student, and the same teacher if both have one."""
    return a.student == b.student and (a.teacher == b.teacher or None in (a.teacher, b.teacher))


def _readable(site: Site, runs: list[str]) -> bool:
    """Whether the completions of a section are few enough to read for a board."""
    return inference.affordable([site.by_run[run] for run in runs])


def _data(site: Site, section: Section, rows: list[LeaderboardRow], readable: bool, questions: str) -> dict[str, Any]:
    return {
        "task": section.task,
        "metric": section.metric,
        "scale": run_page.card(section.scale),
        "questions": questions,
        "rows": [
            {
                "label": labels.plain_label(row.label) + ("‡" if row.reconstruction else ""),
                "name": row.method,
                "family": _family(row),
                "reference": row.reference,
                "models": [row.student, row.teacher],
                "flops": row.flops,
                "cost": equal_compute.cost_in_words(row.flops, "flops") if row.flops else "",
                "runs": [[seed, run, site.files[run]] for seed, run in zip(row.seeds, row.run_ids, strict=False)
                         if run in site.files],
            }
            for row in rows
        ],
        "tolerance": equal_compute.TOLERANCE,
        "tail": widened_tail(max(section.problems - 1, 1)),
        "pairs": list(_pairs(site, rows)) if readable else [],
        "notes": list(dict.fromkeys(note for note in section.notes if note.startswith("‡"))),
    }  # fmt: skip


def _pairs(site: Site, rows: list[LeaderboardRow]) -> Iterator[list[Any]]:
    """(a, b, B - A, low, high, p, test, seeds, what would settle it, why interval and test differ) for rows a and b."""
    groups = []
    for row in rows:
        records = [site.by_run[run] for run in row.run_ids if run in site.by_run]
        groups.append(Group(records, inference.read_matrix(records, site.scores)))
    if len(groups) * (len(groups) - 1) // 2 > PAIRS_AT_MOST:
        return
    seeds = inference.seed_variance(groups)
    for (i, a), (j, b) in itertools.combinations(enumerate(groups), 2):
        try:
            result = compare.of_groups(a, b, (rows[i].label, rows[j].label), seeds)
        except BadInput:  # nothing to pair: different problems, no shared seed, or unreadable completions
            continue
        it = result.comparison
        yield [
            i, j, round(it.difference, 6), round(it.interval.low, 6), round(it.interval.high, 6),
            float(f"{it.p:.4g}"), it.test, len(result.seeds), compare.settled(result), compare.at_odds(result),
        ]  # fmt: skip
