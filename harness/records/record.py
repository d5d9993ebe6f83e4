"""Defines a record: schema, identity, name, provenance, the role of its row, and the seal that reveals a later edit.

A record is a JSON object with the schema ``record.schema.json``. Its ``identity`` is the hash of the request, its
``content_sha256`` the hash of its whole content.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from harness import metrics, safe_read
from harness.errors import PACKAGE, BadInput, RunFailed

SCHEMA_VERSION = 1
Record = dict[str, Any]
ROUNDING = 1e-9  # of an interval's ends

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, check_circular=False)
_LABEL_LENGTH = 60  # of one part of a file name; file systems stop at 255 bytes


def canonical(value: Any) -> bytes:
    """The canonical JSON of ``value``, from which hashes are computed: sorted keys, no spaces, ASCII, no NaN."""
    return _CANONICAL.encode(value).encode("ascii")


def fingerprint(value: Any) -> str:
    """The sha256 (64 hex digits) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical(value)).hexdigest()


def identity_of(spec: Mapping[str, Any], protocol: Mapping[str, Any]) -> str:
    """The hash of a request: equal for equal training and equal measurement.

    It leaves out the names of a protocol, so that one measurement has one identity under any name.
    """
    measurement = {key: value for key, value in protocol.items() if key not in ("name", "card")}
    return fingerprint({"protocol": measurement, "spec": spec})


def label(name: str) -> str:
    """``name`` as a part of a file name: ``lm-eval:gsm8k/cot`` becomes ``lm-eval_gsm8k_cot``."""
    return re.sub(r"[^\w.@+-]|^\.+", "_", name, flags=re.ASCII)[:_LABEL_LENGTH]


def method_label(method: Mapping[str, Any]) -> str:
    """``vcrd``, or ``vcrd@shuffled`` for a named variant, from the ``method`` field of a record."""
    return method["name"] if method["variant"] is None else f"{method['name']}@{method['variant']}"


def measured_under(record: Mapping[str, Any], protocol: str | None) -> bool:
    """Whether a record has the protocol that ``--protocol`` names: by its name, or by the beginning of a hash.

    The hash is that of the record's protocol, or that of the protocol card as ``harness show task`` prints it.
    """
    if protocol is None:
        return True
    own = record["protocol"]
    hashes = (own["hash"], str(own.get("card") or ""))
    return protocol == own.get("name") or any(each.startswith(protocol) for each in hashes)


def note_of(method: Mapping[str, Any]) -> str:
    """The note on a method, from the ``method`` field of a record.

    Records up to 0.2 call a formula "not public" that is public but was not available to us; their seal forbids an
    edit.
    """
    return method["note"].replace("the formula is not public", "its formula was not available to us")


def run_id(method: Mapping[str, Any], task: str, seed: int, identity: str, attempt: int = 0) -> str:
    """The name of a record and its files: ``vcrd-humaneval@micro-s0-1a2b3c4d``, when repeated ``…-r1``."""
    again = f"-r{attempt}" if attempt else ""
    return f"{label(method_label(method))}-{label(task)}-s{seed}-{identity[:8]}{again}"


