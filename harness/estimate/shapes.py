"""The shape of a decoder: counts parameters, operations, key-value cache and activations; reads it from model files.

Operations are counted in two ways: :meth:`Shape.flops` includes attention over the context, for estimates;
:func:`token_flops` needs only parameters and tokens, for budgets that compare recorded runs.

The bytes of activations per token and layer are those that autograd keeps for a Llama-like layer under sdpa;
``tests/test_estimate.py`` compares them with PyTorch's own count.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.models import loading, weight_files
from harness.models.files import ModelFiles


@dataclass(frozen=True)
class Shape:
    """A decoder of the Llama family: the sizes that decide its memory and operations."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool
    counted: int | None = None  # parameters, where they were counted in the files

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """The shape in a ``config.json``, under the names that its families use. Raises KeyError for a missing size."""
        config = config.get("text_config") or config

        def first(*names: str) -> Any:
            for name in names:
                if config.get(name) is not None:
                    return config[name]
            raise KeyError(names[0])

        hidden, heads = first("hidden_size", "n_embd", "d_model"), first("num_attention_heads", "n_head", "num_heads")
        inner = config.get("intermediate_size") or config.get("n_inner") or config.get("d_ff") or 4 * hidden
        return cls(
            layers=first("num_hidden_layers", "n_layer", "num_layers"),
            hidden=hidden,
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or hidden // heads,
            intermediate=inner,
            vocab=first("vocab_size"),
            tied=bool(config.get("tie_word_embeddings", True)),
        )

    @property
    def queries(self) -> int:
        """Width of the queries of one token."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of the keys of one token; the values are as wide."""
        return self.kv_heads * self.head_dim

    @property
    def parameters(self) -> int:
        """Weights; biases and norms (below 0.1 %) are left out unless the files were counted."""
        layer = self.hidden * (2 * self.queries + 2 * self.keys + 3 * self.intermediate)
        return self.counted or self.layers * layer + self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def multiplied(self) -> int:
        """Weights that every token is multiplied with: all but an untied input embedding."""
        return self.parameters - (0 if self.tied else self.vocab * self.hidden)

    def flops(self, tokens: int, context: int) -> float:
        """Operations of a forward pass over ``tokens`` tokens that see ``context`` tokens each on average."""
        return tokens * (2.0 * self.multiplied + 4.0 * self.layers * self.queries * context)

    def cache_bytes(self, tokens: int, width: int) -> int:
        """Bytes of the keys and values of ``tokens`` tokens in all layers."""
        return 2 * self.layers * self.keys * tokens * width

    def activation_bytes(self, tokens: int, precision: str, checkpointed: bool = False) -> int:
        """Bytes that autograd keeps of a forward pass over ``tokens`` tokens.

        ``checkpointed``: of every layer its input, and of one layer at a time everything.
        """
        if precision == "float32":
            layer = 4 * (6 * self.hidden + 2 * self.queries + 2 * self.keys + 4 * self.intermediate)
        else:  # autocast: the residual stream and the norms stay in fp32
            layer = 26 * self.hidden + 2 * (2 * self.queries + 2 * self.keys + 4 * self.intermediate)
        kept = self.layers * 4 * self.hidden + layer if checkpointed else self.layers * layer
        return tokens * (kept + 8 * self.hidden)


def token_flops(
    student: float, teacher: float, trained: float, taught: float, generated: float, reference: float = 0
) -> float:
    """Operations from parameters and tokens alone: 6 a parameter and token of the student's training, 2 of a forward
    pass of the teacher (``taught``) or of the student before training (``reference``), and of a token that the student
    sampled. Attention over the context is left out.
    """
    return student * (6 * trained + 2 * generated + 2 * reference) + 2 * teacher * taught


