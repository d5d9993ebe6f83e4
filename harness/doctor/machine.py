"""Checks torch and its devices, the memory, and the sandbox for programs that a model wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from harness.doctor.finding import NOTE, OK, PROBLEM, Finding
from harness.errors import BadInput
from harness.estimate.memory_check import main_memory
from harness.sandbox.tiers import tier


def torch() -> Iterator[Finding]:
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
            found = f"cuda:{i} {facts.name}, {facts.total_memory / 2**30:.0f} GiB, {wide}"
            yield Finding("device", OK, found)
    elif torch.backends.mps.is_available():
        yield Finding("device", OK, "mps")
    elif torch.version.cuda and Path("/proc/driver/nvidia").exists():
        yield Finding("device", PROBLEM, "an NVIDIA driver, but torch sees no GPU", "match torch's CUDA and the driver")
    else:
        fix = "the micro world needs no GPU; real models do"
        yield Finding("device", NOTE, "cpu only", fix)


def memory() -> Iterator[Finding]:
    yield Finding("memory", OK, f"{main_memory() / 2**30:.1f} GiB for this process")


def sandbox() -> Iterator[Finding]:
    try:
        found = tier("C")
    except BadInput as error:
        yield Finding("sandbox", PROBLEM, str(error), "grade code on Linux; maths and instruction tasks work here")
        return
    try:
        tier()
    except BadInput as error:
        yield Finding("sandbox", PROBLEM, str(found), str(error).partition("; ")[2] or str(error))
        return
    if found.name == "C":
        yield Finding("sandbox", NOTE, str(found), "programs of a model run with limits only; see the README")
    else:
        yield Finding("sandbox", OK, str(found))
