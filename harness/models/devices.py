"""Names of devices, checked before any work."""

from __future__ import annotations

from harness.errors import BadInput


def best() -> str:
    """The device of a run that names none."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def check(name: str, where: str) -> str:
    """``name``, as the setting ``where`` has it. Raises BadInput for a device that this machine has not."""
    import torch

    kind, colon, number = name.partition(":")
    if kind not in {"cpu", "cuda", "mps"} or (colon and not (kind == "cuda" and number.isdecimal())):
        raise BadInput(f"{where} {name!r} is not cpu, cuda, cuda:N or mps")
    if kind == "cuda" and not torch.cuda.is_available():
        raise BadInput(f"{where} {name}: no CUDA device is visible here; use {where} cpu")
    if kind == "cuda" and colon and int(number) >= (count := torch.cuda.device_count()):
        last = f"cuda:{count - 1}" if count > 1 else "cuda:0 alone"
        raise BadInput(f"{where} {name}: {count} CUDA devices are visible here, up to {last}")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise BadInput(f"{where} {name}: no Apple GPU is visible here; use {where} cpu")
    return name
