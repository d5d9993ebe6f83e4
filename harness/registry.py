"""Finds a class by its name (built in, or installed as a plugin) or by the path of its file.

Methods, tasks, judges, teacher signals and metrics are found the same way. A plugin registers a class under the entry
point group ``harness.KIND``. A class is imported on request; ``harness list`` reads the source text without any import.
Two owners of one name are an error that names both.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import importlib
import importlib.metadata
import importlib.util
import os
import re
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import contract_checks, error_location, safe_read, user_code
from harness.errors import BadInput, unknown

METHODS, TASKS, JUDGES, SIGNALS, METRICS = "methods", "tasks", "judges", "signals", "metrics"


@dataclass(frozen=True)
class Kind:
    """A kind of registered class: its contract, and the package or modules with the shipped ones."""

    contract: str  # module:Class
    homes: tuple[str, ...]  # one package with one class per file, or modules with several classes
    marks: str = "_ . -"  # allowed in a name besides letters and digits


KINDS = {
    METHODS: Kind("harness.method:Method", ("harness.methods",)),
    TASKS: Kind("harness.task:Task", ("harness.tasks",)),
    JUDGES: Kind(
        "harness.grading.judges.judgement:Judge",
        (
            "harness.grading.judges.models",
            "harness.grading.judges.replay",
            "harness.grading.judges.judgement",
            "harness.grading.judges.generated",
        ),
    ),
    SIGNALS: Kind("harness.training.signal_contract:TeacherSignal", ("harness.training.signal_contract",)),
    METRICS: Kind("harness.metrics:Metric", ("harness.metrics",), marks="_ . - @"),  # pass@1
}


@dataclass(frozen=True)
class Entry:
    """The target of a name. ``owner`` is ``built in``, a distribution, or a file."""

    name: str
    owner: str
    target: str  # module, module:Class or file
    source: Path | None = None  # of shipped classes

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """The text for a listing, read from the source on request; empty for a plugin."""
        return {} if self.source is None else read_facts(self.source, self.name)


def entries(kind: str) -> list[Entry]:
    """All known entries of a kind, by name. Two owners of one name raise BadInput."""
    known: dict[str, Entry] = {}
    for entry in [*_built_in(kind), *_installed(kind)]:
        if entry.name in known:
            raise BadInput(
                f"{kind[:-1]} {entry.name!r} has two owners: {known[entry.name].owner} ({known[entry.name].target}) "
                f"and {entry.owner} ({entry.target}); uninstall one or rename it"
            )
        known[entry.name] = entry
    return [known[name] for name in sorted(known)]


def split(name: str) -> tuple[str, str, str]:
    """``name@variant`` as name, ``@`` or nothing, and variant; the name may be the path of a file."""
    path, suffix, variant = name.partition(".py@")
    if suffix:
        return f"{path}.py", "@", variant
    return (name, "", "") if _is_path(name) else name.partition("@")


def find(kind: str, name: str) -> type[Any]:
    """The class called ``name`` (or in a Python file at that path). Raises BadInput if there is none."""
    if _is_path(name):
        return _from_file(kind, Path(name))
    known = {entry.name: entry for entry in entries(kind)}
    if name not in known:
        raise unknown(kind[:-1], name, known)
    return _load(kind, known[name])


def parts(word: str) -> list[str]:
    """The names in ``a,b``; an existing path with a comma is one name."""
    return [word] if os.path.exists(word) else [part.strip() for part in word.split(",") if part.strip()] or [word]


def known_names(kind: str, names: Sequence[str]) -> list[str]:
    """The names given to a command, each once. Raises BadInput for none, and for an unknown one.

    Imports none of them, so that a typo is reported at once. ``lm_eval:NAME`` belongs to another library.
    """
    if not names:
        raise BadInput(f"no {kind[:-1]} given; add --{kind[:-1]} NAME (harness list {kind} shows them)")
    known = {entry.name: entry for entry in entries(kind)}
    for name in names:
        bare = split(name)[0]
        if not _is_path(bare) and ":" not in bare and bare not in known:
            raise unknown(kind[:-1], bare, known)
    return list(dict.fromkeys(names))


def _is_path(name: str) -> bool:
    return name.endswith(".py") or "/" in name or os.sep in name or name in (".", "..")


def _built_in(kind: str) -> list[Entry]:
    if kind not in (METHODS, TASKS):
        return [entry for home in KINDS[kind].homes for entry in _of_module(home)]
    return _files_of(kind)


@functools.cache
def _files_of(kind: str) -> list[Entry]:
    """The entries of the folder ``methods`` or ``tasks``, whose files do not change while a command runs."""
    spec = importlib.util.find_spec(f"harness.{kind}")
    assert spec is not None and spec.origin is not None  # part of this package
    folder = Path(spec.origin).parent
    files = sorted(path for path in folder.glob("*.py") if not path.stem.startswith("_"))
    return [Entry(p.stem, "built in", f"harness.{kind}.{p.stem}", p) for p in files]


def _of_module(module: str) -> list[Entry]:
    """The classes of a module whose source states a ``name``, without importing it."""
    path = _source_of(module)
    members = []
    for node in _parsed(path, path.stat().st_mtime_ns).body:
        name = dict(_literals(node)).get("name") if isinstance(node, ast.ClassDef) else None
        if isinstance(name, str):
            members.append(Entry(name, "built in", f"{module}:{node.name}", path))
    return members


def _source_of(module: str) -> Path:
    """The file of a module of the harness; its packages are not imported."""
    return Path(__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")


def _installed(kind: str) -> list[Entry]:
    if os.environ.get("HARNESS_PLUGINS") == "0":
        return []
    group = f"harness.{kind}"
    try:
        points = list(importlib.metadata.entry_points(group=group))
    except Exception:  # a distribution of any author may have a malformed entry_points.txt
        points = _readable(group)
    return [Entry(p.name, p.dist.name if p.dist else "plugin", p.value) for p in points]


def _readable(group: str) -> list[importlib.metadata.EntryPoint]:
    """The entry points of each distribution whose ``entry_points.txt`` can be read; the others are left out by name."""
    points: list[importlib.metadata.EntryPoint] = []
    for distribution in importlib.metadata.distributions():
        try:
            points += distribution.entry_points.select(group=group)
        except Exception as error:
            name = getattr(distribution, "_path", "an installed package")
            _tell_once(f"{name}: left out: its entry_points.txt cannot be read ({error})")
    return points


@functools.cache
def _tell_once(warning: str) -> None:
    safe_read.warn([warning])


def _load(kind: str, entry: Entry) -> type[Any]:
    module_name, _, attribute = entry.target.partition(":")
    what = f"{kind[:-1]} {entry.name!r} of {entry.owner}"
    watch = None if entry.owner == "built in" else contract_checks.ProcessState()
    try:
        with contextlib.nullcontext() if watch is None else contract_checks.importing_plugin():
            module = importlib.import_module(module_name)
        loaded = getattr(module, attribute) if attribute else _only_class(kind, module, entry.name)
    except (BadInput, KeyboardInterrupt):
        raise
    except BaseException as error:  # a plugin may raise anything on import, or call sys.exit
        raise BadInput(
            f"{what} cannot be loaded: {error_location.message(error)} at {_raised_at(error, entry)}"
        ) from error
    finally:
        changed = None if watch is None else watch.changed()
    if changed is not None:
        raise BadInput(f"{what}: importing {module_name} {changed[0]}")
    if entry.owner != "built in" and isinstance(loaded, type):
        user_code.adopt(loaded, entry.owner)
    if not isinstance(loaded, type) or not issubclass(loaded, _contract(kind)):
        raise BadInput(f"{what} is not a subclass of {_base(kind)}: {entry.target}")
    if loaded.__dict__.get("name", getattr(loaded, "name", None)) != entry.name:
        raise BadInput(f"{what} calls itself {getattr(loaded, 'name', None)!r}; make them equal")
    return _checked(kind, loaded)


def _raised_at(error: BaseException, entry: Entry) -> str:
    """FILE:LINE of an exception during an import; the entry's target if only Python's importer is in the traceback."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    frames = [f for f in frames if not f.filename.startswith("<frozen") and f.filename != contract_checks.__file__]
    last = frames[-1] if frames else None
    return entry.target if last is None or last.filename == __file__ else f"{last.filename}:{last.lineno}"


