"""Estimates memory and time of a training from the shapes of its models, before any work.

Nothing here opens a model or uses a device: shapes and sizes in, bytes and seconds out, with the assumptions as
text. Every response counts with its maximum length, so memory and time are upper bounds. The achieved share of
a chip's peak is assumed, so hours are accurate to about a factor of two.

>>> student, teacher = PUBLISHED["Qwen/Qwen2.5-Math-1.5B"], PUBLISHED["Qwen/Qwen2.5-Math-7B-Instruct"]
>>> work = Work(student, teacher, steps=1000, batch=128, micro_batch=4, prompt_tokens=256, response_tokens=768,
...             precision="bfloat16", on_policy=0.5, teacher_texts=7473)
>>> needed = estimate(work, DEVICES["H100-80GB"])
>>> print(f"{needed.peak / 1e9:.0f} GB, {needed.seconds / 3600:.0f} hours")
61 GB, 8 hours
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from harness.estimate.shapes import PUBLISHED, Shape
from harness.models import CHUNK_ELEMENTS, loading

# Of the optimizers, per trained parameter in fp32: two moments, one, factors of one, two in 8 bits.
STATE_BYTES = {"adamw": 8, "adamw_fused": 8, "sgd": 4, "muon": 4, "adafactor": 0, "adamw8bit": 2}
ADAPTER_SHARE = 0.01  # of a model's parameters, where an adapter is only proposed; assumed
CHUNK_TENSORS = 4.5  # the student's and the teacher's logits, and about ten tensors of a slice, 1/4 of them; assumed
WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2}

__all__ = [
    "DEVICES",
    "PUBLISHED",
    "Device",
    "Estimate",
    "Shape",
    "StageEstimate",
    "Work",
    "estimate",
    "excess",
    "stages_of",
]


@dataclass(frozen=True)
class Device:
    """One accelerator: memory in bytes, dense peaks in FLOP/s, bandwidth in bytes/s (data sheets), and what a
    kernel launch of eager PyTorch costs per layer in seconds (assumed). ``memory`` is 0 where unknown."""

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
    """The workload of a training. Lengths are the longest allowed, in tokens; ``batch`` is over all processes.

    sources: sequences per prompt in a step. on_policy: the share of sequences that the student samples.
    teacher_texts: prompts that the teacher answers once, before training. signal: the teacher reads every batch.
    sharded: weights, gradients and moments are sharded over the processes (FSDP), not replicated (DDP).
    optimizer, master_weights, micro_tokens: as the recipe has them.
    trained: parameters with a gradient, None for all of them. checkpointed: layers keep only their inputs.
    teacher_type: of the teacher's arithmetic, None for ``precision``. teacher_weight: bytes of each of its weights
    inside the layers, where they are quantised. teacher_apart: it is on a device of its own. further_teachers: bytes
    of the weights of others on the student's device. sampled_in: the type of the student that samples, None for
    ``precision``; a copy of it where the weights in training have another.
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
    trained: int | None = None
    checkpointed: bool = False
    optimizer: str = "adamw"
    master_weights: str = "model"
    micro_tokens: int | None = None
    teacher_type: str | None = None
    teacher_weight: float | None = None
    teacher_apart: bool = False
    further_teachers: int = 0
    sampled_in: str | None = None

    @property
    def sampled_width(self) -> int:
        """Bytes of a weight of the student that samples."""
        return WIDTH[self.sampled_in or self.precision]

    @property
    def teacher_width(self) -> int:
        """Bytes of a number in the teacher's arithmetic."""
        return WIDTH[self.teacher_type or self.precision]

    @property
    def teacher_bytes(self) -> int:
        """Bytes of the teacher's weights on the student's device."""
        if self.teacher is None or self.teacher_apart:
            return 0
        ends = self.teacher.vocab * self.teacher.hidden * (1 if self.teacher.tied else 2)  # never quantised
        layers = self.teacher.parameters - ends
        return round(self.teacher_width * ends + (self.teacher_weight or self.teacher_width) * layers)

    @property
    def states(self) -> int:
        """Bytes of the student's weights, gradients and optimizer, before they are sharded."""
        trained, state = self.student.parameters if self.trained is None else self.trained, STATE_BYTES[self.optimizer]
        held = 4 if self.master_weights == "model" else 2  # bytes of a weight in the model
        if self.trained is not None:  # beside the model: the adapter, its gradients and its moments in fp32
            return held * self.student.parameters + (4 + 4 + state) * trained
        if self.master_weights == "none":
            return (2 + 2 + state // 2) * trained
        return (held + (4 if self.master_weights == "optimizer" else 0) + 4 + state) * trained

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
        fitting = self.rows if self.micro_tokens is None else max(self.micro_tokens // self.length, 1)
        return min(self.micro_batch, self.rows, fitting)


@dataclass(frozen=True)
class StageEstimate:
    """One stage of a training or evaluation: the work and the peak memory of one process."""

    stage: str
    tokens: float  # tokens read or, when sampling, written
    flops: float
    seconds: float
    memory: int  # bytes on one device


@dataclass(frozen=True)
class Estimate:
    """Bytes on one device and seconds of all processes together, item by item."""

    memory: Mapping[str, int]  # permanent items, and those of two phases that never overlap
    time: Mapping[str, float]
    assumptions: tuple[str, ...]

    @property
    def standing(self) -> int:
        return _standing(self.memory)

    @property
    def peak(self) -> int:
        """The permanent items plus the larger phase."""
        return self.standing + max(self.memory["forward and backward"], self.memory["generation"])

    @property
    def seconds(self) -> float:
        return sum(self.time.values())


def memory_of(work: Work) -> dict[str, int]:
    """Bytes on one device: states, teacher, and the two phases (training pass, generation)."""
    cut = work.processes if work.sharded else 1
    return {
        "student weights, gradients, optimizer": work.states // cut,
        "teacher weights": work.teacher_bytes + work.further_teachers,
        "copy of the student that samples": _copy(work),
        "forward and backward": _student_pass(work) + _teacher_pass(work),
        "generation": max(_student_cache(work), _teacher_cache(work)),
    }


def _standing(memory: Mapping[str, int]) -> int:
    return sum(size for name, size in memory.items() if name not in ("forward and backward", "generation"))


def _student_pass(work: Work) -> int:
    tokens = work.micro_rows * work.length
    chunk = round(CHUNK_TENSORS * 4 * min(CHUNK_ELEMENTS, tokens * work.student.vocab))
    copies = (
        2 * work.student.parameters if work.precision == "bfloat16" and work.master_weights == "model" else 0
    )  # of the weights, by autocast
    return work.student.activation_bytes(tokens, work.precision, work.checkpointed) + chunk + copies


def _teacher_pass(work: Work) -> int:
    if work.teacher is None or not work.signal or work.teacher_apart:
        return 0
    widest = work.teacher.hidden + work.teacher.intermediate
    return work.micro_rows * work.length * widest * work.teacher_width


def _copy(work: Work) -> int:
    """Bytes of the student in the type that samples. If sharded, they are needed only while it samples."""
    own = "float32" if work.master_weights == "model" else "bfloat16"
    samples = work.on_policy > 0 and (work.sampled_in or work.precision) != own and not work.sharded
    return work.sampled_width * work.student.parameters if samples else 0


def _student_cache(work: Work) -> int:
    # Publishing, and sampling in the type in which it does, need the whole weights in addition to the shard.
    whole = 4 * work.student.parameters if work.sharded else 0
    if work.on_policy <= 0:
        return whole
    sampling = work.sampled_width * work.student.parameters if work.sharded else 0
    rows = min(work.generation_batch, work.rows)
    return max(whole, sampling + cache_of(work.student, rows, work.length, work.sampled_width))


def _teacher_cache(work: Work) -> int:
    if work.teacher is None or not work.teacher_texts or work.teacher_apart:
        return 0
    rows = min(work.generation_batch, work.teacher_texts)
    return cache_of(work.teacher, rows, work.length, work.teacher_width)


def cache_of(shape: Shape, rows: int, length: int, width: int) -> int:
    """Bytes of ``rows`` texts during sampling: keys and values, and the logits of one position."""
    return shape.cache_bytes(rows * length, width) + 8 * rows * shape.vocab


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


def decode_flops(shape: Shape, rows: int, prompt: int, new: int) -> float:
    """Operations to answer ``rows`` prompts with ``new`` tokens each."""
    return shape.flops(rows * prompt, prompt // 2) + shape.flops(rows * new, prompt + new // 2)


def stages_of(work: Work, device: Device) -> Iterator[StageEstimate]:
    """The stages of a training. All processes share each of them except the teacher's texts, which one samples."""
    arithmetic = device.peak(work.precision) * SHARE_TRAINING
    tokens, middle = work.steps * work.rows * work.length, work.length // 2
    standing, held = _standing(memory_of(work)), _student_pass(work) + _teacher_pass(work)
    prompt, new, batch = work.prompt_tokens, work.response_tokens, work.generation_batch
    if work.teacher is not None and (rows := work.teacher_texts):
        operations = decode_flops(work.teacher, rows, prompt, new)
        seconds = decode_seconds(work.teacher, rows, prompt, new, batch, work.teacher_width, device)
        yield StageEstimate("teacher texts", rows * new, operations, seconds, standing + _teacher_cache(work))
    if rows := round(work.rows * work.on_policy):
        operations = work.steps * decode_flops(work.student, rows, prompt, new)
        seconds = work.steps * decode_seconds(work.student, rows, prompt, new, batch, work.sampled_width, device)
        yield StageEstimate(
            "student rollouts", work.steps * rows * new, operations, seconds, standing + _student_cache(work)
        )
    if work.teacher is not None and work.signal:
        operations = work.teacher.flops(tokens, middle)
        yield StageEstimate(
            "teacher forward", tokens, operations, operations / arithmetic, standing + _teacher_pass(work)
        )
    # A backward pass costs as much as a forward pass for the inputs, and again for the weights that are trained.
    passes = 2 + (1 if work.trained is None else 0) + (1 if work.checkpointed else 0)
    operations = passes * work.student.flops(tokens, middle)
    if work.trained is not None:
        operations += 6.0 * work.trained * tokens
    yield StageEstimate("student forward and backward", tokens, operations, operations / arithmetic, standing + held)


def answering(shape: Shape, rows: int, lengths: tuple[int, int, int], batch: int, device: Device) -> StageEstimate:
    """A trained model answers ``rows`` problems in fp32. ``lengths``: of a prompt, an answer, the longest answer."""
    prompt, new, longest = lengths
    memory = 4 * shape.parameters + cache_of(shape, min(rows, batch), prompt + longest, 4)
    seconds = decode_seconds(shape, rows, prompt, new, batch, 4, device)
    return StageEstimate("evaluation", rows * new, decode_flops(shape, rows, prompt, new), seconds, memory)


def estimate(work: Work, device: Device) -> Estimate:
    """Memory and time of ``work`` on ``device``, with the assumptions."""
    longest = f"every sequence as long as allowed: {work.prompt_tokens} + {work.response_tokens} tokens"
    notes = (*assumptions(work, device), longest, "evaluation is left out")
    return Estimate(memory_of(work), {stage.stage: stage.seconds for stage in stages_of(work, device)}, notes)


def assumptions(work: Work, device: Device) -> tuple[str, ...]:
    """The assumptions of every estimate, independent of the lengths."""
    states = "sharded over the processes (FSDP)" if work.sharded else "replicated on every process (DDP)"
    return (
        f"{work.processes} x {device.name}; {_states(work)}, {states}",
        f"{'' if work.checkpointed else 'no '}gradient checkpointing; attention by sdpa, whose scores are never stored",
        f"{SHARE_TRAINING:.0%} of peak arithmetic in passes, {SHARE_DECODING:.0%} of peak bandwidth and "
        f"{device.launch * 1e3:g} ms a layer in decoding (assumed, not measured on this device)",
        "loading and communication between processes are left out",
    )


def _states(work: Work) -> str:
    """In words: how weights, gradients and moments are held."""
    model = "in fp32" if work.master_weights == "model" else "in bf16"
    copy = ", its fp32 copy" if work.master_weights == "optimizer" else ""
    what = "weights" if work.trained is None else "weights, adapter"
    if work.optimizer == "adamw" and work.master_weights == "model" and work.trained is None:
        return "student weights, gradients and AdamW moments in fp32"
    return f"student {what} {model}{copy}, gradients, and the state of {work.optimizer}"


def excess(work: Work, memory: float) -> tuple[int, str] | None:
    """The bytes by which ``work`` exceeds ``memory``, and the fix; None where it fits."""
    needed = Estimate(memory_of(work), {}, ())
    over = round(needed.peak - memory)
    if over <= 0:
        return None
    if needed.standing >= memory:
        return over, f"the models alone do not fit: use a smaller model, or more processes with FSDP{_helps(work)}"
    for name, phase, setting in (
        ("micro_batch", "forward and backward", "training.micro_batch"),
        ("generation_batch", "generation", "evaluation.batch"),
    ):
        if needed.standing + needed.memory[phase] <= memory:
            continue
        low, high = 0, getattr(work, name)
        while high - low > 1:  # the largest that fits
            middle = (low + high) // 2
            fits = needed.standing + memory_of(replace(work, **{name: middle}))[phase] <= memory
            low, high = (middle, high) if fits else (low, middle)
        if low:
            return over, f"lower {setting} from {getattr(work, name)} to {low}{_helps(work)}"
        fix = "one sequence does not fit: lower training.max_tokens, or use more processes with FSDP"
        return over, f"{fix}{_helps(work)}"
    raise AssertionError("the peak is one of the two phases")


def _helps(work: Work) -> str:
    """The settings that would reduce the peak memory, and by how much; the most helpful first."""
    share, fewest = round(ADAPTER_SHARE * work.student.parameters), loading.bytes_of("bnb-4bit")
    instead = {
        "training.gradient_checkpointing=true": replace(work, checkpointed=True),
        "student.adapter=lora": replace(work, trained=work.trained or share),
        "training.optimizer=adamw8bit": replace(work, optimizer="adamw8bit"),
        "training.master_weights=optimizer": replace(work, master_weights="optimizer"),
        "teacher.dtype=bfloat16": replace(work, teacher_type="bfloat16"),
        "teacher.quantization=bnb-4bit": replace(work, teacher_weight=work.teacher_weight or fewest),
    }
    peak = Estimate(memory_of(work), {}, ()).peak
    if work.precision != "bfloat16" or work.processes > 1 or work.master_weights == "none":
        del instead["training.master_weights=optimizer"]
    if work.sharded:
        del instead["training.optimizer=adamw8bit"]
    saved = {setting: peak - Estimate(memory_of(other), {}, ()).peak for setting, other in instead.items()}
    useful = sorted((setting for setting, size in saved.items() if size > 0.01 * peak), key=lambda s: -saved[s])
    return "".join(f"; {setting} saves {saved[setting] / 1e9:.1f} GB" for setting in useful)
