"""From hidden states to a sum of per-token values without the [tokens, vocabulary] logits.

The output head is applied to one chunk of tokens at a time, and the objective reads the chunk's logits slice by slice.
The gradient of a slice with respect to its logits overwrites the logits; after the last slice of a chunk it is
multiplied into the gradients of the hidden states [N, d] and of the head [V, d]. Peak memory beyond those two is the
logits of one chunk plus a few tensors of one slice. The arithmetic is that of the full computation: nothing is
recomputed in the backward pass.

Chunks are large because with few tokens a product with the head spends its time reading the head's weights. Slices
are small because the element-wise work of an objective is bound by memory and runs faster inside a CPU's caches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from harness.errors import BadInput
from harness.models import CHUNK_ELEMENTS

SLICES = {"cpu": 16}  # of a chunk, on a device that caches; elsewhere the number of kernel launches matters more
SLICES_ELSEWHERE = 4


@dataclass(frozen=True)
class Head:
    """How a model turns hidden states [N, d] into logits [N, V] over the first ``vocab`` tokens.

    ``scale`` multiplies the logits (Cohere, Granite), ``softcap`` bounds them by cap * tanh(z / cap) (Gemma).
    Rows of the weight beyond ``vocab`` are padding of the checkpoint and never enter a softmax.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    vocab: int
    scale: float = 1.0
    softcap: float | None = None

    @classmethod
    def of(cls, model: PreTrainedModel, vocab: int) -> Head:
        """The head of ``model``, checked against the model's own logits. Refuses a model that it cannot read."""
        head = cls.of_checked(model, vocab)
        # Compare on a few tokens, because a model may transform its logits in a way that no setting names.
        ids = torch.arange(4, device=head.weight.device)[None] % head.vocab
        with torch.no_grad():
            ours = head.logits(trunk(model)(input_ids=ids).last_hidden_state[0])
            theirs = model(input_ids=ids).logits[0, :, : head.vocab]
        if not torch.allclose(ours.float(), theirs.float(), rtol=1e-2, atol=1e-2):
            raise BadInput(f"{type(model).__name__} computes its logits in a way that this harness cannot chunk")
        return head

    @classmethod
    def of_checked(cls, model: PreTrainedModel, vocab: int) -> Head:
        """The head of a model that :meth:`of` has already accepted, read again without the check."""
        # Cohere multiplies its logits by logit_scale, Granite divides them by logits_scaling.
        output, config = model.get_output_embeddings(), model.config.get_text_config()
        scale = getattr(config, "logit_scale", None) or 1.0 / (getattr(config, "logits_scaling", None) or 1.0)
        return cls(
            weight=output.weight,
            bias=getattr(output, "bias", None),
            vocab=min(vocab, output.weight.shape[0]),
            scale=float(scale),
            softcap=getattr(config, "final_logit_softcapping", None),
        )

    def to(self, device: torch.device) -> Head:
        """A copy of the head on another device."""
        bias = None if self.bias is None else nn.Parameter(self.bias.detach().to(device), requires_grad=False)
        return replace(self, weight=nn.Parameter(self.weight.detach().to(device), requires_grad=False), bias=bias)

    def finish(self, raw: Tensor) -> Tensor:
        """[N, vocab] logits with scale and soft cap applied; the cap is computed in fp32 or wider."""
        if self.scale != 1.0:
            raw = raw * self.scale
        if self.softcap is not None:
            wide = raw if raw.dtype == torch.float64 else raw.float()
            raw = self.softcap * torch.tanh(wide / self.softcap)
        return raw

    def raw(self, hidden: Tensor) -> Tensor:
        """[N, vocab] the product of hidden states [N, d] with the head, before scale and soft cap."""
        bias = None if self.bias is None else self.bias[: self.vocab].to(hidden.dtype)
        return nn.functional.linear(hidden, self.weight[: self.vocab].to(hidden.dtype), bias)

    def logits(self, hidden: Tensor) -> Tensor:
        """[N, vocab] logits of hidden states [N, d]."""
        return self.finish(self.raw(hidden))


def trunk(model: PreTrainedModel) -> nn.Module:
    """The part of a causal language model below its head; called alike, it returns ``last_hidden_state``."""
    return model.get_decoder() if hasattr(model, "get_decoder") else model.base_model


