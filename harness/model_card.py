"""The model card of a trained student: method, equation, data, and its scores as ``model-index`` metadata.

``README.md`` in the student's folder, in the form that model hubs read. Every score has its count and interval;
reconstructions and generated problems are marked.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import durable, metrics, registry, safe_read
from harness.errors import BadInput
from harness.leaderboard.footnotes import MICRO
from harness.leaderboard.rows import latest
from harness.leaderboard.text_tables import markdown_text
from harness.recipe import IN_SPEC
from harness.records.record import Record, examine, label, method_label, note_of
from harness.records.store import Store
from harness.records.work_folder import FACTS

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

CARD = "README.md"
OUR_WORLDS = ("micro", "small")  # their base models are under this licence too: Apache-2.0
UNKNOWN_LICENCE = (
    "The licence of the base model, whose card was not on this machine; read it before you share the student."
)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def refresh(folder: Path, store: Store, record: Record, licence: str | None = None) -> None:
    """Writes the card of the student in ``folder`` from all records of the training that ``record`` belongs to.

    ``licence`` is a hub's name of it; by default that of the base model, where this machine knows it.
    """
    records = of_training(store, record)
    text = str(model_card(records, _facts_in_words(folder), licence or licence_of(record["student"])))
    durable.write(folder / CARD, text.encode("utf-8", "backslashreplace"))


def _facts_in_words(folder: Path) -> dict[str, str] | None:
    """The part of ``training.json`` that the card shows; None if the file is missing or malformed."""
    try:
        facts = safe_read.value(safe_read.content(folder / FACTS, safe_read.LARGE, folder), finite=False)
    except BadInput:
        return None
    facts_in_words = facts.get("told") if isinstance(facts, dict) else None
    sound = isinstance(facts_in_words, dict) and all(isinstance(text, str) for text in facts_in_words.values())
    return facts_in_words if sound else None


def catch_up(folder: Path, store: Store, record: Record) -> None:
    """Writes the card of an existing student if it lacks ``record``, because a run was killed between the two."""
    if not (folder / FACTS).is_file():
        return
    card = folder / CARD
    if not card.is_file() or record["run_id"] not in card.read_text("utf-8"):
        refresh(folder, store, record)


def provenance_text(method: object, sources: Any, prompts: Sequence[Any], labelled: Sequence[Any]) -> dict[str, str]:
    """The part of ``training.json`` for the card: the equation, and the names of the training data without folders."""
    read = {"prompts": (sources.prompts, len(prompts)), "labelled": (sources.labelled, len(labelled))}
    data = {key: f"{Path(name).name} ({n} examples)" for key, (name, n) in read.items() if n}
    return {"equation": inspect.getdoc(inspect.getmodule(type(method))) or ""} | data


def of_training(store: Store, record: Record) -> list[Record]:
    """The latest sound records of the student that ``record`` measures, by task."""
    files = store.records_dir.glob(f"*/{label(method_label(record['method']))}/*.json")
    sound = [examined for path in sorted(files) if (examined := examine(path, store.root)[0]) is not None]
    same = [one for one in sound if one["training_id"] == record["training_id"]]
    return sorted(latest(same), key=lambda one: (one["task"], one["protocol"]["hash"]))


def licence_of(base: str) -> str | None:
    """The licence on the card of the base model, if its files are on this machine; uses no network."""
    if base.partition(":")[0] in OUR_WORLDS:
        return "apache-2.0"
    name, _, revision = base.partition("@")
    if not _HUB_ID.fullmatch(name):
        return None
    from huggingface_hub import ModelCard, try_to_load_from_cache

    path = try_to_load_from_cache(name, CARD, revision=revision or None)
    if not isinstance(path, str):
        return None
    try:
        stated = ModelCard.load(path, ignore_metadata_errors=True).data.get("license")
    except (OSError, ValueError):  # an unreadable card states nothing
        return None
    return stated if isinstance(stated, str) else None


def datasets_of(records: Sequence[Record]) -> list[str]:
    """The data sets of the hub that the student was trained on: only these carry a revision."""
    sources = (read["source"] for r in records for read in (r.get("data") or {}).values() if "source" in read)
    names = (source.partition(",")[0] for source in sources if ",revision=" in source)
    return sorted({name for name in names if _HUB_ID.fullmatch(name)})


def model_card(
    records: Sequence[Record], provenance_text: Mapping[str, Any] | None = None, licence: str | None = None
) -> ModelCard:
    """The card of one trained student; ``records`` are its scores, at least one."""
    from huggingface_hub import ModelCard, ModelCardData

    first = records[0]
    name = first["training_id"]
    base = first["student"].partition("@")[0]
    metadata = ModelCardData(
        model_name=name,
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=base if _HUB_ID.fullmatch(base) else None,
        license=licence,
        datasets=datasets_of(records) or None,
        tags=["knowledge-distillation", method_label(first["method"])]
        + (["reconstruction"] if first["method"]["reconstruction"] else []),
        eval_results=[_result(record) for record in records],
    )
    return ModelCard(f"---\n{metadata}\n---\n\n{_text(records, provenance_text, licence)}")


def _result(record: Record) -> Any:
    from huggingface_hub import EvalResult

    counts, (low, high) = record["counts"], record["interval"]
    dataset = record["protocol"].get("dataset") or {}
    return EvalResult(
        task_type="text-generation",
        dataset_type=record["task"],
        dataset_name=record["task"] + (" (generated problems, not the benchmark)" if record["world"] != "real" else ""),
        dataset_config=f"protocol {record['protocol']['hash']}",
        dataset_revision=dataset.get("sha256"),
        metric_type=record["metric"],
        metric_name=record["metric"],
        metric_value=record["score"],
        metric_args={
            "correct": counts["correct"],
            "total": counts["total"],
            "errors": counts["errors"],
            "truncated": counts["truncated"],
            "interval_95": [low, high],
            "interval_method": record["interval_method"],
            "seed": record["seed"],
            "run_id": record["run_id"],
        },
    )


def _text(records: Sequence[Record], provenance_text: Mapping[str, Any] | None, licence: str | None) -> str:
    first = records[0]
    method, spec, cost = first["method"], first["spec"], first["cost"]
    title = method_label(method)
    notes = [f"**{markdown_text(f'{title}: {note_of(method)}')}.**"] if method["note"] else []
    notes += [f"{MICRO[0].upper()}{MICRO[1:]}."] if any(r["world"] != "real" for r in records) else []
    equation = (provenance_text or {}).get("equation") or _equation(method["name"])
    how = f"distilled by {_code(first['teacher'])} with" if first["teacher"] else "trained with"
    parts = [
        f"# {markdown_text(title)} student, seed {first['seed']}",
        f"{_code(first['student'])} {how} {_code(title)}: {_code(first['training_id'])}.",
        *notes,
        "## Scores",
        _scores(records),
        "Each score is of this one training seed. Its completions and verdicts are kept with the record named.",
        "## Use",
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'model = AutoModelForCausalLM.from_pretrained("THIS FOLDER")\n'
        'tokenizer = AutoTokenizer.from_pretrained("THIS FOLDER")\n```',
        "## Method",
        f"```text\n{safe_read.printable(equation, lines=True).replace('```', '` ` `')}\n```" if equation else "",
        f"Paper: {_paper(method['paper'])}" if method["paper"] else "",
        _lines(method["settings"], "Settings: none."),
        "## Data and training",
        _data(spec, provenance_text),
        _lines(dict(pair for part in IN_SPEC for pair in _under(part, spec.get(part))), ""),
        "## Cost of training",
        _lines({key: f"{value:,.0f}" for key, value in cost.items() if not key.startswith("eval_")}, ""),
        "## Licence",
        f"{licence}, as the base model." if licence else UNKNOWN_LICENCE,
        f"Written by `harness` from {len(records)} record{'s' if len(records) != 1 else ''}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _equation(name: str) -> str:
    entries = (entry for entry in registry.entries(registry.METHODS) if entry.name == name)
    return next((entry.facts.get("module_doc") or "" for entry in entries), "")


def _scores(records: Sequence[Record]) -> str:
    lines = ["| task | metric | score | 95 % interval | correct | record |", "| --- | --- | ---: | ---: | ---: | --- |"]
    for record in records:
        low, high = record["interval"]
        counts, scale = record["counts"], metrics.scale_of(record)
        cells = (
            record["task"], _metric(record["metric"], scale), scale.text(record["score"]),
            f"{scale.text(low)}–{scale.text(high)}",
            f"{counts['correct']:.10g}/{counts['total']}" if scale.counts else "",
        )  # fmt: skip
        lines.append(f"| {' | '.join(map(markdown_text, cells))} | {_code(record['run_id'])} |")
    return "\n".join(lines)


def _metric(name: str, scale: metrics.Scale) -> str:
    """The metric, with the unit of its numbers unless they are percentages."""
    return name if scale.caption in ("percent", "") else f"{name} ({scale.caption})"


def _data(spec: Mapping[str, Any], provenance_text: Mapping[str, Any] | None) -> str:
    """The prompts and examples of the training, by hash, and by name if recorded."""
    kinds = {"prompts": "prompts that the teacher or the student answers", "labelled": "labelled examples"}
    known = provenance_text or {}
    lines = [
        f"- {words}: {markdown_text(known[key]) + ', ' if key in known else ''}sha256 {_code(str(spec[key]))}"
        for key, words in kinds.items()
        if spec.get(key)
    ]
    return "\n".join(lines)


def _under(prefix: str, values: Mapping[str, Any] | None) -> list[tuple[str, Any]]:
    return [(f"{prefix}.{key}", value) for key, value in (values or {}).items() if value is not None]


def _lines(values: Mapping[str, Any], otherwise: str) -> str:
    return "\n".join(f"- {_code(key)}: {markdown_text(str(value))}" for key, value in values.items()) or otherwise


def _code(text: str) -> str:
    """A code span that ``text`` cannot end, not even in a table."""
    return f"`{safe_read.printable(text).replace('`', chr(39)).replace('|', '/')}`"


def _paper(text: str) -> str:
    """The address of a paper as it is, anything else as words."""
    return text if re.fullmatch(r"https?://[\w./#?=&%+-]+", text) else markdown_text(text)
