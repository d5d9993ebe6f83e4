"""Benchmark files: found below ``HARNESS_DATA`` or fetched once, at a pinned commit, and checked.

Every file comes from a local copy in the documented layout, or from its public repository. The hub's
address can be replaced by a mirror with ``HARNESS_HUB``; the checksum decides whether the file is right.
"""

from __future__ import annotations

import functools
import hashlib
import os
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness import durable, safe_read
from harness.errors import PACKAGE, BadInput
from harness.task import Data, Dataset

HUB = "https://raw.githubusercontent.com"
DATA_HUB = "https://huggingface.co"
FETCH_TIMEOUT_S = 30


def read(dataset: Dataset) -> Data:
    """The rows of ``dataset``. Raises BadInput naming both ways to get the file when neither works."""
    path, content = _content(dataset)
    sha256 = hashlib.sha256(content).hexdigest()
    rows = parse(content, path)
    pinned = sha256 == dataset.sha256
    source = f"{dataset.repository}/{dataset.path}@{dataset.commit[:12]}" if pinned else f"unpinned {dataset.local}"
    return Data(rows=rows, sha256=sha256, source=source)


def folder() -> Path | None:
    """The user's folder of benchmark files, ``HARNESS_DATA``; None where there is none."""
    root = os.environ.get("HARNESS_DATA")
    return Path(root) if root else None


def _own(dataset: Dataset) -> Path | None:
    """The file of a dataset in the user's folder; None if it is missing."""
    root = folder()
    return root / dataset.local if root is not None and (root / dataset.local).is_file() else None


def at_hand(dataset: Dataset) -> bool:
    """Whether :func:`read` would find the file without a download."""
    return _own(dataset) is not None or _cached(dataset).is_file()


def _content(dataset: Dataset) -> tuple[Path, bytes]:
    if (path := _own(dataset)) is not None:
        return path, _bytes(path)
    cached = _cached(dataset)
    if cached.is_file():
        content = _bytes(cached)
        if hashlib.sha256(content).hexdigest() == dataset.sha256:
            return cached, content
    return cached, _fetch(dataset, cached)


def _cached(dataset: Dataset) -> Path:
    return cache_dir() / "datasets" / dataset.sha256[:16] / Path(dataset.path).name


def _address(dataset: Dataset) -> str:
    """The address of the pinned file: on GitHub, or for ``hf:datasets/owner/name`` on the hub of data sets."""
    where, place, name = dataset.repository.rpartition("hf:")
    if place and not where:
        return f"{_model_hub()}/{name}/resolve/{dataset.commit}/{dataset.path}"
    return f"{os.environ.get('HARNESS_HUB', HUB)}/{dataset.repository}/{dataset.commit}/{dataset.path}"


def _fetch(dataset: Dataset, target: Path) -> bytes:
    url = _address(dataset)
    try:
        if reason := unreached(url):
            raise OSError(reason)
        with urllib.request.urlopen(url, timeout=FETCH_TIMEOUT_S) as answer:
            content = answer.read()
    except (urllib.error.URLError, TimeoutError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise BadInput(
            f"no data for {dataset.local}: put the file at $HARNESS_DATA/{dataset.local}, "
            f"or allow the download of {url} ({reason})"
        ) from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != dataset.sha256:
        raise BadInput(f"{url} has sha256 {digest[:16]}…, not the pinned {dataset.sha256[:16]}…; nothing was kept")
    durable.write(target, content)
    return content


def parse(content: bytes, path: Path) -> list[Mapping[str, Any]]:
    """Rows of a ``.jsonl``, ``.json`` (a list) or gzipped file. Raises BadInput with file and line."""
    try:
        raw = safe_read.unpacked(content) if path.name.endswith(".gz") else content
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    if ".jsonl" in path.name:
        return list(json_lines(raw, path))
    try:
        rows = safe_read.value(raw, finite=False)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadInput(f"{path}: expected a JSON list of objects")
    return rows


def json_lines(raw: bytes, path: Path | str) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file. Raises BadInput with file and line for anything else."""
    try:
        yield from (row for _, row in safe_read.rows(raw, finite=False))
    except BadInput as error:
        raise BadInput(f"{path}:{error}") from None


def _bytes(path: Path) -> bytes:
    try:
        return safe_read.content(path, safe_read.LARGE)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None


def cache_dir() -> Path:
    """Where downloads and built worlds are kept: ``HARNESS_CACHE`` or the user's cache folder."""
    if "HARNESS_CACHE" in os.environ:
        return Path(os.environ["HARNESS_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / PACKAGE


# Whether a hub answers, within seconds: an unreachable hub gives a line at once instead of minutes of retries.

HUB_TIMEOUT_S = 6.0


def refusal(url: str) -> str:
    """Why nothing answers at ``url``; "" if something does, even with an error status or an unknown certificate.

    Sends one request, without a retry. A thread bounds the wait, because name resolution ignores the timeout of a
    socket: with a dead name server each look-up takes 10 to 40 seconds, and hub clients look names up several times.
    """
    answer: list[str] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=HUB_TIMEOUT_S):
                answer.append("")
        except urllib.error.HTTPError:
            answer.append("")
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            answer.append("" if isinstance(reason, ssl.SSLError) else str(reason) or type(error).__name__)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_TIMEOUT_S + 1)
    return answer[0] if answer else f"no answer in {HUB_TIMEOUT_S:g} s"


def _model_hub() -> str:
    return os.environ.get("HF_ENDPOINT", DATA_HUB)


def model_hub() -> str:
    """The address of the hub of models and data sets; "" if its client is set to offline."""
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    return "" if offline else _model_hub()


def model_hub_away() -> str:
    """The message that the hub of models cannot be reached, and why; "" if it answers or its client is offline."""
    hub = model_hub()
    reason = unreached(hub) if hub else ""
    return f"the hub {hub} cannot be reached ({reason})" if reason else ""


def otherwise(model: str, away: str) -> str:
    """How to get a model that the hub did not deliver; ``away`` is :func:`model_hub_away`."""
    if away or not model_hub():
        return f"download it where the hub answers (hf download {model} --local-dir DIR) and name DIR"
    return "check its name, and run hf auth login if it asks for consent"


def unreached(url: str) -> str:
    """:func:`refusal` of the server of an address, asked once per process; "" for a local file."""
    parts = urlsplit(url)
    return "" if parts.scheme == "file" else _asked_once(f"{parts.scheme}://{parts.netloc}")


@functools.cache
def _asked_once(origin: str) -> str:
    return refusal(origin)
