"""The reports of a training: its cost, how much token weights moved the signal, how well validity was estimated.

All three are summed over steps and processes and are part of a checkpoint, so a resumed run reports the same. Tables
and pages read them from records, without torch.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

# Cost: tokens, which compare across machines, and seconds and memory of this one. A method is charged for the tokens it
# needs even if a cache has them, so two methods that read the same teacher texts are both charged. Padding is never
# charged.

DISTRIBUTION = "distribution over the mean"  # the line on a histogram of weights, which a page draws instead
SUMMED = (  # over processes
    "student_tokens",
    "teacher_forward_tokens",
    "reference_forward_tokens",
    "generated_tokens",
    "peak_memory_bytes",
    "graded_texts",
)


@dataclass
class Cost:
    """Counts of one run.

    student_tokens: through the student, forward and backward; the forward passes of validation and step features too
    teacher_forward_tokens: through the teacher, its own generation included; a text with a cached signal counts once
    reference_forward_tokens: through the frozen student before training, for methods that need its probabilities
    generated_tokens: sampled from either model
    seconds: of training, including the teacher's time for texts and the grader's time
    peak_memory_bytes: of the process, or of the accelerator if there is one
    graded_texts: scored by a grader for rewards; grading_seconds: its part of ``seconds``
    """

    steps: int = 0
    student_tokens: int = 0
    teacher_forward_tokens: int = 0
    reference_forward_tokens: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    graded_texts: int = 0
    grading_seconds: float = 0.0

    def add(self, **amounts: int | float) -> None:
        for name, amount in amounts.items():
            setattr(self, name, getattr(self, name) + amount)

    def over_processes(self, accelerator: Accelerator) -> Cost:
        """Tokens, texts and memory summed over all processes; steps and seconds are equal on all of them.

        The seconds of grading are the mean over processes, which grade at the same time.
        """
        import torch

        own = {name: getattr(self, name) for name in SUMMED}
        total = accelerator.reduce(torch.tensor([*own.values()], device=accelerator.device)).tolist()
        grading = accelerator.reduce(torch.tensor(self.grading_seconds, device=accelerator.device)).item()
        each = grading / accelerator.num_processes
        return dataclasses.replace(self, **dict(zip(own, total, strict=True)), grading_seconds=each)

    def as_dict(self) -> dict[str, int | float]:
        """The counts by name; those of grading and of the frozen student only if there are any."""
        counts = dataclasses.asdict(self)
        unused = [] if self.graded_texts else ["graded_texts", "grading_seconds"]
        unused += [] if self.reference_forward_tokens else ["reference_forward_tokens"]
        return {name: count for name, count in counts.items() if name not in unused}


def reset_peak(device: torch.device) -> None:
    """Starts a new measurement of peak memory."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: resets the high-water mark of this process
    except OSError:
        return  # elsewhere the peak is that of the whole process so far, an upper bound


