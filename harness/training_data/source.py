"""Opens a source of training rows: a file, a folder, or a data set of the hub.

    prompts.jsonl                                      .json, .jsonl, .parquet, .csv or .tsv, the text ones also .gz
    data:gsm8k/train.jsonl                             the same below HARNESS_DATA
    my_dataset/                                        written by save_to_disk, or a folder of data files
    owner/name,config=main,split=train,revision=SHA    a data set of the hub, through the datasets library
    ...,first=1000                                     only the first rows of any source

JSON and CSV are read here, so that messages name the file and the row; everything else goes through ``datasets`` and
``pyarrow``. Code of a data set is never run.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from harness import data, safe_read
from harness.data import json_lines
from harness.errors import BadInput, unknown

BELOW_DATA = "data:"
SETTINGS = ("config", "split", "revision", "first")
KINDS = (".json", ".jsonl", ".parquet", ".csv", ".tsv")
DEFAULT_SPLIT = "train"
MOST_ENTRIES = 10_000  # entries in a folder of data files; the library reads each name several times
_LONGEST_CELL = 2**31 - 1  # characters of a CSV cell; Python's default of 131,072 is too small for a long answer


@dataclass(frozen=True)
class Rows:
    """The rows of a source, in order. ``name`` is for messages; ``facts`` describe the opened data."""

    name: str
    columns: tuple[str, ...]
    rows: Sequence[Mapping[str, Any]]
    facts: Mapping[str, str | int | None] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceName:
    """The parsed name of a source in a recipe."""

    name: str
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    first: int | None = None

    @property
    def is_hub(self) -> bool:
        """Whether the name can only be a data set of the hub."""
        return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", self.name)) and kind_of(self.name) is None

    def without(self, *names: str) -> None:
        """Raises BadInput for a setting that this source does not support."""
        for name in names:
            if getattr(self, name) is not None:
                raise BadInput(f"training data {self.name}: {name} is only for data sets of the hub; remove it")


def parse(written: str) -> SourceName:
    """The parts of ``NAME,key=value,...``. Raises BadInput for an unknown key or a malformed number."""
    if os.path.exists(written):  # a file name may contain commas
        return SourceName(written)
    name, *settings = re.split(r",(?=\w+=)", written)
    values: dict[str, Any] = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in SETTINGS:
            raise BadInput(f"training data {written}: {unknown('setting', key, SETTINGS)}")
        if not value:
            raise BadInput(f"training data {written}: {key} is empty")
        values[key] = value
    if "first" in values:
        if not values["first"].isascii() or not values["first"].isdigit() or int(values["first"]) < 1:
            raise BadInput(f"training data {written}: first={values['first']} is not a whole number from 1 on")
        values["first"] = int(values["first"])
    return SourceName(name, **values)


def kind_of(name: str) -> str | None:
    """The suffix of a data file, compressed or not; None for anything else."""
    bare = name.lower().removesuffix(".gz")
    return next((kind for kind in KINDS if bare.endswith(kind)), None)


def open_rows(written: str, limit: int | None = None) -> Rows:
    """At most ``limit`` rows of a source. Raises BadInput with file and row for unreadable data."""
    address = parse(written)
    limit = min((n for n in (limit, address.first) if n is not None), default=None)
    path = _path(address)
    if path.is_dir():
        address.without("revision")
        return _folder(address, path, limit)
    if path.is_file() or not address.is_hub or address.name.startswith(BELOW_DATA):
        address.without("config", "split", "revision")
        return _file(address, path, limit)
    return _hub(address, limit)


def _path(address: SourceName) -> Path:
    if not address.name.startswith(BELOW_DATA):
        return Path(address.name)
    root = data.folder()
    if root is None:
        raise BadInput(f"{address.name} is relative to HARNESS_DATA, which is not set; set it, or give a file")
    return root / address.name.removeprefix(BELOW_DATA)


def _file(address: SourceName, path: Path, limit: int | None) -> Rows:
    try:
        content = safe_read.content(path, safe_read.LARGE)
    except BadInput as error:
        where = "" if path.exists() else "; neither a file, nor a folder, nor a data set owner/name of the hub"
        raise BadInput(f"training data {address.name}: {error}{where}") from None
    kind = kind_of(path.name)
    if kind is None:
        raise BadInput(f"training data {address.name}: is none of {', '.join(KINDS)} (the text ones also .gz)")
    if kind == ".parquet":
        return _checked(_parquet(content, path, limit), path.name)
    try:
        raw = safe_read.unpacked(content) if path.name.lower().endswith(".gz") else content
        if kind in (".csv", ".tsv"):
            return _checked(_csv(safe_read.text(raw), path, "," if kind == ".csv" else "\t", limit), path.name)
    except BadInput as error:
        raise BadInput(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    return _checked(_json(raw, path, kind, limit), path.name)


def _json(raw: bytes, path: Path, kind: str, limit: int | None) -> list[dict[str, Any]]:
    """The objects of a JSON list, or of JSON lines, which many .json files contain."""
    start = raw.removeprefix(safe_read.BYTE_ORDER_MARK).lstrip()[:1]
    if kind == ".jsonl" or start == b"{":
        return list(islice(json_lines(raw, path), limit))
    try:
        rows = safe_read.value(raw, finite=False)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    if not isinstance(rows, list):
        raise BadInput(f"{path}: expected a JSON list of objects, or one object a line")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise BadInput(f"{path}: row {number} is {type(row).__name__}, not a JSON object")
    return rows[:limit]


def _csv(text: str, path: Path, delimiter: str, limit: int | None) -> list[dict[str, str]]:
    """The rows of a table whose first line names the columns; every cell is text."""
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[dict[str, str]] = []
    try:
        header = next(reader, [])
        if len(set(header)) < len(header):
            twice = next(name for name in header if header.count(name) > 1)
            raise BadInput(f"{path}: the first line names the column {twice!r} twice")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise BadInput(
                    f"{path}: row {len(rows) + 1} (line {reader.line_num}) has {len(cells)} cells, "
                    f"the first line {len(header)}"
                )
            rows.append(dict(zip(header, cells, strict=True)))
            if len(rows) == limit:
                break
    except csv.Error as error:
        raise BadInput(f"{path}: row {len(rows) + 1} (line {reader.line_num}) is not CSV ({error})") from None
    return rows


def _parquet(content: bytes, path: Path, limit: int | None) -> list[dict[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    rows: list[dict[str, Any]] = []
    try:
        for batch in parquet.ParquetFile(pyarrow.BufferReader(content)).iter_batches(1000):
            rows += batch.to_pylist()
            if limit is not None and len(rows) >= limit:
                break
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise BadInput(f"{path}: is not a readable parquet file ({_first_line(error)})") from None
    return rows[:limit]


def _checked(rows: Sequence[Mapping[str, Any]], name: str, facts: Mapping[str, Any] | None = None) -> Rows:
    columns = tuple(dict.fromkeys(key for row in rows for key in row))
    return Rows(name, columns, rows, dict(facts or {}))


def _folder(address: SourceName, path: Path, limit: int | None) -> Rows:
    """A folder from ``save_to_disk``, or with data files in a layout that the datasets library knows."""
    import datasets

    _quiet(datasets)
    saved = any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))
    try:
        if saved:
            address.without("config")
            opened = datasets.load_from_disk(str(path))
        else:
            _bounded(path)
            opened = datasets.load_dataset(str(path), address.config)
    except BadInput:
        raise
    except Exception as error:  # the library raises errors of its readers: arrow's, JSON's, its own
        raise BadInput(f"{path}: the datasets library cannot read the folder ({_cause(error)})") from None
    return _of_dataset(opened, address, path.name, limit, {})


def _bounded(path: Path) -> None:
    """Raises BadInput for a folder with too many entries, such as a home folder or a disk."""
    entries = 0
    for _, folders, files in os.walk(path, followlinks=True):  # the library follows links, too
        entries += len(folders) + len(files)
        if entries > MOST_ENTRIES:
            raise BadInput(
                f"training data {path}: the folder has more than {MOST_ENTRIES:,} files; give the folder or the file "
                "of the data alone, or what save_to_disk wrote"
            )


def _hub(address: SourceName, limit: int | None) -> Rows:
    import datasets
    from huggingface_hub import HfApi

    _quiet(datasets)
    away = data.model_hub_away() if data.model_hub() else "HF_HUB_OFFLINE is set"
    if away:
        commit, opened = address.revision, _from_cache(address, away)
    else:
        try:
            # Ask for the commit first, so that the recorded commit is the one that is read.
            commit = HfApi().dataset_info(address.name, revision=address.revision).sha
            opened = datasets.load_dataset(address.name, address.config, revision=commit)
        except Exception as error:  # the hub client and the library raise dozens of unrelated types
            raise BadInput(
                f"training data {address.name} is neither a file nor a folder, and the hub did not deliver it: "
                f"{_cause(error)}"
            ) from None
    newest = "" if address.revision else " (the newest; pin it with revision=)"
    return _of_dataset(opened, address, address.name + newest, limit, {"revision": commit, "config": address.config})


def _from_cache(address: SourceName, away: str) -> Any:
    """The data set at a commit that is cached on this machine. Raises BadInput if it is not.

    Not ``load_dataset``: without a hub it returns the commit that was read last, whichever is requested.
    """
    import datasets
    from datasets.naming import camelcase_to_snakecase
    from datasets.packaged_modules.cache.cache import Cache

    owner, _, name = address.name.rpartition("/")
    known = Path(datasets.config.HF_DATASETS_CACHE) / f"{owner}___{camelcase_to_snakecase(name)}"
    commit = address.revision or ""
    if not re.fullmatch("[0-9a-f]{40}", commit):
        raise BadInput(f"training data {address.name}: {away}; give a folder, or a commit that is cached (revision=)")
    cached = [p for p in known.glob(f"{address.config or '*'}/*/{commit}") if (p / "dataset_info.json").is_file()]
    if len(cached) != 1:
        names = ", ".join(sorted(p.parts[-3] for p in cached))
        here = f"in the cache with several configurations; add config= ({names})" if cached else "in no cache"
        raise BadInput(
            f"training data {address.name} at {commit[:12]} is {here}, and {away}; read it once with a connection, or "
            "give a folder"
        )
    config, version, _ = cached[0].parts[-3:]
    return Cache(repo_id=address.name, dataset_name=name, config_name=config, version=version, hash=commit).as_dataset()


def _of_dataset(opened: Any, address: SourceName, name: str, limit: int | None, facts: Mapping[str, Any]) -> Rows:
    """The requested split of an opened data set."""
    if isinstance(opened, Mapping):
        known = list(opened)
        split = address.split or (DEFAULT_SPLIT if DEFAULT_SPLIT in known else known[0] if len(known) == 1 else None)
        if split is None:
            raise BadInput(f"training data {name} has the splits {', '.join(known)}: add split=NAME after a comma")
        if split not in known:
            raise BadInput(f"training data {name}: {unknown('split', split, known)} (for a part of it add first=N)")
        opened = opened[split]
    else:
        split = address.split or str(opened.split or "") or None
        if opened.split is not None and address.split not in (None, str(opened.split)):
            raise BadInput(f"training data {name} has only the split {opened.split}, not {address.split}")
    chosen = opened if limit is None else opened.select(range(min(limit, len(opened))))
    columns = tuple(chosen.column_names)
    kept = {key: value for key, value in {"split": split, **facts}.items() if value is not None}
    return Rows(name, columns, chosen, kept)


def _quiet(datasets: Any) -> None:
    datasets.disable_progress_bars()  # ours are in harness.progress


def _cause(error: BaseException) -> str:
    """The first line of the innermost error with a message, because the library wraps errors of its readers."""
    inner = error.__cause__ if error.__suppress_context__ else error.__context__
    return _first_line(error) if inner is None else _cause(inner)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


def shown(value: Any) -> str:
    """A value of a row for a message: its beginning, on one line."""
    return json.dumps(value, ensure_ascii=False, default=str)[:60]


def each(rows: Rows) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Number, from 1, and content of every row."""
    return enumerate(rows.rows, 1)
