"""``harness completion``: the code that makes a shell complete commands, options and names."""

from __future__ import annotations

import argparse

from harness.commands import arguments

SHELLS = ("bash", "zsh", "fish")


def add(commands: argparse._SubParsersAction) -> None:
    command = arguments.command(
        commands,
        "completion",
        "print the code that makes a shell complete commands, options and names",
        about="Prints the code that makes a shell complete commands, options, and names of methods and tasks.",
        examples=(
            'eval "$(harness completion bash)"',
            'eval "$(harness completion zsh)"',
            "harness completion fish > ~/.config/fish/completions/harness.fish",
        ),
    )
    command.add_argument("shell", choices=SHELLS)
    command.set_defaults(command=call)


def call(args: argparse.Namespace) -> str:
    import argcomplete

    code = argcomplete.shellcode(["harness"], shell=args.shell)
    # Bash splits words at @, and would replace only the part after it by the whole name.
    return f"{code}\nCOMP_WORDBREAKS=${{COMP_WORDBREAKS//@}}" if args.shell == "bash" else code
