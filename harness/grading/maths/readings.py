"""Readings: which part of a text is the answer, and whose rules compare it. A protocol names one reading."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from harness.grading.maths import extract, qwen25_reading

EXACT = "equal numbers, or equal by math-verify; order, unit and tolerance as in the gold"
AS_TEXT = "lm-eval's exact match: the same text without commas, dollar signs and a last full stop"


@dataclass(frozen=True)
class Reading:
    """One way to read an answer. ``name`` enters the hash of the protocol; the other texts are shown on its card.

    ``rules`` selects the comparison: "" for :mod:`.equal`, else ``qwen25`` or ``lm-eval``. With ``lists``, all boxes of
    the last sentence are the answer if the reference has several parts. ``nothing`` is the verdict's reason for a text
    without an answer.
    """

    name: str
    extract: Callable[[str], str | None]
    extractor: str
    equivalence: str = EXACT
    rules: str = ""
    lists: bool = False
    nothing: str = "no answer in the asked form"


BOX = Reading(
    "box",
    extract.last_box,
    "the last \\boxed{}, or all of the last sentence for a gold of several parts; a number outside is no answer",
    lists=True,
    nothing="no boxed answer",
)
HASHES = Reading(
    "box or hashes",
    extract.after_hashes,
    "the last \\boxed{}, or what follows the last #### if that comes later",
    lists=True,
    nothing="no boxed answer",
)
QWEN25 = Reading(
    "Qwen2.5-Math's",
    qwen25_reading.extract,
    "the last boxed, else what follows 'he answer is', else the last number; units and percent signs dropped",
    "numbers within a relative 1e-4, also a hundred times as large or small; else Qwen2.5-Math's math_equal",
    rules="qwen25",
)
QWEN25_WITH_UNITS = replace(
    QWEN25,
    name="Qwen2.5-Math's, units kept",
    extract=partial(qwen25_reading.extract, units=False),
    extractor="the last boxed, else what follows 'he answer is', else the last number; percent signs dropped",
    rules="qwen25, units kept",
)
STRICT_MATCH = Reading(
    "lm-eval's gsm8k, strict-match", extract.strict_match, "the number after the first '#### '", AS_TEXT, "lm-eval"
)
COT_STRICT_MATCH = Reading(
    "lm-eval's gsm8k_cot, strict-match",
    extract.cot_strict_match,
    "the number after the first 'The answer is '",
    AS_TEXT,
    "lm-eval",
)
FLEXIBLE_EXTRACT = Reading(
    "lm-eval's gsm8k, flexible-extract", extract.flexible_extract, "the last number of the text", AS_TEXT, "lm-eval"
)
FEW_SHOT = Reading(
    "few-shot forms",
    extract.few_shot,
    "the number in the last 'The answer is 18', 'The final answer is 18', 'A: 18' or 'Answer: 18'",
)
