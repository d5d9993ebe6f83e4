"""Locates errors in user code as FILE:LINE and turns exceptions from it into one line.

A method or task given by path or installed as a plugin is user code. :mod:`harness.user_code`, which loads it,
registers its files here. Commands, the plan and the training loop turn its exceptions into one line with
:func:`faults_as`; :func:`harness.cli.main` does so for everything else.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import inspect
import re
import sys
import traceback
from pathlib import Path
from typing import Any

from harness.errors import BadInput, RunFailed
from harness.safe_read import printable

SPACE = "harness_file_"  # prefix of the names of modules loaded from a path
_files: set[str] = set()
_folders: set[str] = set()


def own(path: str | Path, folder: bool = False) -> None:
    """Registers a file, or every file below a folder, as user code."""
    (_folders if folder else _files).add(str(path))


def is_own(filename: str) -> bool:
    """Whether a file is user code: loaded from a path or part of a plugin."""
    return filename in _files or any(filename.startswith(f"{folder}/") for folder in _folders)


def shown(filename: str | Path) -> str:
    """The path for messages: relative where the file is below the working directory."""
    path = Path(filename)
    with contextlib.suppress(ValueError, OSError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def of(defined: Any, attribute: str | None = None) -> str:
    """FILE:LINE where a class or function is defined, or an attribute of a class; FILE where no line is known."""
    if attribute is not None:
        owner = next((c for c in defined.__mro__ if attribute in vars(c)), defined)
        value = vars(owner).get(attribute)
        code = _code(value)
        if code is not None:
            return f"{shown(code.co_filename)}:{code.co_firstlineno}"
        defined = owner
    try:
        filename = inspect.getfile(defined)
        tree = ast.parse(Path(filename).read_text("utf-8"))
    except (TypeError, OSError, SyntaxError, ValueError, RecursionError, MemoryError):  # no source, or no Python
        return getattr(defined, "__module__", "somewhere")
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == defined.__name__:
            lines = [s.lineno for s in node.body if attribute is not None and attribute in _assigned(s)]
            return f"{shown(filename)}:{(lines or [node.lineno])[0]}"
    return shown(filename)


def _code(value: Any) -> Any:
    """The code object behind a function, property, static or class method; None where there is none."""
    value = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
    return getattr(inspect.unwrap(value), "__code__", None) if callable(value) else None


def _assigned(statement: ast.stmt) -> set[str]:
    """The names assigned by a statement of a class body."""
    targets = getattr(statement, "targets", None) or [getattr(statement, "target", None)]
    return {n.id for t in targets for n in getattr(t, "elts", [t]) if isinstance(n, ast.Name)}


def of_error(error: BaseException) -> str | None:
    """FILE:LINE of the innermost frame inside user code; None where no such code is involved."""
    if isinstance(error, SyntaxError) and error.filename and is_own(error.filename):
        return f"{shown(error.filename)}:{error.lineno or 1}"
    frames = traceback.walk_tb(error.__traceback__)
    inside = [(f.f_code.co_filename, line) for f, line in frames if is_own(f.f_code.co_filename)]
    return f"{shown(inside[-1][0])}:{inside[-1][1]}" if inside else None


def message(error: BaseException) -> str:
    """The message of an exception with its type and, for common mistakes, the fix."""
    if isinstance(error, SystemExit):
        return f"calls {getattr(error, 'call', 'sys.exit()')}, which would end the harness; raise an error or return"
    if isinstance(error, SyntaxError):
        return str(error.msg)
    if isinstance(error, BadInput | RunFailed):
        return str(error)
    if isinstance(error, RecursionError):
        return "RecursionError: a function calls itself without end"
    text = re.sub(rf"{SPACE}\d+\.", "", " ".join(words(error).split()))
    text = re.sub(rf"'{SPACE}\d+' \(unknown location\)", "its folder", text)[:300]
    return printable(f"{type(error).__name__}: {text}".rstrip(": ") + _hint(error))


def words(error: BaseException) -> str:
    """The text of an exception; its __str__ may be user code and may raise."""
    try:
        return str(error)
    except BaseException as second:
        return f"(it cannot be printed: its __str__ raises {type(second).__name__})"


def _hint(error: BaseException) -> str:
    """The fix for a missing attribute of one of our objects, or for a module that is not installed."""
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "harness":
        return _ours(error)
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith(SPACE):
        return f" (install {error.name.partition('.')[0]}, or put its file next to this one)"
    if not isinstance(error, AttributeError) or error.name is None or error.obj is None:
        return ""
    if not type(error.obj).__module__.startswith("harness."):
        return ""
    if type(error.obj).__name__ == "NoSettings":
        return " (the class names no settings: say Config = Config in it)"
    known = [n for n in dir(error.obj) if not n.startswith("_")]
    suggestions = difflib.get_close_matches(error.name, known, n=3, cutoff=0.5) or known
    return f" (did you mean {', '.join(suggestions)}?)"


def _ours(error: ImportError) -> str:
    """A suggestion for a file that imports a missing name from the harness."""
    module = sys.modules.get(error.name or "")
    wanted = re.search(r"cannot import name '(\w+)'", words(error))
    if module is None or wanted is None:
        return " (the harness has no such module)"
    known = [name for name in vars(module) if not name.startswith("_")]
    similar = difflib.get_close_matches(wanted[1], known, n=3, cutoff=0.6)
    return f" (did you mean {', '.join(similar)}?)" if similar else ""


def short(value: Any, most: int = 60) -> str:
    """The first characters of the repr of a value, or its type if the repr cannot be computed."""
    try:
        return repr(value)[:most]
    except Exception:  # a number of too many digits, or user code
        return f"a {type(value).__name__}"


def describe(value: Any) -> str:
    """A short description of a value: type, shape, number."""
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, int | float | str):
        return f"{type(value).__name__} {short(value)}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        kind = "a tensor" if type(value).__module__.startswith("torch") else f"a {type(value).__module__} array"
        return f"{kind} {list(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    size = f" of {len(value)}" if isinstance(value, tuple | list | dict | set) else ""
    return f"a {type(value).__name__}{size}"


class faults_as(contextlib.ContextDecorator):
    """Turns exceptions from user code into ``kind``: FILE:LINE, the exception, and ``after``.

    Exceptions from other code, BadInput and RunFailed pass unchanged. ``called`` is the class whose methods are
    called, for signatures that do not accept the arguments. The original exception stays as the cause, for ``--debug``.
    """

    # A class, because a generator-based context manager mistakes a RuntimeError caused by a StopIteration for its own.
    def __init__(self, kind: type[BadInput] | type[RunFailed], after: str = "", called: type | None = None):
        self.kind, self.after, self.called = kind, after, called

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        # Includes SystemExit, and a BrokenPipeError that is not our own: user code cannot end the harness silently.
        if error is None or isinstance(error, BadInput | RunFailed | KeyboardInterrupt):
            return
        place = of_error(error) or _of_signature(error, self.called)
        if place is not None:
            raise self.kind(f"{place}: {message(error)}" + (f"; {self.after}" if self.after else "")) from error


def _of_signature(error: BaseException, called: type | None) -> str | None:
    """FILE:LINE of a method that does not accept its arguments; such an error is raised before its first line."""
    if not isinstance(error, TypeError):
        return None
    match = re.match(r"(?:\w+\.)*(\w+)\(\) (?:takes|missing|got)", words(error))
    return of(called, match[1]) if match and called is not None and hasattr(called, match[1]) else None
