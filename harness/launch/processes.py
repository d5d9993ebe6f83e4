"""Several processes of one ``accelerate launch``: the first decides, evaluates and writes; the others train with it.

Followers wait to be told the next training. They never look at the results folder on their own, so that all
processes agree on what is to be done whatever the files say meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.plan import Training

PATIENCE = timedelta(days=30)  # followers wait through whole evaluations; a dead process is the launcher's to see


def several() -> bool:
    """Whether this process is one of several that a launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def leads() -> bool:
    """Whether this process evaluates and writes."""
    return int(os.environ.get("RANK", "0")) == 0


def join(device: str) -> None:
    """Connects the processes of a launch; nothing where there is one."""
    if several():
        from accelerate import PartialState

        PartialState(cpu=device == "cpu", timeout=PATIENCE)


def tell(training_id: str | None) -> None:
    """Says to the followers what is trained next; None sends them home. Only the first process calls this."""
    if several():
        from accelerate.utils import broadcast_object_list

        broadcast_object_list([training_id])


def follow(trainings: Sequence[Training], train: Callable[[Training], object]) -> None:
    """Trains what the first process says, until it sends this one home."""
    from accelerate.utils import broadcast_object_list

    known = {training.training_id: training for training in trainings}
    while (told := broadcast_object_list([None])[0]) is not None:
        train(known[told])
