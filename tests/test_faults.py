"""Disks, files and clocks that fail: each ends in one clear line and a whole store, and the same command goes on."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from children import finished, forked
from conftest import byte_tokenizer, tiny_model
from sample_records import make_record, make_rows
from test_train import job, quiet, weights  # noqa: F401 (job is a fixture)

from harness.cli import main
from harness.models.generate import Generated
from harness.recipe import Sampling
from harness.records import store as store_module
from harness.records.store import Store
from harness.training import checkpoint, loop, teacher_texts
from harness.training.loop import train
from harness.types import Example, Prompt

pytestmark = pytest.mark.slow

PARITY = str(Path(__file__).parent / "plugin/parity_plugin.py")


@pytest.fixture
def world(tiny_world):
    """``run(results, *words)`` of a small job; models in folders of their own, which a test may damage."""
    recipe = tiny_world(
        "[training]\nsteps = 3\nbatch = 2\nmax_tokens = 64\ncheckpoint_every = 1\nthreads = 1\n"
        "[rollout]\nmax_new_tokens = 6\n[teacher_text]\nmax_new_tokens = 6\n"
    )

    def run(results, *words):
        rest = ["--task", PARITY, "--recipe", str(recipe), "--results", str(results), "--json", *words]
        return main(["run", "--method", "gkd", *rest])

    return run


def student_of(results):
    (file,) = (results / "work/trained").glob("*/model.safetensors")
    return file


def one_line(capsys):
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("harness: ")]
    assert len(error) == 1, error
    return error[0]


# -- disks ---------------------------------------------------------------------------------------------------


def test_a_disk_that_fills_up_at_any_write_loses_nothing(world, tmp_path, capsys, monkeypatch):
    sync, count = os.fsync, []

    def counted(descriptor, fail=0):
        count.append(1)
        if len(count) == fail:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    assert world(tmp_path / "whole") == 0
    writes, whole = len(count), student_of(tmp_path / "whole").read_bytes()
    capsys.readouterr()
    assert writes > 10
    for fail in [*range(1, writes, 3), writes]:  # every stage has several
        results = tmp_path / f"full{fail}"
        count.clear()
        monkeypatch.setattr(os, "fsync", lambda descriptor, fail=fail: counted(descriptor, fail))
        assert world(results) == 1
        assert "No space left" in one_line(capsys)
        assert Store(results).all()[1] == []
        assert not [p for p in results.rglob("*") if p.suffix in (".writing", ".tmp")]
        monkeypatch.setattr(os, "fsync", sync)
        assert world(results) == 0
        assert student_of(results).read_bytes() == whole
        capsys.readouterr()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own: ``resize("64k")``, ``resize("ro")``."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True)
    if done.returncode:
        pytest.skip("a file system cannot be mounted here")
    yield place, lambda option: subprocess.run(["mount", "-o", f"remount,{option}", place], check=True)
    subprocess.run(["umount", "-l", place], check=True)


def test_a_disk_that_is_really_full_and_one_that_is_read_only(world, small_disk, tmp_path, capsys):
    place, resize = small_disk
    results = place / "results"
    for size in ("32k", "96k", "160k"):  # the texts fit, then a checkpoint, then two
        resize(f"size={size}")
        assert world(results) == 1
        assert "No space left" in (line := one_line(capsys)) or "disk is full" in line
        assert Store(results).all() == ([], [])
    resize("size=16m")
    assert world(results) == 0
    capsys.readouterr()
    before = {p: p.read_bytes() for p in results.rglob("*") if p.is_file()}
    resize("ro")
    assert world(results, "--again") == 2
    assert "results cannot be written to" in one_line(capsys)
    assert main(["table", "--results", str(results)]) == 0  # reading needs no writing
    resize("rw")
    assert {p: p.read_bytes() for p in results.rglob("*") if p.is_file()} == before
    assert world(tmp_path / "whole") == 0
    assert student_of(results).read_bytes() == student_of(tmp_path / "whole").read_bytes()


# -- checkpoints ---------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


def stop_at_step_three(stage, done, total, words):
    if stage == "train" and done == 3:
        raise Stop


def damages(content):
    chance = random.Random(0)
    yield "empty", b""
    yield "text", b"not a checkpoint"
    yield "without its seal", content[:-72]
    yield "torn", content[: len(content) // 2]
    for _ in range(6):
        flipped = bytearray(content)
        flipped[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        yield "flipped", bytes(flipped)


def test_a_changed_checkpoint_is_never_trained_from(job):  # noqa: F811
    whole = weights(train(job("gkd", folder="whole"), quiet))
    with pytest.raises(Stop):
        train(job("gkd", folder="cut", checkpoint_every=1), stop_at_step_three)
    file = job("gkd", folder="cut").folder / checkpoint.FILE
    content = file.read_bytes()
    assert checkpoint.load(file.parent, "gkd-0")[1] is None
    for what, damaged in damages(content):
        file.write_bytes(damaged)
        state, warning = checkpoint.load(file.parent, "gkd-0")
        assert state is None and "damaged" in warning and "starts again from step 0" in warning, what
    outcome = train(job("gkd", folder="cut"), quiet)  # the last of the damaged ones is still there
    assert torch.equal(weights(outcome), whole) and any("damaged" in w for w in outcome.warnings)
    file.write_bytes(content)
    assert "another run" in checkpoint.load(file.parent, "gkd-1")[1]


# -- caches --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [*lines[:3], lines[3][: len(lines[3]) // 2]],
        lambda lines: [*lines[:3], lines[3].replace(b"[3, 4]", b"[3, 5]"), *lines[4:]],
        lambda lines: [*lines[:3], b"\xff\xfe\n", *lines[4:]],
        lambda lines: [*lines[:3], b"[1]\n", *lines[4:]],
        lambda lines: [*lines[:3], lines[3].replace(b'"text"', b'"tixt"'), *lines[4:]],
        lambda lines: [*lines[:3], b'{"text": "of an older harness"}\n', *lines[4:]],
    ],
)
def test_teacher_texts_that_were_changed_are_sampled_again(tmp_path, damage):
    prompts = [Example(str(i), Prompt(f"p{i}", f"p{i}")) for i in range(6)]

    def answered():
        teacher = Answering()
        made = teacher_texts.teacher_texts(teacher, "sha", prompts, Sampling(), tmp_path)
        return made, teacher.asked

    everything, asked = answered()
    assert asked == [e.prompt.plain for e in prompts] and answered() == (everything, [])
    (path,) = tmp_path.glob("*.jsonl")
    kept = path.read_bytes().splitlines(keepends=True)
    left = damage(kept)
    path.write_bytes(b"".join(left))
    lost = [p for p, line in zip(asked, kept, strict=True) if line not in left]
    assert lost and answered() == (everything, lost) and answered() == (everything, [])


class Answering:
    """A teacher that answers at once and tells what it was asked."""

    tokenizer = byte_tokenizer()

    def __init__(self):
        self.asked = []

    def render(self, prompt):
        return prompt.plain

    def generate(self, prompts, decoding, seeds, watch):
        self.asked += prompts
        made = [Generated(p, (3, 4), (-0.5, -0.25), "stop", 2) for p in prompts]
        for row, one in enumerate(made):
            watch.finished(row, one)
        return made


# -- students and models -------------------------------------------------------------------------------------


def flip(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def rewrite(path, **facts):
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("model.safetensors", flip),
        ("model.safetensors", lambda path: path.write_bytes(path.read_bytes()[:999])),
        ("tokenizer.json", Path.unlink),
        ("training.json", lambda path: path.write_text("{")),
        ("training.json", lambda path: rewrite(path, seed=0)),
        ("training.json", lambda path: rewrite(path, cost={})),
        ("chat_template.jinja", lambda path: path.write_text("{{ messages }}")),
    ],
)
def test_a_trained_student_that_was_changed_is_refused(world, tmp_path, capsys, monkeypatch, name, harm):
    results = tmp_path / "results"
    with monkeypatch.context() as patch:
        patch.setattr("harness.evaluation.evaluate.complete", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert world(results) == 1
    whole = student_of(results).read_bytes()
    harm(student_of(results).parent / name)
    capsys.readouterr()
    assert world(results) == 2
    line = one_line(capsys)
    assert name in line and "delete" in line and Store(results).all() == ([], [])
    shutil.rmtree(
        student_of(results).parent if name != "model.safetensors" else next((results / "work/trained").iterdir())
    )
    assert world(results) == 0
    assert student_of(results).read_bytes() == whole


def test_a_model_folder_that_vanishes_in_the_middle(world, models, tmp_path, capsys, monkeypatch):
    place = tmp_path / "student"
    tiny_model(place, 0, 16, 260)
    results = tmp_path / "results"

    load = loop.load_model
    monkeypatch.setattr(
        loop, "load_model", lambda *a: (place.exists() and place.rename(tmp_path / "away"), load(*a))[1]
    )
    assert world(results, "--student", str(place)) == 2
    line = one_line(capsys)
    assert "is gone" in line and "restore it" in line and Store(results).all() == ([], [])
    monkeypatch.undo()
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    (tmp_path / "away").rename(place)
    assert world(results, "--student", str(place)) == 0


# -- records -------------------------------------------------------------------------------------------------


def test_a_damaged_record_is_named_and_can_be_superseded(world, tmp_path, capsys):
    results = tmp_path / "results"
    assert world(results) == 0
    (file,) = (results / "records").rglob("*.json")
    file.write_bytes(file.read_bytes()[:500])
    capsys.readouterr()
    assert world(results) == 2
    line = one_line(capsys)
    assert file.name in line and "--again" in line
    assert world(results, "--again") == 0
    (made,) = json.loads(capsys.readouterr().out)["records"]
    assert made["attempt"] == 1 and made["supersedes"] == file.stem
    assert main(["table", "--results", str(results)]) == 0
    captured = capsys.readouterr()
    assert "gkd" in captured.out and f"{file}: left out" in captured.err


def test_changed_completions_are_named(world, tmp_path, capsys):
    results = tmp_path / "results"
    assert world(results) == 0
    (file,) = (results / "completions").glob("*.jsonl")
    file.write_bytes(file.read_bytes()[:-20])
    capsys.readouterr()
    assert main(["grade", "--task", PARITY, "--samples", str(file)]) == 2
    assert one_line(capsys)
    records, left_out = Store(results).all()
    assert records == [] and len(left_out) == 1 and file.stem in left_out[0]


def test_records_keep_their_order_when_the_clock_goes_back(tmp_path, monkeypatch):
    store = Store(tmp_path)
    for attempt, year in enumerate((2030, 2020, 2025)):

        class Clock(datetime):
            @classmethod
            def now(cls, zone=None, year=year):
                return datetime(year, 1, 1, tzinfo=UTC)

        monkeypatch.setattr(store_module, "datetime", Clock)
        record = make_record()
        names = [f"{record['run_id']}{f'-r{i}' if i else ''}" for i in range(3)]
        supersedes = names[attempt - 1] if attempt else None
        store.add(make_record(attempt=attempt, run_id=names[attempt], supersedes=supersedes), make_rows())
    identity = make_record()["identity"]
    assert store.find(identity)["attempt"] == 2 and store.next_attempt(identity)[0] == 3
    assert [r["created"][:4] for r in sorted(store.all()[0], key=lambda r: r["attempt"])] == ["2030", "2020", "2025"]


def test_a_run_under_a_clock_that_goes_back_counts_no_negative_seconds(world, tmp_path, capsys, monkeypatch):
    now = [2e9]

    def back():
        now[0] -= 3600.0
        return now[0]

    monkeypatch.setattr(time, "time", back)
    assert world(tmp_path / "results") == 0
    (record,) = json.loads(capsys.readouterr().out)["records"]
    assert record["cost"]["seconds"] >= 0 and record["cost"]["eval_seconds"] >= 0


# -- several at once -----------------------------------------------------------------------------------------


def test_locks_of_dead_processes_hold_nobody_up(world, tmp_path, capsys):
    results = tmp_path / "results"
    code = (
        "import sys, time; from filelock import FileLock\n"
        "locks = [FileLock(p) for p in sys.argv[1:]]; [lock.acquire() for lock in locks]\n"
        "print('held', flush=True); time.sleep(600)"
    )
    assert world(results) == 0
    shutil.rmtree(results / "records")
    locks = [str(p) for p in results.rglob("*.lock")]
    assert len(locks) >= 3
    holder = subprocess.Popen([sys.executable, "-c", code, *locks], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    assert world(results) == 0


def test_two_processes_of_one_command_do_the_work_once(world, tmp_path):
    results = tmp_path / "results"
    said = [tmp_path / "one", tmp_path / "other"]
    pair = [forked(lambda: world(results), file) for file in said]
    assert [finished(process) for process in pair] == [0, 0], [file.with_suffix(".err").read_text() for file in said]
    records = [json.loads(file.read_text())["records"][0] for file in said]
    assert sorted(r["reused"] for r in records) == [False, True]
    assert records[0]["run_id"] == records[1]["run_id"] and len(Store(results).all()[0]) == 1
    assert not list((results / "work/completions").glob("*")) and not list((results / "work/training").glob("*"))
