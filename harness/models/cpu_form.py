"""The form of a model that vLLM's CPU backend serves: the same model with wider heads, and an output head of its own.

Its attention knows heads of 32 numbers and more. A head of d numbers becomes one of D = r d. Number i of each rotary
half moves to r i of the new half, where the rotation has the same frequency: theta^(-2i/d) = theta^(-2ri/D). All other
numbers are 0. Queries grow by sqrt(r), since the kernel divides by sqrt(D).

Its products keep packed copies of their weights. New weights are packed anew (``reload_weights``), but not for an
output head that is tied to the embedding: it would go on with the weights of the start. A model that gets new weights
is therefore untied. What it computes is the same up to rounding; GPUs need none of this.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

from harness import safe_read
from harness.errors import BadInput

SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)  # of vLLM 0.32's attention on CPUs
KIND = "llama"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
PARTS = ("q_proj", "k_proj", "v_proj")


def check(folder: Path, name: str, where: str) -> None:
    """Raises BadInput for a model whose heads vLLM does not know on a CPU, and that cannot be given wider ones."""
    config = _config(folder)
    size = _size(config)
    if size not in SIZES and (config.get("model_type") != KIND or _wider(size) is None):
        raise BadInput(
            f"{where}: on a CPU vLLM knows attention heads of {', '.join(map(str, SIZES))} numbers, and {name} has "
            f"heads of {size}; leave the engine out, or use a GPU"
        )


def fitted(folder: Path, scratch: Path, reloaded: bool) -> Path:
    """``folder``, or a copy of it below ``scratch`` that vLLM serves on a CPU. ``reloaded``: it gets new weights."""
    config = _config(folder)
    size = _size(config)
    wide = size if size in SIZES else _wider(size) or size
    tied = reloaded and config.get("tie_word_embeddings", True)
    if wide == size and not tied:
        return folder
    from safetensors.torch import load_file, save_file

    made = scratch / f"{folder.name}-served"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    for file in folder.iterdir():
        if file.is_file() and file.suffix != ".safetensors" and not file.name.endswith(".index.json"):
            shutil.copyfile(file, made / file.name)
    weights: dict[str, Any] = {}
    for file in sorted(folder.glob("*.safetensors")):
        weights |= load_file(file)
    if wide != size:
        weights = {name: _widened(name, tensor, size, wide) for name, tensor in weights.items()}
        config["head_dim"] = wide
    if tied and EMBEDDING in weights:
        weights.setdefault(HEAD, weights[EMBEDDING].clone())
        config["tie_word_embeddings"] = False
    save_file(weights, made / "model.safetensors", {"format": "pt"})
    (made / "config.json").write_text(json.dumps(config), "utf-8")
    return made


def _widened(name: str, tensor: Any, size: int, wide: int) -> Any:
    """A weight or bias of the projections with the numbers of every head at their new places; any other as it is."""
    part, half, ratio = name.split(".")[-2], size // 2, wide // size
    places = [ratio * i + (0 if i < half else wide // 2 - ratio * half) for i in range(size)]
    if part in PARTS:
        heads = tensor.unflatten(0, (-1, size))
        grown = heads.new_zeros(heads.shape[0], wide, *heads.shape[2:])
        grown[:, places] = heads * (math.sqrt(ratio) if part == "q_proj" else 1.0)
        return grown.flatten(0, 1)
    if part == "o_proj" and tensor.dim() == 2:
        heads = tensor.unflatten(1, (-1, size))
        grown = heads.new_zeros(heads.shape[0], heads.shape[1], wide)
        grown[:, :, places] = heads
        return grown.flatten(1, 2).contiguous()
    return tensor


def _wider(size: int) -> int | None:
    """The smallest size that vLLM knows and that has ``size`` in it a whole number of times."""
    return next((known for known in SIZES if known % size == 0), None) if size % 2 == 0 else None


def _size(config: dict[str, Any]) -> int:
    config = config.get("text_config") or config
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def _config(folder: Path) -> dict[str, Any]:
    return safe_read.value(safe_read.content(folder / "config.json", safe_read.RECORD), finite=False)
