r"""Brackets of LaTeX: where one closes, how deep they stand, and what lies outside all of them."""

from __future__ import annotations

import re

BRACKET = r"\\\{|\\\}|\\begin\b|\\end\b|[(\[{)\]}]"
OPENING = {"\\{", "\\begin", "(", "[", "{"}


def closing(text: str, start: int) -> int | None:
    """The place of the bracket that closes the one at ``start``, or None."""
    depth = 0
    for token in re.compile(BRACKET).finditer(text, start):
        depth += 1 if token.group() in OPENING else -1
        if depth == 0:
            return token.start()
    return None


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
