"""A student cut over the processes of a launch (FSDP 2), and the whole of it for everyone who reads it.

accelerate cuts models over GPUs alone, and inside ``prepare``, where this loop's head, decoder and checkpoints cannot
follow. So torch's ``fully_shard`` is called here, the same on CPUs (gloo) and GPUs: every decoder layer by itself, and
the student around them, so that embedding, norm and head stay together from its ``forward`` to its ``backward``.
Weights, gradients and moments are cut; a gradient is exchanged with every micro-batch, never held whole.

Samples, the shuffled weights, validation and publishing read a plain twin of the student, whose weights are there only
while it is :meth:`Replicated.read`. Under ``training.precision=bfloat16`` autograd keeps the weights in bfloat16 (2 bytes
each) until backward has used them, as without FSDP. Gathering and exchanging are met by all processes alike, or they
wait for ever: hence :meth:`Replicated.spare` and :mod:`harness.training.dummy_step`.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from harness.launch import processes
from harness.training.objective import Student


def accelerator(**options: Any) -> Accelerator:
    """accelerate's own, which is not told of FSDP: it would cut the model its way, or refuse the CPU."""
    asked = os.environ.pop(processes.SHARDED, None)
    try:
        return Accelerator(**options)
    finally:
        if asked is not None:
            os.environ[processes.SHARDED] = asked


def distribute(student: Student, accelerator: Accelerator) -> Replicated:
    """The student as the launch wants it held: cut, or a copy on every process."""
    if processes.sharded() and accelerator.num_processes > 1:
        return Sharded(student, accelerator)
    return Replicated(student)


class Replicated:
    """A student that every process has whole: nothing to gather. ``student`` is trained, ``whole`` is read."""

    def __init__(self, student: Student):
        self.student = self.whole = student

    def prepare(self, accelerator: Accelerator, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """What runs forward and backward, and what moves the weights."""
        return accelerator.prepare(self.student, optimizer)

    @contextlib.contextmanager
    def read(self) -> Iterator[Student]:
        """``whole`` with its weights as they are now; all processes enter and leave together."""
        yield self.whole

    def spare(self, batches: int, gather: Callable[[list[int]], list[int]]) -> int:
        """How many micro-batches more another process has, and this one has to sit through."""
        return 0  # only the last backward pass meets the other processes

    def state(self, optimizer: Optimizer, keep: bool) -> dict[str, Any]:
        """Weights and optimizer as a checkpoint holds them, plain and whole on any number of processes."""
        return {"student": self.student.state_dict(), "optimizer": optimizer.state_dict()}

    def load(self, state: dict[str, Any], optimizer: Optimizer) -> None:
        """What :meth:`state` gave, on whatever number of processes, cut or not."""
        self.student.load_state_dict(state["student"])
        optimizer.load_state_dict(state["optimizer"])

    def finished(self) -> Student:
        """The trained student, whole for good."""
        return self.whole


class Sharded(Replicated):
    """A student of which every process holds a part. The student given is cut in place."""

    def __init__(self, student: Student, accelerator: Accelerator):
        # The twin shares no weights: an empty parameter stands where each of them will be, tied ones once.
        empty = {id(p): nn.Parameter(p.new_empty(0), p.requires_grad) for p in student.parameters()}
        self.student, self.whole = student, copy.deepcopy(student, empty)
        mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        layers = set(getattr(student.model, "_no_split_modules", None) or ())
        free = os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() != "false"
        for module in reversed(list(student.modules())):  # inner ones first
            if type(module).__name__ in layers:
                fully_shard(module, mesh=mesh, reshard_after_forward=free)
        fully_shard(student, mesh=mesh)
        student.train()

    def prepare(self, accelerator: Accelerator, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        return self.student, accelerator.prepare(optimizer)

    @contextlib.contextmanager
    def read(self) -> Iterator[Student]:
        self._fill()
        try:
            yield self.whole
        finally:
            for parameter in self.whole.parameters():
                parameter.data = parameter.data.new_empty(0)

    def spare(self, batches: int, gather: Callable[[list[int]], list[int]]) -> int:
        return max(gather([batches])) - batches

    def state(self, optimizer: Optimizer, keep: bool) -> dict[str, Any]:
        """Tensor by tensor onto the CPU of the processes that ``keep`` it; the others only take part."""
        return {name: _whole(part, keep) for name, part in super().state(optimizer, keep).items()}

    def load(self, state: dict[str, Any], optimizer: Optimizer) -> None:
        own = self.student.state_dict()
        self.student.load_state_dict({name: _like(full, own[name]) for name, full in state["student"].items()})
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        moments = {
            i: {name: _like(value, parameters[i]) if name != "step" else value for name, value in entry.items()}
            for i, entry in state["optimizer"]["state"].items()
        }
        optimizer.load_state_dict(state["optimizer"] | {"state": moments})

    def finished(self) -> Student:
        self._fill()
        return self.whole

    @torch.no_grad()
    def _fill(self) -> None:
        for plain, part in zip(self.whole.parameters(), self.student.parameters(), strict=True):
            plain.data = full_tensor(part)


def full_tensor(tensor: Tensor) -> Tensor:
    """A tensor as it is on all processes together; all of them must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _whole(tree: Any, keep: bool) -> Any:
    """``tree`` with every cut tensor whole on the CPU, or None where it is not to be kept."""
    if isinstance(tree, DTensor):
        full = tree.full_tensor()
        return full.cpu() if keep else None
    return {key: _whole(value, keep) for key, value in tree.items()} if isinstance(tree, dict) else tree


def _like(full: Tensor, part: Tensor) -> Tensor:
    """This process' part of a whole tensor, cut as ``part`` is; every process has read the whole from the file."""
    if not isinstance(part, DTensor):
        return full
    return distribute_tensor(full.to(part.device), part.device_mesh, part.placements, src_data_rank=None)
