"""Makes the two models of the small world: a GGUF file becomes the teacher, and layers of it the student.

Both are plain folders in the format of transformers, without a trace of the quantisation, so that they can be trained,
saved and hashed like any other model.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness import atomic
from harness.errors import BadInput, install

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

VERSION_KEYS = ("transformers_version", "_name_or_path", "_model_name_or_path")  # not facts of the model


def read_gguf(path: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """The model of a GGUF file as float32, and its tokenizer. Raises BadInput without the package gguf."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        read = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    except ImportError as error:
        raise BadInput(f"reading GGUF files needs the package gguf: {install('gguf')} ({error})") from None
    # The model that was read refuses to be saved, because its configuration still says that it is quantised.
    model = _fresh(read.config.to_dict(), read.config.num_hidden_layers)
    model.load_state_dict(read.state_dict(), strict=True)
    if read.generation_config is not None:
        model.generation_config = read.generation_config
    return model.eval(), tokenizer


def cut(model: LlamaForCausalLM, layers: Sequence[int]) -> LlamaForCausalLM:
    """A smaller model with the embeddings, the head, the last norm, and these layers of ``model``, in this order.

    Raises BadInput for layers that ``model`` does not have.
    """
    known = model.config.num_hidden_layers
    if not layers or not all(0 <= layer < known for layer in layers):
        raise BadInput(f"layers {list(layers)} cannot be cut out of a model of {known} layers")
    smaller = _fresh(model.config.to_dict(), len(layers))
    weights = {}
    for name, value in model.state_dict().items():
        if not name.startswith("model.layers."):
            weights[name] = value
    for place, layer in enumerate(layers):
        prefix = f"model.layers.{layer}."
        for name, value in model.state_dict().items():
            if name.startswith(prefix):
                weights[f"model.layers.{place}.{name.removeprefix(prefix)}"] = value
    smaller.load_state_dict(weights, strict=True)
    smaller.generation_config = model.generation_config
    return smaller.eval()


def _fresh(config: dict, layers: int) -> LlamaForCausalLM:
    """A model of this configuration without its quantisation, with weights that the caller replaces."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    dropped = {"quantization_config", "layer_types", *VERSION_KEYS}
    settings = {key: value for key, value in config.items() if key not in dropped}
    with torch.random.fork_rng():
        return LlamaForCausalLM(LlamaConfig(**settings | {"num_hidden_layers": layers, "dtype": "float32"}))


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes a model folder whole or not at all. Its files are the same under every version of transformers."""
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    for file in (unfinished / "config.json", unfinished / "generation_config.json"):
        if file.is_file():
            facts = {
                key: value for key, value in json.loads(file.read_text("utf-8")).items() if key not in VERSION_KEYS
            }
            file.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", "utf-8")
    atomic.readable(unfinished, unfinished / "config.json")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(unfinished, folder)
