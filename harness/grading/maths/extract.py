r"""Extracts the answer from a completion: the last box, the line after ``####``, or a published few-shot form.

A number that merely occurs in the text is not an answer, except in the readings of graders that take it. Every function
takes time linear in the length of the text.
"""

from __future__ import annotations

import re
from collections import deque

from harness.grading.end_marker import END_MARKER

BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped character is skipped as a whole
# \boxed 8: without braces a number, with its sign, digits and separators, or one letter.
UNBRACED = re.compile(r"\\(?:boxed|fbox)(?:[ \t]+|(?=\d))(-?\d(?:[\d,.]*\d)?(?![\d/])|[A-Za-z](?![A-Za-z]))")
# Text between two boxes of one list: dollar signs, a comma or a conjunction, the name of the next value.
DOLLAR = r"\s*(?:\$\$?|\\[()\[\]])?\s*"
BLANK = r"\s*(?:\\q?quad|\\[;, ])?"
GLUE = re.compile(
    rf"{DOLLAR}(?:,|;)?{DOLLAR}{BLANK}\s*(?:\\text\s*\{{)?\s*(?:and(?:\s+also)?|as\s+well\s+as|or|&)?\s*\}}?{BLANK}{DOLLAR}"
    r"(?:[A-Za-z](?:_\{?\w+\}?)?\s*=\s*)?"
)
NAME_BEFORE = re.compile(r"[A-Za-z](?:_\{?\w+\}?)?\s*=\s*$")
LONGEST_GLUE, MOST_BOXES = 60, 24
HASHES = re.compile(r"####[ \t]*([^\n]*)")
DECORATION = re.compile(r"^[\s*_`:]+|[\s*_`]+$")
COUNTED = re.compile(r"(\\?\$\s*)?(-?\d[\d,]*(?:\.\d+)?)[*_`]*\s+([A-Za-z][A-Za-z ]*)\.?")


def last_box(text: str) -> str | None:
    """The content of the last closed ``\\boxed{…}`` or ``\\fbox{…}``, or of a ``\\boxed 8``; None without one."""
    box = _last_box(text)
    return None if box is None else box[2]


def last_boxes(text: str) -> str | None:
    """The contents of all boxes in the list that ends with the last box, with names: ``x=\\boxed{1}, x=\\boxed{2}``.

    Only a comma, a conjunction and a name may separate them, so a revoked box (``No:``) is not included. None if the
    last box is the only one of its list.
    """
    # Walk backwards from the last box as long as the text between two boxes joins them to one list.
    listed: list[str] = []
    box = _last_box(text)
    while box is not None and len(listed) < MOST_BOXES:
        start, _, content = box
        name = NAME_BEFORE.search(text[max(0, start - 12) : start])
        listed.insert(0, (name.group() if name else "") + content)
        before = _last_box(text[:start]) if "boxed" in text[max(0, start - 400) : start] else None
        near = before is not None and start - before[1] <= LONGEST_GLUE
        box = before if near and GLUE.fullmatch(text[before[1] : start]) else None
    return ", ".join(listed) if len(listed) > 1 else None


def _last_box(text: str) -> tuple[int, int, str] | None:
    """``(start, end, content)`` of the last closed box."""
    # The last closed box with braces, then a later one without, such as \boxed 8.
    braced, end = None, len(text)
    # Numbers, not matches: Python's garbage collection would walk through tens of thousands of those again and again.
    for start, inside in reversed([opening.span() for opening in BOX.finditer(text)]):
        closing = _closing(text, inside, end)
        if closing is not None:
            braced = start, closing + 1, text[inside:closing].strip()
            break
        end = inside  # a box that contains an unclosed one is unclosed too
    bare = _last(UNBRACED, text, braced[1] if braced else 0)
    return braced if bare is None else (bare.start(), bare.end(), bare[1])


def _last(pattern: re.Pattern, text: str, start: int = 0) -> re.Match | None:
    """The last match, without holding all matches in memory."""
    return next(iter(deque(pattern.finditer(text, start), maxlen=1)), None)


def _closing(text: str, start: int, end: int) -> int | None:
    depth = 1
    for brace in BRACE.finditer(text, start, end):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return brace.start()
    return None


def after_hashes(text: str) -> str | None:
    """The text after the last ``####``, or the last box if that comes later; reads ``**18**`` as 18."""
    mark = _last(HASHES, text)
    boxed = last_box(text[mark.start() :] if mark else text)
    return boxed if boxed is not None or mark is None else _line(mark[1])


def _line(line: str) -> str:
    """The answer of a line: its number without decoration, with the words after it as its unit."""
    line = DECORATION.sub("", END_MARKER.split(line)[0])
    match = COUNTED.fullmatch(line)
    return f"{match[1] or ''}{match[2]}\\text{{ {match[3].strip()}}}" if match else line


# -- readings of GSM8K by other graders --------------------------------------------------------------------------

STRICT_MATCH = re.compile(r"#### (-?[0-9.,]+)")
COT_STRICT_MATCH = re.compile(r"The answer is (-?[0-9.,]+).")
FLEXIBLE_EXTRACT = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
FEW_SHOT = re.compile(
    r"(?:\b[Tt]he (?:final )?answer is:?|^(?:\*\*)?(?:A|Answer|Final [Aa]nswer)(?:\*\*)?:(?:\*\*)?)[ \t]*"
    r"(?:\*\*|\$|\\\$|\\\()*[ \t]*(?:\\boxed\{)?(-?[0-9](?:[0-9,]*[0-9])?(?:\.[0-9]+)?)(?![0-9/]|,[0-9])",
    re.MULTILINE,
)


def strict_match(text: str) -> str | None:
    """lm-eval's gsm8k, filter ``strict-match``: the number after the first ``#### ``."""
    match = STRICT_MATCH.search(text)
    return match[1] if match else None


def cot_strict_match(text: str) -> str | None:
    """lm-eval's gsm8k_cot, filter ``strict-match``: the number after the first ``The answer is ``."""
    match = COT_STRICT_MATCH.search(text)
    return match[1] if match else None


def flexible_extract(text: str) -> str | None:
    """lm-eval's gsm8k, filter ``flexible-extract``: the last number of the text."""
    match = _last(FLEXIBLE_EXTRACT, text)
    return match.group() if match else None


def few_shot(text: str) -> str | None:
    """The last number in one of the forms of published few-shot examples: ``The answer is 18.``, ``A: 26``."""
    match = _last(FEW_SHOT, text)
    return match[1] if match else None


def as_lm_eval_compares(text: str) -> str:
    """The text that lm-eval's exact match of GSM8K compares: without ``,``, ``$`` and a last full stop, lower case."""
    return re.sub(r"\.$", "", re.sub(r"(?s).*#### |[,$]", "", text)).lower()
