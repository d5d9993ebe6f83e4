"""The student on several processes: replicated on each (DDP), or sharded over them (FSDP 2).

accelerate shards models on GPUs only, and inside ``prepare``, where this loop's chunked head, its decoder and its
checkpoints cannot follow. This module therefore calls torch's ``fully_shard`` itself, on CPUs (gloo) and GPUs alike:
once for every decoder layer, and once for the whole student, so that embedding, last norm and head stay gathered from
its ``forward`` to its ``backward``. Weights, gradients and optimizer moments are sharded; gradients are
reduce-scattered after every micro-batch and never held whole.

Rollouts, shuffled weights, validation and saving need the whole student. They read an unsharded copy, whose weights
exist only inside :meth:`Replicated.gathered`; a rollout in another type has only a copy in that type. With
``training.precision=bfloat16`` autograd keeps gathered weights in
bfloat16 (2 bytes each) until backward has used them, as it does without FSDP.

Every rank must enter every all-gather and reduce-scatter; otherwise the job hangs. A rank with fewer micro-batches
than another therefore runs dummy steps: :meth:`Replicated.missing_batches` and :func:`dummy_step`.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from transformers import PreTrainedModel

from harness.launch import processes
from harness.method import Method, Step, Tokens
from harness.training.batching import Batch
from harness.training.objective import Student
from harness.training.signals import NoTeacher

BUCKET = 2**24  # numbers of the student that one all-gather moves, unless a single tensor has more


def accelerator(**options: Any) -> Accelerator:
    """An ``Accelerator`` that ignores FSDP, because accelerate would shard the model its own way, or refuse the CPU."""
    fsdp_switch = os.environ.pop(processes.SHARDED, None)
    try:
        return Accelerator(**options)
    finally:
        if fsdp_switch is not None:
            os.environ[processes.SHARDED] = fsdp_switch


@contextlib.contextmanager
def in_turn(accelerator: Accelerator) -> Iterator[None]:
    """Runs its body on the processes of a machine one by one, which bounds the memory per machine. A collective.

    A process that raises passes the turn on, so that every process reports its error.
    """
    mine = accelerator.local_process_index
    turns = max(gather_object([mine])) + 1 if accelerator.num_processes > 1 else 1
    for _ in range(mine):
        accelerator.wait_for_everyone()
    try:
        yield
    finally:
        for _ in range(turns - mine):
            accelerator.wait_for_everyone()


def mesh(accelerator: Accelerator) -> DeviceMesh | None:
    """The processes that the student is sharded over, if the launch configuration requests it. A collective."""
    if not processes.sharded() or accelerator.num_processes == 1:
        return None
    return init_device_mesh(accelerator.device.type, (accelerator.num_processes,))


def distribute(student: Student, accelerator: Accelerator, over: DeviceMesh | None) -> Replicated:
    """The student sharded over the processes of :func:`mesh`, or replicated. No process waits for another here."""
    return Replicated(student) if over is None else Sharded(student, accelerator.device, over)


class Replicated:
    """A student that every process holds whole. ``module`` is trained; ``whole`` is read (here the same object)."""

    def __init__(self, student: Student):
        self.module = self.whole = student
        self._copy: PreTrainedModel | None = None  # a copy of the student that samples in its place
        self._stale = False  # whether the student has changed since the copy was made

    def sampler(self, dtype: str) -> PreTrainedModel:
        """The model that samples, inside :meth:`sampling`: the student's own, or a copy in another type."""
        if (kind := getattr(torch, dtype)) == self.whole.model.dtype:
            return self.whole.model
        self._copy = copy_of(self.whole.model, kind, lambda values: values)
        return self._copy

    @contextlib.contextmanager
    def sampling(self) -> Iterator[None]:
        """The weights of :meth:`sampler` are whole and current. A collective: all processes enter together."""
        if self._copy is not None and self._stale:
            refresh_copy(self._copy, self.whole.model)
        self._stale = False
        yield

    def moved(self) -> None:
        """Call this after every change of the student's weights."""
        self._stale = True

    def prepare(self, accelerator: Accelerator, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """The module that runs forward and backward, and the optimizer, both as accelerate wraps them."""
        return accelerator.prepare(self.module, optimizer)

    @contextlib.contextmanager
    def gathered(self) -> Iterator[Student]:
        """``whole`` with the current weights. A collective: all processes enter and leave together."""
        yield self.whole  # nothing to gather: every process holds all weights

    def whole_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Name and value of every weight of the model, one whole tensor after the other. A collective."""
        model = self.module.model
        once = {name for name, _ in model.named_parameters()}  # only the first name of tied weights
        again = {name for name, _ in model.named_parameters(remove_duplicate=False)} - once
        for name, part in model.state_dict().items():
            if name not in again:
                yield name, full_tensor(part)

    def missing_batches(self, batches: int, gather: Callable[[list[int]], list[int]]) -> int:
        """How many micro-batches fewer than the process with most this one has; each becomes a dummy step."""
        return 0  # DDP communicates in the last backward pass only, which every process runs anyway

    def state(self, optimizer: Optimizer, keep: bool) -> dict[str, Any]:
        """Trained weights and optimizer state as plain whole tensors, the same on any number of processes."""
        frozen = self._frozen()
        weights = {name: tensor for name, tensor in self.module.state_dict().items() if name not in frozen}
        return {"student": weights, "optimizer": optimizer.state_dict()}

    def load(self, state: dict[str, Any], optimizer: Optimizer) -> None:
        """Loads what :meth:`state` returned, on any number of processes, sharded or not."""
        self._load_weights(state["student"])
        optimizer.load_state_dict(state["optimizer"])
        self.moved()

    def _load_weights(self, weights: dict[str, Any]) -> None:
        # Frozen weights are in the model's own files, not in a checkpoint; other missing weights are an error.
        absent = self.module.load_state_dict(weights, strict=False)
        if absent.unexpected_keys or set(absent.missing_keys) - self._frozen():
            raise RuntimeError(f"the checkpoint has other weights than the student: {absent}")

    def _frozen(self) -> set[str]:
        """Names of the untrained weights: those of the base model, if an adapter is trained."""
        named = self.module.named_parameters(remove_duplicate=False)
        return {name for name, parameter in named if not parameter.requires_grad}

    def finished(self, keep: bool) -> Student:
        """The trained student with all its weights, on the processes that keep it. A collective."""
        return self.whole


class Sharded(Replicated):
    """A student of which every process holds a part. Shards the given student in place."""

    def __init__(self, student: Student, device: torch.device, over: DeviceMesh):
        # The unsharded copy shares no storage with the student: an empty parameter takes the place of each weight,
        # one and the same for tied weights.
        empty = {id(p): nn.Parameter(p.new_empty(0), p.requires_grad) for p in student.parameters()}
        super().__init__(student)
        self.whole = copy.deepcopy(student, empty).to(device)  # its buffers, too
        # Shard each layer on its own, so that at most one layer is gathered at a time. Without resharding after the
        # forward pass all layers stay gathered until backward: more memory, one all-gather less.
        layers = set(getattr(student.model, "_no_split_modules", None) or ())
        free = os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() != "false"
        # fully_shard claims the parameters that no inner module has claimed, so inner modules come first.
        for module in reversed(list(student.modules())):
            if type(module).__name__ in layers:
                fully_shard(module, mesh=over, reshard_after_forward=free)
        fully_shard(student, mesh=over)
        student.train()

    def prepare(self, accelerator: Accelerator, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        return self.module, accelerator.prepare(optimizer)

    @contextlib.contextmanager
    def gathered(self) -> Iterator[Student]:
        self._gather(self.whole)
        try:
            yield self.whole
        finally:
            _free(self.whole)

    @contextlib.contextmanager
    def sampling(self) -> Iterator[None]:
        if self._copy is None:
            with self.gathered():
                yield
            return
        # Round before gathering: half the traffic, and no process ever holds all weights in float32.
        self._gather(self._copy)
        try:
            yield
        finally:
            _free(self._copy)

    def missing_batches(self, batches: int, gather: Callable[[list[int]], list[int]]) -> int:
        # Every FSDP pass communicates, so all ranks must run equally many.
        return max(gather([batches])) - batches

    def state(self, optimizer: Optimizer, keep: bool) -> dict[str, Any]:
        """Gathers one tensor at a time onto the CPU of the processes that ``keep`` it; the others only participate."""
        return {name: _whole(part, keep) for name, part in super().state(optimizer, keep).items()}

    def load(self, state: dict[str, Any], optimizer: Optimizer) -> None:
        # The checkpoint holds whole tensors, so that any number of processes can load it; each takes its shard.
        own = self.module.state_dict()
        self._load_weights({name: _shard_like(full, own[name]) for name, full in state["student"].items()})
        # Moments are sharded like their parameter; "step" is a number that every process needs whole.
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        moments = {
            i: {name: _shard_like(value, parameters[i]) if name != "step" else value for name, value in entry.items()}
            for i, entry in state["optimizer"]["state"].items()
        }
        optimizer.load_state_dict(state["optimizer"] | {"state": moments})

    def finished(self, keep: bool) -> Student:
        # One bucket at a time, onto the CPU of the process that publishes; the others keep none.
        self._gather(self.whole, keep)
        return self.whole

    @torch.no_grad()
    def _gather(self, into: nn.Module, keep: bool | None = None) -> None:
        """Fills the empty weights of ``into``, in its own type, with those of the student.

        ``keep``: only onto the CPU of processes where it is true; None: onto the device of every process.
        """
        # A collective for every bucket: all ranks pass the same buckets in the same order.
        for bucket in _buckets(zip(into.parameters(), self.module.parameters(), strict=True)):
            plains, parts = zip(*bucket, strict=True)
            for plain, full in zip(plains, _gathered_at_once(parts, plains[0].dtype), strict=True):
                if keep is None:
                    plain.data = full
                elif keep:
                    plain.data = full.cpu()


def _buckets(pairs: Iterable[tuple[Tensor, Tensor]]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Neighbouring pairs of an unsharded tensor and its sharded source, by the type of the former and by size."""
    bucket: list[tuple[Tensor, Tensor]] = []
    numbers = 0
    for plain, part in pairs:
        if bucket and (plain.dtype != bucket[0][0].dtype or numbers + part.numel() > BUCKET):
            yield bucket
            bucket, numbers = [], 0
        bucket.append((plain, part))
        numbers += part.numel()
    if bucket:
        yield bucket


def _gathered_at_once(parts: Sequence[DTensor], dtype: torch.dtype) -> list[Tensor]:
    """The whole tensors, in ``dtype``, of parts that FSDP has sharded by rows. One all-gather for all of them.

    Every process contributes equally many rows of a tensor; where it has fewer, the rest is padding.
    """
    mesh = parts[0].device_mesh
    sizes = [-(-len(part) // mesh.size()) * (part.numel() // len(part)) for part in parts]
    own = torch.zeros(sum(sizes), dtype=dtype, device=parts[0].device)
    for part, place in zip(parts, own.split(sizes), strict=True):
        local = part.to_local()
        place[: local.numel()] = local.flatten()
    every = own.new_empty(mesh.size() * len(own))
    torch.distributed.all_gather_into_tensor(every, own, group=mesh.get_group())
    columns = every.view(mesh.size(), -1).split(sizes, dim=1)
    return [one.reshape(-1, *part.shape[1:])[: len(part)] for one, part in zip(columns, parts, strict=True)]


def _free(model: nn.Module) -> None:
    """Frees gathered weights; the shards of the student stay."""
    for parameter in model.parameters():
        parameter.data = parameter.data.new_empty(0)


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor, or a plain tensor unchanged. A collective for sharded tensors."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _whole(tree: Any, keep: bool) -> Any:
    """``tree`` with every sharded tensor gathered on the CPU, or None in its place if not kept."""
    if isinstance(tree, DTensor):
        full = tree.full_tensor()
        return full.cpu() if keep else None
    return {key: _whole(value, keep) for key, value in tree.items()} if isinstance(tree, dict) else tree


def _shard_like(full: Tensor, part: Tensor) -> Tensor:
    """This process' part of a whole tensor, sharded as ``part`` is; every process has read the whole from the file."""
    if not isinstance(part, DTensor):
        return full
    return distribute_tensor(full.to(part.device), part.device_mesh, part.placements, src_data_rank=None)


# A forward and backward pass with zero gradient, so that ranks with fewer micro-batches still join FSDP's
# collectives.
#
# FSDP gathers weights and reduce-scatters gradients layer by layer in every pass, and every rank must take part. A
# dummy step changes no weight and is not charged.


class ZeroObjective(Method):
    """An objective whose gradient is 0 for every parameter."""

    name = "zero objective"

    def objective(self, tokens: Tokens) -> Tensor:
        return tokens.logits[:, 0] * 0.0


def dummy_step(wrapped: nn.Module, batch: Batch, step: Step) -> None:
    """One pass over a batch that this process has already trained on."""
    total, _ = wrapped(batch, ZeroObjective(), NoTeacher(), step, None)
    total.backward()


# A copy of the student in another type of number, for sampling.
#
# Sampling reads all weights once for every token that it writes. In bfloat16 that is half the memory traffic, and a
# product for which GPUs, and CPUs with AMX, have dedicated units. The optimizer still updates the float32 weights.
# The copy is refreshed before sampling if the student has changed.


def copy_of(model: PreTrainedModel, dtype: torch.dtype, values: Callable[[Tensor], Tensor]) -> PreTrainedModel:
    """The model with ``values`` of its weights in ``dtype``, without gradients; tied weights stay tied.

    Buffers keep their type, as in a model loaded in ``dtype``.
    """
    # Pass the new weights in place of the old ones, to avoid a second whole model in the old type.
    cast = {id(p): nn.Parameter(values(p.detach()).to(dtype), requires_grad=False) for p in model.parameters()}
    return copy.deepcopy(model, cast).eval()


@torch.no_grad()
def refresh_copy(mine: PreTrainedModel, student: PreTrainedModel) -> None:
    """Rounds the student's weights into the copy."""
    for own, theirs in zip(mine.parameters(), student.parameters(), strict=True):
        own.copy_(theirs)
