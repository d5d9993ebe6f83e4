"""Batched decoding with a preallocated key-value cache, for models of the Llama family.

The arithmetic is that of transformers' modules, on the model's own weights. It avoids their per-token
overhead: rebuilt masks, concatenated caches, hundreds of Python calls. Each row of the cache holds one text
at its own length, so finished texts are replaced by waiting prompts while the others continue (continuous batching).
:meth:`LlamaDecoder.fit` says which models it can run; transformers decodes all others.

Shapes: n rows in use, V vocabulary, d hidden size, W columns of the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from harness.models import adapters, bfloat16_products, devices
from harness.models.head import Head, trunk

FAMILY = {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}
FUSED_ELEMENTS = 2**24  # up to this many weights in all layers, projections that read one input become one matrix
GROWTH = 64  # minimum growth of the cache in columns


class LlamaDecoder:
    """A key-value cache for up to ``rows`` texts and the forward pass that fills it.

    Rows 0 to n-1 are in use. :meth:`add` adds prompts, :meth:`step` appends one token to every row, :meth:`keep`
    frees rows. ``tokens``: the maximum expected number of steps, which decides whether to pack weights.
    """

    copies = True  # whether weights may be copied into a faster form, which does not follow later changes

    def __init__(self, model: PreTrainedModel, vocab: int, rows: int, tokens: int = 0):
        self.head, body = Head.of_checked(model, vocab), trunk(model)
        self.embed, self.rotary, self.norm = body.embed_tokens, body.rotary_emb, body.norm
        attention = body.layers[0].self_attn
        self.head_dim, self.scaling = attention.head_dim, attention.scaling
        self.heads = attention.q_proj.out_features // self.head_dim
        self.shared = attention.k_proj.out_features // self.head_dim  # heads of keys and values
        size = sum(p.numel() for p in body.layers.parameters())
        fuse, self.project = self.copies and size <= FUSED_ELEMENTS, self.head.raw
        pack = rows if self.copies and packing_pays(self.head.weight, size, tokens) else None
        if pack is not None:
            weight, bias = self.head.weight[: self.head.vocab], self.head.bias
            own = None if bias is None else bias[: self.head.vocab].to(weight.dtype)
            self.project = packed_product([weight], own, rows, self.head.raw)
        self.layers = [_Layer(layer, fuse, pack) for layer in body.layers]
        self.rows, self.device, self.dtype = rows, model.device, self.embed.weight.dtype
        self.width = 0
        self.cache: list[tuple[Tensor, Tensor]] = []  # per layer, [rows, width, shared * head_dim]
        self.blocked = torch.empty(0)  # [rows, width] 0 on columns in use, -inf on the others
        self.cos = self.sin = torch.empty(0)  # [width, 1, head_dim]
        self.length: list[int] = []  # tokens in the cache, of each row in use

    @staticmethod
    def fit(model: PreTrainedModel) -> bool:
        """Whether this decoder computes what transformers does: a known type, nothing hooked or replaced."""
        config = model.config
        if type(model).__name__ not in FAMILY or not type(model).__module__.startswith("transformers."):
            return False
        rope = getattr(config, "rope_parameters", None) or {}
        if rope.get("rope_type", "default") not in {"default", "linear", "llama3", "yarn"}:
            return False  # the others change with the length of the text
        if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
            return False
        if any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ()):
            return False
        # Quantised layers, hooks and some adapters change the arithmetic without changing the model's class.
        for module in model.modules():
            if module._forward_hooks or module._forward_pre_hooks:
                return False
            if adapters.is_part(module):
                if adapters.is_layer(module) and not adapters.readable(module):
                    return False
                continue
            plain = type(module).__module__.startswith(("transformers.", "torch.nn."))
            if not plain or (isinstance(module, nn.Linear) and type(module) is not nn.Linear):
                return False
            if isinstance(module, nn.Linear) and type(module.weight) is not nn.Parameter:
                return False  # a tensor with its own arithmetic
        return True

    def add(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Runs n prompts (prefill), which take the next free rows; returns the logits [n, V] of their next token.

        A prompt that is a prefix of another one is not run: its keys and values are those of the longer prompt.
        """
        first, sizes = len(self.length), [len(p) for p in prompts]
        self._reserve(max(sizes) + 1)
        stop, longest = first + len(sizes), max(sizes)
        holders = containing(prompts)
        run = sorted(set(holders))  # the prompts that are run, m of them
        ids = torch.zeros(len(run), longest, dtype=torch.long)
        for i, k in enumerate(run):
            ids[i, : sizes[k]] = torch.tensor(prompts[k])
        ids, shape = devices.moved(ids, self.device), (len(run), longest, -1, self.head_dim)
        cos, sin = self.cos[:longest], self.sin[:longest]
        # [n] the row of ``ids`` that holds each prompt; None if every prompt is run and nothing needs a copy.
        row_of = {k: i for i, k in enumerate(run)}
        rows = devices.moved(torch.tensor([row_of[k] for k in holders]), self.device)
        copied = None if len(run) == len(sizes) else rows

        def attend(i: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self.cache[i]
            # Prompts are padded on the right: causal attention keeps real tokens from padding, and ``blocked`` hides
            # the padded columns from later steps.
            for part, new in ((keys, k), (values, v)):
                new = new.flatten(2)
                part[first:stop, :longest] = new if copied is None else new[copied]
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))
            grouped = self.heads != self.shared
            out = functional.scaled_dot_product_attention(
                q, k, v, is_causal=True, scale=self.scaling, enable_gqa=grouped
            )
            return out.transpose(1, 2).flatten(2)

        hidden = self._through(functional.embedding(ids, self.embed.weight), shape, cos, sin, attend)
        last = devices.moved(torch.tensor(sizes), self.device)
        columns = torch.arange(self.width, device=self.device)
        self.blocked[first:stop] = torch.zeros_like(self.blocked[first:stop]).masked_fill_(
            columns >= last[:, None], -torch.inf
        )
        self.length += sizes
        return self._logits(hidden[rows, last - 1])

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Appends ``tokens`` [n], one to every row in use; returns the logits [n, V] of the next ones."""
        width = max(self.length) + 1
        self._reserve(width)
        logits = self._run(torch.tensor([[*tokens], self.length]), width)
        for i in range(len(self.length)):
            self.length[i] += 1
        return logits

    def _run(self, inputs: Tensor, width: int) -> Tensor:
        """The logits of a step: on the host [2, n] the tokens and their columns, below ``width``."""
        return self._append(*devices.moved(inputs, self.device), width)

    def _append(self, tokens: Tensor, at: Tensor, width: int) -> Tensor:
        """The pass of a step, over the first ``width`` columns: ``tokens`` [n] and their columns ``at`` [n] to logits.

        It reads nothing back from the device and its shapes depend only on n and ``width``, so it can be captured
        (:mod:`harness.models.captured_decoder`).
        """
        rows = len(tokens)
        # Rows have different lengths, so each writes to its own column: one index into the flattened cache.
        flat = at + torch.arange(rows, device=self.device) * self.width
        self.blocked.view(-1).index_fill_(0, flat, 0.0)
        mask = self.blocked[:rows, :width].view(rows, 1, 1, width)
        cos, sin = self.cos[at], self.sin[at]

        def attend(i: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self.cache[i]
            keys.view(-1, keys.shape[2]).index_copy_(0, flat, k.flatten(1))
            values.view(-1, values.shape[2]).index_copy_(0, flat, v.flatten(1))
            cached = (t[:rows, :width].unflatten(2, (self.shared, -1)).transpose(1, 2) for t in (keys, values))
            # Grouped-query attention without repeating the keys: query heads that share a key head are laid out
            # as positions of a longer query.
            q = q.reshape(rows, self.shared, -1, self.head_dim)
            return functional.scaled_dot_product_attention(q, *cached, attn_mask=mask, scale=self.scaling).reshape(
                rows, -1
            )

        hidden = self._through(
            functional.embedding(tokens, self.embed.weight), (rows, -1, self.head_dim), cos, sin, attend
        )
        return self._logits(hidden)

    def keep(self, rows: Sequence[int]) -> list[int]:
        """Frees all rows but ``rows`` (ascending). Returns which old row is in each new row.

        Rows must stay contiguous, so rows from the end move into the gaps; the others are not copied.
        """
        count, chosen = len(rows), set(rows)
        order = [i if i in chosen else -1 for i in range(count)]
        movers = [i for i in rows if i >= count]
        gaps = [place for place, row in enumerate(order) if row < 0]
        if movers:
            to, source = (torch.tensor(x, device=self.device) for x in (gaps, movers))
            longest = max(self.length[i] for i in movers)
            for part in (t for pair in self.cache for t in pair):
                part[:, :longest].index_copy_(0, to, part[source, :longest])
            self.blocked.index_copy_(0, to, self.blocked[source])
            for gap, mover in zip(gaps, movers, strict=True):
                order[gap] = mover
        self.length = [self.length[i] for i in order]
        return order

    def _reserve(self, width: int) -> None:
        """Grows the cache to at least ``width`` columns; geometric growth keeps the copying linear."""
        if width <= self.width:
            return
        old, self.width = self.width, max(width + GROWTH, int(1.5 * self.width))

        def grown(part: Tensor | None, fill: float, dtype: torch.dtype, *shape: int) -> Tensor:
            new = torch.full((self.rows, self.width, *shape), fill, dtype=dtype, device=self.device)
            if part is not None and old:
                new[:, :old] = part
            return new

        size = self.shared * self.head_dim
        pairs = self.cache or [(None, None)] * len(self.layers)
        self.cache = [tuple(grown(part, 0.0, self.dtype, size) for part in pair) for pair in pairs]
        self.blocked = grown(self.blocked, -torch.inf, self.dtype)
        place = torch.arange(self.width, device=self.device)[None]
        cos, sin = self.rotary(self.embed.weight, place)
        half = self.head_dim // 2
        # rotate_half(x) = cat(-x2, x1). ``roll`` gives cat(x2, x1) without a copy per half, so the minus sign of the
        # first half is stored in the sine table.
        self.cos, self.sin = cos[0, :, None], torch.cat([-sin[0, :, :half], sin[0, :, half:]], -1)[:, None]

    def _through(self, x: Tensor, shape: tuple[int, ...], cos: Tensor, sin: Tensor, attend) -> Tensor:
        """Hidden states [..., d] before the last norm. ``shape`` splits projections into heads; ``attend`` reads the
        cache of a layer."""
        half, both = self.head_dim // 2, self.heads + self.shared
        for i, layer in enumerate(self.layers):
            heads = layer.qkv(_norm(layer.before, x)).view(shape)
            turned, v = heads[..., :both, :], heads[..., both:, :]
            if layer.q_norm is not None:
                parts = (
                    _norm(layer.q_norm, turned[..., : self.heads, :]),
                    _norm(layer.k_norm, turned[..., self.heads :, :]),
                )
                turned = torch.cat(parts, -2)
            # Rotary embedding of queries and keys together; see _reserve for the sign.
            turned = torch.addcmul(turned * cos, turned.roll(half, -1), sin)
            x = x + layer.out(attend(i, turned[..., : self.heads, :], turned[..., self.heads :, :], v))
            x = x + layer.mlp(_norm(layer.between, x))
        return x

    def _logits(self, hidden: Tensor) -> Tensor:
        return self.head.finish(self.project(_norm(self.norm, hidden)))


def containing(prompts: Sequence[Sequence[int]]) -> list[int]:
    """For each prompt the index of the longest prompt that begins with it: its own if there is no other."""
    # In dictionary order a prompt comes right before those that begin with it.
    order = sorted(range(len(prompts)), key=lambda i: tuple(prompts[i]))
    longest = list(range(len(prompts)))
    for i, after in zip(reversed(order[:-1]), reversed(order[1:]), strict=True):
        if tuple(prompts[after][: len(prompts[i])]) == tuple(prompts[i]):
            longest[i] = longest[after]
    return longest


class _Layer:
    """One layer's weights. Projections with the same input are fused into one matrix if ``fuse`` allows.

    ``pack``: the rows of a step for which all of them are packed, or None.
    """

    def __init__(self, layer: nn.Module, fuse: bool, pack: int | None):
        attention, mlp = layer.self_attn, layer.mlp
        self.before, self.between = layer.input_layernorm, layer.post_attention_layernorm
        self.q_norm, self.k_norm = getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)
        self.qkv = _joint([attention.q_proj, attention.k_proj, attention.v_proj], fuse, pack)
        gate_up, activation = _joint([mlp.gate_proj, mlp.up_proj], fuse, pack), mlp.act_fn
        down = _joint([mlp.down_proj], False, pack)
        self.out = _joint([attention.o_proj], False, pack)

        def through(x: Tensor) -> Tensor:
            gate, up = gate_up(x).chunk(2, -1)
            return down(activation(gate) * up)

        self.mlp = through


def _joint(linears: list[nn.Linear], fuse: bool, pack: int | None) -> Product:
    """A function that returns the outputs of ``linears`` concatenated on the last axis.

    An adapter is merged into a fused or packed matrix, which is a copy anyway, and stays separate elsewhere.
    """
    each = [adapters.product(linear) for linear in linears]
    apart = each[0] if len(each) == 1 else lambda x: torch.cat([one(x) for one in each], -1)
    if not fuse and pack is None:
        return apart
    weights = [adapters.merged_weight(linear) for linear in linears]
    biases = [adapters.bias(linear) for linear in linears]
    bias = None
    if any(b is not None for b in biases):
        bias = torch.cat([weights[0].new_zeros(m.out_features) if m.bias is None else m.bias for m in linears])
    whole = plain_product(torch.cat(weights), bias) if fuse else apart
    return whole if pack is None else packed_product(weights, bias, pack, whole)


def _norm(module: nn.Module, x: Tensor) -> Tensor:
    """RMS norm as in transformers, without its casts when everything is fp32."""
    if x.dtype != torch.float32:
        return module(x)
    spread = x.square().sum(-1, keepdim=True).div_(x.shape[-1]).add_(module.variance_epsilon)
    return module.weight * (x * spread.rsqrt_())


# Products of a few rows with a large weight, in bfloat16 on a CPU. A decoding step multiplies a few rows with every
# weight. With the layout of a checkpoint, oneDNN spends more time on reordering a weight into the blocks of
# its kernels than on the product; packing does this once for a whole generation. Products of many rows (prompts) use
# the unpacked weight. Only bfloat16 is packed: in float32 every text would change by rounding, and with it all
# earlier measurements.

Product = Callable[[Tensor], Tensor]
LARGE = 2**20  # packing pays from this many weights of a model
LONG = 16  # and from this many tokens of a text: packing takes as long as a few steps


def packing_pays(like: Tensor, weights: int, tokens: int) -> bool:
    """Whether to pack a model of ``weights`` numbers, of the type and device of ``like``, for texts of ``tokens``."""
    if like.device.type != "cpu" or like.dtype != torch.bfloat16 or weights < LARGE or tokens < LONG:
        return False
    operations = torch.ops.mkldnn
    known = all(hasattr(operations, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))
    return known and bfloat16_products.native()


def packed_product(weights: Sequence[Tensor], bias: Tensor | None, rows: int, otherwise: Product) -> Product:
    """x [n, in] -> x W^T + bias [n, out] with the packed ``weights`` [out, in], stacked.

    ``rows``: the n to pack for. ``otherwise`` multiplies x [B, L, in]. No gradient passes through either.
    """
    whole = weights[0] if len(weights) == 1 else torch.cat(list(weights))
    packed = torch.ops.mkldnn._reorder_linear_weight(whole.detach(), rows)
    step = torch.ops.mkldnn._linear_pointwise
    return lambda x: step(x, packed, bias, "none", [], "") if x.dim() == 2 else otherwise(x)


def plain_product(weight: Tensor, bias: Tensor | None) -> Product:
    return lambda x: functional.linear(x, weight, bias)
