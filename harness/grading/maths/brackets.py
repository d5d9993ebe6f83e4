r"""Finds matching brackets in LaTeX, their nesting depth, and separators outside of all brackets."""

from __future__ import annotations

import re

BRACKET = r"\\\{|\\\}|\\begin\b|\\end\b|[(\[{)\]}]"
OPENING = {"\\{", "\\begin", "(", "[", "{"}


def closing(text: str, start: int) -> int | None:
    """The position of the bracket that closes the one at ``start``, or None."""
    depth = 0
    for token in re.compile(BRACKET).finditer(text, start):
        depth += 1 if token.group() in OPENING else -1
        if depth == 0:
            return token.start()
    return None


def split(text: str, separator: str) -> list[str]:
    """``text`` split wherever the regular expression ``separator`` matches outside of all brackets."""
    pieces, depth, start = [], 0, 0
    for token in re.finditer(f"{BRACKET}|(?P<cut>{separator})", text):
        if token["cut"] is None:
            depth += 1 if token.group() in OPENING else -1
        elif depth == 0:
            pieces.append(text[start : token.start()].strip())
            start = token.end()
    return [*pieces, text[start:].strip()]


def nesting(text: str) -> int:
    """The nesting depth of brackets of any kind; -1 if they are not balanced."""
    depth = deepest = 0
    for token in re.finditer(BRACKET, text):
        depth += 1 if token.group() in OPENING else -1
        deepest = max(deepest, depth)
        if depth < 0:
            return -1
    return deepest if depth == 0 else -1
