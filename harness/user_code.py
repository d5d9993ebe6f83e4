"""Loads and identifies user code: files given by path, and plugins.

A file is loaded into its own namespace: it and the modules next to it get unique module names, so that two
folders may both have a ``helper.py``, and every load reads the current source, never cached bytecode.
Modules next to a file are found as next to a script; libraries come from where they are installed.

The identity covers the code itself and the user code that it imports: the modules next to the file, those below
folders that it puts on ``sys.path``, the package of a plugin; not libraries, and not the harness.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import itertools
import os
import site
import sys
import sysconfig
import threading
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader, all_suffixes
from pathlib import Path
from typing import Any

from harness import contract_checks, error_location
from harness.errors import BadInput

OURS = "harness"
PATIENCE_S = 20  # duration of an import before its position is reported
_spaces: dict[str, Space] = {}  # key: first part of the module names
_latest: dict[Path, Space] = {}
_owners: dict[str, str] = {}  # distribution of a plugin's top-level module
_plugins: dict[str, str] = {}  # identity of a plugin's module when it was loaded; its files may change later
_numbers = itertools.count()


def load(path: Path) -> types.ModuleType:
    """The module of a file. Loads it again if it or an imported file next to it has changed.

    Raises BadInput with FILE:LINE for a file that is missing, is not Python or raises on import.
    """
    path = Path(os.path.abspath(path))
    known = _latest.get(path)
    if known is None or not known.current():
        _latest[path] = known = Space(path)
    return known.module


def adopt(plugin_class: Any, owner: str) -> None:
    """Registers a class as part of a plugin of the distribution ``owner``."""
    top = plugin_class.__module__.partition(".")[0]
    if top == OURS:
        return
    _owners[top] = owner
    module = sys.modules[top]
    for folder in getattr(module, "__path__", ()):
        error_location.own(folder, folder=True)
    if getattr(module, "__file__", None):
        error_location.own(module.__file__)


def identity(cls: type) -> str:
    """The identity of the code of a class: a hash, or ``harness`` for shipped classes."""
    top = cls.__module__.partition(".")[0]
    if top == OURS:
        return OURS
    if top in _spaces:
        return f"file sha256:{_spaces[top].digest}"
    if cls.__module__ not in _plugins:
        owner = _owners.get(top)
        digest = _digest(*_of_plugin(sys.modules[cls.__module__], owner))
        name = f"{owner} {importlib.metadata.version(owner)}" if owner else f"module {cls.__module__}"
        _plugins[cls.__module__] = f"{name} sha256:{digest}"
    return _plugins[cls.__module__]


class Space:
    """A file and the modules next to it, searched in the folders ``search``."""

    def __init__(self, path: Path):
        self.path, self.package = path, f"{error_location.SPACE}{next(_numbers)}"
        self.search = [str(path.parent)]
        self.builtins = vars(builtins) | {"__import__": self._import}
        self.before = set(sys.path)
        _spaces[self.package] = self
        importlib.invalidate_caches()
        parent = types.ModuleType(self.package)
        parent.__path__ = self.search
        sys.modules[self.package] = parent
        error_location.own(path)
        contract_checks.refuse_ends()
        kept, watch = list(sys.path), contract_checks.ProcessState()
        try:
            try:
                with error_location.faults_as(BadInput):
                    self.module = self._execute()
            finally:
                changed = watch.changed()
            self._adopt_folders()
            if changed is not None:
                change, calls = changed
                raise BadInput(f"{contract_checks.place_of([path, *sources(path, self.search)], calls)}: {change}")
        except BaseException:
            self._forget()
            raise
        finally:
            sys.path[:] = kept  # folders that the file added are in ``search``
        self.files = sources(path, self.search)
        self.digest = _digest(self.files, path.parent)
        self.contents = _contents(self.files)

    def current(self) -> bool:
        """Whether no file has changed since it was loaded."""
        return sources(self.path, self.search) == self.files and _contents(self.files) == self.contents

    def _execute(self) -> types.ModuleType:
        name = f"{self.package}.{self.path.stem.replace('.', '_')}"
        spec = importlib.util.spec_from_file_location(name, self.path, loader=_Loader(name, str(self.path)))
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        notice = threading.Timer(PATIENCE_S, _still_importing, (self.path, threading.get_ident()))
        notice.daemon = True
        notice.start()
        try:
            spec.loader.exec_module(module)
        finally:
            notice.cancel()
        return module

    def _import(
        self, name: str, globals: Any = None, locals: Any = None, fromlist: Sequence[str] = (), level: int = 0
    ) -> Any:
        """``__import__`` for the modules of the space: maps modules next to the file to their unique names."""
        head = name.partition(".")[0]
        self._adopt_folders()
        if level == 0 and self._holds(head):
            importlib.import_module(f"{self.package}.{name}")
            if not fromlist:
                return sys.modules[f"{self.package}.{head}"]
            name = f"{self.package}.{name}"
        return builtins.__import__(name, globals, locals, fromlist, level)

    def _holds(self, head: str) -> bool:
        """Whether a name is a module next to the file. A folder without code never hides a library."""
        if head == OURS or head in sys.stdlib_module_names:
            return False
        spec = PathFinder.find_spec(head, self.search)
        if spec is None:
            return False
        if spec.origin is not None:
            return True
        try:
            return importlib.util.find_spec(head) is None
        except ValueError:  # a loaded module without a specification, such as __main__
            return False

    def _adopt_folders(self) -> None:
        """Moves folders that the file added to sys.path into ``search``, in their order."""
        if not hasattr(self, "module"):
            new = [entry for entry in sys.path if entry not in self.before and entry not in self.search]
            self.search += new

    def _forget(self) -> None:
        del _spaces[self.package]
        for name in [n for n in sys.modules if n.partition(".")[0] == self.package]:
            del sys.modules[name]


def _still_importing(path: Path, thread: int) -> None:
    """Reports the current line of a long import, because an endless one would show nothing."""
    frame = sys._current_frames().get(thread)
    while frame is not None and not error_location.is_own(frame.f_code.co_filename):
        frame = frame.f_back
    place = (
        f"{error_location.shown(frame.f_code.co_filename)}:{frame.f_lineno}" if frame else error_location.shown(path)
    )
    print(f"harness: {place}: still importing after {PATIENCE_S} s; Ctrl-C stops it", file=sys.stderr)


class _Loader(SourceFileLoader):
    """Loads a module of a space from its current source; reads and writes no bytecode."""

    def get_code(self, fullname: str) -> types.CodeType:
        try:
            return self.source_to_code(self.get_data(self.path), self.path)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            if getattr(error, "filename", None):
                raise
            message = str(error) or "it is nested too deep"
            raise BadInput(f"{error_location.shown(self.path)}: is not Python source: {message}") from error

    def exec_module(self, module: types.ModuleType) -> None:
        error_location.own(self.path)
        vars(module)["__builtins__"] = _spaces[module.__name__.partition(".")[0]].builtins
        super().exec_module(module)


class _Finder:
    """Finds the modules of spaces, for the import system."""

    @staticmethod
    def find_spec(fullname: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        if path is None or fullname.partition(".")[0] not in _spaces:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, spec.origin)
        return spec


sys.meta_path.insert(0, _Finder)


def sources(path: Path, search: Sequence[str]) -> frozenset[Path]:
    """A file and all user files that it imports, directly or indirectly, from its import statements.

    A package counts with all its files. ``search`` precedes the folders of ``sys.path`` that hold no libraries.
    """
    folders = [*search, *(entry or os.getcwd() for entry in sys.path if not _of_library(entry or os.getcwd()))]
    files: set[Path] = set()
    todo = [path]
    while todo:
        file = todo.pop()
        if file in files:
            continue
        files.add(file)
        for name, base in _imported(file):
            todo += _files_of(name, folders if base is None else [str(base)])
    return frozenset(files)


def _imported(file: Path) -> Iterator[tuple[str, Path | None]]:
    """The modules that a file imports, anywhere in it, with the folder that a relative import starts from."""
    if file.suffix != ".py":
        return
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = file.parents[node.level - 1] if 0 < node.level <= len(file.parents) else None
            if node.module:
                yield node.module, base
            yield from ((f"{node.module}.{a.name}" if node.module else a.name, base) for a in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.args[0].value.lstrip("."), None


def _files_of(name: str, folders: Iterable[str]) -> list[Path]:
    """The files of a module or of its whole package, in the first folder that has it; none for a library."""
    head, *rest = name.split(".")
    if head == OURS or head in sys.stdlib_module_names:
        return []
    for folder in folders:
        package = Path(folder) / head
        if (package / "__init__.py").is_file():
            return _files_below(package)
        files = [f for suffix in all_suffixes() if (f := Path(f"{package}{suffix}")).is_file()]
        if files:
            return files
        if rest and package.is_dir() and (inner := _files_of(".".join(rest), [str(package)])):
            return inner
    return []


def _files_below(folder: Path) -> list[Path]:
    suffixes = tuple(s for s in all_suffixes() if s != ".pyc")
    return [f for f in sorted(folder.rglob("*")) if f.name.endswith(suffixes) and f.is_file()]


def _of_plugin(module: types.ModuleType, owner: str | None) -> tuple[frozenset[Path], Path]:
    """The files of a plugin, and the folder that their names are relative to."""
    top = sys.modules[module.__name__.partition(".")[0]]
    file = getattr(module, "__file__", None)
    if file is None:  # defined in an interactive session, so there is no source file
        return frozenset(), Path()
    own = set(_files_below(Path(next(iter(top.__path__))))) if hasattr(top, "__path__") else {Path(file)}
    root = Path(next(iter(top.__path__))).parent if hasattr(top, "__path__") else Path(file).parent
    if owner:  # other modules of the same distribution
        listed = importlib.metadata.files(owner) or ()
        own |= {p for f in listed if f.suffix == ".py" and (p := Path(f.locate())).is_file()}
    search = [] if _of_library(str(root)) else [str(root)]
    return frozenset().union(*(sources(file, search) for file in sorted(own))), root


def _of_library(folder: str) -> bool:
    """Whether a folder of ``sys.path`` holds installed libraries, Python's own or the harness."""
    real = os.path.realpath(folder)
    if any(real == root or real.startswith(f"{root}{os.sep}") for root in _library_roots()):
        return True
    with contextlib.suppress(OSError):
        return any(name.endswith((".dist-info", ".egg-info")) for name in os.listdir(real))
    return True  # a zip file or a missing folder


@functools.cache
def _library_roots() -> frozenset[str]:
    named = [sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    named += [*site.getsitepackages(), site.getusersitepackages(), str(Path(__file__).parent)]
    return frozenset(os.path.realpath(folder) for folder in named)


def _contents(files: Iterable[Path]) -> Mapping[Path, str]:
    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()}


def _digest(files: Iterable[Path], root: Path) -> str:
    """16 hex digits of one file's content, or of the contents and names of several."""
    contents = _contents(files)
    if len(contents) == 1:
        return next(iter(contents.values()))[:16]
    lines = sorted(f"{Path(os.path.relpath(file, root)).as_posix()} {sha256}" for file, sha256 in contents.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
