"""A reproduction as a Markdown page: the answer, then its evidence, then what could not be run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.leaderboard.formats import render
from harness.leaderboard.inference import Completions
from harness.leaderboard.rows import leaderboard
from harness.metrics import PERCENT
from harness.papers.answer_text import ALL, PaperFinding, Standing, words
from harness.papers.reproduce import COMPUTE, PAPER, STEPS, Reproduction
from harness.records import reported

VIEWS = {STEPS: "Equal steps", COMPUTE: "Equal compute", PAPER: "As the paper's rows"}


def page(
    outcome: Reproduction, found: Sequence[PaperFinding], beside: Sequence[Standing], completions: Completions
) -> str:
    """The whole page."""
    paper, micro = outcome.paper, outcome.asks
    title = (
        f"{paper['title']}: its question in the {outcome.wish.scale} world"
        if micro
        else f"{paper['title']}: its rows, run here"
    )
    blocks = [f"# {title}", outcome.blueprint.about]
    if micro:
        blocks += ["## The answer", "\n".join(f"- {line}" for line in words(outcome, found)), *_method(outcome)]
        for view in outcome.wish.views:
            blocks += [f"## {VIEWS[view]}", *_comparisons(view, found), *_tables(view, outcome, completions)]
    blocks += ["## Ours beside theirs", *_beside(outcome, beside)]
    if outcome.missing or outcome.blueprint.left_out:
        lines = [f"- {m['arm']} on {m['cell']} ({m['view']}): {m['reason']}" for m in outcome.missing]
        lines += [f"- {what}: {why}" for what, why in outcome.blueprint.left_out.items()]
        blocks += ["## What could not be run", "\n".join(lines)]
    return "\n\n".join(blocks)


def _method(outcome: Reproduction) -> Iterator[str]:
    question = outcome.question
    records = [r for rows in outcome.records.values() for r in rows]
    contestants = {key: rows for key, rows in outcome.records.items() if key[1] not in question.references}
    seeds = sorted({r["seed"] for rows in contestants.values() for r in rows})
    trained = {r["training_id"]: r["cost"]["seconds"] for r in records}
    yield "## How it was asked"
    yield (
        f"{len({arm for _, arm, _ in contestants})} methods, {len(seeds)} training seeds "
        f"({', '.join(map(str, seeds))}), {len(trained)} trained students, {len({r['run_id'] for r in records})} "
        f"records, {sum(trained.values()) / 3600:.2f} hours of training. Differences are paired by seed and by "
        "problem; intervals and tests take both as drawn by chance, and all methods together tell how "
        "seeds vary. Holm's adjustment runs over all comparisons of a view's table: "
        f"over the rows of “{ALL}” together, and over the rows of the single tasks together. "
        f"{_control(question.control)}Over all tasks every problem weighs the same. The problems are generated: "
        "nothing here is a score on a benchmark."
    )
    if outcome.budget is not None:
        b = outcome.budget
        rows = [("method", "steps", f"{b.unit}", "steps at equal compute")]
        rows += [(n, str(b.base[n]), f"{b.costs[n]:.3g}", str(b.steps.get(n, "the same"))) for n in b.costs]
        yield f"Equal compute: {b.rule}."
        yield _table(rows)


def _control(name: str) -> str:
    if not name:
        return ""
    if name.endswith("@shuffled"):
        return "The control has the same weights, dealt out to other tokens of the optimizer step. "
    return f"The control, {name}, lacks what the paper proposes. "


def _comparisons(view: str, found: Sequence[PaperFinding]) -> Iterator[str]:
    rows = [("target minus", "over", "points", "95 % interval", "p (Holm)", "verdict", "seen from")]
    for f in (f for f in found if f.view == view):
        low, high = map(PERCENT.signed, f.comparison.interval)
        p = f"{f.p_holm:.2g}" if f.p_holm >= 0.0001 else "< 0.0001"
        points = PERCENT.signed(f.comparison.difference)
        rows.append((f.other, f.scope, points, f"{low} to {high}", p, f.verdict, PERCENT.text(f.minimum_detectable)))
    yield _table(rows) if len(rows) > 1 else "Nothing could be compared."
    if len(rows) > 1:
        yield "“Seen from”: the smallest difference, in points, that so many problems show four times in five."


def _tables(view: str, outcome: Reproduction, completions: Completions) -> Iterator[str]:
    question = outcome.question
    records = {
        r["run_id"]: r
        for (v, arm, _), rows in outcome.records.items()
        if v == view or arm in question.references
        for r in rows
    }
    if records:
        yield render(leaderboard(list(records.values()), None, completions), "md")


def _beside(outcome: Reproduction, beside: Sequence[Standing]) -> Iterator[str]:
    micro = outcome.asks
    yield (
        "The paper's numbers are of the real benchmarks and other models. The micro world's are of generated problems, "
        "so there is no gap to compute; they stand here so that nobody has to look them up."
        if micro
        else "Gap: ours minus theirs, also in combined standard errors. Theirs are reported, never measured here."
    )
    counts = {cell["id"]: (cell["n"]["value"], cell["count"]) for cell in outcome.paper["cells"]}
    rows = [("cell", "theirs (reported)", "± SE", "ours (measured)", "95 % interval", "seeds", "gap", "gap / SE")]
    for s in beside:
        n, count = counts.get(s.cell, (None, {"value": None}))
        decoded = f" ({count['value']} of {n}, {count['status']})" if count["value"] is not None else ""
        ours = "not measured" if s.ours is None else f"{s.ours:.1f} on {s.task}"
        span = "" if s.low is None else f"{s.low:.1f} to {s.high:.1f}"
        gap = (
            PERCENT.signed(s.gap / 100)
            if s.gap is not None
            else "not comparable"
            if micro and s.ours is not None
            else ""
        )
        in_errors = PERCENT.signed(s.gap_in_errors / 100) if s.gap_in_errors is not None else ""
        error = f"{s.theirs_error:.1f}" if s.theirs_error is not None else ""
        rows.append((s.cell, f"{s.theirs:g}{decoded}", error, ours, span, str(len(s.seeds) or ""), gap, in_errors))
    yield _table(rows) if len(rows) > 1 else "No cell of the paper is about these tasks."
    yield f"Source of theirs: {reported.KIND}/{outcome.paper['id']}.json."


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines)
