"""Prints a comparison of two methods as a sentence and as JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from typing import Any

from harness.leaderboard.compare import ComparisonResult
from harness.leaderboard.inference import LEVEL


def as_json(found: ComparisonResult) -> dict[str, Any]:
    """The comparison for programs; an infinite number is null."""
    facts = {field.name: getattr(found, field.name) for field in fields(found)}
    facts |= {
        "scale": found.scale.card(),
        "comparison": asdict(found.comparison),
        "taken": [side.as_json() for side in found.taken],
    }
    facts |= {"differs": found.differs, "sentence": in_words(found)}
    return {key: None if value == math.inf else value for key, value in facts.items()}


def in_words(found: ComparisonResult) -> str:
    """One sentence: whether B differs from A, by how much, with what p, and what would settle it."""
    c, (a, b) = found.comparison, (_name(found, found.a), _name(found, found.b))
    scale = found.scale
    low, high = (scale.signed(bound) for bound in c.interval)
    where = f"{found.metric}, {found.problems} problems × {_many(len(found.seeds), 'seed')}"
    interval = f"{scale.points} [95 % {low} to {high}]"
    scores = f"{scale.text(found.score_b)} against {scale.text(found.score_a)}"
    scores += f", {scale.direction}" if scale.direction else ""
    sure = f"p {_p(found.p_holm)}, {c.test}" + (f"; {odd}" if (odd := at_odds(found)) else "")
    if found.differs:
        verdict = f"{b} is {'better' if scale.gain(c.difference, 0) > 0 else 'worse'} than {a} by "
        verdict += f"{scale.text(abs(c.difference))} {interval}"
        return f"On {found.task} ({where}) {verdict} ({scores}; {sure}), and no more problems or seeds are needed."
    verdict = f"{b} is not distinguishable from {a}: {scale.signed(c.difference)} {interval}"
    return f"On {found.task} ({where}) {verdict} ({scores}; {sure}); {_settle(found)}."


def at_odds(found: ComparisonResult) -> str:
    """Why the interval excludes 0 beside a difference that is not distinguishable, or holds it beside one that is; ""
    where they agree. The test decides."""
    c = found.comparison
    apart = not c.interval.low <= 0 <= c.interval.high
    if apart == found.differs:
        return ""
    if apart == (c.p < LEVEL):
        return f"the interval is of this task alone, where p {_p(c.p)}"
    return "the interval is a bootstrap's over problems, and the test decides"


def settled(found: ComparisonResult) -> str:
    """What would settle a difference that is not distinguishable from none; "" where it is settled."""
    return "" if found.differs else _settle(found)


def _settle(found: ComparisonResult) -> str:
    ways = []
    if found.more_problems < math.inf:
        ways.append(f"about {_many(int(found.more_problems), 'more problem')}")
    if found.more_seeds < math.inf:
        ways.append(f"about {_many(int(found.more_seeds), 'more seed')}")
    if ways:
        return f"{' or '.join(ways)} would settle a difference of this size (80 % power)"
    if 1 < found.times_both < math.inf:
        times = found.times_both
        together = (
            f"{_many(math.ceil(found.problems * times), 'problem')} with {math.ceil(len(found.seeds) * times)} seeds"
        )
        return f"more problems or seeds alone would not settle it, about {together} would (80 % power)"
    if found.minimum_detectable == math.inf:
        return "these differences do not reveal how large a difference would be detected"
    smallest = f"{found.scale.text(found.minimum_detectable)} {found.scale.points}"
    return f"only a difference of {smallest} or more would be detected (80 % power)"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _p(value: float) -> str:
    if value < 0.0001:
        return "< 0.0001"
    return f"= {value:.3g}" if f"{value:.2g}" == "0.05" else f"= {value:.2g}"  # on which side of 0.05 it lies is told


def _name(found: ComparisonResult, name: str) -> str:
    return f"{name} (reconstruction)" if name in found.reconstructions else name
