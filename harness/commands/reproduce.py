"""``harness reproduce``: run the rows of a paper, or its comparison in the micro world."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.commands import arguments
from harness.errors import BadInput
from harness.leaderboard import COMPUTE, DEFAULT_UNIT, STEPS, UNITS


def add(commands: argparse._SubParsersAction) -> None:
    command = arguments.command(
        commands,
        "reproduce",
        "run the rows of a paper and compare them with its numbers; resumes",
        about="Runs the rows of a paper and compares them with its numbers, or asks its question in the micro world.",
        examples=(
            "harness reproduce vcrd --dry-run",
            "harness reproduce vcrd --scale micro",
            "harness reproduce vcrd --scale micro --set training.steps=50 -s 0",
        ),
    )
    paper = command.add_argument("paper", metavar="PAPER", help="a shipped paper, or a TOML file of the same form")
    arguments.offer(paper, "papers")
    arguments.names(command, "--only", metavar="CELL", help="run only these cells or tasks")
    command.add_argument("--dry-run", action="store_true", help="print what would run and its cost; run nothing")
    command.add_argument(
        "--scale",
        choices=("micro", "small", "paper"),
        default="paper",
        help="paper: its rows on real models; micro, small: its question in a small world (default: paper)",
    )
    arguments.seeds(command, help="training seeds (default: the paper's)")
    arguments.values(
        command, "--set", dest="settings", metavar="KEY=VALUE", help="change settings: training.steps=50, …; repeatable"
    )
    command.add_argument("--view", choices=(STEPS, COMPUTE, "both"), help="of the question (default: both)")
    command.add_argument("--cost", choices=UNITS, help="the unit of equal compute (default: flops)")
    arguments.values(
        command,
        "--published",
        type=Path,
        metavar="DIR",
        help="take completions of equal training from the records below DIR and grade them again; repeatable",
    )
    command.add_argument("--judge", metavar="JUDGE", help="for instruction tasks on real data")
    command.add_argument("--device", metavar="DEVICE", help="cpu, cuda, cuda:N or mps")
    arguments.results(command)
    command.set_defaults(command=call)


def call(args: argparse.Namespace) -> str:
    from harness.papers import reproduce as paper_runs
    from harness.papers import spec
    from harness.records import reported

    _check(args)
    paper_spec = spec.load(args.paper, args.results)
    paper = reported.find(paper_spec.reported, args.results)
    request = paper_runs.ReproduceRequest(
        scale=args.scale,
        only=list(dict.fromkeys(args.only)),
        seeds=list(dict.fromkeys(args.seed or [])),
        settings=args.settings,
        results=args.results,
        judge=args.judge,
        device=args.device,
        published=args.published,
        views=(STEPS, COMPUTE) if args.view in (None, "both") else (args.view,),
        unit=args.cost or DEFAULT_UNIT,
    )
    if args.dry_run:
        from harness.papers import paper_cost

        outcome = paper_runs.Reproduction(paper_spec, request, paper)
        guessed = paper_cost.estimates(outcome, judge_pairs=True)
        if args.json:
            gaps = {"missing": outcome.missing, "left_out": paper_spec.left_out}
            return arguments.dump(paper_cost.as_json(guessed) | gaps)
        gaps = [f"cannot be run: {m['arm']} on {m['cell']}: {m['reason']}" for m in outcome.missing]
        gaps += [f"left out: {what}: {why}" for what, why in paper_spec.left_out.items()]
        return arguments.fitted("\n".join([paper_cost.text(guessed) if guessed else "nothing can be run here", *gaps]))
    return _run(args, paper_spec, request, paper)


def _check(args: argparse.Namespace) -> None:
    """Raises BadInput for a view, or a unit of cost, of a question that is not asked."""
    if args.scale == "paper" and (args.view or args.cost):
        option = "--view" if args.view else "--cost"
        raise BadInput(f"{option} is for the paper's question; give --scale micro or --scale small, too")
    if args.cost and args.view == STEPS:
        raise BadInput("--cost is the unit of equal compute, which --view steps leaves out")


def _run(args: argparse.Namespace, paper_spec, request, paper) -> str:
    from harness.papers import page
    from harness.papers import reproduce as paper_runs
    from harness.progress import Reporter
    from harness.records.store import Store

    with Reporter() as reporter:
        outcome = paper_runs.reproduce(paper_spec, request, paper, reporter.progress, reporter.announce)
        store = Store(request.results)
        findings = page.findings_of(outcome, store.completions) if outcome.asks else []
        standings = page.standings(outcome, store.completions)
        text = page.answer_page(outcome, findings, standings, store.completions)
        facts = page.findings_as_json(outcome, findings, standings)
        if outcome.records:
            reporter.announce(f"written: {paper_runs.write(outcome, text, facts)}")
    args.exit_code = int(bool(outcome.missing))
    return arguments.dump(facts) if args.json else text
