"""``harness plot``: the results as figures for a paper."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import safe_read
from harness.commands import arguments
from harness.errors import BadInput
from harness.reports.plots.theme import THEMES

if TYPE_CHECKING:
    from harness.leaderboard.rows import Section
    from harness.records.record import Record
    from harness.records.store import Store

KINDS = ("scores", "differences", "pareto", "curves")


def add(commands: argparse._SubParsersAction) -> None:
    command = arguments.command(
        commands,
        "plot",
        "plot the results as SVG, PNG or PDF",
        about="Draws the results: scores, differences from one row, scores against cost, or learning curves.",
        examples=(
            "harness plot -t amc23 --out scores.svg",
            "harness plot --kind differences --view compute --against gkd",
            "harness plot --kind curves --metric loss --out curves.pdf",
        ),
    )
    arguments.names(command, "-t", "--task", metavar="T", kind="tasks", help="only these tasks")
    command.add_argument(
        "--kind", choices=KINDS, default="scores",
        help="scores with intervals (default); differences of all rows from one, on every task; score against cost; "
        "curves",
    )  # fmt: skip
    command.add_argument(
        "--against", metavar="M", help="the row that --kind differences subtracts (default: the baseline)"
    )
    command.add_argument(
        "--cost",
        default="seconds",
        metavar="COST",
        help="the cost of --kind pareto: seconds, flops, tokens, teacher_tokens, …",
    )
    arguments.view(command)
    command.add_argument(
        "--metric", metavar="METRIC",
        help="the logged value of --kind curves (default: on held-out text where it was measured, else the loss)",
    )  # fmt: skip
    command.add_argument(
        "--axis", choices=("tokens", "steps"), default="tokens", help="what --kind curves is drawn against"
    )
    command.add_argument(
        "--theme", choices=THEMES, default="light", help="auto: an SVG that follows a light or dark page"
    )
    command.add_argument(
        "--out", type=Path, metavar="FILE", help="….svg, with a ….png next to it; ….png; or ….pdf (default: KIND.svg)"
    )
    arguments.results(command)
    command.set_defaults(command=call)


def call(args: argparse.Namespace) -> str:
    from harness.leaderboard.table import View, leaderboard
    from harness.records.store import Store, no_records
    from harness.reports.plots import scores, theme

    arguments.check_view(args)
    store = Store(args.results)
    records, warnings = store.all()
    safe_read.warn(warnings)
    if not records:
        raise no_records(args.results)
    view = View(args.view, anchor=args.anchor)
    sections = leaderboard(records, args.task or None, store.completions, view)
    scheme = "dark" if args.theme == "dark" else "light"
    figure = _figure(args, store, records, sections, scheme)
    if args.kind in ("pareto", "curves"):
        theme.below(figure, scores.standing_notes(sections), scheme)
    path = theme.write(figure, args.out or Path(f"{args.kind}.svg"), args.theme)
    beside = theme.write(figure, path.with_suffix(".png"), scheme) if path.suffix.lower() == ".svg" else None
    if args.json:
        return arguments.dump({"out": str(path), **({"png": str(beside)} if beside else {})})
    return f"{path}\n{beside}" if beside else str(path)


def _figure(
    args: argparse.Namespace, store: Store, records: Sequence[Record], sections: Sequence[Section], scheme: str
) -> Any:
    """The figure of the requested kind. Raises BadInput if the records hold nothing to draw."""
    from harness.leaderboard import rows
    from harness.reports.plots import curves, differences, pareto, scores

    by_run, order = {record["run_id"]: record for record in records}, rows.order(sections)
    if args.kind == "curves":
        lines = curves.series(sections, by_run, store.root)
        if not lines:
            raise BadInput(f"no learning curves in {args.results / 'curves'}; harness run writes them with its records")
        known = curves.metrics_of(lines)
        metric = args.metric or known[0]
        if metric not in known:
            raise BadInput(f"--metric {metric!r} is not among {', '.join(sorted(known))}")
        return curves.with_legend(curves.figure(lines, metric, order, scheme, axis=args.axis))
    trained = [section for section in sections if any(not row.reference for row in section.rows)]
    if not trained:
        raise BadInput(f"{args.results} holds no trained method to plot, only models evaluated without training")
    if args.kind == "scores":
        return scores.figure(trained, scheme)
    if args.kind == "differences":
        return differences.figure(trained, by_run, store.completions, args.against, scheme)
    if args.cost not in pareto.COSTS:
        raise BadInput(f"--cost {args.cost!r} is not among {', '.join(pareto.COSTS)}")
    trained = [section for section in trained if pareto.rows_of(section, args.cost)]
    if not trained:
        raise BadInput(f"--cost {args.cost}: the parameters of the models in {args.results} are not known")
    return pareto.figure(trained, args.cost, order, scheme)