def _llama(layers: int, hidden: int, heads: int, kv: int, inner: int, vocab: int, tied: bool, dim: int = 0) -> Shape:
    return Shape(layers, hidden, heads, kv, dim or hidden // heads, inner, vocab, tied)


_QWEN_7B, _QWEN_15B = (
    _llama(28, 3584, 28, 4, 18944, 152064, False),
    _llama(28, 1536, 12, 2, 8960, 151936, True),
)
_QWEN3_8B = _llama(36, 4096, 32, 8, 12288, 151936, False, 128)
PUBLISHED: Mapping[str, Shape] = {  # from the config.json of each repository
    "Qwen/Qwen2.5-Math-7B-Instruct": _QWEN_7B,
    "Qwen/Qwen2.5-Math-1.5B": _QWEN_15B,
    "Qwen/Qwen2.5-7B-Instruct": _QWEN_7B,
    "Qwen/Qwen2.5-1.5B": _QWEN_15B,
    "Qwen/Qwen2.5-0.5B": _llama(24, 896, 14, 2, 4864, 151936, True),
    "Qwen/Qwen2.5-Coder-7B-Instruct": _QWEN_7B,
    "Qwen/Qwen2.5-Coder-1.5B": _QWEN_15B,
    "Qwen/Qwen2-7B-Instruct": _QWEN_7B,
    "Qwen/Qwen2-1.5B": _QWEN_15B,
    "Qwen/Qwen2-Math-1.5B": _QWEN_15B,
    "Qwen/Qwen2-Math-7B-Instruct": _QWEN_7B,
    "Qwen/Qwen2-0.5B": _llama(24, 896, 14, 2, 4864, 151936, True),
    "Qwen/Qwen2.5-1.5B-Instruct": _QWEN_15B,
    "Qwen/Qwen3-1.7B": _llama(28, 2048, 16, 8, 6144, 151936, True, 128),
    "Qwen/Qwen3-4B": _llama(36, 2560, 32, 8, 9728, 151936, True, 128),
    "Qwen/Qwen3-8B": _QWEN3_8B,
    "Qwen/Qwen3-8B-Base": _QWEN3_8B,
    "Qwen/Qwen3-32B": _llama(64, 5120, 64, 8, 25600, 151936, False, 128),
    "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T": _llama(22, 2048, 32, 4, 5632, 32000, False),
    "microsoft/Phi-3-mini-4k-instruct": _llama(32, 3072, 32, 32, 8192, 32064, False),
    "google/gemma-7b-it": _llama(28, 3072, 16, 16, 24576, 256000, True, 256),
    "google/gemma-2b": _llama(18, 2048, 8, 1, 16384, 256000, True, 256),
    # GPT-2's layers have two matrices behind attention where Llama's have three: two thirds of their width count.
    "openai-community/gpt2": _llama(12, 768, 12, 12, 2048, 50257, True),
    "openai-community/gpt2-xl": _llama(48, 1600, 25, 25, 4267, 50257, True),
    "deepseek-ai/deepseek-coder-6.7b-instruct": _llama(32, 4096, 32, 32, 11008, 32256, False),
    "deepseek-ai/deepseek-coder-1.3b-base": _llama(24, 2048, 16, 16, 5504, 32256, False),
    "google/gemma-2-9b-it": _llama(42, 3584, 16, 8, 14336, 256000, True, 256),
    "google/gemma-2-2b": _llama(26, 2304, 8, 4, 9216, 256000, True, 256),
}


def published(name: str) -> Shape | None:
    """The shape of a model of the hub, named with a revision or without; None where it is not in the table."""
    return PUBLISHED.get(name.partition("@")[0])


class Unknown(BadInput):
    """The configuration names its sizes differently: the model may run, but its cost cannot be estimated."""


def parameters(model: ModelFiles) -> int | None:
    """The number of parameters; None where the files are neither safetensors nor GGUF.

    Files with quantised weights hold several weights in one number, so these are counted by the configuration.
    Raises BadInput for a damaged file.
    """
    if model.gguf is not None:
        return weight_files.gguf_parameters(model.gguf)
    if loading.quantization_of(model):
        return shape_of(model).parameters
    files = sorted(model.path.glob("*.safetensors"))
    return sum(_count(model, file) for file in files) if files else None


def shape_of(model: ModelFiles) -> Shape:
    """The shape in a model's configuration, its parameters counted in its files where they are safetensors.

    Raises Unknown for a configuration without a size, BadInput for a damaged file.
    """
    config = json.loads((model.path / "config.json").read_text("utf-8"))
    try:
        shape = Shape.of(config)
    except KeyError as missing:
        raise Unknown(f"the configuration of {model.id} has no {missing}; its memory cannot be estimated") from None
    return shape if loading.quantization_of(model) else replace(shape, counted=parameters(model))


def bytes_per_weight(model: ModelFiles) -> float | None:
    """Bytes per weight in the layers of a quantised checkpoint, from the size of its files; None for any other."""
    if model.url is not None or not loading.quantization_of(model):
        return None
    shape = shape_of(model)
    ends = shape.vocab * shape.hidden * (1 if shape.tied else 2)  # not quantised: 2 bytes each, as such files have them
    size = sum(file.stat().st_size for pattern in ("*.safetensors", "*.bin") for file in model.path.glob(pattern))
    return max(size - 2 * ends, 0) / max(shape.parameters - ends, 1)


def _count(model: ModelFiles, file: Path) -> int:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as stream:
            return sum(math.prod(stream.get_slice(name).get_shape()) for name in stream.keys())  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{model.id} cannot be loaded: {file.name} is damaged ({error}); fetch it again") from None
