"""The shape of the house: imports run one way, rooms stay small, importing does nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOUNDATION = {"harness.types", "harness.errors", "harness.options"}
FILES = sorted(p for folder in ("harness", "methods", "tasks") for p in (ROOT / folder).rglob("*.py"))


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Modules that a file imports; ``top_level_only`` leaves out what functions import when called."""
    tree = ast.parse(path.read_text("utf-8"))
    guarded = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for node in ast.walk(block)
    }
    nodes = tree.body if top_level_only else [n for n in ast.walk(tree) if id(n) not in guarded]
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "harness" or node.module.startswith("harness."):
                for alias in node.names:
                    inner = ROOT / node.module.replace(".", "/") / alias.name
                    known = inner.with_suffix(".py").exists() or inner.is_dir()
                    found.add(f"{node.module}.{alias.name}" if known else node.module)
            else:
                found.add(node.module)
    return found


def ours(path: Path) -> set[str]:
    return {name for name in imports(path) if name.split(".")[0] == "harness"}


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.parent.name == "methods" and p.stem != "__init__"], ids=lambda p: p.stem
)
def test_methods_see_only_the_contract_and_the_losses(path):
    allowed = FOUNDATION | {"harness.method", "harness.losses"}
    assert ours(path) <= allowed
    assert ".backward(" not in path.read_text("utf-8")


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.parent.name == "tasks" and p.stem != "__init__"], ids=lambda p: p.stem
)
def test_tasks_see_only_the_contract_and_the_graders(path):
    for name in ours(path):
        assert name in FOUNDATION | {"harness.task"} or name.startswith("harness.grading."), name
    assert not {n for n in imports(path) if n.split(".")[0] in ("torch", "transformers")}
    assert len(path.read_text("utf-8").splitlines()) <= 120


def test_imports_form_no_circle():
    graph = {}
    for path in FILES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        name = name if name.startswith("harness") else f"harness.{name}"
        graph[name.removesuffix(".__init__")] = {n for n in imports(path) if n.startswith("harness.")}
    state: dict[str, int] = {}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert state.get(name) != 1, f"circle: {' -> '.join([*trail[trail.index(name) :], name])}"
        if name in graph and name not in state:
            state[name] = 1
            for inner in sorted(graph[name]):
                visit(inner, (*trail, name))
            state[name] = 2

    for name in graph:
        visit(name, ())


def test_models_know_no_grader():
    for path in (ROOT / "harness/models").rglob("*.py"):
        assert not any(name.startswith("harness.grading") for name in imports(path)), path


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_rooms_stay_small_and_say_what_they_are_for(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(ast.parse(text)), "a module starts by saying what it is for"
    assert path.stem not in {"utils", "common", "misc", "helpers"}


def test_the_graders_and_the_sandbox_never_load_torch():
    code = (
        "import importlib, pkgutil, sys, harness.grading, harness.sandbox\n"
        "for package in (harness.grading, harness.sandbox):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_the_source_folders_cannot_be_imported_twice():
    for name in ("methods", "tasks"):
        done = subprocess.run(
            [sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert done.returncode != 0 and f"import harness.{name}" in done.stderr
