"""``harness doctor``: check this machine for what the harness needs."""

from __future__ import annotations

import argparse
import dataclasses

from harness.commands import arguments


def add(commands: argparse._SubParsersAction) -> None:
    command = arguments.command(
        commands,
        "doctor",
        "check what works on this machine, what does not, and how to fix it",
        about="Checks packages, devices, sandbox, data and servers on this machine; says how to fix what fails.",
        examples=("harness doctor", "harness doctor --json", "harness doctor --results my-results"),
    )
    arguments.results(command)
    command.set_defaults(command=call)


def call(args: argparse.Namespace) -> str:
    from harness import doctor

    findings = list(doctor.examine(args.results))
    problems = [f for f in findings if f.status == doctor.PROBLEM]
    args.exit_code = 1 if problems else 0
    if args.json:
        return arguments.dump({"fit": not problems, "findings": [dataclasses.asdict(f) for f in findings]})
    lines = []
    for f in findings:
        lines.append(f"{f.status:8} {f.name:10} {f.found}")
        if f.fix and f.status != doctor.OK:
            lines.append(f"{'':20}{f.fix}")
    notes = sum(f.status == doctor.NOTE for f in findings)
    counted = (f"{n} {word}{'' if n == 1 else 's'}" for n, word in ((len(problems), "problem"), (notes, "note")))
    return arguments.fitted("\n".join([*lines, "", ", ".join(counted)]), column=20)
