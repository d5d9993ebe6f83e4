"""A reproduction as a Markdown page: the answer, then its evidence, then what could not be run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from harness.errors import BadInput
from harness.leaderboard import COMPUTE, STEPS, inference
from harness.leaderboard.compare import pair_up, smallest_seen
from harness.leaderboard.formats import render
from harness.leaderboard.inference import LEVEL, Completions, Group
from harness.leaderboard.rows import leaderboard
from harness.leaderboard.together import pooled_over_tasks, scores_of_all
from harness.metrics import PERCENT
from harness.papers import printed_rows
from harness.papers.reproduce import PAPER, Reproduction
from harness.records import reported
from harness.stats import intervals
from harness.stats.intervals import Comparison, SeedVariance

# By scale: what the scores of a question are not, and why none is set against the paper's.
WORLDS = {
    "micro": "The problems are generated: nothing here is a score on a benchmark.",
    "small": "The problems are the benchmark's, the models and the training are small: no score here compares with a "
    "published one.",
}
OTHERS = {
    "micro": "The paper's numbers are of the real benchmarks and other models. The micro world's are of generated "
    "problems, so there is no gap to compute; the table lists them for reference.",
    "small": "The paper's numbers are of other models and other training, so there is no gap to compute; the table "
    "lists them for reference.",
}
VIEWS = {STEPS: "Equal steps", COMPUTE: "Equal compute", PAPER: "As the paper's rows"}


def answer_page(
    outcome: Reproduction, findings: Sequence[PaperFinding], beside: Sequence[Standing], completions: Completions
) -> str:
    """The whole page."""
    paper = outcome.paper
    title = (
        f"{paper['title']}: its question in the {outcome.request.scale} world"
        if outcome.asks
        else f"{paper['title']}: its rows, run here"
    )
    blocks = [f"# {title}", outcome.spec.about]
    if outcome.asks:
        blocks += ["## The answer", "\n".join(f"- {line}" for line in words(outcome, findings)), *_method(outcome)]
        for view in outcome.views:
            blocks += [f"## {VIEWS[view]}", *_comparisons(view, findings), *_tables(view, outcome, completions)]
    blocks += ["## Our scores and theirs", *_beside(outcome, beside)]
    if outcome.missing or outcome.spec.left_out:
        lines = [f"- {m['arm']} on {m['cell']} ({m['view']}): {m['reason']}" for m in outcome.missing]
        lines += [f"- {what}: {why}" for what, why in outcome.spec.left_out.items()]
        blocks += ["## Not run", "\n".join(lines)]
    return "\n\n".join(blocks)


def _method(outcome: Reproduction) -> Iterator[str]:
    question = outcome.question
    records = [r for rows in outcome.records.values() for r in rows]
    contestants = {key: rows for key, rows in outcome.records.items() if key[1] not in question.references}
    seeds = sorted({r["seed"] for rows in contestants.values() for r in rows})
    trained = {r["training_id"]: r["cost"]["seconds"] for r in records if r["cost"]["steps"]}
    yield "## Method"
    yield (
        f"{len({arm for _, arm, _ in contestants})} methods, {len(seeds)} training seeds "
        f"({', '.join(map(str, seeds))}), {len(trained)} trained students, {len({r['run_id'] for r in records})} "
        f"records, {sum(trained.values()) / 3600:.2f} hours of training. Differences are paired by seed and by "
        "problem; intervals and tests treat both as random, and the variance between seeds is pooled over all "
        "methods. Holm's adjustment runs over all comparisons of a view's table: "
        f"over the rows of “{ALL}” together, and over the rows of the single tasks together. "
        f"{_control(question.control)}Over all tasks every problem has equal weight. {WORLDS[outcome.request.scale]}"
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
        return "The control gives the same weights to other tokens of the optimizer step. "
    return f"The control, {name}, lacks what the paper proposes. "


def _comparisons(view: str, findings: Sequence[PaperFinding]) -> Iterator[str]:
    rows = [("target minus", "over", "points", "95 % interval", "p (Holm)", "verdict", "seen from")]
    for finding in (finding for finding in findings if finding.view == view):
        low, high = map(PERCENT.signed, finding.comparison.interval)
        p = f"{finding.p_holm:.2g}" if finding.p_holm >= 0.0001 else "< 0.0001"
        points = PERCENT.signed(finding.comparison.difference)
        least = PERCENT.text(finding.minimum_detectable)
        rows.append((finding.other, finding.scope, points, f"{low} to {high}", p, finding.verdict, least))
    yield _table(rows) if len(rows) > 1 else "Nothing could be compared."
    if len(rows) > 1:
        yield "“Seen from”: the smallest difference, in points, that this many problems detect with 80 % power."


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
    yield (
        OTHERS[outcome.request.scale]
        if outcome.asks
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
            if outcome.asks and s.ours is not None
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


# Answers the question of a paper from records: does the target beat the other methods, and its own control?
#
# Comparisons are those of ``harness compare``: paired by training seed and by problem, Holm-adjusted over all
# comparisons of one view. For several tasks together, the problems of all of them have equal weight.

ALL = "all tasks"


@dataclass(frozen=True)
class PaperFinding:
    """The target against one other arm; ``difference`` is target minus other."""

    view: str
    scope: str  # a task, or all tasks
    other: str
    comparison: Comparison
    p_holm: float
    seeds: tuple[int, ...]
    problems: int
    minimum_detectable: float

    @property
    def verdict(self) -> str:
        if self.p_holm >= LEVEL:
            return "not distinguishable"
        return "better" if self.comparison.difference > 0 else "worse"


@dataclass(frozen=True)
class Standing:
    """The measured score of one cell of the paper and the reported one, in percent; the gap also in standard errors."""

    cell: str
    task: str
    ours: float | None
    low: float | None
    high: float | None
    seeds: tuple[int, ...]
    theirs: float | None
    theirs_error: float | None  # points
    gap: float | None  # points
    gap_in_errors: float | None


def findings_of(outcome: Reproduction, completions: Completions) -> list[PaperFinding]:
    """All comparisons of the micro question: first over all tasks, then by task. Skips missing arms."""
    question, results = outcome.question, []
    tasks = list(dict.fromkeys(cell for _, _, cell in outcome.records))
    for view in outcome.views:
        comparisons, pooled = [], _pooled(outcome, view, tasks, completions)
        for other in filter(None, [question.control, *question.baselines]):
            pairs = []
            for task in tasks:
                groups = [outcome.records.get((view, arm, task)) for arm in (other, question.target)]
                if all(groups):
                    try:
                        pairs.append(pair_up(*(_group(g, completions) for g in groups), (other, question.target)))
                    except BadInput as error:
                        outcome.missing.append({"view": view, "arm": other, "cell": task, "reason": str(error)})
            if len(pairs) > 1:
                of_all = scores_of_all(pairs)
                if of_all[2]:
                    comparisons.append((ALL, other, *of_all))
                else:
                    reason = f"{other} and {question.target} share no seed on all tasks"
                    outcome.missing.append({"view": view, "arm": other, "cell": ALL, "reason": reason})
            comparisons += [(pair.title, other, pair.first, pair.second, pair.seeds) for pair in pairs]
        results += _adjusted(view, [a for a in comparisons if a[0] == ALL], pooled)
        results += _adjusted(view, [a for a in comparisons if a[0] != ALL], pooled)
    return results


def _pooled(
    outcome: Reproduction, view: str, tasks: Sequence[str], completions: Completions
) -> dict[str, SeedVariance | None]:
    """The variance between training seeds, pooled over all arms of a view: on each task, and over all tasks."""
    arms = [arm.name for arm in outcome.question.arms]
    variances: dict[str, SeedVariance | None] = {}
    whole: list[tuple[str, str, Group]] = []
    for task in tasks:
        recorded = {arm: outcome.records.get((view, arm, task)) for arm in arms}
        groups = {arm: _group(records, completions) for arm, records in recorded.items() if records}
        titles = {group.first["task"] for group in groups.values()}
        variances |= dict.fromkeys(titles, inference.seed_variance(groups.values()))
        whole += [(arm, task, group) for arm, group in groups.items()]
    return variances | {ALL: pooled_over_tasks(whole, len(tasks))}


def _group(records: Sequence[dict[str, Any]], completions: Completions) -> Group:
    ordered = sorted(records, key=lambda record: record["seed"])
    return Group(ordered, inference.read_matrix(ordered, completions))


def _adjusted(view: str, comparisons: Sequence[tuple], pooled: Mapping[str, SeedVariance | None]) -> list[PaperFinding]:
    compared = [intervals.compare(first, second, seeds=pooled.get(scope)) for scope, _, first, second, _ in comparisons]
    adjusted = intervals.holm([c.p for c in compared])
    return [
        PaperFinding(view, scope, other, c, p, tuple(seeds), first.shape[1], smallest_seen(c, first, second))
        for (scope, other, first, second, seeds), c, p in zip(comparisons, compared, adjusted, strict=True)
    ]


def standings(outcome: Reproduction, completions: Completions) -> list[Standing]:
    """The paper's cells with our scores. Generated problems have no gap, because they are not the benchmark."""
    target = outcome.question.target if outcome.asks else outcome.spec.method
    view = outcome.views[0] if outcome.asks else PAPER
    rows = []
    for cell in outcome.paper["cells"]:
        names = (cell["id"], cell["task"], f"{cell['task']}@micro")
        records = next(filter(None, (outcome.records.get((view, target, name)) for name in names)), None)
        theirs, error = cell["value"]["value"], reported.standard_error(cell)
        if outcome.asks and (records is None or cell["id"] != cell["task"]):
            continue
        rows.append(_standing(cell["id"], cell["task"], records, theirs, error, completions))
    if outcome.asks:
        return rows
    # Cells of printed tables: each names its own method.
    for row in (row for pair in outcome.spec.pairs for row in printed_rows.printed_rows_of(pair, outcome.paper)):
        records = outcome.records.get((PAPER, f"{row.method} ({row.pair.name})", row.cell))
        error = printed_rows.standard_error(row)
        rows.append(_standing(row.cell, row.task, records, row.theirs.value, error, completions))
    return rows