def peak_bytes(device: torch.device) -> int:
    """Peak memory in bytes since the last reset."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# How much the token weights of a run move its signal, for records and in words.

WEIGHT_EDGES = (0.01, 0.25, 0.5, 0.75, 0.9, 1.1, 1.25, 1.5, 2.0, 4.0)  # of weights over their mean
LITTLE_MOVED = 0.05  # of the signal: weights that move less than this change almost nothing


class WeightReport:
    """The distribution of token weights, and the share of the signal that they move.

    That share is the total variation between the weights of a step, scaled to sum to 1, and equal ones: 0 if all
    are equal, 0.25 if a quarter of the signal is on other tokens.
    """

    def __init__(self) -> None:
        self.steps, self.moved, self.counts = 0, 0.0, [0] * (len(WEIGHT_EDGES) + 1)
        self.least, self.most, self.total, self.tokens = float("inf"), 0.0, 0.0, 0

    def add(self, weights: Sequence[float]) -> None:
        """The weights of one optimizer step, of all processes."""
        total, n = sum(weights), len(weights)
        self.least, self.most = min([self.least, *weights]), max([self.most, *weights])
        self.total, self.tokens = self.total + total, self.tokens + n
        if total <= 0:  # all weights are 0, so there is no signal to move
            return
        self.steps += 1
        self.moved += sum(abs(w / total - 1 / n) for w in weights) / 2
        for w in weights:
            self.counts[sum(w * n / total >= edge for edge in WEIGHT_EDGES)] += 1

    @property
    def share(self) -> float | None:
        """The mean share of the signal that the weights of a step move; None without weights."""
        return self.moved / self.steps if self.steps else None

    def facts(self) -> dict[str, Any]:
        """For the record; empty without weights."""
        if self.share is None:
            return {}
        return {
            "moved": self.share,
            "mean": self.total / self.tokens,
            "least": self.least,
            "most": self.most,
            "edges": list(WEIGHT_EDGES),
            "shares": [count / sum(self.counts) for count in self.counts],
        }

    def warnings(self) -> list[str]:
        if self.share is None or self.share >= LITTLE_MOVED:
            return []
        return [
            f"the token weights move {100 * self.share:.1f} % of the signal, less than {100 * LITTLE_MOVED:g} %: "
            "the run is as good as one without them"
        ]

    def state(self) -> dict[str, Any]:
        return dict(vars(self))

    def load(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


def weights_in_words(record: Mapping[str, Any]) -> dict[str, str]:
    """Names and values of the report; empty for a training without token weights."""
    weights = record.get("weights") or {}
    lines: dict[str, str] = {}
    if "moved" in weights:
        lines["signal moved"] = f"{100 * weights['moved']:.1f} % (total variation from equal weights)"
        lines["weight"] = f"mean {weights['mean']:.3g}, from {weights['least']:.3g} to {weights['most']:.3g}"
        lines[DISTRIBUTION] = _distribution(weights["edges"], weights["shares"])
    if weights.get("means"):
        lines["means over training"] = ", ".join(f"{k} {v:.3g}" for k, v in weights["means"].items())
    if validity := weights.get("validity"):
        counts = validity["compared"]
        if validity["auroc"] is not None:
            lines["agreement with the checker"] = (
                f"AUROC {validity['auroc']:.3f} over {counts['valid']} valid and {counts['invalid']} invalid steps"
            )
        lines["cost of estimating"] = (
            f"{validity['generated_tokens']:,} tokens generated, {validity['teacher_forward_tokens']:,} through the "
            f"teacher, {validity['seconds']:.1f} s"
        )
    return lines


def moves_little(records: Sequence[Mapping[str, Any]]) -> float | None:
    """The mean share of the signal that the weights of these records move, if it is negligible."""
    shares = [r["weights"]["moved"] for r in records if "moved" in (r.get("weights") or {})]
    mean = sum(shares) / len(shares) if shares else LITTLE_MOVED
    return mean if mean < LITTLE_MOVED else None


def _distribution(edges: Sequence[float], shares: Sequence[float]) -> str:
    """The share of tokens between two edges, if not zero."""
    names = [f"below {edges[0]:g}", *(f"{a:g} to {b:g}" for a, b in itertools.pairwise(edges))]
    names.append(f"from {edges[-1]:g}")
    return ", ".join(
        f"{name}: {100 * share:.0f} %" for name, share in zip(names, shares, strict=True) if share >= 0.005
    )


# The accuracy of the validity estimates, and their cost.

SCORE_BINS = 100  # of scores in [0, 1], for the agreement with a checker


class ValidityReport:
    """The cost of estimating validity, and its agreement with an exact checker."""

    def __init__(self) -> None:
        # Counts by estimate: of valid and of invalid steps.
        self.right, self.wrong = [0] * (SCORE_BINS + 1), [0] * (SCORE_BINS + 1)
        self.cost = Cost()

    def compare(self, values: Sequence[float], checked: Sequence[float | None]) -> None:
        """Estimates next to the checker's verdicts; steps unknown to either are left out."""
        for value, valid in zip(values, checked, strict=True):
            if value == value and valid is not None:
                side = self.right if valid >= 0.5 else self.wrong
                side[round(min(max(value, 0.0), 1.0) * SCORE_BINS)] += 1

    def spend(self, cost: Cost) -> None:
        self.cost.add(
            teacher_forward_tokens=cost.teacher_forward_tokens,
            generated_tokens=cost.generated_tokens,
            student_tokens=cost.student_tokens,
            seconds=cost.seconds,
        )

    @property
    def auroc(self) -> float | None:
        """The probability that a valid step has a higher estimate than an invalid one; ties count half."""
        right, wrong = sum(self.right), sum(self.wrong)
        if not right or not wrong:
            return None
        below, won = 0, 0.0
        for valid, invalid in zip(self.right, self.wrong, strict=True):
            won += valid * (below + invalid / 2)
            below += invalid
        return won / (right * wrong)

    def facts(self) -> dict[str, Any]:
        """For the record: agreement, the number of compared steps, and the cost of estimating."""
        return {
            "auroc": self.auroc,
            "compared": {"valid": sum(self.right), "invalid": sum(self.wrong)},
            "generated_tokens": self.cost.generated_tokens,
            "teacher_forward_tokens": self.cost.teacher_forward_tokens,
            "student_tokens": self.cost.student_tokens,
            "seconds": self.cost.seconds,
        }

    def state(self) -> dict[str, Any]:
        """Plain numbers, which :meth:`sum` adds up over processes."""
        return {"right": list(self.right), "wrong": list(self.wrong), "cost": self.cost.as_dict()}

    def load(self, state: dict[str, Any]) -> None:
        self.right, self.wrong, self.cost = list(state["right"]), list(state["wrong"]), Cost(**state["cost"])

    @classmethod
    def of(cls, state: dict[str, Any]) -> dict[str, Any]:
        """The facts of a state."""
        report = cls()
        report.load(state)
        return report.facts()

    @staticmethod
    def sum(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The states of all processes as one; seconds are those of the slowest."""
        costs = [state["cost"] for state in states]
        cost = {name: sum(c[name] for c in costs) for name in costs[0]} | {"seconds": max(c["seconds"] for c in costs)}
        columns = {side: [sum(n) for n in zip(*(s[side] for s in states), strict=True)] for side in ("right", "wrong")}
        return columns | {"cost": cost}
