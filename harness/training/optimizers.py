"""Optimizers by name, and the place of the float32 weights that they update.

``training.master_weights`` chooses the place of the float32 weights, which small updates need:

    model       the model's own weights are float32; with precision=bfloat16 each forward pass casts them (autocast)
    optimizer   the model's weights are bfloat16; gradients add up in float32, and the optimizer's float32 copy
                is rounded into the model after every step
    none        weights, gradients and moments are bfloat16: an update below 1/256 of a weight is lost

An adapter's own weights are float32 in all three; the setting then applies to the frozen weights.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from harness.errors import BadInput, install
from harness.recipe import Training

Named = list[tuple[str, nn.Parameter]]
ENDS = ("embed", "lm_head", "wte", "wpe")  # parts of names of embeddings and heads, which are not inner matrices
SHARDED = ("adamw", "adamw_fused", "sgd")  # optimizers whose state has the shape of its weight


def check(training: Training, *, processes: int = 1, sharded: bool = False) -> None:
    """Raises BadInput for an optimizer that is not installed, or that this launch cannot run."""
    if training.optimizer == "adamw8bit" and importlib.util.find_spec("bitsandbytes") is None:
        raise BadInput(
            f"training.optimizer=adamw8bit needs bitsandbytes, which is not installed: {install('quantization')}"
        )
    if training.optimizer in ("muon", "adafactor") and not hasattr(torch.optim, training.optimizer.capitalize()):
        raise BadInput(f"training.optimizer={training.optimizer} needs a newer torch; update it, or use adamw")
    if sharded and processes > 1 and training.optimizer not in SHARDED:
        raise BadInput(
            f"training.optimizer={training.optimizer} cannot be sharded (FSDP), its state is not shaped like the "
            f"weights; use {' or '.join(SHARDED)}, or replicate the student (DDP)"
        )
    if training.master_weights != "model" and training.precision != "bfloat16":
        raise BadInput(
            f"training.master_weights={training.master_weights} keeps the model in bfloat16, and training.precision is "
            f"{training.precision}; set training.precision=bfloat16"
        )
    if training.master_weights != "model" and processes > 1:
        raise BadInput(
            f"training.master_weights={training.master_weights} is for one process; {processes} of them keep their "
            "float32 weights in the model: set training.master_weights=model"
        )


def schedule(optimizer: Optimizer, training: Training) -> LambdaLR:
    """The learning rate over the steps: linear warm-up, then ``training.schedule``; ``constant`` has no warm-up.

    The values are those of transformers' ``get_scheduler``, whose import loads every optional library that is
    installed (peft, bitsandbytes) into each process that trains.
    """
    warmup, steps = round(training.warmup * training.steps), training.steps

    def share(step: int) -> float:
        if training.schedule == "constant":
            return 1.0
        if step < warmup:
            return step / max(1, warmup)
        if training.schedule == "linear":
            return max(0.0, (steps - step) / max(1, steps - warmup))
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((step - warmup) / max(1, steps - warmup)))))

    return LambdaLR(optimizer, share)


def make(trained: Named, training: Training) -> Optimizer:
    """The optimizer of the trained weights. Unless ``decay_norms``, weights of one dimension have no decay."""
    settings: dict[str, Any] = {"lr": training.learning_rate, "weight_decay": training.weight_decay}
    norms = training.decay_norms or not training.weight_decay
    if training.optimizer == "muon":
        return _muon(trained, training.momentum, norms, settings)
    groups = decayed([p for _, p in trained], norms)
    if training.optimizer == "sgd":
        return SGD(groups, momentum=training.momentum, **settings)
    if training.optimizer == "adafactor":
        return torch.optim.Adafactor(groups, **settings)
    if training.optimizer == "adamw8bit":
        import bitsandbytes

        return bitsandbytes.optim.AdamW8bit(groups, **settings)
    on_gpu = groups[0]["params"][0].device.type == "cuda"
    return AdamW(groups, fused=on_gpu or training.optimizer == "adamw_fused", **settings)


def decayed(weights: list[nn.Parameter], norms: bool) -> list[dict[str, Any]]:
    """Parameter groups; unless ``norms``, weight decay leaves out parameters of one dimension (norms and biases)."""
    if norms:
        return [{"params": weights}]
    groups = [
        {"params": [p for p in weights if p.ndim > 1]},
        {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _muon(trained: Named, momentum: float, norms: bool, settings: dict[str, Any]) -> Optimizer:
    """Muon for the matrices inside the model, AdamW for embedding, head, norms and biases, at one learning rate.

    Muon's updates are scaled to the size of AdamW's (Liu et al., arXiv 2502.16982), so that one rate fits both.
    """
    inside = [p for name, p in trained if p.ndim == 2 and not any(end in name for end in ENDS)]
    chosen = {id(p) for p in inside}
    others = [p for _, p in trained if id(p) not in chosen]
    parts: list[Optimizer] = []
    if inside:
        parts.append(torch.optim.Muon(inside, momentum=momentum, adjust_lr_fn="match_rms_adamw", **settings))
    if others:
        parts.append(AdamW(decayed(others, norms), **settings))
    return parts[0] if len(parts) == 1 else OptimizerGroup(parts)


class OptimizerGroup(Optimizer):
    """Several optimizers of different weights that step together, with one list of groups for schedules."""

    def __init__(self, parts: list[Optimizer]):
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})

    def step(self, closure: Any = None) -> Any:
        losses = [part.step(closure) for part in self.parts]
        return losses[0]

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, own in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(own)
        # Loading gives every part new groups; copy the list, because a schedule sets the rate in this object's groups.
        self.param_groups = [group for part in self.parts for group in part.param_groups]


class MasterWeights:
    """The float32 copy of bfloat16 weights, with gradients that add up in float32. ``trained`` is what is optimised.

    Gradients move from their bfloat16 weights as soon as a backward pass has computed them.
    """

    def __init__(self, model: Named):
        self.pairs: list[tuple[nn.Parameter, nn.Parameter]] = []
        self.trained: Named = []
        for name, weight in model:
            if weight.dtype == torch.float32:
                self.trained.append((name, weight))
                continue
            master = nn.Parameter(weight.detach().float())
            self.pairs.append((weight, master))
            self.trained.append((name, master))
            weight.register_post_accumulate_grad_hook(_into(master))

    @torch.no_grad()
    def publish(self) -> None:
        """Rounds the float32 weights into the model."""
        for weight, master in self.pairs:
            weight.copy_(master)

    def state(self) -> list[Tensor]:
        return [master.detach() for _, master in self.pairs]

    @torch.no_grad()
    def load(self, state: list[Tensor]) -> None:
        for (_, master), saved in zip(self.pairs, state, strict=True):
            master.copy_(saved)


def _into(master: nn.Parameter) -> Callable[[Tensor], None]:
    def move(weight: Tensor) -> None:
        assert weight.grad is not None
        gradient = weight.grad.float()
        master.grad = gradient if master.grad is None else master.grad.add_(gradient)
        weight.grad = None

    return move
