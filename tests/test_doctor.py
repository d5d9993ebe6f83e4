"""harness doctor: every check finds the fault it is for, and reports it with its fix."""

import hashlib
import json
import os
import socket
import time
from dataclasses import replace

import pytest
from sample_records import make_record, make_rows

from harness import data, doctor
from harness.cli import main
from harness.records.store import Store


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HARNESS_HUB", "http://127.0.0.1:9")


def only(findings):
    (found,) = findings
    return found


def test_a_sound_machine_is_told_so_and_nothing_is_written(tmp_path, capsys):
    code = main(["doctor", "--json", "--results", str(tmp_path / "results")])
    told = json.loads(capsys.readouterr().out)
    bad = [f for f in told["findings"] if f["status"] == "problem"]
    assert (code, told["fit"]) == ((1, False) if bad else (0, True))
    names = {f["name"] for f in told["findings"]}
    assert names >= {
        "python",
        "versions",
        "torch",
        "device",
        "memory",
        "sandbox",
        "results",
        "disk",
        "locks",
        "records",
    }
    assert names >= {"model hub", "data hub", "data", "ray", "submitit", "browser"}
    assert all(f["fix"] for f in told["findings"] if f["status"] != "ok")
    assert not list(tmp_path.iterdir())


def test_a_results_folder_that_cannot_be_written_is_a_problem(tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    assert main(["doctor", "--results", str(tmp_path / "taken")]) == 1
    out = capsys.readouterr().out
    assert "problem  results" in out and "--results" in out and out.rstrip().splitlines()[-1].startswith("1 problem,")


def test_a_full_disk_and_a_nearly_full_one(tmp_path, monkeypatch):
    usage = doctor.shutil.disk_usage(tmp_path)
    for free, status in ((5e8, doctor.PROBLEM), (5e9, doctor.NOTE), (5e11, doctor.OK)):
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _, free=free: usage._replace(free=int(free)))
        assert only(doctor.check_disk(tmp_path)).status == status


def test_held_locks_are_told_from_files_of_dead_processes(tmp_path):
    from filelock import FileLock

    locks = tmp_path / "work/locks"
    locks.mkdir(parents=True)
    (locks / "dead.lock").write_text("")
    (tmp_path / "work/training/kd-1").mkdir(parents=True)
    (tmp_path / "work/training/kd-1/checkpoint.pt").write_bytes(bytes(100))
    found = only(doctor.check_locks(tmp_path))
    assert "0 held" in found.found and "1 free" in found.found and "1 unfinished training," in found.found
    assert found.status == doctor.NOTE and "work/training" in found.fix
    with FileLock(locks / "live.lock"):
        assert "1 held" in (found := only(doctor.check_locks(tmp_path))).found and found.status == doctor.OK


def test_damaged_records_and_records_from_the_future_are_noted(tmp_path):
    store = Store(tmp_path)
    path = store.add(make_record(), make_rows())
    assert only(doctor.check_records(tmp_path)).status == doctor.OK
    sealed = json.loads(path.read_text()) | {"created": "2099-01-01T00:00:00+00:00"}
    from harness.records.record import content_hash

    path.write_text(json.dumps(sealed | {"content_sha256": content_hash(sealed)}))
    assert [f.name for f in doctor.check_records(tmp_path)] == ["records", "clock"]
    path.write_text("{")
    found = only(doctor.check_records(tmp_path))
    assert found.status == doctor.NOTE and path.name in found.found and "1 damaged" in found.found


def test_a_hub_that_never_answers_costs_seconds(monkeypatch):
    monkeypatch.setattr(data, "HUB_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        found = doctor._answers("hub", f"http://127.0.0.1:{silent.getsockname()[1]}", "use folders")
    assert found.status == doctor.NOTE and "use folders" in found.fix
    assert time.monotonic() - began < 30


def test_offline_is_honoured(monkeypatch):
    asked = []
    monkeypatch.setattr(doctor, "_answers", lambda name, *_: asked.append(name) or doctor.Finding(name, doctor.OK, ""))
    assert [f.status for f in doctor.check_hubs()] == [doctor.NOTE, doctor.OK] and asked == ["data hub"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert len(list(doctor.check_hubs())) == 2 and "model hub" in asked


def test_data_files_are_held_against_their_pins(tmp_path, monkeypatch):
    wanted = doctor._datasets()
    assert len(wanted) >= 8
    right, wrong = wanted[0], wanted[1]
    monkeypatch.setattr(doctor, "_datasets", lambda: [replace(right, sha256=hashlib.sha256(b"x").hexdigest()), wrong])
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    assert "1 missing" not in str(list(doctor.check_data()))
    for dataset in (right, wrong):
        (tmp_path / dataset.local).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / dataset.local).write_bytes(b"x")
    note, fine = doctor.check_data()
    assert note.status == doctor.NOTE and wrong.local in note.found and right.local not in note.found
    assert fine.status == doctor.OK and fine.found.startswith("1 benchmark files")
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "nowhere"))
    assert next(iter(doctor.check_data())).status == doctor.PROBLEM


def test_packages_are_held_against_requirements_and_lock(monkeypatch):
    real = doctor.installed_version
    monkeypatch.setattr(doctor, "installed_version", lambda name: None if name == "scipy" else real(name))
    found = only(doctor.check_versions())
    assert found.status == doctor.PROBLEM and "scipy is missing" in found.found
    monkeypatch.setattr(doctor, "installed_version", lambda name: "1.0" if name == "rich" else real(name))
    assert "rich 1.0 is not >=13" in only(doctor.check_versions()).found
    monkeypatch.setattr(doctor, "installed_version", lambda name: "99.0" if name == "rich" else real(name))
    found = only(doctor.check_versions())
    assert found.status == doctor.NOTE and "rich 99.0 (lock: " in found.found and "requirements.lock" in found.fix


def test_a_sandbox_below_the_wanted_tier_is_a_problem(monkeypatch):
    from harness.sandbox import pool

    for name, status in (("A", doctor.OK), ("C", doctor.PROBLEM)):
        monkeypatch.setattr(pool, "_best_tier", lambda name=name: pool.Tier(name, (), "no walls"))
        found = only(doctor.check_sandbox())
        assert found.status == status
    assert "HARNESS_SANDBOX=C" in found.fix
    monkeypatch.setenv("HARNESS_SANDBOX", "C")
    assert only(doctor.check_sandbox()).status == doctor.NOTE


def test_a_check_that_breaks_is_a_problem_and_the_others_are_made(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "check_memory", lambda: 1 / 0)
    found = {f.name: f for f in doctor.examine(tmp_path)}
    assert found["memory"].status == doctor.PROBLEM and "ZeroDivisionError" in found["memory"].found
    assert "browser" in found and os.listdir(tmp_path) == []
