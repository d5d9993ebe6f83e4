"""What the harness' own reading mends in a text before a program is looked for in it, one rule each.

- thoughts: what stands behind the last ``</think>`` is the answer; thoughts that never close hold none;
- end marker: the text ends at the first marker that ends a model's turn, unless the marker is inside a string;
- odd spaces: outside strings a non-breaking or other wide blank is a space, and a zero-width one is nothing;
- first indentation: a body that would continue a stub but for its indentation is moved to where the stub's body stands.

EvalPlus mends none of these, so its reading (:func:`harness.grading.code.text.as_evalplus_reads`) does without.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence

from harness.grading.thinking import Thought, answer_of, thought

# What the tokenizers and templates of published models end a text or a turn with.
END_MARKER = re.compile(
    r"<\|(?:endoftext|im_end|im_start|eot_id|eom_id|end_of_text|end|EOT|eot|endofmask|file_separator|return|end_of_turn)\|>"
    r"|<｜end▁of▁sentence｜>|<end_of_turn>|<end_of_utterance>|</s>|<eos>|\[EOS\]"
)
STRING = re.compile(r'"""[\s\S]*?"""|' + r"'''[\s\S]*?'''|" + r'"(?:\\.|[^"\\\n])*"|' + r"'(?:\\.|[^'\\\n])*'")
BLANK = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
NOTHING = re.compile("[\u200b-\u200d\u2060\ufeff]")
MOST_LINES = 200  # of a body that is tried with another indentation


def repaired(text: str) -> tuple[str, list[str]]:
    """The text with its thoughts, end marker and odd spaces repaired, and the names of what was."""
    found = []
    if thought(text) is not Thought.NONE:
        text = answer_of(text)
        found.append("thoughts")
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
    return text, found


def _suspect(text: str) -> bool:
    return any(pattern.search(text) for pattern in (END_MARKER, BLANK, NOTHING))


def _inside(at: int, spans: Sequence[tuple[int, int]]) -> bool:
    return any(start < at < end for start, end in spans)


def _outside(text: str, strings: Sequence[tuple[int, int]]) -> str:
    """``text`` with usual spaces, its string literals as they are."""
    parts, last = [], 0
    for start, end in [*strings, (len(text), len(text))]:
        if start >= len(text):
            start = end = len(text)
        parts += [NOTHING.sub("", BLANK.sub(" ", text[last:start])), text[start : min(end, len(text))]]
        last = min(end, len(text))
    return "".join(parts)


def indented(stub: str, body: str) -> str:
    """``body`` moved to where the body of ``stub`` stands, if that makes more of its lines a program; else as it is.

    Two moves are tried: the first line alone, which a model's or a script's ``strip()`` had taken its spaces from, and
    all lines together. A body that continues the stub as it is stays untouched.
    """
    lines = body.split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip()), None)
    width = _body_indent(stub)
    if first is None or width is None or len(lines) > MOST_LINES:
        return body
    has = _indent(lines[first])
    if has == width:
        return body
    alone = [*lines[:first], " " * width + lines[first].lstrip(), *lines[first + 1 :]]
    together = [_moved(line, width - has) for line in lines]
    best, most = lines, _runs(stub, lines)
    for candidate in (alone, together):
        if most < len(lines) and (reached := _runs(stub, candidate)) > most:
            best, most = candidate, reached
    return "\n".join(best)


def _body_indent(stub: str) -> int | None:
    """Where the body of the function stands that the stub ends in, in columns; None where it ends in none."""
    lines = [line for line in stub.split("\n") if line.strip()]
    if not lines or not _compiles(stub + "\n" + " " * (_indent(lines[-1]) + 4) + "pass\n"):
        return _indent(lines[-1]) if lines and _indent(lines[-1]) and _compiles(stub) else None
    return _indent(lines[-1]) + 4


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _moved(line: str, by: int) -> str:
    return " " * max(_indent(line) + by, 0) + line.lstrip(" ")


def _runs(stub: str, lines: Sequence[str]) -> int:
    """How many of the lines, from the first, make a program behind ``stub``; what compiles must hold one of them."""
    for size in range(len(lines), 0, -1):
        if any(line.strip() for line in lines[:size]) and _compiles(stub + "\n".join(lines[:size]) + "\n"):
            return size
    return 0


def _compiles(source: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the parser, about the escapes in a model's strings
            compile(source, "<program>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
