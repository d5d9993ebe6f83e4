"""Writes ``results/vcrd/README.md`` and ``map.svg`` from the records: ``python -m results.scripts.vcrd.page``.

The answer in sentences stands in ``results/vcrd/answer.md`` and is written by hand; everything else is counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from harness.leaderboard import equal_compute, inference
from harness.leaderboard.compare import pair_up, smallest_seen
from harness.leaderboard.inference import Group
from harness.leaderboard.labels import name_of
from harness.leaderboard.rows import alike
from harness.recipe import load
from harness.records.store import Store
from harness.registry import METHODS, find
from harness.reports.plots import theme
from harness.stats import intervals
from results.scripts.vcrd import chosen
from results.scripts.vcrd.run import ROOT, longer, test, validation
from results.scripts.vcrd.settings import (
    ARENAS,
    LONGER_SEEDS,
    MARKS,
    ORACLES,
    PLAIN,
    RIVALS,
    SETTINGS,
    TEST,
    TEST_SEEDS,
    VALIDATION,
    VALIDATION_SEEDS,
)

WEIGHED = "| {} | {} | {} | {} | {} | {} |"


def main() -> None:
    store = Store(ROOT)
    parts = [
        "# Validity calibration: which reading of the abstract, if any",
        "`vcrd` is our reconstruction of a public paper (arXiv 2605.04078) whose formula was not available to this "
        "project. What is compared here are readings of its abstract; nothing here is a statement about the paper. "
        "[plan.md](plan.md) and [plan-longer.md](plan-longer.md) were committed before their runs.",
        (ROOT / "answer.md").read_text("utf-8").strip(),
        "## Validation: 34 readings, three oracles, five rivals",
        "![Mean accuracy of every reading on the validation problems](map.svg)",
        *_validation(),
        "## Test",
        *_tests(store),
        "## Test after longer training",
        "[The second plan](plan-longer.md): arena `slice`, the FLOPs of 480 steps of gkd for every row, seeds 5 to 9.",
        *_longer(store),
        "## Runs of each stage",
        *_missing(store),
    ]
    (ROOT / "README.md").write_text("\n\n".join(parts) + "\n", "utf-8")
    _draw(ROOT / "map.svg")


def _rows() -> list[tuple[str, str, list[Mapping[str, Any]]]]:
    """(kind, name, records by seed) of everything measured on the validation problems, best mean first."""
    measured = [("mark" if n in MARKS else "rival", n, chosen.of(ROOT, n, {})) for n in (*MARKS, *RIVALS)]
    measured += [("reading", name, chosen.of(ROOT, "vcrd", s)) for name, s in SETTINGS.items()]
    measured += [("oracle", name, chosen.of(ROOT, "vcrd", s)) for name, s in ORACLES.items()]
    return sorted((row for row in measured if row[2]), key=lambda row: -_mean(row[2]))


def _mean(records: Sequence[Mapping[str, Any]]) -> float:
    return 100 * fmean(r["score"] for r in records)


def _validation() -> Iterator[str]:
    lines = [WEIGHED.format("row", "mean %", "by seed", "cost / gkd", "signal moved", "AUROC against the checker")]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    base = equal_compute.median_cost(chosen.of(ROOT, "gkd", {}))
    for kind, name, records in _rows():
        weights = [r["weights"] for r in records if r.get("weights")]
        moved = f"{100 * fmean(w['moved'] for w in weights if 'moved' in w):.0f} %" if weights else ""
        aurocs = [w["validity"]["auroc"] for w in weights if w.get("validity", {}).get("auroc") is not None]
        lines.append(
            WEIGHED.format(
                name if kind in ("reading", "mark") else f"{name} ({kind})",
                f"{_mean(records):.1f}",
                ", ".join(f"{r['seed']}: {100 * r['score']:.1f}" for r in records),
                f"{equal_compute.median_cost(records) / base:.1f}",
                moved,
                f"{fmean(aurocs):.3f}" if aurocs else "",
            )
        )
    yield "\n".join(lines)
    yield (
        "Accuracy on 300 validation problems of arena `slice`, 120 steps each, so not at equal compute: the column of "
        "costs (FLOPs, estimation included) says by how much. One seed's standard error over problems is 2.9 points."
    )
    spread = [abs(a[2][0]["score"] - a[2][1]["score"]) for a in _rows() if len(a[2]) > 1]
    if spread:
        yield (
            f"Two seeds of a row differ by {100 * fmean(spread):.1f} points on average, over {len(spread)} rows: most "
            "of the order above is noise."
        )
    four = [
        (name, fmean(r["weights"]["means"][c] for r in records))
        for _, name, records in _rows()
        if name == "oracle cases"
        for c in ("both_valid", "teacher_valid", "student_valid", "neither_valid")
    ]
    if four:
        cases = ("both valid", "the teacher's alone", "the student's alone", "neither")
        shares = ", ".join(f"{words} {100 * share:.0f} %" for words, (_, share) in zip(cases, four, strict=True))
        yield f"The exact checker on the proposals of `oracle cases`, by tokens: {shares}."


def _tests(store: Store) -> Iterator[str]:
    records = [r for r in store.all()[0] if r["task"] != VALIDATION and r["seed"] in TEST_SEEDS]
    arenas: dict[tuple[str, str], list[Any]] = {}
    for record in records:
        if record["teacher"]:
            arenas.setdefault((record["task"], record["teacher"]), []).append(record)
    for (task, teacher), members in sorted(arenas.items()):
        yield f"### {task}, teacher {teacher}"
        yield _comparisons(store, members, chosen.settings(ROOT)[0], "best reading")
    if not arenas:
        yield "No test run has been made."


def _longer(store: Store) -> Iterator[str]:
    """The chosen reading and the oracle against each other row of the second plan."""
    records = [r for r in store.all()[0] if r["task"] == TEST and r["seed"] in LONGER_SEEDS]
    if not records:
        yield "No run has been made."
        return
    best, _, oracle = chosen.settings(ROOT)
    for settings, name in ((best, "best reading"), (oracle, "oracle")):
        yield _comparisons(store, records, settings, name)


def _comparisons(store: Store, records: Sequence[Any], best: Mapping[str, Any], called: str) -> str:
    """The row of vcrd with settings ``best`` against each other row, Holm-adjusted over them, best row first."""
    groups = [Group(of_row, inference.read_matrix(of_row, store.completions)) for of_row in alike(records)]
    pooled = inference.seed_variance(groups)
    named = [g for g in groups if name_of(g.first["method"]) == "vcrd"]
    mine = [g for g in named if best.items() <= dict(g.first["method"]["settings"]).items()]
    lines = [f"| row | steps | seeds | % | {called} minus it | 95 % | p, Holm | smallest seen at 80 % power |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    compared = {}
    for group in groups if mine else []:
        if group is not mine[0]:
            pair = pair_up(group, mine[0], ("row", "best"))
            compared[id(group)] = intervals.compare(pair.first, pair.second, seeds=pooled), pair
    adjusted = dict(zip(compared, intervals.holm([comparison.p for comparison, _ in compared.values()]), strict=True))
    for group in sorted(groups, key=lambda g: -g.score):
        cells = ["", "", "", ""]
        if id(group) in compared:
            comparison, pair = compared[id(group)]
            low, high = comparison.interval
            cells = [f"{100 * comparison.difference:+.1f}", f"{100 * low:+.1f} to {100 * high:+.1f}"]
            cells += [_p(adjusted[id(group)]), f"{100 * smallest_seen(comparison, pair.first, pair.second):.1f}"]
        name, steps = _short(group.first), group.first["cost"]["steps"]
        row = f"**{name}**" if mine and group is mine[0] else name
        lines.append(f"| {row} | {steps} | {len(group.records)} | {100 * group.score:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _short(record: Mapping[str, Any]) -> str:
    """The row's name in the tables of this page: of vcrd the reading, of others the method."""
    name, settings = name_of(record["method"]), dict(record["method"]["settings"])
    if not name.startswith("vcrd"):
        return name
    usual = vars(find(METHODS, "vcrd").Config())
    own = {key: value for key, value in settings.items() if usual[key] != value and key != "shuffle"}
    known = {frozenset(s.items()): word for word, s in (SETTINGS | ORACLES).items()}
    kind = " (oracle)" if settings["validity"] == "verifier" else ""
    return known[frozenset(own.items())] + kind + (", weights shuffled" if settings["shuffle"] else "")


