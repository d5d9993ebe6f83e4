"""A wheel in a bare environment: installed without make and without a compiler, with the micro world inside."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
UV = shutil.which("uv", path=Path(sys.executable).parent) or shutil.which("uv")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """The bin folder of an environment that holds the wheel and its dependencies, at the versions of the lock."""
    if UV is None:
        pytest.skip("uv makes the bare environment and is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("harness", "methods", "tasks", "results/reported"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    _call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", folder, source)
    locks = "".join(path.read_text("utf-8") for path in ROOT.glob("requirements*.lock") if _installed_torch(path))
    pins = folder / "pins.txt"
    pins.write_text("\n".join(sorted(set(re.findall(r"^[\w.-]+==[^ \\]+", locks, re.M)))), "utf-8")
    _call(UV, "venv", "-q", "-p", sys.executable, folder / "env")
    links = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS") or ""
    wheel = next(folder.glob("*.whl"))
    python = folder / "env/bin/python"
    _call(UV, "pip", "install", "-q", "-p", python, "-c", pins, wheel, env=os.environ | {"UV_FIND_LINKS": links})
    return folder / "env/bin"


def _installed_torch(lock: Path) -> bool:
    """Whether the lock names the torch of this environment: one of the two torch locks does not."""
    import torch

    return lock.name == "requirements.lock" or ("-cpu" in lock.name) == ("+cpu" in torch.__version__)


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
