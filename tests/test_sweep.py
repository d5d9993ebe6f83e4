"""Sweeps: who runs, what is tried again, what is told; the executors, with workers that are killed in the middle."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from importlib import util
from pathlib import Path

import pytest

from harness.cli import main
from harness.plan import RunRequest, prepare
from harness.sweep.executors import LocalExecutor
from harness.sweep.jobs import SweepCell, SweepOutcome, cells, last_line
from harness.sweep.sweep import sweep

pytestmark = pytest.mark.slow

PARITY = str(Path(__file__).parent / "plugin/parity_plugin.py")
SMALL = ["training.steps=2", "training.batch=2", "data.limit=4", "rollout.max_new_tokens=6"]


class Silent:
    def __init__(self):
        self.seen = []

    def begin(self, cell, attempt, log):
        self.seen.append(("begin", cell.label, attempt))

    def end(self, cell, outcome, again):
        self.seen.append(("end", cell.label, outcome.code, again))

    def tick(self):
        pass


class Scripted:
    """An executor whose attempts end as told: a list of outcomes per method, None for one more look."""

    def __init__(self, workers, **ends):
        self.workers, self.ends, self.now, self.most, self.cancelled, self.closed = workers, ends, 0, 0, [], False

    def submit(self, cell, log):
        self.now += 1
        self.most = max(self.most, self.now)
        return ScriptedJob(self, cell)

    def close(self):
        self.closed = True


class ScriptedJob:
    def __init__(self, executor, cell):
        self.executor, self.cell = executor, cell

    def outcome(self):
        end = self.executor.ends[self.cell.method].pop(0)
        if isinstance(end, BaseException):
            raise end
        self.executor.now -= end is not None
        return end

    def cancel(self):
        self.executor.cancelled.append(self.cell.method)


def cell(method, missing=("t",)):
    return SweepCell(method, 0, ("run",), () if missing else (f"{method}-0",), tuple(missing))


WELL, FAILED, LOST, BAD = (
    SweepOutcome(0, ("id",)),
    SweepOutcome(1, (), "boom"),
    SweepOutcome(None, (), "lost"),
    SweepOutcome(2, (), "bad"),
)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("harness.sweep.sweep.TICK_S", 0.01)


def test_failures_are_tried_again_after_the_others_and_told_at_the_end(tmp_path):
    executor = Scripted(2, a=[None, FAILED, LOST, WELL], b=[WELL], c=[FAILED, FAILED, FAILED], d=[BAD])
    view = Silent()
    done = sweep([cell(m) for m in "abcd"] + [cell("e", ())], executor, 2, tmp_path, view)
    assert [(d.cell.method, d.status, d.attempts) for d in done] == [
        ("a", "done", 3),
        ("b", "done", 1),
        ("c", "failed", 3),
        ("d", "failed", 1),
        ("e", "recorded", 0),
    ]
    assert done[2].message == "boom" and done[4].run_ids == ("e-0",)
    assert executor.most == 2 and executor.closed
    assert ("begin", "a seed 0", 2) in view.seen and view.seen.index(("begin", "d seed 0", 1)) < view.seen.index(
        ("begin", "c seed 0", 2)
    )


def test_an_interrupt_ends_what_runs(tmp_path):
    executor = Scripted(2, a=[None] * 99, b=[None, KeyboardInterrupt()])
    with pytest.raises(KeyboardInterrupt):
        sweep([cell("a"), cell("b")], executor, 2, tmp_path, Silent())
    assert sorted(executor.cancelled) == ["a", "b"] and executor.closed


@pytest.fixture
def words(tiny_world, tmp_path):
    recipe = tiny_world("[training]\nmax_tokens = 64\n")
    settings = [word for setting in SMALL for word in ("--set", setting)]
    results = tmp_path / "results"
    return ["--task", PARITY, "--recipe", str(recipe), "--results", str(results), *settings], results, recipe


def test_the_grid_is_methods_times_seeds_with_what_is_recorded(words, tmp_path):
    rest, results, recipe = words
    assert main(["run", "--method", "untouched", "--seed", "1", *rest]) == 0
    request = RunRequest(["untouched", "sft"], [PARITY], str(recipe), seeds=[0, 1], settings=SMALL, results=results)
    grid = cells(prepare(request))
    assert [(c.method, c.seed, bool(c.recorded)) for c in grid] == [
        ("untouched", 0, False),
        ("untouched", 1, True),
        ("sft", 0, False),
        ("sft", 1, False),
    ]
    assert grid[2].missing == ("parity",) and "--seed" in grid[2].arguments and len({c.file for c in grid}) == 4


def test_a_dry_run_lists_the_grid_and_writes_nothing(words, capsys):
    rest, results, _ = words
    assert main(["sweep", "--method", "sft", "--method", "kd", "--seed", "0", "1", *rest, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.count(": parity to do") == 4 and "4 records to make in 4 runs" in out and not results.exists()


def test_a_local_sweep_records_reuses_and_tells_of_failures(words, capsys):
    rest, results, _ = words
    grid = ["--method", "sft", "--method", "untouched", *rest, "--workers", "2", "--retries", "1", "--json"]
    assert main(["sweep", *grid]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)["cells"]
    assert [c["status"] for c in told] == ["done", "done"] and len(list((results / "records").rglob("*.json"))) == 2
    assert captured.err.count("begins") == captured.err.count("done ") == 2
    # A student that was changed is bad input for its own cell only, and no retry can succeed.
    (bad,) = (results / "work/trained").glob("sft-*/training.json")
    (file,) = (results / "records").rglob("sft*.json")
    file.unlink()
    bad.write_text("{")
    assert main(["sweep", *grid]) == 1
    captured = capsys.readouterr()
    assert captured.out, captured.err
    told = {c["method"]: c for c in json.loads(captured.out)["cells"]}
    assert (
        told["untouched"]["status"] == "recorded" and told["sft"]["status"] == "failed" and told["sft"]["attempts"] == 1
    )
    assert "delete" in told["sft"]["error"] and "failed: sft seed 0 after 1 attempts" in captured.err


def test_a_killed_process_is_tried_again_and_nothing_outlives_the_sweep(words, tmp_path, capsys):
    _, results, recipe = words
    request = RunRequest(["sft"], [PARITY], str(recipe), settings=SMALL, results=results)
    (only,) = cells(prepare(request))
    executor, view = LocalExecutor(1), Silent()
    submit = executor.submit

    def submit_and_kill_the_first(cell, log):
        job = submit(cell, log)
        if len(view.seen) == 1:
            threading.Timer(1.0, job.process.kill).start()
        return job

    executor.submit = submit_and_kill_the_first
    (done,) = sweep([only], executor, 2, tmp_path / "logs", view)
    assert (done.status, done.attempts) == ("done", 2)
    assert ("end", "sft seed 0", -signal.SIGKILL, True) in view.seen


def test_runs_die_with_the_sweep(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from harness.sweep import jobs\n"
        "process = jobs.subprocess.Popen(['sleep', '600'], preexec_fn=jobs._die_with_parent, start_new_session=True)\n"
        "print(process.pid, flush=True); time.sleep(600)"
    )
    sweeping = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(sweeping.stdout.readline())
    sweeping.kill()
    sweeping.wait()
    sweeping.stdout.close()
    for _ in range(200):
        status = Path(f"/proc/{pid}/stat")
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the run outlived the sweep")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--workers", "0"], "'0' is not a whole number from 1"),
        (["--executor", "locl"], "unknown --executor 'locl'; did you mean local"),
        (["--slurm", "timeout_min=5"], "--slurm belongs to --executor slurm"),
        (["--address", "x:1"], "--address belongs to --executor ray"),
        (["--retries", "-1"], "unknown --retries '-1'"),
        (["--method", "gdk"], "did you mean gkd"),
    ],
)
def test_bad_words_are_one_line(words, capsys, extra, message):
    rest, results, _ = words
    assert main(["sweep", "--method", "sft", *rest, *extra]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not results.exists()


def test_executors_that_are_not_there_are_one_line(words, capsys, monkeypatch):
    rest, results, _ = words
    for name, library in (("ray", "ray"), ("slurm", "submitit")):  # the extra has the executor's name
        monkeypatch.setitem(sys.modules, library, None)  # as if it were not installed
        assert main(["sweep", "--method", "sft", *rest, "--executor", name]) == 2
        error = capsys.readouterr().err
        assert f"--executor {name}" in error and f"distillation-harness[{name}]'" in error and error.count("\n") == 1
    assert not results.exists()


def test_more_workers_than_cores_are_warned_of(words, capsys):
    rest, _, _ = words
    assert main(["run", "--method", "untouched", *rest]) == 0
    capsys.readouterr()
    assert main(["sweep", "--method", "untouched", *rest, "--workers", "500"]) == 0  # recorded: nothing starts
    assert "warning: 500 workers share" in capsys.readouterr().err


def test_the_last_line_of_a_log(tmp_path):
    log = tmp_path / "log"
    assert last_line(log) == ""
    log.write_bytes(b"x" * 9000 + b"\nharness: failed: no room\n\n")
    assert last_line(log) == "failed: no room"


@pytest.mark.skipif(util.find_spec("submitit") is None, reason="submitit is not installed (pip install submitit)")
def test_slurm_jobs_through_submitits_local_executor(words, tmp_path, capsys, monkeypatch):
    from harness.errors import BadInput
    from harness.sweep.executors import SlurmExecutor

    _, results, recipe = words
    request = RunRequest(["untouched"], [PARITY], str(recipe), settings=SMALL, results=results)
    grid = cells(prepare(request))
    executor = SlurmExecutor(1, tmp_path / "jobs", {"timeout_min": "10"}, cluster="local")
    (done,) = sweep(grid, executor, 0, tmp_path / "logs", Silent())
    assert (done.status, len(done.run_ids)) == ("done", 1)
    with pytest.raises(BadInput, match="--slurm: "):
        SlurmExecutor(1, tmp_path / "jobs", {"no_such_setting": "1"}, cluster="local")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="sbatch is not installed"):
        SlurmExecutor(1, tmp_path / "jobs", {})


@pytest.mark.skipif(util.find_spec("ray") is None, reason="Ray is not installed (pip install ray)")
def test_a_ray_cluster_of_two_workers_one_of_which_is_killed(words, tmp_path, capsys):
    import ray
    from ray.cluster_utils import Cluster

    from harness.errors import BadInput
    from harness.sweep.executors import RayExecutor

    _, results, recipe = words
    with pytest.raises(BadInput, match="no cluster at"):
        RayExecutor(1, address="127.0.0.1:1")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        request = RunRequest(["sft", "untouched"], [PARITY], str(recipe), settings=SMALL, results=results)
        grid = cells(prepare(request))
        executor, view = RayExecutor(2, address=cluster.address), Silent()

        def tick():  # in the main thread, as soon as runs are under way
            if len(nodes) == 2 and len(list((tmp_path / "logs").glob("*.log"))) == 2:
                cluster.remove_node(nodes.pop(), allow_graceful=False)

        view.tick = tick
        done = sweep(grid, executor, 3, tmp_path / "logs", view)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert [d.status for d in done] == ["done", "done"]
    assert max(d.attempts for d in done) >= 2
    assert any(end[0] == "end" and end[2] is None and end[3] for end in view.seen)
