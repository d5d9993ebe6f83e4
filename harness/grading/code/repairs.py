"""Repairs a completion before a program is extracted from it. The rules, by the names that records use:

- thoughts: keep the text after the last ``</think>`` or its like; unclosed thoughts leave no text;
- end marker: cut the text at the first marker that ends a model's turn, unless the marker is inside a string;
- odd spaces: outside of strings, replace non-breaking and other wide spaces by a space, and remove zero-width ones;
- indented fence: remove the indentation of a code block that stands in a list from its lines, as Markdown does;
- first indentation: indent a function body like the body of the stub if it continues the stub only then.

EvalPlus repairs none of these, so :func:`harness.grading.code.text.as_evalplus_reads` does not apply them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence

from harness.grading.end_marker import END_MARKER
from harness.grading.thinking import Thought, answer_of, thought

STRING = re.compile(r'"""[\s\S]*?"""|' + r"'''[\s\S]*?'''|" + r'"(?:\\.|[^"\\\n])*"|' + r"'(?:\\.|[^'\\\n])*'")
BLANK = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
NOTHING = re.compile("[\u200b-\u200d\u2060\ufeff]")
INDENTED_FENCE = re.compile(r"^( +)(`{3,}|~{3,})[^\n`]*\n(.*?)(?:^ *\2[ ]*$|\Z)", re.MULTILINE | re.DOTALL)
MOST_FENCES = 20  # indented code blocks that are looked at
MOST_LINES = 200  # lines of the longest body whose indentation is repaired


def repaired(text: str) -> tuple[str, list[str]]:
    """The text with thoughts, end marker and odd spaces repaired, and the names of the repairs made."""
    found = []
    if thought(text) is not Thought.NONE:
        text = answer_of(text)
        found.append("thoughts")
    # Markers and spaces inside of string literals belong to the program.
    strings = [match.span() for match in STRING.finditer(text)] if _suspect(text) else []
    for marker in END_MARKER.finditer(text):
        if not _inside(marker.start(), strings):
            text = text[: marker.start()]
            found.append("end marker")
            break
    spaced = _outside(text, strings)
    if spaced != text:
        text = spaced
        found.append("odd spaces")
    moved = INDENTED_FENCE.sub(_unindented, text, count=MOST_FENCES)
    if moved != text:
        text = moved
        found.append("indented fence")
    return text, found


def _unindented(block: re.Match) -> str:
    """A code block without the indentation of its fence, if its content is a program only then."""
    margin = re.compile(f"^ {{0,{len(block[1])}}}", re.MULTILINE)
    moved = margin.sub("", block[3])
    if _compiles(block[3]) or not _compiles(moved):
        return block.group()
    return margin.sub("", block.group())


def _suspect(text: str) -> bool:
    """Whether ``text`` may need a repair that must spare strings; finding the strings is slow."""
    return any(pattern.search(text) for pattern in (END_MARKER, BLANK, NOTHING))


def _inside(at: int, spans: Sequence[tuple[int, int]]) -> bool:
    return any(start < at < end for start, end in spans)


def _outside(text: str, strings: Sequence[tuple[int, int]]) -> str:
    """``text`` with odd spaces repaired outside of the spans of ``strings``."""
    parts, last = [], 0
    for start, end in [*strings, (len(text), len(text))]:
        if start >= len(text):
            start = end = len(text)
        parts += [NOTHING.sub("", BLANK.sub(" ", text[last:start])), text[start : min(end, len(text))]]
        last = min(end, len(text))
    return "".join(parts)


def indented(stub: str, body: str) -> str:
    """``body`` indented like the body of ``stub`` if more of its lines form a program then, else unchanged.

    Tries to move the first line alone, whose spaces a ``strip()`` may have removed, and all lines together. A body
    that continues the stub already stays unchanged.
    """
    # Nothing to do if the first line of code is indented like the body of the stub.
    lines = body.split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip()), None)
    width = _body_indent(stub)
    if first is None or width is None or len(lines) > MOST_LINES:
        return body
    has = _indent(lines[first])
    if has == width:
        return body
    # Keep the candidate from which most lines compile, and the body itself if none is better.
    alone = [*lines[:first], " " * width + lines[first].lstrip(), *lines[first + 1 :]]
    together = [_moved(line, width - has) for line in lines]
    best, most = lines, _runs(stub, lines)
    for candidate in (alone, together):
        if most < len(lines) and (reached := _runs(stub, candidate)) > most:
            best, most = candidate, reached
    return "\n".join(best)


def _body_indent(stub: str) -> int | None:
    """The indentation in columns of the body of the function at the end of the stub; None if there is none."""
    lines = [line for line in stub.split("\n") if line.strip()]
    if not lines or not _compiles(stub + "\n" + " " * (_indent(lines[-1]) + 4) + "pass\n"):
        return _indent(lines[-1]) if lines and _indent(lines[-1]) and _compiles(stub) else None
    return _indent(lines[-1]) + 4


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _moved(line: str, by: int) -> str:
    return " " * max(_indent(line) + by, 0) + line.lstrip(" ")


def _runs(stub: str, lines: Sequence[str]) -> int:
    """How many of the first lines form a program after ``stub``; 0 if none, or only blank lines, do."""
    for size in range(len(lines), 0, -1):
        if any(line.strip() for line in lines[:size]) and _compiles(stub + "\n".join(lines[:size]) + "\n"):
            return size
    return 0


def _compiles(source: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the parser warns about escapes in strings
            compile(source, "<program>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
