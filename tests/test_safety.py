"""Runs that are killed end as undisturbed ones; long ones keep their memory: results.scripts.robustness in small."""

import subprocess
import sys

import pytest

from results.scripts.robustness import memory, world
from results.scripts.robustness.forked import KillTrial, Point, Trace
from results.scripts.robustness.kill import draw, report

pytestmark = pytest.mark.slow


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kill script watches processes as Linux shows them")
def test_a_run_killed_in_every_stage_ends_as_an_undisturbed_one(tmp_path):
    """One trial per stage or so; ``python -m results.scripts.robustness.kill`` has the long version."""
    page = tmp_path / "kill.md"
    command = [
        sys.executable,
        "-m",
        "results.scripts.robustness.kill",
        "--points",
        "8",
        "--seed",
        "3",
        "--out",
        str(page),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    text = page.read_text()
    assert "for times; 0 did not" in text
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ")]
    kills = {row[1].strip(): row[4].strip() for row in rows if len(row) == 6}
    assert set(world.STAGES) <= set(kills)
    assert sum(int(n) for name, n in kills.items() if name in world.STAGES) >= 5


def trace(**calls):
    return Trace({stage: [0.5] * calls.get(stage, 2) for stage in world.STAGES}, 40, {}, 3)


def test_the_first_points_visit_every_stage_and_a_seed_repeats_them():
    points = [p for trial in draw(trace(), 60, 0) for p in trial]
    assert {p.stage for p in points[: len(world.STAGES)]} == set(world.STAGES)
    assert {p.stage for p in points} == {*world.STAGES, "file"} and len(points) >= 60
    assert draw(trace(), 60, 0) == draw(trace(), 60, 0) != draw(trace(), 60, 1)
    assert all(1 <= p.number <= (40 if p.stage == "file" else 2) for p in points)


def test_a_report_counts_what_was_lost():
    trials = [
        KillTrial([Point("record", 1, 0.001)], [True]),
        KillTrial([Point("file", 7), Point("training", 2, 0.1)], [True, False], ["differs: x.json"]),
    ]
    page = report(trials, trace(), 9, 0, "kd")
    assert "killed 2 times" in page and "1 ended with" in page and "1 did not" in page and "differs: x.json" in page
    assert "training, call 2 + 100.0 ms (not reached)" in page


def test_every_stage_is_watched_and_left_as_it_was():
    from harness.records.store import Store
    from harness.training import teacher_texts

    before, seen = (Store.add, teacher_texts.teacher_texts), []
    with world.watched(seen.append, seen.append):
        assert Store.add is not before[0] and teacher_texts.teacher_texts is not before[1]
        with pytest.raises(TypeError):
            Store.add()
    assert (Store.add, teacher_texts.teacher_texts) == before and seen == ["record", "record"]


def test_differences_of_snapshots():
    assert world.differences({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}) == ["b", "c"]


def test_no_tensor_stays_behind_a_step(tmp_path):
    watch = memory.train(30, tmp_path, 1)
    counts = [row[2] for row in watch.rows]
    sizes = [row[3] for row in watch.rows]
    assert len(counts) == 30
    # A step may hold one tensor more than another (its source differs); none may hold more than the one before it did.
    assert max(counts[15:]) <= max(counts[5:15]) and max(sizes[15:]) <= 1.02 * max(sizes[5:15])


def test_a_leak_would_be_seen():
    watch = memory.MemoryWatch("train")
    watch.rows = [(i, 10**8 + 50_000 * i, 100, 10**6) for i in range(60)]
    assert watch.slope() == pytest.approx(50_000)