def _from_file(kind: str, path: Path) -> type[Any]:
    word = kind[:-1]
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:  # a name too long, a folder that may not be read
        raise BadInput(f"no {word} file at {str(path)[:80]}: {error.strerror}") from None
    if is_folder:
        raise BadInput(f"{path} is a folder; a {word} by path is one file that ends in .py")
    if is_file and path.suffix != ".py":
        raise BadInput(f"{path} is no Python file; a {word} by path is one file that ends in .py")
    if not is_file:
        raise BadInput(f"no {word} file at {path}")
    loaded = _checked(kind, _only_class(kind, user_code.load(path), None))
    taken = {entry.name: entry for entry in entries(kind)}.get(loaded.name)
    if taken is not None:
        raise BadInput(
            f"{error_location.of(loaded, 'name')}: {word} {loaded.name!r} has two owners: {taken.owner} "
            f"({taken.target}) "
            f"and {path}; give the class in {path} another name"
        )
    return loaded


def _contract(kind: str) -> type[Any]:
    module, _, name = KINDS[kind].contract.partition(":")
    return getattr(importlib.import_module(module), name)


def _base(kind: str) -> str:
    """The contract under the name that files import."""
    module, _, name = KINDS[kind].contract.partition(":")
    return f"harness.{name}" if kind in (METHODS, TASKS) else f"{module}.{name}"


