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
    problems = [finding for finding in findings if finding.status == doctor.PROBLEM]
    args.exit_code = 1 if problems else 0
    if args.json:
        return arguments.dump({"fit": not problems, "findings": [dataclasses.asdict(finding) for finding in findings]})
    lines = []
    for finding in findings:
        lines.append(f"{finding.status:8} {finding.name:10} {finding.found}")
        if finding.fix and finding.status != doctor.OK:
            lines.append(f"{'':20}{finding.fix}")
    notes = sum(finding.status == doctor.NOTE for finding in findings)
    counted = (f"{n} {word}{'' if n == 1 else 's'}" for n, word in ((len(problems), "problem"), (notes, "note")))
    return arguments.fitted("\n".join([*lines, "", ", ".join(counted)]), column=20)
