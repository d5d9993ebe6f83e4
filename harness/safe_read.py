"""Reads untrusted files within bounds: regular files only, of bounded size, nesting and digits.

The content of a file decides neither what is read nor for how long: a link that leads out of the folder, a device, a
pipe, a thousand brackets or a number of a thousand digits is refused with its reason, and only BadInput is raised.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import json
import math
import os
import re
import shutil
import stat
import sys
import textwrap
import tomllib
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from harness.errors import BadInput

MB = 1_000_000
RECORD, CURVE, TABLE = 4 * MB, 4 * MB, 1 * MB  # bytes; a record has a few thousand
LARGE = 2000 * MB  # completions, benchmarks and training prompts, unpacked
NESTING = 64  # brackets within brackets
DIGITS = 300  # digits of a whole number: benchmarks have up to 86, and a float cannot hold 309
GZIP = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)
NAMED_AT_MOST = 20  # files that a command names before it only counts the rest


def content(path: Path | str, limit: int, inside: Path | str | None = None) -> bytes:
    """The bytes of a regular file of at most ``limit`` bytes, which is below ``inside`` after following links.

    Raises BadInput with only the reason; the caller adds the name.
    """
    try:
        real = os.path.realpath(path)
        if inside is not None and not _is_below(real, os.path.realpath(inside)):
            raise BadInput(f"leads out of the folder {printable(str(inside))}")
        _check(os.stat(real), limit)  # check before opening: opening a pipe blocks, and a device may act
        descriptor = os.open(real, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
        with open(descriptor, "rb") as file:
            _check(os.fstat(descriptor), limit)
            read = file.read(limit + 1)
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror})") from None
    except ValueError as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"cannot be read ({error})") from None  # a NUL in a name
    if len(read) > limit:
        raise BadInput(f"is larger than the {_amount(limit)} allowed for such a file")
    return read


def toml(raw: bytes, name: str) -> dict[str, Any]:
    """The table of a TOML file. Raises BadInput that begins with ``name``."""
    try:
        if depth(raw) > NESTING:
            raise ValueError(f"brackets nested more than {NESTING} deep")
        return tomllib.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # of TOML, UTF-8, dates, and numbers of thousands of digits
        raise BadInput(f"{name}: not TOML: {error}") from None


def unpacked(packed: bytes, limit: int = LARGE) -> bytes:
    """The unpacked content of a gzip file, of at most ``limit`` bytes. Raises BadInput with only the reason."""
    try:
        with gzip.open(io.BytesIO(packed)) as file:
            raw = file.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"is not a complete gzip file ({error})") from None
    if len(raw) > limit:
        raise BadInput(f"unpacks to more than the {_amount(limit)} allowed for such a file")
    return raw


def text(raw: bytes) -> str:
    """UTF-8 with or without a byte order mark. Raises BadInput with only the reason."""
    try:
        return raw.removeprefix(BYTE_ORDER_MARK).decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise BadInput(f"is not UTF-8 text (line {line}, byte {error.start})") from None


def value(raw: bytes, *, finite: bool = True) -> Any:
    """The JSON value of ``raw``; ``finite`` refuses NaN and infinities. Raises BadInput with only the reason."""
    nested = depth(raw)
    if nested > NESTING:
        raise BadInput(f"is not JSON within bounds (brackets nested more than {NESTING} deep)")
    try:
        return (_FINITE if finite else _ANY).decode(text(raw))
    except json.JSONDecodeError as error:
        raise BadInput(f"is not JSON (line {error.lineno}: {error.msg})") from None
    except RecursionError:
        raise BadInput("is not JSON within bounds (nested too deep)") from None


def rows(raw: bytes, *, finite: bool = True) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of every line of JSON lines. Raises BadInput with line and reason, ``3: is not …``."""
    for number, line in enumerate(raw.removeprefix(BYTE_ORDER_MARK).split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = value(line, finite=finite)
        except BadInput as error:
            raise BadInput(f"{number}: {re.sub(r'line 1: ', '', str(error))}") from None
        if not isinstance(row, dict):
            raise BadInput(f"{number}: expected a JSON object, found {type(row).__name__}")
        yield number, row


def depth(raw: bytes) -> int:
    """How deep the brackets of a JSON or TOML text nest, strings aside; counted only where there are many."""
    if raw.count(b"[") + raw.count(b"{") <= NESTING:
        return 0
    deepest = now = 0
    for token in _TOKENS.finditer(raw):
        if token[0] in (b"[", b"{"):
            now += 1
            deepest = max(deepest, now)
        elif token[0] in (b"]", b"}"):
            now -= 1
    return deepest


# C0 and C1 controls, line and paragraph separators, and marks of writing direction.
_ACTS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_ACTS_IN_LINES = re.compile(_ACTS.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))