def content_hash(record: Mapping[str, Any]) -> str:
    """The hash of everything in ``record`` but the seal itself."""
    return fingerprint({key: value for key, value in record.items() if key != "content_sha256"})


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a record."""
    return json.loads(Path(__file__).with_name("record.schema.json").read_text(encoding="utf-8"))


@cache
def form() -> str:
    """The hash of the rules by which :func:`examine` finds a record sound."""
    return fingerprint({"schema": schema(), "examination": 1})


def validate(record: Mapping[str, Any]) -> None:
    """Raises RunFailed naming the field of ``record`` that does not fit ``record.schema.json``."""
    import jsonschema

    errors = jsonschema.Draft202012Validator(schema()).iter_errors(record)
    if error := jsonschema.exceptions.best_match(errors):
        raise RunFailed(f"the record does not fit its schema at {error.json_path}: {error.message[:200]}")


def load(path: Path, inside: Path | None = None) -> Record:
    """The record in ``path``, as :func:`examine` reads it. Raises BadInput with the reason if it cannot be trusted."""
    record, fault = examine(path, inside)
    if record is None:
        raise BadInput(f"{path}: {fault}; restore the file, or run again with --again")
    return record


def examine(path: Path, inside: Path | None = None) -> tuple[Record | None, str]:
    """The record in ``path``, or None and what is wrong with it. Never raises, whatever the file contains.

    Follows a link only if it stays below ``inside``.
    """
    try:
        record = safe_read.value(safe_read.content(path, safe_read.RECORD, inside))
    except BadInput as error:
        return None, str(error)
    if not isinstance(record, dict) or "schema_version" not in record:
        return None, "is not a record (it has no schema_version)"
    if record["schema_version"] != SCHEMA_VERSION:
        return None, f"has schema version {record['schema_version']!r}, this harness reads {SCHEMA_VERSION}"
    if fault := misfit(record, schema()) or off_scale(record) or _contradiction(record):
        return None, f"is not a record (it{fault})"
    try:
        intact = content_hash(record) == record["content_sha256"]
    except ValueError:  # NaN or Infinity, which no record contains
        intact = False
    return (record, "") if intact else (None, "was edited after it was written (content_sha256 differs)")


def off_scale(record: Record) -> str | None:
    """Where a score leaves the scale of its metric, or None."""
    scale = metrics.scale_of(record)
    values = [("score", record["score"]), *(("interval", end) for end in record["interval"])]
    return next((f".{name} is {value}, outside its range" for name, value in values if not scale.holds(value)), None)


def _contradiction(record: Record) -> str:
    """Why a well-formed record is impossible as a measurement, or ""."""
    (low, high), counts = record["interval"], record["counts"]
    if not low - ROUNDING <= record["score"] <= high + ROUNDING:
        return f".score is {record['score']}, outside its interval"
    if too_many := [key for key in ("errors", "truncated") if counts[key] > counts["total"]]:
        return f".counts.{too_many[0]} is more than the total"
    try:
        datetime.fromisoformat(record["created"])
    except ValueError:
        return ".created is not a date"
    return ""


_TYPES = {  # as in JSON: true is a bool and not a number, although Python's bool is an int
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}

_NARROWS = {"minimum", "maximum", "pattern", "minLength", "enum", "$ref"}  # keywords beyond the type
_SCALARS = {str, int, float, bool, type(None)}


def misfit(value: Any, rule: Mapping[str, Any]) -> str | None:
    """Where ``value`` departs from the types and required keys of a JSON Schema, or None.

    Checks only the keywords that readers rely on, much faster than the full validation, which ran when the record was
    written.
    """
    if "$ref" in rule:
        rule = schema()["$defs"][rule["$ref"].rpartition("/")[2]] | rule
    names, kind = rule.get("type"), type(value)
    if names is not None and (
        kind not in _TYPES[names] if isinstance(names, str) else all(kind not in _TYPES[name] for name in names)
    ):
        return f" is not {names if isinstance(names, str) else ' or '.join(names)}"
    if kind in (int, float) and not rule.get("minimum", value) <= value <= rule.get("maximum", value):
        return f" is {value}, outside its range"
    if kind is str and "pattern" in rule and not re.fullmatch(rule["pattern"], value):  # $ accepts a line end
        return " is not of its form"
    if kind is str and len(value) < rule.get("minLength", 0):
        return " is empty"
    if "enum" in rule and value not in rule["enum"]:
        return f" is none of {', '.join(map(str, rule['enum']))}"
    if kind is dict:
        for key in rule.get("required", ()):
            if key not in value:
                return f".{key} is missing"
        named, others = rule.get("properties", {}), rule.get("additionalProperties")
        for key, item in value.items() if named or others else ():
            inner = named.get(key, others)
            if type(inner) is not dict or (
                type(item) in _SCALARS
                and type(item) in _TYPES.get(str(inner.get("type")), ())
                and not inner.keys() & _NARROWS
            ):
                continue  # no rule, or only a type that is correct
            if fault := misfit(item, inner):
                return f".{key}{fault}"
    elif kind is list:
        if not rule.get("minItems", 0) <= len(value) <= rule.get("maxItems", len(value)):
            return f" has {len(value)} items"
        if "items" in rule:
            return next(
                (f"[{i}]{fault}" for i, item in enumerate(value) if (fault := misfit(item, rule["items"]))),
                None,
            )
    return None


# The role of a row, from its record; names do not matter.
#   method.role            competitor, control or reference
#   method.evaluates       of a reference: student or teacher, the model that was measured without training
#   method.baseline        whether tables state other methods' scores as differences from it
#   method.reconstruction  whether the published formula is unknown
# Records from before the field ``role`` have the same facts in other fields; :func:`roles_of` reads both forms.
COMPETITOR, CONTROL, REFERENCE = "competitor", "control", "reference"
STUDENT, TEACHER = "student", "teacher"


@dataclass(frozen=True)
class Roles:
    """``evaluates`` is None for everything that was trained."""

    role: str
    evaluates: str | None
    baseline: bool
    reconstruction: bool

    @property
    def reference(self) -> bool:
        """Whether this is a reference point, not a student that was trained."""
        return self.role == REFERENCE


def roles_of(record: Mapping[str, Any]) -> Roles:
    """The roles of a record, in either form."""
    method = record["method"]
    if {"role", "evaluates", "baseline"} <= method.keys():
        return Roles(method["role"], method["evaluates"], method["baseline"], method["reconstruction"])
    return _before_roles(record)


def _before_roles(record: Mapping[str, Any]) -> Roles:
    """The roles of a record without ``role``. Only a trained student has a training recipe in its specification.

    A reference evaluated the teacher if its specification names another model than the run's student. A control has the
    setting ``shuffle``. A student trained without a teacher is the baseline.
    """
    method, spec = record["method"], record["spec"]
    reconstruction = method["reconstruction"]
    if "training" not in spec:
        measured = spec.get("student")
        own = measured.get("id") if isinstance(measured, Mapping) else None
        side = STUDENT if own in (None, record["student"]) else TEACHER
        return Roles(REFERENCE, side, False, reconstruction)
    if method["settings"].get("shuffle") is True:
        return Roles(CONTROL, None, False, reconstruction)
    return Roles(COMPETITOR, None, spec.get("teacher") is None, reconstruction)


# Collects the provenance of a number: commit, package versions, hardware. No paths, no host name, no heavy imports.

PACKAGES = (
    PACKAGE,
    "torch",
    "transformers",
    "accelerate",
    "tokenizers",
    "numpy",
    "scipy",
    "lm-eval",
    "math-verify",
    "evalplus",
    "alpaca-eval",
)
# Environment variables that choose the kernels of ATen, MKL and oneDNN.
FORCES = (
    "ATEN_CPU_CAPABILITY",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
)
_SOURCES = ("harness", "methods", "tasks", "pyproject.toml")  # parts of the checkout that can change a number


def provenance(device: str) -> dict[str, Any]:
    """The state of code, libraries and machine under which a record is made on ``device``."""
    return {
        **_checkout(Path(__file__).resolve().parents[2]),
        "versions": {name: installed_version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "device": device,
        **_rounding(),
    }


def _rounding() -> dict[str, Any]:
    """What determines the rounding of sums besides CPU and torch: torch's kernels, its threads, and forced settings.

    ``kernel`` and ``threads`` are None where torch was not loaded.
    """
    torch = sys.modules.get("torch")
    return {
        "kernel": torch.backends.cpu.get_cpu_capability() if torch else None,
        "threads": torch.get_num_threads() if torch else None,
        "forced": {name: os.environ[name] for name in FORCES if name in os.environ},
    }


def _checkout(folder: Path) -> dict[str, Any]:
    """Commit, and whether the sources differ from it; both None when this is not a git checkout."""
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top is None or Path(top.strip()).resolve() != folder:  # installed below another checkout
        return {"commit": None, "dirty": None}
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--", *_SOURCES)
    return {
        "commit": commit.strip() if commit else None,
        "dirty": bool(changes.strip()) if changes is not None else None,
    }


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(folder), *arguments]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout if answer.returncode == 0 else None


def installed_version(package: str) -> str | None:
    """The version of an installed package; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor())
