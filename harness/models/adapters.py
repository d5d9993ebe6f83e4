"""LoRA and DoRA: a trained adapter on the student's frozen weights.

With W [out, in] a weight of the model, A [rank, in] and B [out, rank] those of its adapter, s = alpha / rank::

    lora   W' = W + s B A                               (Hu et al., arXiv 2106.09685)
    dora   W' = diag(m / ||W + s B A||) (W + s B A)     (Liu et al., arXiv 2402.09353); norms are of rows and carry no
                                                        gradient, m [out] is trained too

B starts at 0, and m at the norms of W, so training starts from exactly the model. The layers are those of
peft, inserted into the model in place: its class, trunk and head stay the same. The student that is trained,
saved and evaluated has the merged weights W'; the adapter is kept next to them in peft's own format.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput, install
from harness.models.weight_files import ADAPTER_WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from harness.models.files import ModelFiles
    from harness.recipe import Adapter

NAME = "default"  # peft's name for the only adapter
PREFIX = "base_model.model."  # of names in an adapter's file: peft's wrapper around the model


def wanted(chosen: Adapter) -> bool:
    return chosen.adapter != "none"


@functools.cache
def check(files: ModelFiles, chosen: Adapter) -> int:
    """The number of weights that the adapter of this model would have; reads no weights.

    Raises BadInput where peft is missing, or the model has none of the target modules.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    _peft()
    with torch.device("meta"):
        config = AutoConfig.from_pretrained(files.path, trust_remote_code=files.trusted)
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=files.trusted)
    attach(model, chosen, files.id)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def attach(model: PreTrainedModel, chosen: Adapter, name: str) -> None:
    """Inserts the adapter into the model in place; afterwards only its own weights have gradients.

    Raises BadInput for targets that the model ``name`` lacks, or that are its embedding or its output head, whose
    weights the harness reads itself.
    """
    peft = _peft()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft uses deprecated names of transformers
            warnings.filterwarnings("ignore", message="fan_in_fan_out")  # and corrects its own setting for Conv1D
            peft.inject_adapter_in_model(_config(chosen), model, low_cpu_mem_usage=model.device.type == "meta")
    except ValueError as error:
        raise BadInput(f"student.targets={','.join(chosen.targets)}: {_why(error, chosen, model, name)}") from None
    # With weights in half precision the adapter stays in float32: it is small, and so are its updates.
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.device.type != "meta":
            parameter.data = parameter.data.float()
    # peft accepts one known name among several; a misspelt one would silently train less than requested.
    layers = [path for path, module in model.named_modules() if is_layer(module)]
    for target in () if _everything(chosen) else chosen.targets:
        if not any(path == target or path.endswith(f".{target}") for path in layers):
            raise BadInput(f"student.targets={','.join(chosen.targets)}: {_unknown(model, name, target)}")
    ends = {"embedding": model.get_input_embeddings(), "output head": model.get_output_embeddings()}
    for what, module in ends.items():
        if is_layer(module):
            raise BadInput(
                f"student.targets={','.join(chosen.targets)} takes in the {what} of {name}, which cannot have an "
                "adapter here; name modules of its layers, or all-linear"
            )


def _config(chosen: Adapter) -> Any:
    return _peft().LoraConfig(
        r=chosen.rank,
        lora_alpha=chosen.alpha,
        lora_dropout=chosen.dropout,
        target_modules="all-linear" if _everything(chosen) else list(chosen.targets),
        use_dora=chosen.adapter == "dora",
        task_type="CAUSAL_LM",
    )


def _everything(chosen: Adapter) -> bool:
    return chosen.targets == ("all-linear",)


def _why(error: ValueError, chosen: Adapter, model: PreTrainedModel, name: str) -> str:
    """peft's refusal of the targets in one line, with the existing names."""
    if "not found" in str(error):
        return _unknown(model, name, chosen.targets[0])
    return f"{str(error).splitlines()[0][:160]}; {_linear(model)}"


def _unknown(model: PreTrainedModel, name: str, target: str) -> str:
    return f"{name} has no module {target!r}; {_linear(model)}"


def _linear(model: PreTrainedModel) -> str:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    layers = [
        p for p, m in model.named_modules() if (isinstance(m, nn.Linear | Conv1D) or is_layer(m)) and m is not head
    ]
    own = {path.rpartition(".")[2] for path in layers if ".lora_" not in path and not path.endswith("base_layer")}
    return f"its linear modules are {', '.join(sorted(own))}"


