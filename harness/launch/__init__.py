"""Launch configurations of accelerate for one and many GPUs.

    accelerate launch --config_file "$(python -m harness.launch fsdp_8)" -m harness run --method gkd --recipe maths …

==========  ==========================================================================================
one         1 GPU
ddp_8       8 GPUs of one machine; every GPU holds all weights, gradients and optimizer state
fsdp_8      8 GPUs of one machine; weights, gradients and optimizer state sharded over them (FSDP 2)
ddp_2x8     2 machines of 8 GPUs; add --machine_rank R --main_process_ip HOST on machine R
fsdp_2x8    the same, sharded over all 16
cpu_2       2 CPU processes, to try a launch without a GPU: ``harness run --device cpu …``
fsdp_cpu_2  the same, sharded over both
==========  ==========================================================================================

``accelerate launch --cpu --num_processes 2`` starts one process, not two: use ``cpu_2``. Precision is the recipe's
(``training.precision``), so no file names one. Command-line arguments override the file: ``--num_processes 4`` uses
four GPUs of eight. All machines need the results folder on a shared disk. The first process writes checkpoints,
records and completions; the others only train. An interrupted run may continue with the same command under another
configuration, with more or fewer processes, sharded or not.

Only ``fsdp_reshard_after_forward`` of an ``fsdp_config`` may change; version 1, offloading, activation checkpointing
and loading by only the first process are refused. With FSDP every process holds the whole student, in float32 and
without gradients, while it loads, samples, validates and publishes. FSDP was tested on CPU processes, not yet on GPUs.
"""

from __future__ import annotations

from pathlib import Path


def names() -> list[str]:
    """The configurations that ship with the harness."""
    return sorted(file.stem for file in Path(__file__).parent.glob("*.yaml"))


def path(name: str) -> Path:
    """The file of a configuration. Raises BadInput for an unknown name."""
    from harness.errors import unknown

    if name not in names():
        raise unknown("launch configuration", name, names())
    return Path(__file__).with_name(f"{name}.yaml")
