"""Reading a final answer: which text it is, and its structure (values, tuples, intervals, lists).

Only strings are handled here. The structure is ours because generic parsers lose it: to math-verify
``(1,2)`` is an interval, ``1,2`` an unordered set and ``3 4`` seven. Whether two *values* are equal is left
to it (:mod:`harness.grading.maths.equal`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped character is skipped as a whole
LITERAL = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)", re.ASCII)
THOUSANDS = re.compile(r"(?<![\d.])\d{1,3}(?:,\d{3})+(?!\d)", re.ASCII)
BRACKET = r"\\\{|\\\}|\\begin\b|\\end\b|[(\[{)\]}]"
OPENING = {"\\{", "\\begin", "(", "[", "{"}
LONGEST_LITERAL = 4000  # characters; Python refuses to convert integers of more than 4300 digits


def last_box(text: str) -> str | None:
    """The content of the last closed ``\\boxed{…}`` or ``\\fbox{…}``, or None. Linear in the text."""
    end = len(text)
    for start in reversed([match.end() for match in BOX.finditer(text)]):
        depth = 1
        for brace in BRACE.finditer(text, start, end):
            depth += {"{": 1, "}": -1}.get(brace.group(), 0)
            if depth == 0:
                return text[start : brace.start()].strip()
        end = start  # whatever encloses an unclosed box is unclosed too
    return None


def literal(text: str) -> Fraction | None:
    """The exact value of a plain decimal number such as ``-033`` or ``2.50``, else None."""
    text = text.strip()
    if len(text) > LONGEST_LITERAL or not LITERAL.fullmatch(text):
        return None
    return Fraction(text.removesuffix("."))


@dataclass(frozen=True)
class Answer:
    """The structure of an answer.

    ``kind`` is value (LaTeX in ``text``), tuple (ordered ``parts``), interval (two ``parts`` between
    ``brackets``), union or list (``parts`` in any order). An open interval ``(a,b)`` is read as a tuple,
    which is written alike.
    """

    kind: str
    text: str
    parts: tuple[Answer, ...] = ()
    brackets: str = ""


def readings(text: str) -> list[Answer]:
    """The ways to read an answer: its commas as separators and, where they can be, of thousands."""
    text = clean(text)
    joined = THOUSANDS.sub(_digits, text)
    return [read(text)] if joined == text else [read(text), read(joined)]


def read(text: str) -> Answer:
    """The structure of a cleaned text; several items side by side are a list, ``a \\pm b`` are two."""
    parts = [_item(item) for piece in split(text, "[,;]") for item in _both_signs(piece)]
    return parts[0] if len(parts) == 1 else Answer("list", text, tuple(parts))


def split(text: str, separator: str) -> list[str]:
    """``text`` cut wherever the regular expression ``separator`` matches outside all brackets."""
    pieces, depth, start = [], 0, 0
    for token in re.finditer(f"{BRACKET}|(?P<cut>{separator})", text):
        if token["cut"] is None:
            depth += 1 if token.group() in OPENING else -1
        elif depth == 0:
            pieces.append(text[start : token.start()].strip())
            start = token.end()
    return [*pieces, text[start:].strip()]


def nesting(text: str) -> int:
    """How deep brackets stand in brackets, of whatever kind; -1 where they do not match up."""
    depth = deepest = 0
    for token in re.finditer(BRACKET, text):
        depth += 1 if token.group() in OPENING else -1
        deepest = max(deepest, depth)
        if depth < 0:
            return -1
    return deepest if depth == 0 else -1


def _item(text: str) -> Answer:
    text = re.sub(r"^[^()\[\]{}=]{1,20}\\in(?![a-zA-Z])", "", text).strip()
    side = split(text, "=")[-1]
    pieces = split(side, r"\\cup(?![a-zA-Z])")
    if len(pieces) > 1:
        return Answer("union", text, tuple(_item(piece) for piece in pieces))
    opening, body, closing = _enclosed(side)
    if opening == "\\{" and not re.search(r"\\mid|\\vert|[|:<>]", body):
        listed = read(body)
        return Answer("list", side, listed.parts if listed.kind == "list" else (listed,))
    pieces = split(body, "[,;]")
    if opening in {"(", "["} and len(pieces) > 1:
        brackets = opening + closing
        kind = "interval" if len(pieces) == 2 and brackets != "()" else "tuple"
        return Answer(kind, side, tuple(_item(piece) for piece in pieces), brackets)
    return Answer("value", text)


def _enclosed(text: str) -> tuple[str, str, str]:
    """``(opening, body, closing)`` where one pair of brackets encloses ``text``, else ``("", text, "")``."""
    found = re.fullmatch(r"(\(|\[|\\\{)(.*?)(\)|\]|\\\})", text, re.DOTALL)
    if found and (found[1] == "\\{") == (found[3] == "\\}") and nesting(found[2]) >= 0:
        return found[1], found[2], found[3]
    return "", text, ""


def _both_signs(text: str) -> list[str]:
    if "\\pm" not in text or _enclosed(text)[0]:
        return [text]
    signs = [("+", "-"), ("-", "+")]
    return [re.sub(r"\\mp(?![a-zA-Z])", minus, re.sub(r"\\pm(?![a-zA-Z])", plus, text)) for plus, minus in signs]


def clean(text: str) -> str:
    """``text`` without typesetting: one spelling of each command, no spacing, no dollar signs."""
    for pattern, replacement in CLEANING:
        text = pattern.sub(replacement, text)
    return text.strip().removesuffix(".").rstrip()


def _digits(number: re.Match) -> str:
    return re.sub(r"[^\d]", "", number.group())


CLEANING = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        ("[−–]", "-"),
        ("×", r"\\times "),
        ("√", r"\\sqrt "),
        ("π", r"\\pi "),
        ("∞", r"\\infty "),
        ("°", r"^\\circ "),
        ("∪", r"\\cup "),
        (r"≤|<=|\\leqslant|\\leq(?![a-zA-Z])", r"\\le "),
        (r"≥|>=|\\geqslant|\\geq(?![a-zA-Z])", r"\\ge "),
        (r"\\?\$|(?<!\\)\\[()\[\]]", ""),  # currency, and the delimiters of mathematics
        (r"\\(?:left|right)(?![a-zA-Z])\s*\.?|\\[bB]igg?[lr]?(?![a-zA-Z])", ""),
        (r"\\(?:lbrace|rbrace)(?![a-zA-Z])", lambda m: "\\{" if "l" in m.group()[:2] else "\\}"),
        (r"\\langle(?![a-zA-Z])", "("),
        (r"\\rangle(?![a-zA-Z])", ")"),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\(?:mathrm|mathbf|mathit|mbox|text(?:bf|it|rm|normal))\s*\{", r"\\text{"),
        (
            r"(?<![\d.])\d{1,3}(?:(?:\{,\}|,\\!|(?<!\\)\\[!, ]|~| )\s*\d{3})+(?!\d)",
            _digits,
        ),  # 1{,}000 and 10,\!080
        (r"\\text\s*\{\s*,?\s*(?:and|or)\s*\}|\b(?:and|or)\b(?![^{}]*\})", ","),
        (r"\\(?:displaystyle|qquad|quad)(?![a-zA-Z])|(?<!\\)\\[!,;: ]|~", " "),
        (r"^\s*\\text\{\s*\(?[A-E]\)?\s*\}(?=.*\w)", ""),  # the letter of a choice before its value
        (r"(?<=\d)[eE]([-+]?\d+)", r"\\times 10^{\1}"),
        (r"(?<!\d)(\d+) (\d+)/(\d+)", r"\1\\frac{\2}{\3}"),
        (r"(?:\\approx|≈).*", ""),
        (r"\s+", " "),
    ]
]
