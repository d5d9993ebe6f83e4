"""The wording of the micro world's problems: several steps as one sentence, and the prompt around a problem.

Some forms of a sentence name the steps out of order ("…, but before that …"): the reader must plan before it works.
Phrases contain no comma, so every sentence has exactly one reading and can be parsed.

The prompts are for models without a chat template; the micro models are trained on them. The task files follow the
same convention, so that the ids at evaluation are the ids of training.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

from harness.types import Prompt

# Number of steps -> the forms of the sentence; {0} is the step to be done first.
FORMS = {
    2: (
        "{0}, then {1}",
        "first {0}, next {1}",
        "{1}, but before that {0}",
    ),
    3: (
        "{0}, then {1}, then {2}",
        "first {0}, next {1}, finally {2}",
        "{1}, but before that {0}, and finally {2}",
        "{0}, then {2}, but in between {1}",
    ),
}


def narrate(rng: Random, phrases: Sequence[str]) -> str:
    """One sentence with ``phrases`` (2 or 3, in the order of work) in a form drawn from ``rng``."""
    return rng.choice(FORMS[len(phrases)]).format(*phrases)


def understand(sentence: str) -> list[str] | None:
    """The phrases of a narrated sentence in the order of work, or None if it has none of the forms."""
    for pattern in _PATTERNS:
        if match := pattern.fullmatch(sentence):
            steps = match.groupdict()
            return [steps[name] for name in sorted(steps)]
    return None


def _pattern(form: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\d)\}", r"(?P<step\1>[^,]+)", form))


_PATTERNS = [_pattern(form) for forms in FORMS.values() for form in forms]


def maths(problem: str) -> Prompt:
    return Prompt(user=problem, plain=f"Problem: {problem}\nSolution:\n")


def code(stub: str) -> Prompt:
    return Prompt(user=stub, plain=stub)


def instruction(text: str) -> Prompt:
    return Prompt(user=text, plain=f"Instruction: {text}\nResponse:\n")
