"""The tables of methods, tasks and recipes in README.md, from the registry: ``python -m results.scripts.catalogue``."""

from __future__ import annotations

import re
from pathlib import Path

from harness import recipe, registry, show
from harness.leaderboard.table import update_between_markers
from harness.leaderboard.text_tables import markdown_text
from harness.method import Method, ReferencePoint
from harness.training import job

ROOT = Path(__file__).parents[2]
SIGNALS = {"none": "–", "text": "its text", "signal": "distribution"}


def methods() -> str:
    """One row a method: what it is, and the four choices it makes with its default settings."""
    lines = ["| method | in one sentence | whose text | signal | weights | paper |", "| --- " * 6 + "|"]
    for row in show.rows(registry.METHODS):
        method = registry.find(registry.METHODS, row["name"])()
        if isinstance(method, ReferencePoint):
            continue
        cells = (
            f"[`{method.name}`](methods/{method.name}.py)",
            markdown_text(row["summary"]),
            " + ".join(sorted(job.sources_of(method, recipe.load("micro").training))),
            _signal(method),
            markdown_text(method.card().get("token_weights", "equal")),
            _paper(method.paper),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def tasks() -> str:
    """One row a task: what it is, its metric, whether it takes a judge, the published ways to use it."""
    lines = ["| task | what it is | metric | published protocols |", "| --- " * 4 + "|"]
    for row in show.rows(registry.TASKS):
        task_class = registry.find(registry.TASKS, row["name"])
        cells = (
            f"[`{task_class.name}`](tasks/{task_class.name}.py)",
            markdown_text(row["summary"]).replace(r"\`\`", "`"),
            markdown_text(task_class.metric) + (", by a judge" if task_class.needs_judge else ""),
            ", ".join(f"`{name}`" for name in task_class.protocols) or "–",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def recipes() -> str:
    """One row a recipe that says what it costs on a GPU: the comment on top of its file, which the estimate wrote."""
    lines = ["| recipe | what it does | memory | hours |", "| --- | --- | ---: | ---: |"]
    for name in recipe.names():
        match = _COST.search((ROOT / f"harness/recipes/{name}.toml").read_text("utf-8"))
        if match:
            lines.append(
                f"| [`{name}`](harness/recipes/{name}.toml) | {recipe.load(name).summary} | {match[1]} | {match[2]} |"
            )
    return "\n".join(lines)


_COST = re.compile(r"^# gkd: about (\d+ GB) and ([\d.]+) hours on one A100-80GB", re.M)


def _signal(method: Method) -> str:
    """What the method reads of its teacher; who that is where it is not the recipe's."""
    needs = method.needs
    word = "whole distribution" if needs.teacher == "signal" and needs.exact else SIGNALS[needs.teacher]
    return word if needs.asking is None or needs.asking.model == "teacher" else f"{word} of itself, prompted otherwise"


def _paper(text: str) -> str:
    match = re.fullmatch(r"https://arxiv\.org/abs/([\d.]+)", text)
    return f"[{match[1]}]({text})" if match else markdown_text(text)


MADE = {"recipes": recipes, "methods": methods, "tasks": tasks}

if __name__ == "__main__":
    for name, make in MADE.items():
        update_between_markers(ROOT / "README.md", make(), name)
