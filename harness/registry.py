"""From a name to a class: built in, installed as a plugin, or a file given by path.

Nothing is imported before it is asked for, and listing imports nothing at all: what ``harness list`` shows
is read from the source text. Two owners of one name are an error naming both.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import BadInput, unknown

METHODS, TASKS = "methods", "tasks"


@dataclass(frozen=True)
class Entry:
    """Where a name leads. ``owner`` is ``built in``, a distribution, or a file; ``facts`` are for listing."""

    name: str
    owner: str
    target: str  # module, module:Class or file
    facts: dict[str, Any]


def entries(kind: str) -> list[Entry]:
    """All known entries of ``methods`` or ``tasks``, by name. Two owners of one name raise BadInput."""
    found: dict[str, Entry] = {}
    for entry in [*_built_in(kind), *_installed(kind)]:
        if entry.name in found:
            raise BadInput(
                f"{kind[:-1]} {entry.name!r} has two owners: {found[entry.name].owner} ({found[entry.name].target}) "
                f"and {entry.owner} ({entry.target}); uninstall one or rename it"
            )
        found[entry.name] = entry
    return [found[name] for name in sorted(found)]


def find(kind: str, name: str) -> type:
    """The class that ``name`` (or a path ending in .py) leads to. Raises BadInput when there is none."""
    if name.endswith(".py") or "/" in name or os.sep in name:
        return _from_file(kind, Path(name))
    known = {entry.name: entry for entry in entries(kind)}
    if name not in known:
        raise unknown(kind[:-1], name, known)
    return _load(kind, known[name])


def origin(kind: str, name: str) -> str:
    """Who supplied the code behind a name, for the specification of a run: a changed file is another run."""
    if name.endswith(".py"):
        return f"file sha256:{hashlib.sha256(Path(name).read_bytes()).hexdigest()[:16]}"
    entry = next(entry for entry in entries(kind) if entry.name == name)
    if entry.owner == "built in":
        return "harness"
    return f"{entry.owner} {importlib.metadata.version(entry.owner)}"


def _built_in(kind: str) -> list[Entry]:
    folder = Path(importlib.util.find_spec(f"harness.{kind}").origin).parent
    files = sorted(path for path in folder.glob("*.py") if not path.stem.startswith("_"))
    return [Entry(p.stem, "built in", f"harness.{kind}.{p.stem}", read_facts(p, p.stem)) for p in files]


def _installed(kind: str) -> list[Entry]:
    if os.environ.get("HARNESS_PLUGINS") == "0":
        return []
    points = importlib.metadata.entry_points(group=f"harness.{kind}")
    return [Entry(p.name, p.dist.name if p.dist else "plugin", p.value, {}) for p in points]


def _load(kind: str, entry: Entry) -> type:
    module_name, _, attribute = entry.target.partition(":")
    try:
        module = importlib.import_module(module_name)
        found = getattr(module, attribute) if attribute else _only_class(kind, module, entry.name)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise BadInput(f"{kind[:-1]} {entry.name!r} of {entry.owner} cannot be loaded: {error}") from None
    return _checked(kind, found, entry.name, entry.owner)


def _from_file(kind: str, path: Path) -> type:
    if not path.is_file():
        raise BadInput(f"no {kind[:-1]} file at {path}")
    source = path.read_bytes()
    name = f"harness_file_{path.stem}_{hashlib.sha256(source).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise BadInput(f"{path}:{error.lineno}: {error.msg}") from None
    except Exception as error:  # a stranger's module may raise anything while it is imported
        raise BadInput(f"{path}: cannot be imported: {type(error).__name__}: {error}") from None
    found = _only_class(kind, module, None)
    taken = {entry.name: entry for entry in entries(kind)}.get(found.name)
    if taken is not None:
        raise BadInput(
            f"{kind[:-1]} {found.name!r} has two owners: {taken.owner} ({taken.target}) and {path}; "
            f"give the class in {path} another name"
        )
    return _checked(kind, found, found.name, str(path))


def _contract(kind: str) -> type:
    if kind == METHODS:
        from harness.method import Method

        return Method
    from harness.task import Task

    return Task


def _only_class(kind: str, module: Any, name: str | None) -> type:
    """The one class of a module that fulfils the contract; ``name`` chooses where there are several."""
    contract = _contract(kind)
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, contract)
        and value.__module__ == module.__name__
        and isinstance(getattr(value, "name", None), str)
        and (name is None or value.name == name)
    ]
    if len(found) != 1:
        what = "no class" if not found else f"{len(found)} classes"
        raise BadInput(
            f"{getattr(module, '__file__', module.__name__)}: {what} with a `name` fulfilling "
            f"harness.{contract.__name__}; exactly one is needed"
        )
    return found[0]


def _checked(kind: str, found: Any, name: str, owner: str) -> type:
    contract = _contract(kind)
    if not isinstance(found, type) or not issubclass(found, contract):
        raise BadInput(f"{kind[:-1]} {name!r} of {owner} is not a subclass of harness.{contract.__name__}")
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        raise BadInput(f"{kind[:-1]} {name!r} of {owner} lacks {', '.join(missing)}")
    if getattr(found, "name", None) != name:
        raise BadInput(
            f"{kind[:-1]} {name!r} of {owner} calls itself {getattr(found, 'name', None)!r}; make them equal"
        )
    return found


def read_facts(path: Path, name: str) -> dict[str, Any]:
    """Docstring, literal class attributes, variants and needs of the class called ``name``, read without importing."""
    tree = ast.parse(path.read_text("utf-8"))
    facts: dict[str, Any] = {"module_doc": ast.get_docstring(tree) or ""}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            own = dict(_literals(node))
            if own.get("name") == name:
                weighs = any(getattr(n, "id", None) == "shuffle" for n in ast.walk(tree))
                variants = sorted([*own.pop("variants", {}), *(["shuffled"] if weighs else [])])
                return facts | own | {"doc": ast.get_docstring(node) or "", "variants": variants, "needs": _needs(node)}
    return facts


def _needs(node: ast.ClassDef) -> str:
    """The words of the class' ``Needs(...)``: ``signal, survey``; with ``?`` where they depend on its settings."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and getattr(call.func, "id", None) == "Needs":
            words = []
            for keyword in call.keywords:
                literal = isinstance(keyword.value, ast.Constant)
                if literal and keyword.value.value is True:
                    words.append(keyword.arg)
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
            values = statement.value.elts if isinstance(target, ast.Tuple) else [statement.value]
            for key, value in zip(names, values, strict=False):
                try:
                    yield key, ast.literal_eval(value)
                except ValueError:
                    continue
