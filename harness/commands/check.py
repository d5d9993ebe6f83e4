"""``harness check``: graders on known answers, a method or task against its contract, a paper's printed tables."""

from __future__ import annotations

import argparse

from harness.commands import arguments


def add(commands: argparse._SubParsersAction) -> None:
    command = arguments.command(
        commands,
        "check",
        "test graders on right and wrong answers; test your own method or task against its contract",
        about="Tests the graders on reference answers and known wrong ones, or a method, task or tokenizer of yours.",
        examples=("harness check", "harness check --method ./my_method.py", "harness check paper distillm2"),
    )
    command.add_argument(
        "what", nargs="*", metavar="paper NAME", help="audit the printed tables of these papers (default: of all)"
    )
    arguments.names(
        command,
        "-t",
        "--task",
        metavar="T",
        kind="tasks",
        help="check only these tasks and their contracts; `notations` is the suite of the maths grader",
    )
    arguments.names(
        command, "-m", "--method", metavar="M", kind="methods", help="check these methods against the contract"
    )
    arguments.values(command, "--judge", metavar="J", help="check these judges against the contract")
    command.add_argument(
        "--model",
        metavar="DIR",
        help="test whether this model's tokenizer reproduces the text of the tasks, and nothing else",
    )
    arguments.results(command)
    arguments.sandbox(command)
    command.set_defaults(command=call)


def call(args: argparse.Namespace) -> str:
    from dataclasses import asdict

    from harness import testing
    from harness.evaluation import self_check
    from harness.progress import Reporter

    if args.what:
        return _papers(args)
    arguments.accept_sandbox(args)
    if args.model:
        return _round_trip(args)
    conformed = testing.conformance_of_methods(args.method) + [
        testing.conformance_of_task(name) for name in args.task if name != self_check.NOTATIONS
    ]
    conformed += [testing.conformance_of_judge(word) for word in args.judge]
    broken = any(one.broken for one in conformed)
    # Skip grading for a task that breaks its contract, because its verdicts mean nothing.
    graded = [name for name in args.task if not any(one.broken for one in conformed if one.name == name)]
    checked = []
    if graded or not conformed:
        with Reporter(line_every=60) as reporter:
            checked = self_check.check(graded, reporter.progress)
    # A task without gold answers passes if its whole contract could be checked.
    skipped_well = all(c.status == "skipped" for c in checked) and all(one.whole for one in conformed)
    args.exit_code = int(
        broken or (bool(checked) and not self_check.green(checked) and not (conformed and skipped_well))
    )
    if args.json:
        return arguments.dump(self_check.as_json(checked) | {"contracts": [asdict(one) for one in conformed]})
    parts = ["\n".join(testing.conformance_text(one) for one in conformed), self_check.text(checked) if checked else ""]
    return arguments.fitted("\n\n".join(filter(None, parts)))


def _papers(args: argparse.Namespace) -> str:
    """Audits printed tables; a finding is not a failure, so the exit code stays 0."""
    from harness.errors import BadInput
    from harness.papers.audit import report
    from harness.records import reported

    if args.what[0] != "paper":
        raise BadInput(f"check {args.what[0]}: write harness check paper NAME, or --task, --method or --model")
    if args.task or args.method or args.model or args.judge:
        raise BadInput("check paper takes names of papers only; give --task, --method and others in another command")
    papers = reported.papers(args.results)
    chosen = [reported.find(name, args.results) for name in dict.fromkeys(args.what[1:])] or papers
    audits = [report.audit(paper, papers) for paper in chosen]
    return arguments.dump(report.as_json(audits)) if args.json else report.text(audits)


def _round_trip(args: argparse.Namespace) -> str:
    from harness.evaluation import round_trip

    trips = round_trip.check(args.model, args.task)
    args.exit_code = int(any(trip.lost for trip in trips))
    if args.json:
        return arguments.dump({"model": args.model, "tasks": [trip.as_json() for trip in trips]})
    lines = (trip.warning or f"{trip.task}: all {trip.items} tested items are reproduced" for trip in trips)
    return arguments.fitted("\n".join(lines))
