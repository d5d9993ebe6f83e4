"""A small job that passes through every stage of a run in a few seconds, and the comparison of its results.

The embedded teacher teaches the embedded student for some steps; four tasks bring in the maths workers, the sandbox,
the micro world's judge, and a judge behind a server whose answers are cached.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module, resources
from pathlib import Path
from typing import Any

# A stage of a run and the function whose calls it consists of.
STAGES = {
    "teacher texts": "harness.training.teacher_texts:teacher_texts",
    "rollout": "harness.training.rollouts:Rollouts.collect",
    "training": "harness.training.objective:Student.forward",
    "checkpoint": "harness.training.checkpoint:save",
    "publishing": "harness.records.work_folder:publish",
    "generation": "harness.evaluation.evaluate:complete",
    "grading programs": "harness.grading.code.task:CodeTask.grade_all",
    "grading maths": "harness.grading.maths.task:MathsTask.grade_all",
    "judging": "harness.grading.instruction.pairwise:PairwiseTask.grade_all",
    "record": "harness.records.store:Store.add",
}
JOB = tomllib.loads((resources.files("results.scripts.robustness") / "job.toml").read_text("utf-8"))
METHOD, TASKS = JOB["method"], tuple(JOB["tasks"])
SETTINGS = {
    "training.steps": 8,
    "training.batch": 4,
    "training.checkpoint_every": 1,
    "training.threads": 1,
    "data.limit": 12,
    "rollout.max_new_tokens": 24,
    "teacher_text.max_new_tokens": 24,
    "evaluation.limit": 6,
    "evaluation.batch": 1,
    "evaluation.max_new_tokens": 96,
}
TIMES = ("created", "content_sha256", "speed")  # of a record
CHECKOUT = ("commit", "dirty")  # of its provenance: the checkout's, which may move on while runs are killed
SPENT = ("seconds", "eval_seconds", "grading_seconds", "peak_memory_bytes")  # of its cost


def write_data(folder: Path) -> None:
    """The instructions of the job's judged task in the layout of HARNESS_DATA."""
    layout = JOB["instructions"]
    rows = [{layout["prompt"]: f"Say {i} in words.", layout["response"]: "word " * i} for i in range(8)]
    file = folder / layout["file"]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rows), "utf-8")


def words(results: Path, judge: str, method: str = METHOD, tasks: tuple[str, ...] = TASKS) -> list[str]:
    """The command line of the job."""
    arguments = ["run", "--method", method, "--results", str(results), "--json", "--judge", judge]
    arguments += [word for task in tasks for word in ("--task", task)]
    return arguments + [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]


@contextlib.contextmanager
def watched(enter: Callable[[str], None], leave: Callable[[str], None]) -> Iterator[None]:
    """Calls ``enter`` and ``leave`` around every call of every stage, until the block ends."""
    undo = []
    try:
        for stage, where in STAGES.items():
            module, _, path = where.partition(":")
            *outer, name = path.split(".")
            owner = functools.reduce(getattr, outer, import_module(module))
            function = getattr(owner, name)
            call = _watch(function, stage, enter, leave)
            # Modules that imported a plain function by name hold a reference to it, too.
            holders = [owner] if outer else [m for m in _ours() if getattr(m, name, None) is function]
            for holder in holders:
                setattr(holder, name, call)
                undo.append((holder, name, function))
        yield
    finally:
        for holder, name, function in undo:
            setattr(holder, name, function)


def _ours() -> list[Any]:
    return [module for name, module in sys.modules.items() if name.startswith("harness.") and module is not None]


def _watch(function: Callable, stage: str, enter: Callable[[str], None], leave: Callable[[str], None]) -> Callable:
    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        enter(stage)
        try:
            return function(*arguments, **named)
        finally:
            leave(stage)

    return call


def snapshot(results: Path) -> dict[str, Any]:
    """What must not depend on interruptions: weights, completions, and records without their times, by file."""
    contents: dict[str, Any] = {}
    for path in sorted((results / "work/trained").glob("*/*")):
        if path.name == "training.json":
            facts = json.loads(path.read_text("utf-8"))
            for row in facts["curve"]:
                row.pop("seconds")
            contents[f"{path.parent.name}/curve"] = facts["curve"]
            contents[f"{path.parent.name}/cost"] = _without(facts["cost"], SPENT)
        elif path.name == "README.md":  # the model card, which also states times
            lines = path.read_text("utf-8").splitlines()
            contents[f"{path.parent.name}/card"] = [x for x in lines if not any(f"`{word}`" in x for word in SPENT)]
        else:
            contents[f"{path.parent.name}/{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted((results / "completions").glob("*.jsonl")):
        contents[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted((results / "records").rglob("*.json")):
        record = _without(json.loads(path.read_text("utf-8")), TIMES)
        kept = {"cost": _without(record["cost"], SPENT), "provenance": _without(record["provenance"], CHECKOUT)}
        contents[path.name] = record | kept
    return contents


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Names under which two snapshots differ."""
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def _without(table: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in keys}


class JudgeHandler(BaseHTTPRequestHandler):
    """An OpenAI-compatible judge whose verdict is a function of the question; counts what it is asked."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Logs nothing."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = hashlib.sha256(json.dumps(body["messages"]).encode()).hexdigest()
        with self.server.lock:
            self.server.questions[key] = self.server.questions.get(key, 0) + 1
        letter = "ABC"[int(key, 16) % 3]
        message = {"role": "assistant", "content": f"[[{letter}]]"}
        usage = {"prompt_tokens": 10, "completion_tokens": 1}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        answer = {"object": "chat.completion", "model": body["model"], "choices": [choice], "usage": usage}
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(OSError):  # the client was killed
            self.wfile.write(content)

    def do_GET(self) -> None:
        with self.server.lock:
            content = json.dumps(self.server.questions).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def serve() -> None:
    """``python -m results.scripts.robustness.world``: runs the judge; prints its port, serves until killed."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), JudgeHandler)
    server.daemon_threads = True
    server.questions, server.lock = {}, threading.Lock()
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    sys.exit(serve())