def _missing(store: Store) -> Iterator[str]:
    """How many runs of each stage of the plan are recorded, and the commands that make the others."""
    have = {name: len(records) for _, name, records in _rows()}
    done, all_of_them = sum(have.values()), len(list(validation()))
    yield _state("Stage 1", done, all_of_them, "validation")
    short = [n for n in (*SETTINGS, *ORACLES) if have.get(n, 0) < len(VALIDATION_SEEDS)]
    if short:
        yield f"Without both seeds: {', '.join(short)}."
    arenas = (*ARENAS, "plain")
    recorded = sum(r["task"] in (TEST, *PLAIN) and r["seed"] in TEST_SEEDS for r in store.all()[0])
    # Two arenas have one student, which needs one evaluation as it is.
    planned = {
        (c.method, c.seed, c.task, *c.settings, load(c.recipe).models.student if c.method == "untouched" else c.recipe)
        for arena in arenas
        for c in test(arena)
    }
    yield _state("Stage 2", recorded, len(planned), f"test --arena {' '.join(arenas)}")
    ran = sum(r["task"] == TEST and r["seed"] in LONGER_SEEDS for r in store.all()[0])
    yield _state("Second plan", ran, len(list(longer())), "longer")


def _state(stage: str, done: int, planned: int, arguments: str) -> str:
    """How much of a stage is recorded, with the command that runs it, or what is left of it."""
    command = f"`python -m results.scripts.vcrd.run {arguments}`"
    return (
        f"{stage}: all {planned} runs, by {command}."
        if done == planned
        else (f"{stage}: {done} of {planned} runs; {command} runs the others.")
    )


def _draw(path: Path) -> None:
    """The map: every reading, oracle and rival by its mean, seeds as dots; the base without weights as a line."""
    from matplotlib.figure import Figure

    rows = _rows()[::-1]
    with theme.drawing():
        figure = Figure(figsize=(7.2, 0.2 * len(rows) + 1.2), layout="constrained")
        axes = figure.add_subplot()
        names = {"reading": "s1", "oracle": "s2", "rival": "s3", "mark": "faint"}
        for place, (kind, _, records) in enumerate(rows):
            own = theme.colour(names[kind])
            axes.plot([100 * r["score"] for r in records], [place] * len(records), "o", color=own, ms=2.5)
            axes.plot([_mean(records)], [place], "|", color=own, ms=9, mew=2)
        if base := chosen.of(ROOT, "gkd", {}):
            axes.axvline(_mean(base), color=theme.colour("faint"), lw=0.8, ls="--")
        axes.set_yticks(range(len(rows)), [name if kind != "rival" else f"{name} (rival)" for kind, name, _ in rows])
        axes.set_xlabel("validation accuracy, % (bar: mean, dots: seeds, dashed: gkd)")
        axes.margins(y=0.01)
        axes.tick_params(axis="y", labelsize=7)
        figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