@dataclass(frozen=True)
class TrainedAdapter:
    """The weights of an adapter, on the CPU, and its settings."""

    weights: Mapping[str, Tensor]
    chosen: Adapter
    base: str  # the student as the recipe names it

    def save(self, folder: Path) -> None:
        """Writes the two files that ``PeftModel.from_pretrained(base, folder)`` reads."""
        from safetensors.torch import save_file

        folder.mkdir()
        save_file(dict(self.weights), folder / ADAPTER_WEIGHTS, {"format": "pt"})
        config = _config(self.chosen)
        config.base_model_name_or_path, config.inference_mode = self.base, True
        config.save_pretrained(folder)


def merge(model: PreTrainedModel, chosen: Adapter, base: str) -> TrainedAdapter:
    """Merges the adapter into the model's weights and removes its layers, in place; returns the adapter.

    Raises BadInput where a merged weight is not finite.
    """
    # peft writes the magnitudes of DoRA without ".weight" and reads both forms; transformers reads only this one.
    weights = {
        PREFIX + path.replace(f".{NAME}", ""): tensor.detach().cpu().clone().contiguous()
        for path, tensor in model.state_dict().items()
        if ".lora_" in path
    }
    for path, module in list(model.named_modules()):
        if is_layer(module):
            module.merge(safe_merge=True)
            model.set_submodule(path, module.get_base_layer())
    model.requires_grad_(True)
    del model.peft_config
    return TrainedAdapter(weights, chosen, base)


def merged_weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Name and value of every weight as if the adapter were merged; the model does not change."""
    layers = {path: module for path, module in model.named_modules() if is_layer(module)}
    for path, module in layers.items():
        yield f"{path}.weight", merged_weight(module).detach()
        if (own := bias(module)) is not None:
            yield f"{path}.bias", own.detach()
    for name, tensor in model.state_dict().items():
        if not any(name.startswith(f"{path}.") for path in layers):
            yield name, tensor


def merged_weight(linear: nn.Module) -> Tensor:
    """[out, in] the weight W' that a layer multiplies with, including its adapter; its own tensor if it has none."""
    if not is_layer(linear):
        return linear.weight
    whole = linear.get_base_layer().weight + linear.get_delta_weight(NAME).to(linear.get_base_layer().weight.dtype)
    return whole if _magnitude(linear) is None else whole * _row_scale(linear)[:, None]


def bias(linear: nn.Module) -> Tensor | None:
    return linear.get_base_layer().bias if is_layer(linear) else linear.bias


def product(linear: nn.Module):
    """x [..., in] -> W' x + bias [..., out], without a merged copy of weight and adapter.

    The arithmetic is that of peft in evaluation mode; the norms of DoRA are computed once, not at every call.
    """
    from torch.nn import functional

    if not is_layer(linear):
        return lambda x: functional.linear(x, linear.weight, linear.bias)
    base, scaling = linear.get_base_layer(), linear.scaling[NAME]
    down, up = linear.lora_A[NAME].weight, linear.lora_B[NAME].weight
    scale = None if _magnitude(linear) is None else _row_scale(linear)

    def adapted(x: Tensor) -> Tensor:
        out = functional.linear(x, base.weight)
        out = out + functional.linear(functional.linear(x.to(down.dtype), down), up) * scaling
        out = out if scale is None else out * scale
        return (out if base.bias is None else out + base.bias).to(x.dtype)

    return adapted


def readable(module: nn.Module) -> bool:
    """Whether :func:`product` computes this layer: one adapter, not merged, on a plain ``nn.Linear``."""
    from torch import nn

    return type(module.get_base_layer()) is nn.Linear and module.active_adapters == [NAME] and not module.merged


def derives(model: nn.Module) -> bool:
    """Whether :func:`product` caches numbers computed from the weights: the norms of DoRA."""
    return any(is_layer(module) and _magnitude(module) is not None for module in model.modules())


def is_part(module: nn.Module) -> bool:
    """Whether a module belongs to an adapter's layer, or is one."""
    return type(module).__module__.startswith("peft.tuners.")


def is_layer(module: Any) -> bool:
    """Whether a module is a layer with an adapter."""
    return is_part(module) and hasattr(module, "get_base_layer")


def _magnitude(linear: nn.Module) -> Tensor | None:
    vectors = getattr(linear, "lora_magnitude_vector", {})
    return vectors[NAME].weight if NAME in vectors else None


def _row_scale(linear: nn.Module) -> Tensor:
    """[out] m / ||W + s B A|| of DoRA."""
    weight = linear.get_base_layer().weight
    whole = weight + linear.get_delta_weight(NAME).to(weight.dtype)
    return (_magnitude(linear) / whole.norm(dim=1)).to(weight.dtype)


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise BadInput(f"student.adapter needs peft, which is not installed: {install('peft')}") from None
    return peft
