"""Describes a record's token weights (``weights``) in words, for pages, cards and footnotes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from harness.training.weight_report import LITTLE


def words(record: Mapping[str, Any]) -> dict[str, str]:
    """Names and values of the report; empty for a training without token weights."""
    found = record.get("weights") or {}
    said: dict[str, str] = {}
    if "moved" in found:
        said["signal moved"] = f"{100 * found['moved']:.1f} % (total variation from equal weights)"
        said["weight"] = f"mean {found['mean']:.3g}, from {found['least']:.3g} to {found['most']:.3g}"
        said["distribution over the mean"] = _distribution(found["edges"], found["shares"])
    if found.get("means"):
        said["means over training"] = ", ".join(f"{k} {v:.3g}" for k, v in found["means"].items())
    if validity := found.get("validity"):
        counts = validity["compared"]
        if validity["auroc"] is not None:
            said["agreement with the checker"] = (
                f"AUROC {validity['auroc']:.3f} over {counts['valid']} valid and {counts['invalid']} invalid steps"
            )
        said["cost of estimating"] = (
            f"{validity['generated_tokens']:,} tokens generated, {validity['teacher_forward_tokens']:,} through the "
            f"teacher, {validity['seconds']:.1f} s"
        )
    return said


def moves_little(records: Sequence[Mapping[str, Any]]) -> float | None:
    """The mean share of the signal that the weights of these records move, where that is next to nothing."""
    shares = [r["weights"]["moved"] for r in records if "moved" in (r.get("weights") or {})]
    mean = sum(shares) / len(shares) if shares else LITTLE
    return mean if mean < LITTLE else None


def _distribution(edges: Sequence[float], shares: Sequence[float]) -> str:
    """The share of tokens between two edges, where it is not nothing."""
    names = [f"below {edges[0]:g}", *(f"{a:g} to {b:g}" for a, b in itertools.pairwise(edges))]
    names.append(f"from {edges[-1]:g}")
    return ", ".join(
        f"{name}: {100 * share:.0f} %" for name, share in zip(names, shares, strict=True) if share >= 0.005
    )