def cut(segment_ids: Sequence[int], vocab: int, elements: int = CHUNK_ELEMENTS) -> list[tuple[int, int]]:
    """Chunks [start, stop) of consecutive tokens that never cut a segment; a longer segment becomes one chunk."""
    size = max(1, elements // vocab)
    total = len(segment_ids)
    if total <= size:
        return [(0, total)] if total else []
    bounds, start = [], 0
    while start < total:
        stop = min(start + size, total)
        if stop < total:
            # Step back to the end of a segment; if none ends in this chunk, run on to the end of the segment.
            back = stop
            while back > start and segment_ids[back] == segment_ids[back - 1]:
                back -= 1
            if back > start:
                stop = back
            else:
                while stop < total and segment_ids[stop] == segment_ids[stop - 1]:
                    stop += 1
        bounds.append((start, stop))
        start = stop
    return bounds


@dataclass(frozen=True)
class Chunk:
    """Tokens [start, stop) that are projected at once, and the slices [start, stop) in which they are read."""

    start: int
    stop: int
    slices: list[tuple[int, int]]


def chunks(
    segment_ids: Sequence[int], vocab: int, elements: int, device: str, whole: Sequence[int] | None = None
) -> list[Chunk]:
    """Chunks and slices that never cut a segment; nor does a chunk cut a piece of ``whole`` [N] (longer ids)."""
    # Slices are cut inside each chunk, so that every slice reads logits of one projection.
    outer = cut(segment_ids if whole is None else whole, vocab, elements)
    size = elements // SLICES.get(device, SLICES_ELSEWHERE)
    inner = [cut(segment_ids[start:stop], vocab, size) for start, stop in outer]
    return [Chunk(a, b, [(a + c, a + d) for c, d in slices]) for (a, b), slices in zip(outer, inner, strict=True)]


def chunked_sum(
    hidden: Tensor,
    head: Head,
    bounds: Sequence[Chunk],
    value: Callable[[Tensor, int, int], Tensor],
    on_chunk: Callable[[Tensor, Chunk], None] | None = None,
) -> Tensor:
    """Sum over slices of ``value(logits [n, V], start, stop)``, differentiable in ``hidden`` and the head.

    ``value`` returns a scalar. Its gradient is formed during the forward pass, slice by slice. ``on_chunk`` receives
    every chunk's raw logits [n, V], before scale and soft cap, ahead of the chunk's first slice.
    """
    return _ChunkedSum.apply(hidden, head.weight, head.bias, head, bounds, value, on_chunk)


class _ChunkedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, head, bounds, value, on_chunk):
        wants_weight = ctx.needs_input_grad[1]
        grad_hidden = torch.zeros_like(hidden) if ctx.needs_input_grad[0] else None
        # A frozen head (an adapter run) needs no gradient, which saves a [V, d] buffer and a product per chunk.
        grad_weight = torch.zeros_like(weight) if wants_weight else None
        grad_bias = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        # Rows beyond the vocabulary are padding of the checkpoint; their gradient stays 0.
        matrix = weight[: head.vocab].to(hidden.dtype)
        # Sums over many tokens lose digits in half precision, so accumulate in fp32 or wider.
        total = torch.zeros(
            (), dtype=torch.float64 if hidden.dtype == torch.float64 else torch.float32, device=hidden.device
        )
        for chunk in bounds:
            here = slice(chunk.start, chunk.stop)
            # Detach: this function forms the gradients of hidden states and head itself, below.
            rows = hidden[here].detach()
            raw = head.raw(rows).detach()
            if on_chunk is not None:
                on_chunk(raw, chunk)
            # The objective sees one slice at a time. Its gradient replaces the logits of the slice in place.
            for start, stop in chunk.slices:
                part = raw[start - chunk.start : stop - chunk.start]
                # A copy, because the gradient overwrites ``part`` and a method may keep a reference to its logits.
                read = part.clone().requires_grad_()
                with torch.enable_grad():
                    summed = value(head.finish(read), start, stop)
                    (gradient,) = torch.autograd.grad(summed, read)
                total += summed.detach()
                part.copy_(gradient)
                del read, summed, gradient
            # ``raw`` now holds d(sum)/d(logits) of the whole chunk.
            if grad_hidden is not None:
                _project_back(grad_hidden[here], raw, matrix)
            if grad_weight is not None:
                _accumulate(grad_weight[: head.vocab], raw, rows)
            if grad_bias is not None:
                grad_bias[: head.vocab] += raw.sum(0)
            # Free the chunk's logits before the next projection allocates its own: only one chunk may exist.
            del raw, part
        # Kept as plain attributes and released in backward, so that autograd takes the buffers over without a copy.
        ctx.gradients = (grad_hidden, grad_weight, grad_bias)
        return total

    @staticmethod
    def backward(ctx, grad_total):
        # The gradients were formed in the forward pass for a factor of 1; scale them by the incoming one.
        gradients, ctx.gradients = ctx.gradients, None
        return (*(None if g is None else g.mul_(grad_total.to(g.dtype)) for g in gradients), *[None] * 4)


def _project_back(grad_rows: Tensor, grad_raw: Tensor, matrix: Tensor) -> None:
    """grad_rows [n, d] = grad_raw [n, V] @ matrix [V, d], in place where autocast has not made the logits narrower."""
    if grad_rows.dtype == grad_raw.dtype:
        torch.mm(grad_raw, matrix, out=grad_rows)
    else:
        grad_rows.copy_(grad_raw @ matrix)


def _accumulate(grad_weight: Tensor, grad_raw: Tensor, rows: Tensor) -> None:
    """grad_weight [V, d] += grad_raw.T [V, n] @ rows [n, d], in place: a temporary would be as large as the head."""
    if grad_weight.dtype == grad_raw.dtype:
        grad_weight.addmm_(grad_raw.T, rows)
    else:
        grad_weight += (grad_raw.T @ rows).to(grad_weight.dtype)
