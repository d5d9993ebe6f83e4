"""A wheel in a bare environment: installed without make and without a compiler, with the micro world inside."""

import os
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
UV = shutil.which("uv", path=Path(sys.executable).parent) or shutil.which("uv")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """The bin folder of an environment with the wheel and its dependencies, at the versions installed here."""
    if UV is None:
        pytest.skip("uv makes the bare environment and is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("harness", "methods", "tasks", "results/reported"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    _call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", folder, source)
    _call(UV, "venv", "-q", "-p", sys.executable, folder / "env")
    python = folder / "env/bin/python"
    links = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS") or ""
    # Nothing is resolved, which takes long: what the wheel asks for is here, and the check reads the wheel's own words.
    pins = [f"{name}=={metadata.version(name)}" for name in sorted(_needed("reasoning-distillation-harness"))]
    found = os.environ | {"UV_FIND_LINKS": links}
    _call(UV, "pip", "install", "-q", "--no-deps", "-p", python, *pins, next(folder.glob("*.whl")), env=found)
    _call(UV, "pip", "check", "-p", python)
    _lend_bytecode(Path(sysconfig.get_path("purelib")), next(folder.glob("env/lib/python*/site-packages")))
    return folder / "env/bin"


def _lend_bytecode(ours: Path, theirs: Path) -> None:
    """Links what is compiled here to where the same files are: Python checks their times, and compiles what differs."""
    for cache in ours.rglob("__pycache__"):
        place = theirs / cache.relative_to(ours)
        if place.parent.is_dir() and not place.exists():
            shutil.copytree(cache, place, copy_function=_linked)


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _needed(distribution: str) -> set[str]:
    """The distributions that one needs, and those that these need."""
    found: set[tuple[str, frozenset[str]]] = set()

    def add(name: str, extras: frozenset[str]) -> None:
        for one in map(Requirement, metadata.requires(name) or ()):
            wanted = one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras))
            need = canonicalize_name(one.name), frozenset(one.extras)
            if wanted and need not in found:
                found.add(need)
                add(*need)

    add(distribution, frozenset())
    return {name for name, _ in found}


def _call(*words, env=None, cwd=None) -> str:
    done = subprocess.run([str(word) for word in words], env=env, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_wheel_lists_methods_tasks_and_papers(bare, tmp_path):
    methods = _call(bare / "harness", "list", "methods", cwd=tmp_path)
    tasks = _call(bare / "harness", "list", "tasks", cwd=tmp_path)
    papers = _call(bare / "harness", "list", "papers", cwd=tmp_path)
    assert "vcrd" in methods and "humaneval" in tasks and "distillm2" in papers


def test_the_wheel_trains_and_tabulates_in_the_micro_world(bare, tmp_path):
    small = ["--set", "training.steps=2", "--set", "evaluation.limit=5"]
    made = _call(bare / "harness", "run", "--method", "kd", "--task", "humaneval", *small, cwd=tmp_path)
    assert "humaneval@micro" in made and (tmp_path / "results/records").is_dir()
    table = _call(bare / "harness", "table", cwd=tmp_path)
    assert "| kd |" in table


def test_the_wheel_has_the_python_interface(bare, tmp_path):
    code = "import harness; print(harness.grade('amc23@micro', [{'problem_id': '0', 'sample': 0, 'text': '6'}]).task)"
    assert _call(bare / "python", "-c", code, cwd=tmp_path).strip() == "amc23@micro"
