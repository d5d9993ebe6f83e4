"""FILE:LINE of somebody's own code, and the one line that an exception out of it becomes.

A method or task given by path or installed as a plugin is a user's own code. :mod:`harness.user_code`, which loads it,
registers its files here. Commands, the plan and the training loop turn what it raises into one line with
:func:`faults_as`; :func:`harness.cli.main` does so for everything else.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import inspect
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import BadInput, RunFailed

SPACE = "harness_file_"  # what the names of modules begin with that were loaded from a path
_files: set[str] = set()
_folders: set[str] = set()


def own(path: str | Path, folder: bool = False) -> None:
    """Says that a file, or every file below a folder, is somebody's own code."""
    (_folders if folder else _files).add(str(path))


def is_own(filename: str) -> bool:
    """Whether a file holds somebody's own code: of a path or of a plugin."""
    return filename in _files or any(filename.startswith(f"{folder}/") for folder in _folders)


def shown(filename: str | Path) -> str:
    """The path as a person would type it: relative where the file is below the working directory."""
    path = Path(filename)
    with contextlib.suppress(ValueError, OSError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def of(found: Any, attribute: str | None = None) -> str:
    """FILE:LINE where a class or function is defined, or an attribute of a class; FILE where no line is known."""
    if attribute is not None:
        owner = next((c for c in found.__mro__ if attribute in vars(c)), found)
        value = vars(owner).get(attribute)
        code = _code(value)
        if code is not None:
            return f"{shown(code.co_filename)}:{code.co_firstlineno}"
        found = owner
    try:
        filename = inspect.getfile(found)
        tree = ast.parse(Path(filename).read_text("utf-8"))
    except (TypeError, OSError, SyntaxError, ValueError):  # defined in a session, or its file has gone
        return getattr(found, "__module__", "somewhere")
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == found.__name__:
            lines = [s.lineno for s in node.body if attribute is not None and attribute in _assigned(s)]
            return f"{shown(filename)}:{(lines or [node.lineno])[0]}"
    return shown(filename)


def _code(value: Any) -> Any:
    """The code object behind a function, property, static or class method; None where there is none."""
    value = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
    return getattr(inspect.unwrap(value), "__code__", None) if callable(value) else None


def _assigned(statement: ast.stmt) -> set[str]:
    """The names that a statement of a class body assigns."""
    targets = getattr(statement, "targets", None) or [getattr(statement, "target", None)]
    return {n.id for t in targets for n in getattr(t, "elts", [t]) if isinstance(n, ast.Name)}


def of_error(error: BaseException) -> str | None:
    """FILE:LINE of the innermost frame inside somebody's own code; None where the error has nothing to do with it."""
    if isinstance(error, SyntaxError) and error.filename and is_own(error.filename):
        return f"{shown(error.filename)}:{error.lineno or 1}"
    frames = traceback.walk_tb(error.__traceback__)
    inside = [(f.f_code.co_filename, line) for f, line in frames if is_own(f.f_code.co_filename)]
    return f"{shown(inside[-1][0])}:{inside[-1][1]}" if inside else None


def told(error: BaseException) -> str:
    """What an exception says, with its type and, where it is one of the usual slips, the fix."""
    if isinstance(error, SystemExit):
        return "calls sys.exit(), which would end the harness; raise an error or return"
    if isinstance(error, SyntaxError):
        return str(error.msg)
    if isinstance(error, BadInput | RunFailed):
        return str(error)
    if isinstance(error, RecursionError):
        return "RecursionError: a function calls itself without end"
    said = re.sub(rf"{SPACE}\d+\.", "", " ".join(str(error).split()))[:300]
    return f"{type(error).__name__}: {said}".rstrip(": ") + _hint(error)


def _hint(error: BaseException) -> str:
    """The fix of an attribute that an object of ours lacks, or of a module that is not installed."""
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith(SPACE):
        return f" (install {error.name.partition('.')[0]}, or put its file beside this one)"
    if not isinstance(error, AttributeError) or error.name is None or error.obj is None:
        return ""
    if not type(error.obj).__module__.startswith("harness."):
        return ""
    if type(error.obj).__name__ == "NoSettings":
        return " (the class names no settings: say Config = Config in it)"
    known = [n for n in dir(error.obj) if not n.startswith("_")]
    near = difflib.get_close_matches(error.name, known, n=3, cutoff=0.5) or known
    return f" (did you mean {', '.join(near)}?)"


def describe(value: Any) -> str:
    """What a value is, in a few words: type, shape, number."""
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, int | float | str):
        return f"{type(value).__name__} {value!r}"[:80]
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        kind = "a tensor" if type(value).__module__.startswith("torch") else f"a {type(value).__module__} array"
        return f"{kind} {list(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    size = f" of {len(value)}" if isinstance(value, tuple | list | dict | set) else ""
    return f"a {type(value).__name__}{size}"


@contextlib.contextmanager
def faults_as(kind: type[BadInput] | type[RunFailed], after: str = "", called: type | None = None) -> Iterator[None]:
    """Turns what somebody's own code raises into ``kind``: FILE:LINE, the exception, and ``after``.

    What no such code raised passes as it is, and so do BadInput and RunFailed: they say their own line. ``called`` is
    the class whose methods are called, some of which may not take what they are called with. The exception stays as
    the cause, for ``--debug``.
    """
    try:
        yield
    except (BadInput, RunFailed, KeyboardInterrupt, BrokenPipeError):
        raise
    except BaseException as error:  # SystemExit as well: a file may not end the harness
        place = of_error(error) or _of_signature(error, called)
        if place is None:
            raise
        raise kind(f"{place}: {told(error)}" + (f"; {after}" if after else "")) from error


def _of_signature(error: BaseException, called: type | None) -> str | None:
    """FILE:LINE of a method that does not take its arguments: such an error is raised before its first line."""
    said = re.match(r"(?:\w+\.)*(\w+)\(\) (?:takes|missing|got)", str(error)) if isinstance(error, TypeError) else None
    return of(called, said[1]) if said and called is not None and hasattr(called, said[1]) else None