def printable(words: str, *, lines: bool = False) -> str:
    """``words`` with every character that acts on a terminal, or cannot be printed, as its escape.

    ``lines`` lets line ends and tabs through.
    """
    return (_ACTS_IN_LINES if lines else _ACTS).sub(lambda match: ascii(match[0])[1:-1], words)


class Styled(str):
    """Text for a terminal with our own escapes; everything from files must have passed :func:`printable`."""


def for_stdout(text: str) -> str:
    """Text of many lines with what acts on a terminal, or cannot be encoded, as ``\\uXXXX``, which JSON reads back."""
    if isinstance(text, Styled):
        return text
    return _ACTS_IN_LINES.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def broken(line: str) -> str:
    """A line wrapped at the width of the terminal."""
    columns = shutil.get_terminal_size().columns
    return textwrap.fill(line, columns, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)


def aside(line: str) -> None:
    """Prints a line on stderr, apart from the results; on a terminal wrapped to its width."""
    shown = printable(line)
    print(broken(shown) if sys.stderr.isatty() else shown, file=sys.stderr)


def warn(warnings: list[str], kind: str = "warning") -> None:
    """One line per warning on stderr for the first :data:`NAMED_AT_MOST`; then the number of further ones."""
    for line in warnings[:NAMED_AT_MOST]:
        aside(f"{kind}: {line}")
    if len(warnings) > NAMED_AT_MOST:
        aside(f"{kind}: and {len(warnings) - NAMED_AT_MOST} more")


def _check(status: os.stat_result, limit: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise BadInput("is a folder" if stat.S_ISDIR(status.st_mode) else "is not a regular file")
    if status.st_size > limit:
        raise BadInput(f"has {_amount(status.st_size)}, more than the {_amount(limit)} allowed for such a file")


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip(os.sep) + os.sep)


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise BadInput(f"is not JSON within bounds (a whole number of {len(digits)} digits)")
    return int(digits)


def _real(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _no_number(digits[:20])


def _no_number(word: str) -> NoReturn:
    raise BadInput(f"is not JSON within bounds ({word} is no finite number)")


# Made once: json.loads would make one for every line of the completions.
_FINITE = json.JSONDecoder(parse_int=_whole, parse_float=_real, parse_constant=_no_number)
_ANY = json.JSONDecoder(parse_int=_whole)


def _amount(size: int) -> str:
    return f"{size / MB:,.0f} MB" if size >= MB else f"{size:,} bytes"


def digest(files: Sequence[Path]) -> str:
    """sha256 of names and contents. Each file is read once per process, unless it changes."""
    marks = [(file, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
    return _digest(tuple(marks))


@functools.lru_cache(maxsize=64)
def _digest(marks: tuple[tuple[Path, int, int], ...]) -> str:
    both = hashlib.sha256()
    for file, *_ in marks:
        both.update(file.name.encode())
        with file.open("rb") as stream:
            both.update(hashlib.file_digest(stream, "sha256").digest())
    return both.hexdigest()
