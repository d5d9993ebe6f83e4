"""What a training will take, before any work: memory and time from the shapes of the models, by arithmetic.

Nothing here opens a model or touches a device: shapes and sizes in, bytes and seconds out, with the assumptions in
words. Responses are taken to be as long as they may be, so that memory and time are those of the longest run that
was asked for; the shares of a chip's peak are assumed, which leaves the hours a matter of a factor of two.

>>> student, teacher = PUBLISHED["Qwen/Qwen2.5-Math-1.5B"], PUBLISHED["Qwen/Qwen2.5-Math-7B-Instruct"]
>>> work = Work(student, teacher, steps=1000, batch=128, micro_batch=4, prompt_tokens=256, response_tokens=768,
...             precision="bfloat16", on_policy=0.5, teacher_texts=7473)
>>> found = estimate(work, DEVICES["H100-80GB"])
>>> print(f"{found.peak / 1e9:.0f} GB, {found.seconds / 3600:.0f} hours")
57 GB, 8 hours
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from harness.shapes import PUBLISHED, Shape

ADAMW_BYTES = 16  # per parameter: fp32 weight, gradient and two moments
CHUNK_ELEMENTS = 2**24  # logits of one chunk, as harness.models.head cuts them
CHUNK_TENSORS = 6  # of student and teacher logits, their softmaxes and gradients that live at once; assumed
WIDTH = {"float32": 4, "bfloat16": 2}

__all__ = ["DEVICES", "PUBLISHED", "Device", "Estimate", "Shape", "Work", "estimate", "excess"]


@dataclass(frozen=True)
class Device:
    """One accelerator: memory in bytes, dense peaks in FLOP/s, bandwidth in bytes/s (data sheets), and what a
    kernel launch of eager PyTorch costs per layer in seconds (assumed). ``memory`` 0: not known."""

    name: str
    memory: float
    bfloat16: float
    float32: float
    bandwidth: float
    launch: float = 8e-4

    def peak(self, precision: str) -> float:
        return self.bfloat16 if precision == "bfloat16" else self.float32


DEVICES: Mapping[str, Device] = {
    "H100-80GB": Device("H100-80GB", 80e9, 989e12, 67e12, 3.35e12),
    "A100-80GB": Device("A100-80GB", 80e9, 312e12, 19.5e12, 2.04e12),
    "A100-40GB": Device("A100-40GB", 40e9, 312e12, 19.5e12, 1.56e12),
    "L40S-48GB": Device("L40S-48GB", 48e9, 362e12, 91.6e12, 0.86e12),
    "RTX4090-24GB": Device("RTX4090-24GB", 24e9, 165e12, 82.6e12, 1.01e12),
    "cpu-core": Device("cpu-core", 0, 3e10, 3e10, 1e10, 5e-5),  # assumed; one core with AVX2
}
SHARE_TRAINING, SHARE_DECODING = 0.35, 0.5  # of peak arithmetic, of peak bandwidth: assumed


@dataclass(frozen=True)
class Work:
    """A training, as numbers. Lengths are the longest allowed, in tokens; ``batch`` is over all processes.

    sources: how many sequences a prompt becomes in a step. on_policy: the share of sequences that the student
    samples. teacher_texts: prompts that the teacher answers once, beforehand. signal: the teacher reads every batch.
    sharded: weights, gradients and moments are cut over the processes (FSDP), not copied (DDP).
    """

    student: Shape
    teacher: Shape | None
    steps: int
    batch: int
    micro_batch: int
    prompt_tokens: int
    response_tokens: int
    precision: str = "float32"
    on_policy: float = 0.0
    teacher_texts: int = 0
    signal: bool = True
    sources: int = 1
    generation_batch: int = 64
    processes: int = 1
    sharded: bool = False

    @property
    def length(self) -> int:
        return self.prompt_tokens + self.response_tokens

    @property
    def rows(self) -> int:
        """Sequences of one optimizer step on one process."""
        return max(1, -(-self.batch * self.sources // self.processes))

    @property
    def micro_rows(self) -> int:
        """Sequences of one forward pass."""
        return min(self.micro_batch, self.rows)


@dataclass(frozen=True)
class Estimate:
    """Bytes on one device and seconds of all processes together, item by item."""

    memory: Mapping[str, int]  # of what stands all the time, and of the two phases that never meet
    time: Mapping[str, float]
    assumptions: tuple[str, ...]

    @property
    def standing(self) -> int:
        return sum(size for name, size in self.memory.items() if name not in ("forward and backward", "generation"))

    @property
    def peak(self) -> int:
        """The larger phase on top of what stands."""
        return self.standing + max(self.memory["forward and backward"], self.memory["generation"])

    @property
    def seconds(self) -> float:
        return sum(self.time.values())


def memory_of(work: Work) -> dict[str, int]:
    """Bytes on one device: states, teacher, and the two phases (training pass, generation)."""
    width, cut = WIDTH[work.precision], work.processes if work.sharded else 1
    found = {"student weights, gradients, AdamW": work.student.parameters * ADAMW_BYTES // cut}
    found["teacher weights"] = 0 if work.teacher is None else work.teacher.parameters * width
    tokens = work.micro_rows * work.length
    passes = work.student.activation_bytes(tokens, work.precision) + CHUNK_TENSORS * 4 * min(
        CHUNK_ELEMENTS, tokens * work.student.vocab
    )
    if work.precision == "bfloat16":
        passes += 2 * work.student.parameters  # autocast's copies of the weights
    if work.teacher is not None and work.signal:
        passes += tokens * work.teacher.hidden * width + tokens * work.teacher.intermediate * width
    found["forward and backward"] = passes
    caches = [0]
    if work.on_policy > 0:
        rows = min(work.generation_batch, work.rows)
        caches.append(work.student.cache_bytes(rows * work.length, 4) + 8 * rows * work.student.vocab)
    if work.teacher is not None and work.teacher_texts:
        rows = min(work.generation_batch, work.teacher_texts)
        caches.append(work.teacher.cache_bytes(rows * work.length, width) + 8 * rows * work.teacher.vocab)
    found["generation"] = max(caches)
    return found


def decode_seconds(shape: Shape, rows: int, prompt: int, new: int, batch: int, width: int, device: Device) -> float:
    """Seconds to answer ``rows`` prompts with ``new`` tokens each, ``batch`` rows at once, on one device."""
    if rows <= 0:
        return 0.0
    together = min(rows, batch)
    context = prompt + new // 2
    precision = "bfloat16" if width == 2 else "float32"
    moved = shape.multiplied * width + shape.cache_bytes(together * context, width)
    step = max(
        moved / (device.bandwidth * SHARE_DECODING),
        shape.flops(together, context) / (device.peak(precision) * SHARE_TRAINING),
        shape.layers * device.launch,
    )
    prefill = shape.flops(together * prompt, prompt // 2) / (device.peak(precision) * SHARE_TRAINING)
    return -(-rows // together) * (new * step + prefill)


def time_of(work: Work, device: Device) -> dict[str, float]:
    """Seconds by stage. Processes share every stage but the teacher's texts, which one of them samples."""
    arithmetic = device.peak(work.precision) * SHARE_TRAINING
    tokens = work.steps * work.rows * work.length
    found = {"student forward and backward": 3 * work.student.flops(tokens, work.length // 2) / arithmetic}
    if work.teacher is not None and work.signal:
        found["teacher forward"] = work.teacher.flops(tokens, work.length // 2) / arithmetic
    lengths = (work.prompt_tokens, work.response_tokens, work.generation_batch)
    rows = round(work.rows * work.on_policy)
    found["student's own text"] = work.steps * decode_seconds(work.student, rows, *lengths, 4, device)
    if work.teacher is not None:
        width = WIDTH[work.precision]
        found["teacher's texts"] = decode_seconds(work.teacher, work.teacher_texts, *lengths, width, device)
    return found


def estimate(work: Work, device: Device) -> Estimate:
    """Memory and time of ``work`` on ``device``, with what was assumed."""
    states = "cut over the processes (FSDP)" if work.sharded else "whole on every process (DDP)"
    return Estimate(
        memory_of(work),
        time_of(work, device),
        (
            f"{work.processes} x {device.name}; student weights, gradients and AdamW moments in fp32, {states}",
            f"every sequence as long as allowed: {work.prompt_tokens} + {work.response_tokens} tokens",
            "no gradient checkpointing; attention by sdpa, whose scores are never stored",
            f"{SHARE_TRAINING:.0%} of peak arithmetic in passes, {SHARE_DECODING:.0%} of peak bandwidth and "
            f"{device.launch * 1e3:g} ms a layer in decoding (assumed, not measured on this device)",
            "evaluation, loading and communication between processes are left out",
        ),
    )


def excess(work: Work, memory: float) -> tuple[int, str] | None:
    """By how many bytes ``work`` overruns ``memory``, and the mend; None where it fits."""
    found = Estimate(memory_of(work), {}, ())
    over = round(found.peak - memory)
    if over <= 0:
        return None
    if found.standing >= memory:
        return over, "the models alone do not fit: use a smaller model, or more processes with FSDP"
    for name, phase, setting in (
        ("micro_batch", "forward and backward", "training.micro_batch"),
        ("generation_batch", "generation", "evaluation.batch"),
    ):
        if found.standing + found.memory[phase] <= memory:
            continue
        low, high = 0, getattr(work, name)
        while high - low > 1:  # the largest that fits
            middle = (low + high) // 2
            fits = found.standing + memory_of(replace(work, **{name: middle}))[phase] <= memory
            low, high = (middle, high) if fits else (low, middle)
        if low:
            return over, f"lower {setting} from {getattr(work, name)} to {low}"
        return over, "one sequence does not fit: lower training.max_tokens, or use more processes with FSDP"
    raise AssertionError("the peak is one of the two phases")
