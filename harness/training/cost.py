"""The cost of a training run: tokens, which compare across machines, and seconds and memory of this one.

A method is charged for the tokens it needs even where a cache has them, so two methods that read the same teacher
texts are both charged. Padding is never charged.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

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
    seconds: of training, with the time that the teacher takes to write texts and the grader to grade
    peak_memory_bytes: of the process, or of the accelerator if there is one
    graded_texts: that a grader scored for rewards; grading_seconds: of ``seconds`` those that it took
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
        own = {name: getattr(self, name) for name in SUMMED}
        total = accelerator.reduce(torch.tensor([*own.values()], device=accelerator.device)).tolist()
        grading = accelerator.reduce(torch.tensor(self.grading_seconds, device=accelerator.device)).item()
        each = grading / accelerator.num_processes
        return dataclasses.replace(self, **dict(zip(own, total, strict=True)), grading_seconds=each)

    def as_dict(self) -> dict[str, int | float]:
        """The counts by name; those of grading and of the frozen student where there were any."""
        counts = dataclasses.asdict(self)
        unused = [] if self.graded_texts else ["graded_texts", "grading_seconds"]
        unused += [] if self.reference_forward_tokens else ["reference_forward_tokens"]
        return {name: count for name, count in counts.items() if name not in unused}


def reset_peak(device: torch.device) -> None:
    """Starts a new measurement of peak memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: resets the high-water mark of this process
    except OSError:
        return  # elsewhere the peak is that of the whole process so far, an upper bound


def peak_bytes(device: torch.device) -> int:
    """Peak memory in bytes since the last reset."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
