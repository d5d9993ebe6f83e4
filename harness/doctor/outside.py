"""Checks what is downloaded: whether the hubs answer, and which benchmark files are already on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from harness import data as files
from harness import reach, registry
from harness.doctor.finding import NOTE, OK, PROBLEM, Finding
from harness.errors import BadInput
from harness.task import Dataset


def hubs() -> Iterator[Finding]:
    if hub := reach.model_hub():
        yield _answers("model hub", hub, "give model folders")
    else:
        yield Finding(
            "model hub", NOTE, "HF_HUB_OFFLINE is set", "models come from folders and the cache; unset to download"
        )
    yield _answers("data hub", os.environ.get("HARNESS_HUB", files.HUB), "put the files below HARNESS_DATA")


def _answers(name: str, url: str, instead: str) -> Finding:
    if reason := reach.refusal(url):
        return Finding(name, NOTE, f"{url} cannot be reached ({reason})", f"{instead}, or allow the connection")
    return Finding(name, OK, f"{url} answers")


def data() -> Iterator[Finding]:
    root = os.environ.get("HARNESS_DATA")
    if root and not Path(root).is_dir():
        yield Finding(
            "data", PROBLEM, f"HARNESS_DATA={root} is not a folder", "set it to the folder that holds the files"
        )
    missing, other, right = [], [], 0
    for dataset in _datasets():
        file = Path(root) / dataset.local if root else None
        if file is None or not file.is_file():
            if files.at_hand(dataset):
                right += 1
            else:
                missing.append(dataset.local)
        elif hashlib.sha256(file.read_bytes()).hexdigest() == dataset.sha256:
            right += 1
        else:
            other.append(dataset.local)
    found = f"{right} benchmark files as pinned"
    if other:
        fix = "scores on them are marked unpinned and listed in a separate table; fetch the pinned files"
        yield Finding("data", NOTE, f"{len(other)} files are not the pinned ones: {', '.join(other)}", fix)
    if missing:
        fix = "they are downloaded when needed; or put them below HARNESS_DATA (see harness show task NAME)"
        yield Finding("data", NOTE, f"{found}, {len(missing)} missing: {', '.join(missing)}", fix)
    else:
        yield Finding("data", OK, found)


def _datasets() -> list[Dataset]:
    found = {}
    for entry in registry.entries(registry.TASKS):
        with contextlib.suppress(BadInput):  # a plugin that does not load names no file
            dataset = registry.find(registry.TASKS, entry.name).dataset
            found[dataset.local] = dataset
    return [found[name] for name in sorted(found)]