def _standing(
    cell: str,
    task: str,
    records: Sequence[dict[str, Any]] | None,
    theirs: float,
    error: float | None,
    completions: Completions,
) -> Standing:
    if records is None:
        return Standing(cell, task, None, None, None, (), theirs, error, None, None)
    group = _group(records, completions)
    (low, high), _ = inference.interval(group, inference.seed_variance([group]))
    shown, real = group.scale.shown, records[0]["world"] == "real"
    score = shown(group.score)
    own = shown(high - low) / (2 * intervals.normal_quantile(0.95))
    gap = score - theirs if real else None
    in_errors = gap / np.hypot(own, error) if gap is not None and error else None
    seeds = tuple(record["seed"] for record in group.records)
    name = records[0]["task"]
    return Standing(cell, name, score, shown(low), shown(high), seeds, theirs, error, gap, _float(in_errors))


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def words(outcome: Reproduction, findings: Sequence[PaperFinding]) -> list[str]:
    """The answer in sentences: for each view one on the baselines and one on the control, then the caveat."""
    question, sentences = outcome.question, []
    for view in outcome.views:
        every = [f for f in findings if f.view == view]
        scope = ALL if any(f.scope == ALL for f in every) else next((f.scope for f in every), ALL)
        main = [f for f in every if f.scope == scope]
        others = [f for f in main if f.other != question.control]
        if not main:
            sentences.append(f"At equal {view} there is no answer: too little was measured.")
            continue
        sentences.append(_of_baselines(view, scope, others, _named(outcome), outcome.paper["title"]))
        for control in (f for f in main if f.other == question.control):
            sentences.append(_of_control(view, control, others, question.control))
    return [*sentences, *filter(None, [question.caveat])]


