"""The archive: immutable result records and the completions they were scored on.

    <root>/records/<task>/<method[@variant]>/<run_id>.json     one record, one file, never changed
    <root>/completions/<run_id>.jsonl[.gz]                     its completions with their verdicts, plain or packed

Nothing is overwritten: a repeated run appends another ``attempt`` of the same ``identity``, and readers use the latest.
Several processes may write at once, and a killed one leaves no partial record.
"""

from __future__ import annotations

import contextlib
import gc
import glob
import gzip
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import metrics, safe_read
from harness.durable import write
from harness.errors import BadInput, RunFailed, unknown
from harness.records.examined import Examined
from harness.records.record import (
    SCHEMA_VERSION,
    Record,
    content_hash,
    examine,
    form,
    label,
    load,
    method_label,
    validate,
)

PACKED = ".gz"  # suffix of packed completions


def no_records(root: Path | str) -> BadInput:
    """The error of a command that needs records, for a results folder without any."""
    return BadInput(f"no records in {root}; harness run creates them, --results names another folder")


class Store:
    """The records below one folder. Raises BadInput if ``root`` is not a path."""

    def __init__(self, root: Path | str):
        if not isinstance(root, (str, os.PathLike)) or not str(root):
            raise BadInput(f"{root!r:.80} is no results folder; give the path of one")
        self.root = Path(root)
        self.records_dir = self.root / "records"
        self.completions_dir = self.root / "completions"

    def all(self) -> tuple[list[Record], list[str]]:
        """Every sound record, and a warning for each file left out (malformed, edited, unknown schema, a second copy).

        Another warning names the records whose completions are missing; they are not left out.
        """
        pairs: list[tuple[Path, Record]] = []
        warnings: list[str] = []
        bare: list[Path] = []
        known = Examined(self.root, form())
        with _garbage_kept():
            for path in self._files("*"):
                record, fault = self._read(path, known, bare)
                if record is None:
                    warnings.append(f"{path}: left out: {fault}")
                else:
                    pairs.append((path, record))
            known.keep()
        records, copies = self._without_copies(pairs)
        return records, warnings + copies + _without_completions(bare)

    def _read(self, path: Path, known: Examined, bare: list[Path]) -> tuple[Record | None, str]:
        """The record in ``path``, or None and the reason why it or its completions cannot be trusted.

        ``bare`` gets the paths of records without completions.
        """
        if known.knows(str(path)):
            record, fault = json.loads(path.read_bytes()), ""
        else:
            record, fault = examine(path, self.root)
        if record is None:
            return None, fault
        known.found_sound(str(path))
        completions, checksum = self._completions_path(record), record["completions"]["sha256"]
        if known.knows(completions, checksum):
            return record, ""
        if fault := self._edited(record):
            return None, fault
        if os.path.lexists(completions):
            known.found_sound(completions, checksum)
        else:
            bare.append(path)
        return record, ""

    def _without_copies(self, pairs: list[tuple[Path, Record]]) -> tuple[list[Record], list[str]]:
        """One record for each run id, and for each identity and attempt; a warning for every other.

        A record at the path given by its content wins over copies of it; otherwise the first by name is used.
        """
        names = {record["run_id"] for _, record in pairs}
        if len(names) == len({_attempt(record) for _, record in pairs}) == len(pairs):
            return [record for _, record in pairs], []
        owners: dict[Any, Path] = {}
        taken: set[Path] = set()
        warnings = []
        for path, record in sorted(pairs, key=lambda one: one[0] != self.path_of(one[1])):  # stable: by name within
            claims = (record["run_id"], _attempt(record))
            if owner := next((owners[claim] for claim in claims if claim in owners), None):
                run = f"{record['run_id']}, attempt {record['attempt']}"
                warnings.append(f"{path}: left out: {owner} is the same run ({run}); remove one of them")
                continue
            owners |= dict.fromkeys(claims, path)
            taken.add(path)
        return [record for path, record in pairs if path in taken], warnings

    def find(self, identity: str) -> Record | None:
        """The latest attempt at ``identity``. Raises BadInput when a file of that identity is not sound."""
        candidates = [(path, load(path, self.root)) for path in self._files(f"*{identity[:8]}*")]
        mine = [(path, record) for path, record in candidates if record["identity"] == identity]
        return max(self._without_copies(mine)[0], key=lambda record: record["attempt"], default=None)

    def holds(self, run_id: str) -> bool:
        """Whether a record of this run id exists, sound or not."""
        return bool(self._files(glob.escape(run_id)))

    def next_attempt(self, identity: str) -> tuple[int, str | None]:
        """The attempt number and the superseded run id for running ``identity`` again.

        Reads file names only, so that an attempt whose file is damaged can be superseded too.
        """
        attempts = {}
        for path in self._files(f"*-{identity[:8]}*"):
            if name := re.fullmatch(rf".*-{identity[:8]}(?:-r(\d+))?", path.stem):
                attempts[int(name[1] or 0)] = path.stem
        return (max(attempts) + 1, attempts[max(attempts)]) if attempts else (0, None)

    def get(self, name: str | Path) -> Record:
        """The record ``name``: a run id, the beginning of exactly one run id, or a file."""
        name = str(name)
        if os.path.isfile(name):
            return load(Path(name))
        if os.sep in name or name.endswith(".json"):
            raise BadInput(f"{name}: no such record file")
        files = self._files(f"{glob.escape(name)}*")
        matches = [path for path in files if path.stem == name] or files
        if len(matches) == 1:
            return load(matches[0], self.root)
        if matches:
            names = ", ".join(path.stem for path in matches[:5])
            raise BadInput(f"{name!r} is the beginning of {len(matches)} run ids: {names}")
        known = [path.stem for path in self._files("*")]
        if not known:
            raise BadInput(f"no record {name!r}: {self.records_dir} holds none")
        raise unknown("record", name, known)

    def completions(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The stored completions with their verdicts. Raises BadInput if they are missing or were changed."""
        entry, path = record["completions"], self.completions_file(record)
        try:
            content = self._unpacked(path)
        except BadInput as error:
            raise BadInput(f"{path}: completions of {record['run_id']}: {error}") from None
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise BadInput(f"{path}: differs from what {record['run_id']} was scored on; restore the file")
        try:
            scale = metrics.scale_of(record)
            return [_checked_row(number, row, scale) for number, row in safe_read.rows(content)]
        except BadInput as error:
            raise BadInput(f"{path}:{error}") from None

    def _edited(self, record: Mapping[str, Any]) -> str:
        """How the stored completions differ from the scored ones, or ""; also "" if they are missing."""
        entry, path = record["completions"], self.completions_file(record)
        if not os.path.lexists(path):
            return ""
        try:
            content = self._unpacked(path)
            if hashlib.sha256(content).hexdigest() != entry["sha256"]:
                return f"its completions in {path} are not those it was scored on (sha256 differs)"
            safe_read.text(content)
        except BadInput as error:
            return f"its completions in {path}: {error}"
        return ""

    def completions_file(self, record: Mapping[str, Any]) -> Path:
        """The file of the completions of ``record``: the one that it names, or its packed form from :func:`pack`."""
        return Path(self._completions_path(record))

    def _completions_path(self, record: Mapping[str, Any]) -> str:
        plain = os.path.join(self.root, record["completions"]["file"])
        packed = plain + PACKED
        return packed if not os.path.lexists(plain) and os.path.lexists(packed) else plain

    def _unpacked(self, path: Path) -> bytes:
        content = safe_read.content(path, safe_read.LARGE, self.root)
        return safe_read.unpacked(content) if path.name.endswith(PACKED) else content

    def pack(self) -> tuple[int, int]:
        """Packs the completions of every sound record that are not packed yet. Returns the bytes before and after.

        Records contain the checksum of the unpacked bytes, so none changes. The plain file is removed only after the
        packed one is written and verified to unpack to the same bytes. After an interrupt the same call continues.
        """
        before = after = 0
        for record in self.all()[0]:
            path = self.completions_file(record)
            if path.name.endswith(PACKED) or not path.is_file():
                continue
            content = safe_read.content(path, safe_read.LARGE, self.root)
            packed = gzip.compress(content, 9, mtime=0)  # without a date: equal completions give equal files
            if safe_read.unpacked(packed) != content:
                raise RunFailed(f"{path}: unpacking does not give the same bytes; the plain file is kept")
            write(path.with_name(path.name + PACKED), packed)
            path.unlink()
            before, after = before + len(content), after + len(packed)
        return before, after

    def path_of(self, record: Mapping[str, Any]) -> Path:
        """The path of ``record``."""
        folder = self.records_dir / label(record["task"]) / label(method_label(record["method"]))
        return folder / f"{record['run_id']}.json"

    def check_writable(self) -> None:
        """Raises BadInput if records cannot be written here. Leaves nothing behind."""
        for folder in (self.records_dir, self.completions_dir):
            try:
                # A link that leads nowhere, or to itself, does not exist, but blocks creating a folder in its place.
                existing = next(p for p in (folder, *folder.parents) if p.exists() or p.is_symlink())
                with tempfile.TemporaryFile(dir=existing):
                    pass
            except OSError as error:
                raise BadInput(
                    f"results cannot be written to {self.root} ({error.strerror}); choose another folder with --results"
                ) from None

    def add(self, record: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> Path:
        """Seals ``record``, stores it with its completions, and returns its file.

        ``record`` lacks ``schema_version``, ``created``, ``completions`` and ``content_sha256``, which are set here. If
        the run id exists already (another process was faster), writes nothing and returns the file of the existing
        record. Raises RunFailed if the record does not fit the schema or cannot be written.
        """
        from filelock import FileLock

        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        content = _encode("".join(lines))
        completions = self.completions_dir / f"{record['run_id']}.jsonl"
        sealed = {
            **_plain(record),
            "schema_version": SCHEMA_VERSION,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "completions": {
                "file": completions.relative_to(self.root).as_posix(),
                "sha256": hashlib.sha256(content).hexdigest(),
                "n": len(lines),
            },
        }
        validate(sealed | {"content_sha256": "0" * 64})
        sealed["content_sha256"] = content_hash(sealed)
        path = self.path_of(sealed)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root / ".lock"):
                if not path.exists():
                    # Write the record last: without it, nothing refers to the completions.
                    write(completions, content)
                    write(path, _encode(json.dumps(sealed, indent=2, ensure_ascii=False) + "\n"))
        except OSError as error:
            raise RunFailed(f"record {record['run_id']} could not be written to {self.root} ({error})") from None
        return path

    def _files(self, pattern: str) -> list[Path]:
        return sorted(self.records_dir.rglob(f"{pattern}.json"), key=lambda path: str(path).removesuffix(".json"))


@contextlib.contextmanager
def _garbage_kept() -> Iterator[None]:
    """Pauses the garbage collector, which would traverse all records read so far repeatedly (a third of the time)."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


_ROW = {"problem_id": str, "text": str, "reason": str, "finish": str, "error": bool, "score": (int, float)}


def _checked_row(number: int, row: dict[str, Any], scale: metrics.Scale) -> dict[str, Any]:
    """A completion with the fields that tables, pages and exports read. Raises BadInput with line and field."""
    for key, kind in _ROW.items():
        if not isinstance(row.get(key), kind):
            raise BadInput(f"{number}: {key!r} is missing or of a wrong type")
    for key in ("sample", "tokens"):
        if type(row.get(key, 0)) is not int or not 0 <= row.get(key, 0) < 2**53:
            raise BadInput(f"{number}: {key!r} is not a count")
    if not isinstance(row.get("extracted"), str | None):
        raise BadInput(f"{number}: 'extracted' is of a wrong type")
    if not scale.holds(row["score"]) and not (row["error"] and row["score"] == 0):
        raise BadInput(f"{number}: 'score' is not a number from {scale.low:g} to {scale.high:g}")
    return row


def _attempt(record: Record) -> tuple[str, int]:
    return record["identity"], record["attempt"]


def _without_completions(paths: list[Path]) -> list[str]:
    """A warning that names the first of the records whose completions are missing."""
    if not paths:
        return []
    more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
    what = "the completions are missing; tables show the score, but paired tests leave it out"
    return [f"{', '.join(path.stem for path in paths[:5])}{more}: {what}"]


def _plain(record: Mapping[str, Any]) -> Record:
    """``record`` as it will be read back: tuples become lists."""
    try:
        return json.loads(json.dumps(record, allow_nan=False))
    except ValueError:
        raise RunFailed(f"record {record['run_id']} holds a number that is not finite") from None


def _encode(text: str) -> bytes:
    # A lone surrogate in sampled text becomes its JSON escape, so that every text survives the round trip.
    return text.encode("utf-8", "backslashreplace")
