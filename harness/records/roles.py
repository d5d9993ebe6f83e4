"""The role of a row, from its record: competitor, control or reference; whether it is a baseline or reconstruction.

    method.role            competitor, control or reference
    method.evaluates       of a reference: student or teacher, the model that was measured without training
    method.baseline        whether other methods' scores are stated as differences from it
    method.reconstruction  whether the published formula is unknown

No name decides a role. Records written before ``role`` was a field have the same facts in other fields; :func:`of`
reads both forms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


def of(record: Mapping[str, Any]) -> Roles:
    """The roles of a record, in either form."""
    method = record["method"]
    if {"role", "evaluates", "baseline"} <= method.keys():
        return Roles(method["role"], method["evaluates"], method["baseline"], method["reconstruction"])
    return _before_roles(record)


def _before_roles(record: Mapping[str, Any]) -> Roles:
    """The roles of a record without ``role``. Only a trained student has a training recipe in its specification.

    A reference measured the teacher if its specification names another model than the run's student. A control has the
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
