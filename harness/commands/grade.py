"""``harness grade``: grade stored completions again."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.commands import arguments


def add(commands: argparse._SubParsersAction) -> None:
    command = arguments.command(
        commands,
        "grade",
        "grade stored completions again; needs no model",
        about="Grades stored completions: those of a record, of lm-eval, EvalPlus or AlpacaEval. Needs no model.",
        examples=(
            "harness grade -t humaneval --samples samples.jsonl",
            "harness grade -t amc23 --samples lm_eval_samples.jsonl --protocol qwen25-math",
            "harness grade -t alpaca_eval --samples outputs.json --judge openai:gpt-4o",
        ),
    )
    command.add_argument("-t", "--task", required=True, metavar="T")
    command.add_argument(
        "--samples", required=True, metavar="FILE", help="JSON lines of completions, from this or another tool"
    )
    command.add_argument("--judge", metavar="JUDGE", help="the judge of instruction tasks")
    arguments.protocol(command)
    arguments.results(command)
    arguments.sandbox(command)
    command.set_defaults(command=call)


def call(args: argparse.Namespace) -> str:
    from harness.evaluation.grade import grade
    from harness.metrics import is_mean, scale_of

    arguments.accept_sandbox(args)
    outcome = grade(args.task, Path(args.samples), args.judge, args.protocol, args.results / "work" / "judgements")
    if args.sandbox and "sandbox" not in outcome["measures"]:
        arguments.warn(["--sandbox has no effect: the task runs no programs"])
    arguments.warn(outcome["warnings"])
    if args.json:
        # A lone surrogate in an answer is not valid UTF-8; print its JSON escape.
        return arguments.dump({"records": [outcome]}).encode("utf-8", "backslashreplace").decode("utf-8")
    counts, (low, high) = outcome["counts"], outcome["interval"]
    # Only shares of right answers have a count; overlaps and ratings only have a number of completions.
    scale = scale_of(outcome)
    counts_right = scale.counts and is_mean(outcome)
    counted = f"{counts['correct']:g} of {counts['total']}" if counts_right else f"{counts['total']} completions"
    metric = ", ".join([outcome["metric"], *([scale.caption] if scale.caption not in ("", "percent") else [])])
    return arguments.fitted(
        f"{outcome['task']}: {scale.text(outcome['score'])}  95 % {scale.text(low)}–{scale.text(high)}  {metric}, "
        f"{counted}, {counts['errors']} errors"
    )
