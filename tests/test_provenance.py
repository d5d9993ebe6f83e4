"""What a record says of the code and machine it was made with."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.records import record

GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]


@pytest.fixture
def checkout(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness" / "code.py").write_text("x = 1\n")
    subprocess.run([*GIT, "-C", str(tmp_path), "add", "."], check=True)
    subprocess.run([*GIT, "-C", str(tmp_path), "commit", "-qm", "first"], check=True)
    return tmp_path


def test_it_is_plain_json_without_paths_of_this_machine():
    found = record.provenance("cpu")
    text = json.dumps(found)
    assert found["device"] == "cpu"
    assert found["versions"]["torch"]
    assert str(Path(__file__).resolve().parent.parent) not in text
    assert str(Path.home()) not in text or str(Path.home()) == "/"


def test_new_results_do_not_make_the_sources_dirty_but_new_methods_do(checkout):
    clean = record._checkout(checkout)
    assert clean["dirty"] is False
    assert len(clean["commit"]) == 40
    (checkout / "results").mkdir()
    (checkout / "results" / "record.json").write_text("{}")
    assert record._checkout(checkout) == clean
    (checkout / "methods").mkdir()
    (checkout / "methods" / "mine.py").write_text("")
    assert record._checkout(checkout) == clean | {"dirty": True}


def test_an_installed_copy_inside_another_checkout_claims_no_commit(checkout):
    assert record._checkout(checkout / "harness") == {"commit": None, "dirty": None}


def test_without_git_the_commit_is_unknown(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert record._checkout(checkout) == {"commit": None, "dirty": None}


def test_this_checkout_names_its_own_commit():
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        pytest.skip("the tests do not lie in a git checkout")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
    assert record.provenance("cpu")["commit"] == head.stdout.strip()


@pytest.mark.slow
def test_what_decides_rounding_is_recorded():
    code = (
        "import json, sys; from harness.records import record; before = record.provenance('cpu');"
        "import torch; torch.set_num_threads(1); print(json.dumps([before, record.provenance('cpu')]))"
    )
    forced = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | forced, capture_output=True, text=True, timeout=120, check=True
    )
    before, after = json.loads(done.stdout)
    assert before["kernel"] is None and before["threads"] is None  # torch is not loaded for it
    assert (after["kernel"], after["threads"], after["forced"]) == ("DEFAULT", 1, forced)
