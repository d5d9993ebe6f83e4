"""The structure: imports run one way, files stay small, importing does nothing, names are not used twice."""

import ast
import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOUNDATION = {"harness.types", "harness.errors", "harness.options"}
FILES = sorted(p for folder in ("harness", "methods", "tasks") for p in (ROOT / folder).rglob("*.py"))


@functools.cache
def parsed(path: Path) -> tuple[str, ast.Module]:
    text = path.read_text("utf-8")
    return text, ast.parse(text)


@functools.cache
def imports(path: Path) -> set[str]:
    """Modules that a file imports, anywhere in it: also in functions, and also for its types alone."""
    found = set()
    for node in ast.walk(parsed(path)[1]):
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


def sources(folder: str) -> list[Path]:
    return [p for p in FILES if p.parent.name == folder and p.stem != "__init__"]


def test_methods_see_only_the_contract_and_the_losses():
    allowed = FOUNDATION | {"harness.method", "harness.losses"}
    private = {f"harness.methods.{p.stem}" for p in sources("methods") if p.stem.startswith("_")}
    assert {str(p): ours(p) - allowed - private for p in sources("methods") if ours(p) - allowed - private} == {}
    assert [p for p in sources("methods") if ".backward(" in p.read_text("utf-8")] == []


def test_tasks_see_only_the_contract_and_the_graders():
    for path in sources("tasks"):
        for name in ours(path):
            assert name in FOUNDATION | {"harness.task"} or name.startswith("harness.grading."), f"{path}: {name}"
        assert not {n for n in imports(path) if n.split(".")[0] in ("torch", "transformers")}, path
        assert len(path.read_text("utf-8").splitlines()) <= 120, path


def test_files_and_folders_import_each_other_in_no_circle():
    """``harness/__init__.py`` is the face of the package: it names what others define, and nothing here imports it."""
    files, folders = {}, {}
    for path in FILES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        name = (name if name.startswith("harness") else f"harness.{name}").removesuffix(".__init__")
        files[name] = {n for n in imports(path) if n.startswith("harness.")} - {name}
        if name != "harness":
            folders.setdefault(folder(name), set()).update({folder(n) for n in files[name]} - {folder(name)})
    no_circle(files)
    no_circle(folders)


def folder(module: str) -> str:
    """``harness.models`` for every file of that folder; a file right in ``harness`` is its own."""
    return ".".join(module.split(".")[:2])


def no_circle(graph: dict[str, set[str]]) -> None:
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


def test_files_stay_small_and_say_what_they_are_for():
    wrong = []
    for path in FILES:
        text, tree = parsed(path)
        if len(text.splitlines()) > 400:
            wrong.append(f"{path.relative_to(ROOT)}: {len(text.splitlines())} lines, 400 are the limit")
        if not ast.get_docstring(tree):
            wrong.append(f"{path.relative_to(ROOT)}: no module docstring says what the file is for")
        if path.stem in {"utils", "common", "misc", "helpers"}:
            wrong.append(f"{path.relative_to(ROOT)}: the name says nothing")
    assert not wrong


@pytest.mark.slow
def test_the_graders_and_the_sandbox_never_load_torch():
    code = (
        "import importlib, pkgutil, sys, harness.grading, harness.sandbox\n"
        "for package in (harness.grading, harness.sandbox):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_no_two_classes_share_a_name():
    """``Config`` is the settings class of every method file, looked up on the method, never imported."""
    seen: dict[str, Path] = {}
    for path in FILES:
        for node in parsed(path)[1].body:
            if isinstance(node, ast.ClassDef) and node.name != "Config" and not node.name.startswith("_"):
                assert node.name not in seen, f"{node.name} is in {seen[node.name]} and in {path}"
                seen[node.name] = path


def test_the_source_folders_cannot_be_imported_twice():
    for name in ("methods", "tasks"):
        done = subprocess.run(
            [sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert done.returncode != 0 and f"import harness.{name}" in done.stderr


@pytest.mark.slow
def test_one_run_enters_fewer_than_100_files():
    done = subprocess.run(
        [sys.executable, "-m", "results.scripts.road", "--steps", "1", "--problems", "10"],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    entered = json.loads(done.stdout)["entered"]
    assert 60 < entered["harness"] < 100 and entered["methods"] == entered["tasks"] == 1
