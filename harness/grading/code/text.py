"""Extracts the program from a completion, by the harness' rules or exactly as EvalPlus does.

EvalPlus knows from the model which of its two protocols was used; here the text decides:

- if its first line is indented, it continues the body of the stub;
- else if it has a code fence or defines the entry point, it is or contains a whole program;
- else it continues the stub.

A continuation is appended to the stub and cut at the stop strings of EvalPlus' completion protocol. Both kinds pass
through EvalPlus' sanitiser, which keeps imports and whatever the entry point needs; EvalPlus does no more. The harness
also repairs the text first (the rules stand at the repairs below), reads a fenced body as a continuation, and skips the
sanitiser for a program that needs what it drops: decorated functions, functions without ``return`` and unpacking
assignments.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import symtable
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from harness.grading.code.problem import CodeProblem
from harness.grading.end_marker import END_MARKER
from harness.grading.thinking import Thought, answer_of, thought

LONGEST_TEXT = 400_000  # characters; more than 32k tokens of a reasoning model
EVALPLUS_LEAST = 2  # lines of the shortest span in EvalPlus' search
SEARCH_LINES = 60_000  # lines parsed in the search for a program, which takes some tenths of a second


@dataclass(frozen=True)
class ReadProgram:
    """The program of a text, None if there is none, and the names of what was repaired to find it."""

    program: str | None
    repairs: tuple[str, ...] = ()


def program_of(problem: CodeProblem, text: str, stop: Sequence[str]) -> str | None:
    """The program in ``text`` by the harness' rules, None if there is none."""
    return read(problem, text, stop).program


def read(problem: CodeProblem, text: str, stop: Sequence[str]) -> ReadProgram:
    """The program in ``text`` as the harness reads it. ``stop`` are the strings that end a continuation.

    The program may be invalid Python: what cannot be sanitised is returned as it is, and its verdict gives the error.
    """
    if len(text) > LONGEST_TEXT:
        return ReadProgram(None)
    text, mends = repaired(text.replace("\t", "    "))
    if not text.strip():
        return ReadProgram(None, tuple(mends))
    if _is_whole(text, problem.entry_point):
        body = _fenced_body(problem, text)
        source = text if body is None else problem.stub + body
        mends += [] if body is None else ["fenced body"]
    else:
        # A continuation of the stub.
        body = _cut(text, stop)
        moved = indented(problem.stub, body)
        source = problem.stub + moved
        mends += ["first indentation"] if moved != body else []
    return ReadProgram(_program(source, problem.entry_point, _sanitised), tuple(mends))


def as_evalplus_reads(problem: CodeProblem, text: str, stop: Sequence[str]) -> str | None:
    """The program in ``text`` exactly as EvalPlus extracts it, without repairs; None if there is none."""
    if not text.strip() or len(text) > LONGEST_TEXT:
        return None
    text = text.replace("\t", "    ")
    source = text if _is_whole(text, problem.entry_point) else problem.stub + _cut(text, stop)
    return _program(source, problem.entry_point, _sanitizer(EVALPLUS_LEAST), EVALPLUS_LEAST)


def _program(source: str, entry_point: str, sanitise: Callable[[str, str], str], least: int = 1) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the parser warns about escapes in strings
            return sanitise(longest_program(source, least), entry_point)
    except (ValueError, RecursionError, MemoryError):  # null bytes, lone surrogates, deep nesting
        return source


def _fenced_body(problem: CodeProblem, text: str) -> str | None:
    """The last code block as a body of the stub, with its indentation repaired; None if the text has a program."""
    lines = text.split("\n")
    blocks = [lines[start:end] for start, end in _between_fences(lines)][1::2]
    if not blocks or re.search(rf"\b{re.escape(problem.entry_point)} *[(=]", text):
        return None
    body = indented(problem.stub, "\n".join(blocks[-1]) + "\n")
    return body if body[:1] == " " and _parses((problem.stub + body).split("\n")) else None


def _is_whole(text: str, entry_point: str) -> bool:
    first = next(line for line in text.split("\n") if line.strip())
    if first[0].isspace():
        return False
    definition = rf"^(async )?def {re.escape(entry_point)}\b|^{re.escape(entry_point)} *="
    return "```" in text or re.search(definition, text, re.MULTILINE) is not None


def _cut(text: str, stop: Sequence[str]) -> str:
    return text[: min((at for at in map(text.find, stop) if at >= 0), default=len(text))]


def _sanitised(program: str, entry_point: str) -> str:
    """The sanitised program, or ``program`` itself if the sanitiser drops a name that it needs."""
    kept = _sanitizer()(program, entry_point)
    try:
        before, after = (symtable.symtable(text, "<program>", "exec") for text in (program, kept))
    except SyntaxError:
        return kept  # invalid Python; running it gives the error
    # Names that the sanitiser removed although the rest, or the caller, needs them.
    lost = _bound(before) - _bound(after)
    return program if lost & (_globals_read(after) | {entry_point}) else kept


