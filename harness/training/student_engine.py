"""A student sampled by an engine, whose weights are updated every k-th optimizer step.

The first process has the server; all processes send it the prompts of their own share. The weights are gathered
once for every copy, tensor by tensor, and only the first process keeps them. Texts are as old as the copy that wrote
them; their buffer age says how old.
"""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.models import adapters, devices, engine_choice, engines
from harness.models.generate import Generated, Generator
from harness.models.remote_engine import RemoteEngine
from harness.training.distributed import Replicated

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.training.job import Progress, TrainingJob
    from harness.types import Decoding

STAGE = "sampling engine"


class StudentEngine:
    """Samples like ``student``, the generator in this process, and gets its weights from time to time.

    ``gather`` turns this process' list into the list of all; process 0 ``leads``.
    """

    def __init__(
        self,
        job: TrainingJob,
        student: Replicated,
        generator: Generator,
        gather: Callable[[list[Any]], list[Any]],
        leads: bool,
        progress: Progress,
    ):
        rollout = job.recipe.rollout
        choice = engine_choice.chosen(rollout.engine, "rollout.engine")
        assert choice is not None, "only where the recipe names an engine"
        dtype = devices.sampling_type(job.recipe)
        self.choice = engine_choice.with_dtype(choice, dtype)
        self.every, self.student, self.generator = rollout.sync_every, student, generator
        self.gather, self.leads, self.progress = gather, leads, progress
        self.folder, self.device = job.folder / "engine", job.device
        self.dtype = getattr(torch, self.choice.vllm.dtype or dtype)
        self.adapted = adapters.wanted(job.recipe.student)
        self.weights_step: int | None = None  # the step whose weights the engine has
        self.copies, self.seconds = 0, 0.0
        self.engine: RemoteEngine | None = None

    def follow(self, step: int) -> int:
        """Gives the engine the weights of ``step`` if they are due; returns the step of its weights.

        A collective: all processes call it at the same steps. A resumed run starts with a fresh copy.
        """
        if self.weights_step is not None and step - self.weights_step < self.every:
            return self.weights_step
        began = time.monotonic()
        self.progress(STAGE, 0, 0, "copying the student's weights")
        folder = self._write()
        if self.engine is None:
            self.engine = self._opened(folder)
        elif folder is not None:
            self.engine.server.load(folder)
        self.gather([None])  # wait until the engine has the new weights
        self.weights_step, self.copies = step, self.copies + 1
        self.seconds += time.monotonic() - began
        return step

    def continue_ids(
        self, prompts: Sequence[Sequence[int]], decoding: Decoding, seeds: Sequence[int]
    ) -> list[Generated]:
        """One continuation of each prompt, with the engine's current weights. A collective, like :meth:`follow`."""
        assert self.engine is not None, "follow() opens the engine"
        self.engine.end_ids = self.generator.end_ids  # the ends of all models of the run
        if self.choice.vllm.sleep:  # wait until the server is awake
            if self.leads:
                self.engine.server.ready()
            self.gather([None])
        continuations = self.engine.continue_ids(prompts, decoding, seeds)
        self.gather([None])
        if self.leads:
            self.engine.server.sleep()
        return continuations

    def facts(self) -> dict[str, Any]:
        """For the record: the engine, the number of weight updates, their seconds, and how often it died."""
        restarts = 0 if self.engine is None else self.engine.server.restarts
        return {
            "engine": engine_choice.described(self.choice, "rollout.engine"),
            "sync_every": self.every,
            "copies": self.copies,
            "copy_seconds": round(self.seconds, 1),
            "restarts": restarts,
        }

    def close(self) -> None:
        """Stops the server, if it belongs to this run, and removes the copies of the weights."""
        if self.engine is not None:
            self.engine.server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _opened(self, folder: Path | None) -> RemoteEngine:
        """The engine, with the weights in ``folder``: started by the first process, reached by all."""
        server = engines.shared(
            self.choice,
            folder,
            self.device,
            self.folder / "vllm.log",
            self.gather,
            limit=self.generator.limit,
            waiting=self._waiting,
            reloaded=True,
        )
        if folder is not None and not self.choice.managed:
            server.load(folder)
        codec = self.generator
        return RemoteEngine(server, codec.tokenizer, codec.end_ids, codec.limit, codec.words, self._came)

    def _write(self) -> Path | None:
        """Writes the student's weights into a folder that the engine does not use; None except on the first process."""
        model, weights = self.student.whole.model, {}
        config = copy.deepcopy(model.config)
        text, rows = config.get_text_config(), set()
        # Without the rows of a padded vocabulary, the engine samples from the trained distribution. A running
        # server was started with all rows.
        if self.choice.managed and text.vocab_size > self.generator.words:
            text.vocab_size, rows = self.generator.words, _vocabulary(model)
        for name, tensor in self._weights():
            if self.leads:
                tensor = tensor[: self.generator.words] if name in rows else tensor
                weights[name] = tensor.to("cpu", self.dtype).contiguous()
        if not self.leads:
            return None
        shared = self.choice.server.weights
        folder = (Path(shared) if shared else self.folder) / f"weights-{self.copies % 2}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        model.save_pretrained(folder, state_dict=weights)
        config.save_pretrained(folder)
        self.generator.tokenizer.save_pretrained(folder)
        return folder

    def _weights(self) -> Any:
        """Name, as in the model's files, and whole value of every weight, one after the other."""
        if not self.adapted:
            yield from self.student.whole_weights()
            return
        with self.student.gathered() as whole:
            yield from adapters.merged_weights(whole.model)

    def _waiting(self, what: str) -> None:
        self.progress(STAGE, 0, 0, what)

    def _came(self, texts: int, total: int) -> None:
        self.progress(STAGE, texts, total, "texts of this step")


def _vocabulary(model: PreTrainedModel) -> set[str]:
    """Names of the weights with a row for every token."""
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    own = {id(p) for module in ends if module is not None for p in module.parameters()}
    return {name for name, p in model.named_parameters(remove_duplicate=False) if id(p) in own}
