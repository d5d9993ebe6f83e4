"""Checks what the harness needs on this machine and says how to fix what is missing. Changes nothing.

Every check yields findings about the software, the machine, the results folder, or external services such as hubs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import metadata, util
from pathlib import Path

from packaging.requirements import Requirement

from harness import data, registry
from harness.errors import PACKAGE, BadInput, install
from harness.estimate.memory_check import main_memory
from harness.records.record import installed_version
from harness.records.store import Store
from harness.sandbox.pool import tier
from harness.task import Dataset

OK, NOTE, PROBLEM = "ok", "note", "problem"


@dataclass(frozen=True)
class Finding:
    """``status`` is ok, note (only some commands need it) or problem (no run, or not the requested one, can work).

    ``fix`` says what to do; it is empty where nothing is needed.
    """

    name: str
    status: str
    found: str
    fix: str = ""


__all__ = ["NOTE", "OK", "PROBLEM", "Finding", "examine"]


def examine(results: Path) -> Iterator[Finding]:
    """Runs every check in turn. A check that raises is reported as a problem, and the others still run."""
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "python": check_python,
        "versions": check_versions,
        "torch": check_torch,
        "memory": check_memory,
        "sandbox": check_sandbox,
        "results": partial(check_results, results),
        "disk": partial(check_disk, results),
        "locks": partial(check_locks, results),
        "records": partial(check_records, results),
        "hubs": check_hubs,
        "data": check_data,
        "extras": check_extras,
    }
    for name, check in checks.items():
        try:
            yield from check()
        except Exception as error:  # one broken check must not hide the results of the others
            outcome = f"could not be checked ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
            yield Finding(name, PROBLEM, outcome, "fix what the message names, then run harness doctor again")


# Checks Python, the installed packages, the optional packages and the browser.

EXTRAS = {  # package: its extra, and the features that use it
    "peft": ("peft", "student.adapter, models given as an adapter"),
    "gguf": ("gguf", "models given as a GGUF file, harness fetch small"),
    "ray": ("ray", "harness sweep --executor ray"),
    "submitit": ("slurm", "harness sweep --executor slurm"),
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def check_python() -> Iterator[Finding]:
    """Reports the version only: an older Python could not have imported this file."""
    yield Finding("python", OK, f"{platform.python_version()}, {platform.platform()}")


def check_versions() -> Iterator[Finding]:
    """Compares installed packages with the requirements and, in a checkout, with the lock file."""
    bad = []
    try:
        requirements = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:
        yield Finding("versions", PROBLEM, f"{PACKAGE} is not installed", "pip install -e . in the checkout")
        return
    for line in requirements:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = installed_version(requirement.name)
        if version is None:
            bad.append(f"{requirement.name} is missing")
        elif not requirement.specifier.contains(version, prereleases=True):
            bad.append(f"{requirement.name} {version} is not {requirement.specifier}")
    if bad:
        yield Finding("versions", PROBLEM, "; ".join(bad), "pip install -e . in the checkout")
        return
    lock = Path(__file__).parents[1] / "requirements.lock"
    if not lock.is_file():
        yield Finding("versions", OK, "all requirements are met; there is no lock file to compare with")
        return
    locks = [lock, lock.with_name("requirements-torch.lock")]
    text = "\n".join(one.read_text("utf-8") for one in locks if one.is_file())
    lines = (line.split("#")[0].strip(" \\") for line in text.splitlines())
    pins = dict(line.split("==", 1) for line in lines if "==" in line)  # lines of hashes name no version
    other = [
        f"{name} {version} (lock: {pin})"
        for name, pin in ((n.split("[")[0], p.split(";")[0].strip()) for n, p in pins.items())
        if (version := installed_version(name)) is not None and version.partition("+")[0] != pin.partition("+")[0]
    ]
    if other:
        shown = ", ".join(other[:6]) + (f" and {len(other) - 6} more" if len(other) > 6 else "")
        fix = "pip install -r requirements.lock to reproduce published numbers"
        yield Finding("versions", NOTE, f"all requirements are met; {len(other)} differ from the lock: {shown}", fix)
    else:
        yield Finding("versions", OK, f"all requirements are met, {len(pins)} packages as in requirements.lock")


def check_extras() -> Iterator[Finding]:
    for name, (extra, use) in EXTRAS.items():
        if util.find_spec(name) is None:
            yield Finding(name, NOTE, "not installed", f"{install(extra)}, for {use}")
        else:
            yield Finding(name, OK, installed_version(name) or "installed")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        yield Finding("browser", NOTE, "no chromium", "only pictures and tests of the web page need one")
    else:
        yield Finding("browser", OK, Path(browser).name)


# Checks torch and its devices, the memory, and the sandbox for programs that a model wrote.


def check_torch() -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        yield Finding("torch", PROBLEM, f"cannot be imported ({error})", "pip install -r requirements.lock")
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("torch", OK, f"{torch.__version__}, {torch.get_num_threads()} threads on {cores} cores")
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(i)
            wide = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16: set training.precision=float32"
            card = f"cuda:{i} {facts.name}, {facts.total_memory / 2**30:.0f} GiB, {wide}"
            yield Finding("device", OK, card)
    elif torch.backends.mps.is_available():
        yield Finding("device", OK, "mps")
    elif torch.version.cuda and Path("/proc/driver/nvidia").exists():
        yield Finding("device", PROBLEM, "an NVIDIA driver, but torch sees no GPU", "match torch's CUDA and the driver")
    else:
        fix = "the micro world needs no GPU; real models do"
        yield Finding("device", NOTE, "cpu only", fix)


def check_memory() -> Iterator[Finding]:
    yield Finding("memory", OK, f"{main_memory() / 2**30:.1f} GiB for this process")


def check_sandbox() -> Iterator[Finding]:
    try:
        best = tier("C")
    except BadInput as error:
        yield Finding("sandbox", PROBLEM, str(error), "grade code on Linux; maths and instruction tasks work here")
        return
    try:
        tier()
    except BadInput as error:
        yield Finding("sandbox", PROBLEM, str(best), str(error).partition("; ")[2] or str(error))
        return
    if best.name == "C":
        yield Finding("sandbox", NOTE, str(best), "programs of a model run with limits only; see the README")
    else:
        yield Finding("sandbox", OK, str(best))


# Checks the results folder: write access, free space, locks and records.

DISK_NOTE, DISK_PROBLEM = 20e9, 1e9  # free bytes: a 1.5 B student's checkpoint takes 18 GB, the micro world's 2 MB


def check_results(folder: Path) -> Iterator[Finding]:
    try:
        Store(folder).check_writable()
    except BadInput as error:
        yield Finding("results", PROBLEM, str(error), "choose another folder with --results or HARNESS_RESULTS")
        return
    yield Finding("results", OK, f"{folder} can be written")


def _existing(folder: Path) -> Path:
    return next(p for p in (folder, *folder.absolute().parents) if p.exists())


def check_disk(results: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(_existing(results)).free
    free_space = f"{free / 1e9:.1f} GB free at {results}"
    if free < DISK_PROBLEM:
        yield Finding("disk", PROBLEM, free_space, "free some space, or choose another folder with --results")
    elif free < DISK_NOTE:
        yield Finding(
            "disk", NOTE, free_space, "enough for the micro world; checkpoints of real models need 12 bytes a weight"
        )
    else:
        yield Finding("disk", OK, free_space)


def check_locks(results: Path) -> Iterator[Finding]:
    """Tries every lock. The kernel frees the lock of a process that died, so a leftover file means nothing."""
    from filelock import FileLock, Timeout

    locked, files = [], [*results.glob("work/**/*.lock"), *results.glob(".lock")]
    for file in files:
        lock = FileLock(file, timeout=0)
        try:
            with lock:
                pass
        except Timeout:
            locked.append(file.stem)
        except (OSError, NotImplementedError) as error:
            fix = "choose a results folder on a local disk or on a file system that supports flock"
            yield Finding("locks", PROBLEM, f"{file} cannot be locked ({error})", fix)
            return
    pending = sorted(results.glob("work/training/*/"))
    size = sum(p.stat().st_size for folder in pending for p in folder.rglob("*") if p.is_file())
    summary = f"{len(locked)} held by running work, {len(files) - len(locked)} free (files of ended runs are harmless)"
    if pending:
        fix = f"run their commands again to continue; delete {results / 'work/training'} to discard them"
        unfinished = f"{summary}; {len(pending)} unfinished training{'s' * (len(pending) != 1)}, {size / 1e9:.2f} GB"
        yield Finding("locks", NOTE if len(locked) < len(pending) else OK, unfinished, fix)
    else:
        yield Finding("locks", OK, summary)


def check_records(results: Path) -> Iterator[Finding]:
    sound, warnings = Store(results).all()
    damaged = [w for w in warnings if ": left out: " in w]
    if damaged:
        counted = f"{len(sound)} sound, {len(damaged)} damaged: {damaged[0]}"
        yield Finding("records", NOTE, counted, "restore the file from a copy, or run again with --again")
    else:
        yield Finding("records", OK, f"{len(sound)} sound")
    latest = max((datetime.fromisoformat(r["created"]) for r in sound), default=None)
    if latest is not None and latest > datetime.now(UTC) + timedelta(minutes=5):
        fix = "set the clock; records are ordered by attempt, not by time"
        yield Finding("clock", NOTE, f"a record was made in the future ({latest.isoformat()})", fix)


# Checks what is downloaded: whether the hubs answer, and which benchmark files are already on this machine.


def check_hubs() -> Iterator[Finding]:
    if hub := data.model_hub():
        yield _answers("model hub", hub, "give model folders")
    else:
        yield Finding(
            "model hub", NOTE, "HF_HUB_OFFLINE is set", "models come from folders and the cache; unset to download"
        )
    yield _answers("data hub", os.environ.get("HARNESS_HUB", data.HUB), "put the files below HARNESS_DATA")


def _answers(name: str, url: str, instead: str) -> Finding:
    if reason := data.refusal(url):
        return Finding(name, NOTE, f"{url} cannot be reached ({reason})", f"{instead}, or allow the connection")
    return Finding(name, OK, f"{url} answers")


def check_data() -> Iterator[Finding]:
    root = data.folder()
    if root is not None and not root.is_dir():
        yield Finding(
            "data", PROBLEM, f"HARNESS_DATA={root} is not a folder", "set it to the folder that holds the files"
        )
    missing, other, right = [], [], 0
    for dataset in _datasets():
        file = root / dataset.local if root is not None else None
        if file is None or not file.is_file():
            if data.at_hand(dataset):
                right += 1
            else:
                missing.append(dataset.local)
        elif hashlib.sha256(file.read_bytes()).hexdigest() == dataset.sha256:
            right += 1
        else:
            other.append(dataset.local)
    counted = f"{right} benchmark files as pinned"
    if other:
        fix = "scores on them are marked unpinned and listed in a separate table; fetch the pinned files"
        yield Finding("data", NOTE, f"{len(other)} files are not the pinned ones: {', '.join(other)}", fix)
    if missing:
        fix = "they are downloaded when needed; or put them below HARNESS_DATA (see harness show task NAME)"
        yield Finding("data", NOTE, f"{counted}, {len(missing)} missing: {', '.join(missing)}", fix)
    else:
        yield Finding("data", OK, counted)


def _datasets() -> list[Dataset]:
    by_path = {}
    for entry in registry.entries(registry.TASKS):
        with contextlib.suppress(BadInput):  # a plugin that does not load names no file
            dataset = registry.find(registry.TASKS, entry.name).dataset
            by_path[dataset.local] = dataset
    return [by_path[name] for name in sorted(by_path)]