def _bound(module: symtable.SymbolTable) -> set[str]:
    """The names that a module assigns or imports."""
    return {name.get_name() for name in module.get_symbols() if name.is_assigned() or name.is_imported()}


def _globals_read(table: symtable.SymbolTable) -> set[str]:
    """The global names that a scope and its inner scopes read."""
    here = {name.get_name() for name in table.get_symbols() if name.is_global() and name.is_referenced()}
    return here.union(*map(_globals_read, table.get_children()))


@functools.cache
def _sanitizer(least: int = 1) -> Callable[[str, str], str]:
    """``evalplus.sanitize.sanitize`` with :func:`longest_program` in place of its search over all spans of lines.

    Changes a private copy of the module, so that other users of evalplus are not affected.
    """
    spec = importlib.util.find_spec("evalplus.sanitize")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.code_extract = functools.partial(longest_program, least=least)
    return module.sanitize


def longest_program(text: str, least: int = 1) -> str:
    """The span of lines with the most code that parses, as ``evalplus.sanitize.code_extract`` finds it, but faster.

    Tries the whole text and the code blocks first. The search ends after :data:`SEARCH_LINES` parsed lines. A span has
    at least ``least`` lines.
    """
    lines = text.split("\n")
    code = [0, *accumulate(bool(line.strip()) for line in lines)]  # code[i]: non-empty lines before line i
    best, most = (0, 1), 0
    for start, end in [(0, len(lines)), *_between_fences(lines)]:
        if end - start >= least and code[end] - code[start] > most and _parses(lines[start:end]):
            best, most = (start, end), code[end] - code[start]
    # Otherwise search all spans, longest first, that have more code than the best one so far.
    left = SEARCH_LINES
    for start, line in enumerate(lines):
        if code[-1] - code[start] <= most or left < 0:
            break
        if (least == 1 and not line.strip()) or (
            line[:1].isspace() and line.strip() and not line.lstrip().startswith("#")
        ):
            continue  # programs do not begin with indented code; one after blank lines is found from its first line
        for end in range(len(lines), start + least - 1, -1):
            if code[end] - code[start] <= most or left < 0:
                break
            left -= end - start
            if _parses(lines[start:end]):
                best, most = (start, end), code[end] - code[start]
    return "\n".join(lines[slice(*best)])


def _between_fences(lines: Sequence[str]) -> list[tuple[int, int]]:
    """The spans of lines before, between and after the fences; [] without fences."""
    fences = [i for i, line in enumerate(lines) if line.lstrip().startswith("```")]
    return [(a + 1, b) for a, b in zip([-1, *fences], [*fences, len(lines)], strict=True)] if fences else []


def _parses(lines: Sequence[str]) -> bool:
    try:
        ast.parse("\n".join(lines))
    except (SyntaxError, MemoryError):
        return False
    return True


# Repairs a completion before a program is extracted from it. The rules, by the names that records use:
#
# thoughts           keep the text after the last ``</think>`` or similar; unclosed thoughts leave no text
# end marker         cut the text at the first marker that ends a model's turn, unless it is inside a string
# odd spaces         outside of strings, replace non-breaking and other wide spaces, and remove zero-width ones
# indented fence     remove the indentation of a code block in a list from its lines, as Markdown does
# first indentation  indent a function body like the body of the stub if it continues the stub only then
#
# EvalPlus repairs none of these, so :func:`as_evalplus_reads` does not apply them.

STRING = re.compile(r'"""[\s\S]*?"""|' + r"'''[\s\S]*?'''|" + r'"(?:\\.|[^"\\\n])*"|' + r"'(?:\\.|[^'\\\n])*'")
BLANK = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
NOTHING = re.compile("[\u200b-\u200d\u2060\ufeff]")
INDENTED_FENCE = re.compile(r"^( +)(`{3,}|~{3,})[^\n`]*\n(.*?)(?:^ *\2[ ]*$|\Z)", re.MULTILINE | re.DOTALL)
MOST_FENCES = 20  # indented code blocks that are looked at
MOST_LINES = 200  # lines of the longest body whose indentation is repaired


def repaired(text: str) -> tuple[str, list[str]]:
    """The text with thoughts, end marker and odd spaces repaired, and the names of the repairs made."""
    repairs = []
    if thought(text) is not Thought.NONE:
        text = answer_of(text)
        repairs.append("thoughts")
    # Markers and spaces inside of string literals belong to the program.
    strings = [match.span() for match in STRING.finditer(text)] if _suspect(text) else []
    for marker in END_MARKER.finditer(text):
        if not _inside(marker.start(), strings):
            text = text[: marker.start()]
            repairs.append("end marker")
            break
    spaced = _outside(text, strings)
    if spaced != text:
        text = spaced
        repairs.append("odd spaces")
    moved = INDENTED_FENCE.sub(_unindented, text, count=MOST_FENCES)
    if moved != text:
        text = moved
        repairs.append("indented fence")
    return text, repairs


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
