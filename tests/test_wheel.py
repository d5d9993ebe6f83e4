"""A wheel in a bare environment: installed without make and without a compiler, with the micro world inside."""

import shutil
import subprocess
import sys
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
    """The bin folder of an environment with the wheel, what it needs as that is installed here, and nothing else."""
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
    packages = next(folder.glob("env/lib/python*/site-packages"))
    for name in _needed("reasoning-distillation-harness"):
        _lend(name, packages)
    python = folder / "env/bin/python"
    _call(UV, "pip", "install", "-q", "--no-deps", "-p", python, next(folder.glob("*.whl")))
    _call(UV, "pip", "check", "-p", python)  # all that the wheel's own metadata ask for is there
    return folder / "env/bin"


def _lend(distribution: str, packages: Path) -> None:
    """Links what is installed here under ``packages``: to install it again would take tens of thousands of files."""
    found = metadata.distribution(distribution)
    for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
        source, target = Path(found.locate_file(top)), packages / top
        if top.endswith(".dist-info"):
            shutil.copytree(source, target)  # uv reads no link
        elif not target.exists():
            target.symlink_to(source)


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


def _call(*words, cwd=None) -> str:
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True)
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
