"""Exports records and completions as parquet or as Hugging Face datasets.

DIR/records.parquet        the frame of ``harness.load_results``, one row per record
DIR/completions.parquet    one row per completion, with its verdict
DIR/README.md              names both, so that ``datasets.load_dataset(DIR, "completions")`` finds them
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput, RunFailed
from harness.evaluation import questions
from harness.leaderboard.labels import name_of
from harness.leaderboard.table import load_results
from harness.records.record import Record
from harness.records.store import Store, no_records

if TYPE_CHECKING:
    import pandas

TEXTS = ("problem_id", "prompt", "reference", "text", "finish", "reason", "extracted", "words")
_README = """---
configs:
- config_name: records
  data_files: records.parquet
  default: true
- config_name: completions
  data_files: completions.parquet
---

# Results of the reasoning distillation harness

`records` has one row per record. `completions` has one row per completion with question, verdict and, with a judge,
the judge's `words`; `run_id` joins them. `prompt` and `reference` are empty if the benchmark's files were missing.
Scores are comparable only under equal `protocol`. `reconstruction` marks methods whose formula was not available to
us; `world` is `micro` for generated problems, which are not the benchmark.
"""


def export(root: Path, out: Path, form: str, warn: Callable[[str], None]) -> Path:
    """Writes the results below ``root`` to ``out``: a folder, or for parquet also a ``.parquet`` file of the records.

    Leaves out unsound records and calls ``warn`` for each. Raises BadInput if there are no records or ``out`` exists.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"--out {out} exists; name a new file or folder")
    alone = out.suffix == ".parquet"
    if alone and form == "datasets":
        raise BadInput(f"--out {out}: --format datasets writes a folder, not a .parquet file")
    missing = no_records(root)
    if not root.exists():
        raise missing
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frame = load_results(root)
    for one in caught:
        warn(str(one.message))
    if frame.empty:
        raise missing
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            _one_type_a_column(frame).to_parquet(made / "records.parquet", index=False)
            if alone:
                os.replace(made / "records.parquet", out)
                return out
            _completions(Store(root), made / "completions.parquet", warn)
            if form == "datasets":
                made = _datasets(made, Path(scratch))
            else:
                (made / "README.md").write_text(_README, "utf-8")
            if out.is_dir():
                out.rmdir()
            os.replace(made, out)
    except OSError as error:
        raise RunFailed(f"the results could not be written to {out} ({error.strerror or error})") from None
    return out


def _one_type_a_column(frame: pandas.DataFrame) -> pandas.DataFrame:
    """Parquet has one type per column: a column of mixed types becomes text."""
    for name in frame.columns:
        kinds = {type(value) for value in frame[name] if value is not None}
        if len(kinds) > 1 and not kinds <= {int, float}:
            frame[name] = [None if value is None else str(value) for value in frame[name]]
    return frame


def _completions(store: Store, path: Path, warn: Callable[[str], None]) -> None:
    """Yields the completions of one record at a time, so that they need not all fit into memory."""
    import pyarrow
    from pyarrow import parquet

    kinds = dict.fromkeys(("run_id", "task", "protocol", "method"), pyarrow.string()) | {"seed": pyarrow.int64()}
    kinds |= {"problem_id": pyarrow.string(), "sample": pyarrow.int64(), "prompt": pyarrow.string()}
    kinds |= {"reference": pyarrow.string(), "text": pyarrow.string()}
    kinds |= {"tokens": pyarrow.int64(), "finish": pyarrow.string(), "score": pyarrow.float64()}
    kinds |= {"reason": pyarrow.string(), "extracted": pyarrow.string(), "error": pyarrow.bool_()}
    kinds |= {"words": pyarrow.string()}
    schema = pyarrow.schema(kinds)
    known_questions: dict[tuple[str, str], dict[str, Any]] = {}
    with parquet.ParquetWriter(path, schema) as writer:
        for record in store.all()[0]:
            try:
                rows = store.completions(record)
            except BadInput as error:
                warn(f"left out: {error}")
                continue
            same = {
                "run_id": record["run_id"],
                "task": record["task"],
                "protocol": record["protocol"]["hash"],
                "method": name_of(record["method"]),
                "seed": record["seed"],
            }
            known = _questions(record, known_questions)
            table_rows = []
            for row in rows:
                prompt, reference = known.get(row["problem_id"], (None, None))
                row = row | {"prompt": prompt, "reference": reference}
                table_rows.append(same | row | {key: _plain(row.get(key)) for key in TEXTS})
            writer.write_table(pyarrow.Table.from_pylist(table_rows, schema))


def _questions(record: Record, known_questions: dict[tuple[str, str], dict[str, Any]]) -> dict[str, tuple[str, Any]]:
    """Prompt and reference of every problem of a record, read once for all records of a protocol."""
    key = (record["task"], record["protocol"]["hash"])
    if key not in known_questions:
        problems, _ = questions.of(record, fetch=False)
        known_questions[key] = {
            name: (questions.prompt_text(one), questions.reference_text(one)) for name, one in problems.items()
        }
    return known_questions[key]


def _plain(value: object) -> str | None:
    """Replaces lone surrogates, which models do write and UTF-8 cannot encode."""
    return None if value is None else str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _datasets(tables: Path, scratch: Path) -> Path:
    from datasets import Dataset, DatasetDict, disable_progress_bars

    disable_progress_bars()
    cache = str(scratch / "cache")
    splits = {
        name: Dataset.from_parquet(str(tables / f"{name}.parquet"), cache_dir=cache)
        for name in ("records", "completions")
    }
    DatasetDict(splits).save_to_disk(str(scratch / "datasets"))
    return scratch / "datasets"