def _only_class(kind: str, module: Any, name: str | None) -> type[Any]:
    """The one class of a module that fulfils the contract; ``name`` selects among several."""
    contract, file = _contract(kind), error_location.shown(getattr(module, "__file__", None) or module.__name__)
    classes = [v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__]
    mine = [c for c in dict.fromkeys(classes) if issubclass(c, contract)]
    fitting = [c for c in mine if hasattr(c, "name") and (name is None or c.name == name)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        listed = ", ".join(f"{c.__name__} at {error_location.of(c)}" for c in fitting)
        raise BadInput(
            f"{file}: {len(fitting)} classes with a `name` fulfilling {_base(kind)} ({listed}); exactly "
            "one is needed: leave `name` out of a common base class, or put them into two files"
        )
    base = _base(kind)
    module = base.rpartition(".")[0]
    if mine:
        raise BadInput(
            f'{error_location.of(mine[0])}: class {mine[0].__name__} has no name; say name = "my_{kind[:-1]}" in it'
        )
    named = [c for c in classes if hasattr(c, "name")] or [c for c in classes if not dataclasses.is_dataclass(c)]
    others = {METHODS: (TASKS,), TASKS: (METHODS,)}.get(kind, (METHODS, TASKS))
    for other in others:
        if named and issubclass(named[0], _contract(other)):
            raise BadInput(
                f"{error_location.of(named[0])}: {named[0].__name__} is a {other[:-1]}; give it with --{other[:-1]}"
            )
    if named:
        raise BadInput(
            f"{error_location.of(named[0])}: class {named[0].__name__} is no {base}; write "
            f"class {named[0].__name__}({contract.__name__}), with from {module} import {contract.__name__}"
        )
    raise BadInput(f"{file}: no class with a `name` fulfilling {base}; exactly one is needed")


def _checked(kind: str, loaded: Any) -> type[Any]:
    """``loaded``, checked for a name that is valid in files and tables, and for missing methods."""
    name, word, marks = loaded.name, kind[:-1], KINDS[kind].marks
    allowed = rf"[A-Za-z0-9][A-Za-z0-9{re.escape(marks.replace(' ', ''))}]{{0,59}}"
    if not isinstance(name, str) or not re.fullmatch(allowed, name, re.ASCII):
        raise BadInput(
            f"{error_location.of(loaded, 'name')}: name {name!r} of a {word} must be up to 60 letters, digits and "
            f"{marks} that begin with a letter or digit"
        )
    missing = sorted(getattr(loaded, "__abstractmethods__", ()))
    if missing:
        raise BadInput(f"{error_location.of(loaded)}: {word} {name!r} lacks {', '.join(missing)}")
    return loaded


def read_facts(path: Path, name: str) -> dict[str, Any]:
    """Docstring, literal class attributes, variants and needs of the class called ``name``, read without importing."""
    tree = _parsed(path, path.stat().st_mtime_ns)
    facts: dict[str, Any] = {"module_doc": ast.get_docstring(tree) or ""}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            own = dict(_literals(node))
            if own.get("name") == name:
                weighs = any(getattr(n, "id", None) == "shuffle" for n in ast.walk(tree))
                variants = sorted([*own.pop("variants", {}), *(["shuffled"] if weighs else [])])
                return facts | own | {"doc": ast.get_docstring(node) or "", "variants": variants, "needs": _needs(node)}
    return facts


@functools.cache
def _parsed(path: Path, changed: int) -> ast.Module:
    """The syntax tree of a file with this time of change, cached because every look-up of a name reads it."""
    return ast.parse(path.read_text("utf-8"))


def _needs(node: ast.ClassDef) -> str:
    """The words of the class' ``Needs(...)``: ``signal, gate``; with ``?`` if they depend on its settings."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and getattr(call.func, "id", None) == "Needs":
            words = []
            for keyword in call.keywords:
                literal = isinstance(keyword.value, ast.Constant)
                if literal and keyword.value.value is True:
                    words.append(str(keyword.arg))
                elif literal and keyword.value.value:
                    words.append(f"{keyword.arg} {keyword.value.value}")
                elif not literal:
                    words.append(f"{keyword.arg}?")
            return ", ".join(words)
    return ""


def _literals(node: ast.ClassDef):
    for statement in node.body:
        if not isinstance(statement, ast.Assign):
            continue
        for target in statement.targets:
            names = [t.id for t in getattr(target, "elts", [target]) if isinstance(t, ast.Name)]
            values = getattr(statement.value, "elts", []) if isinstance(target, ast.Tuple) else [statement.value]
            for key, value in zip(names, values, strict=False):
                try:
                    yield key, ast.literal_eval(value)
                except ValueError:
                    continue