def _named(outcome: Reproduction) -> str:
    """The target, as a reconstruction where its records say that it is one."""
    target = outcome.question.target
    records = (r for (_, arm, _), of_arm in outcome.records.items() if arm == target for r in of_arm)
    first = next(records, None)
    return f"the reconstruction of {target}" if first is not None and first["method"]["reconstruction"] else target


def _of_baselines(view: str, scope: str, others: Sequence[PaperFinding], target: str, title: str) -> str:
    groups = {v: [f.other for f in others if f.verdict == v] for v in ("better", "worse", "not distinguishable")}
    parts = [
        f"beats {', '.join(groups['better'])}" if groups["better"] else "beats none of the baselines",
        f"loses to {', '.join(groups['worse'])}" if groups["worse"] else "",
        f"is not distinguishable from {', '.join(groups['not distinguishable'])}"
        if groups["not distinguishable"]
        else "",
    ]
    if not others:
        return f"At equal {view} no baseline was measured."
    first = others[0]
    return (
        f"At equal {view}, over {first.problems} problems ({scope}) and {len(first.seeds)} seed(s), "
        f"{target} {'; '.join(filter(None, parts))} (paired, Holm-adjusted, p < {LEVEL})."
    )


def _of_control(view: str, control: PaperFinding, others: Sequence[PaperFinding], name: str) -> str:
    c = control.comparison
    low, high = map(PERCENT.signed, c.interval)
    gap = f"{PERCENT.signed(c.difference)} points [{low} to {high}], p = {control.p_holm:.2g}"
    won = any(f.verdict == "better" for f in others)
    shuffled = name.endswith("@shuffled")
    if control.verdict == "better":
        why = "where the weights fall matters" if shuffled else "what the control leaves out matters"
        return f"At equal {view} it is better than its control {name} ({gap}): {why}."
    if control.verdict == "worse":
        why = "the same weights do better shuffled" if shuffled else "what the control leaves out makes it worse"
        return f"At equal {view} it is worse than its control {name} ({gap}): {why}."
    gain = "the gain does not survive the control" if won else "there is no gain for the control to explain"
    return (
        f"At equal {view} it is not distinguishable from its control {name} ({gap}): {gain}; "
        f"an effect would have been seen from about {PERCENT.text(control.minimum_detectable)} points on."
    )


def findings_as_json(
    outcome: Reproduction, findings: Sequence[PaperFinding], beside: Sequence[Standing]
) -> dict[str, Any]:
    """The content of the page as data."""
    return {
        "kind": "reproduction",
        "paper": outcome.paper["id"],
        "scale": outcome.request.scale,
        "answer": words(outcome, findings) if outcome.asks else [],
        "findings": [asdict(f) | {"verdict": f.verdict} for f in findings],
        "cells": [asdict(s) for s in beside],
        "budget": outcome.budget and asdict(outcome.budget) | {"rule": outcome.budget.rule},
        "runs": [
            {"view": v, "arm": arm, "cell": cell, "run_ids": [r["run_id"] for r in records]}
            for (v, arm, cell), records in outcome.records.items()
        ],
        "missing": outcome.missing,
        "views": {view: VIEWS[view].lower() for view in outcome.views} if outcome.asks else {},
    }
