"""Protocol cards: everything that a benchmark's score depends on besides the model, with one hash.

The hash covers every prompt, so it needs the data. Two protocols with the same hash measure the same.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from harness import data
from harness.evaluation import measurement
from harness.evaluation.benchmarks import locate, open_unjudged
from harness.task import Task

OWN = "the task's own"
TEMPLATE = "the model's chat template renders the turns; a model without one continues the plain text"
PLAIN = "none: every model continues the plain text"


def cards(name: str) -> list[dict[str, Any]]:
    """The cards of a task: its own protocol first, then the published ones. Raises BadInput for an unknown name."""
    task_class, world = locate(name)
    return [_card(name, task_class, world, protocol) for protocol in (None, *task_class.protocols)]


def protocol_called(tasks: Iterable[str], word: str) -> str | None:
    """The name of the protocol that ``word`` means: ``word`` itself, or that of the card whose hash it begins.

    Six digits of a hash are enough. A word that is neither is returned as it is, for the task to refuse.
    """
    if not re.fullmatch(r"[0-9a-f]{6,}", word):
        return word
    for name in tasks:
        for card in cards(name):
            if card["hash"] and card["hash"].startswith(word):
                return None if card["name"] == OWN else card["name"]
    return word


def _card(name: str, task_class: type[Task], world: str, protocol: str | None) -> dict[str, Any]:
    chosen = task_class if protocol is None else task_class.under(protocol)
    variant = task_class.protocols.get(protocol)
    card = {
        "name": protocol or OWN,
        "version": variant.version if variant else task_class.version,
        "about": variant.about if variant else "",
    }
    if world != "real" and chosen.dataset != task_class.dataset:
        return card | {"hash": None, "unavailable": "the micro world has no such problems"}
    facts = {
        "extractor": chosen.extractor,
        "equivalence": chosen.equivalence,
        "judge_protocol": chosen.judge_protocol if chosen.needs_judge else None,
    }
    if world == "real" and not data.at_hand(chosen.dataset):
        decoding = dataclasses.asdict(chosen.decoding)
        missing = f"the hash covers every prompt, and $HARNESS_DATA/{chosen.dataset.local} is missing"
        return (
            card
            | {"dataset": dataclasses.asdict(chosen.dataset), "decoding": decoding}
            | facts
            | {
                "hash": None,
                "unavailable": missing,
            }
        )
    task = open_unjudged(name, protocol)
    first = task.items[0].prompt if task.items else None
    return card | {
        "dataset": {"source": task.data.source, "sha256": task.data.sha256, "n": len(task.items)},
        "prompt_of_first_item": dataclasses.asdict(first) if first else None,
        "template": TEMPLATE if first is None or first.chat else PLAIN,
        "decoding": dataclasses.asdict(task.decoding),
        **facts,
        "grader": task.grader_identity(),
        "hash": measurement.card_hash(task),
    }
