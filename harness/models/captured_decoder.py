"""Decoding steps that are captured once and then replayed: on a GPU one launch per token instead of hundreds.

A CUDA graph repeats kernels at the addresses and shapes of their capture. Everything that a step reads
must therefore stay in place: inputs and logits have fixed buffers, and the decoder with its cache is kept from one call
to the next. Weights that an optimizer changes in place need nothing; a weight at a new address (gathered
or loaded again) ends the decoder, and a growing cache ends its captures. Rows in use and columns are rounded up to
powers of two, so that few shapes are captured. Sampling is not captured: seeds and settings change from call to call.

A capture is used only if its first replay equals the step itself; otherwise the decoder continues without captures.
On a CPU the test suite records and replays the same step; on a GPU this was not run.
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from harness.errors import BadInput
from harness.models import adapters, devices
from harness.models.llama_decoder import LlamaDecoder

SETTING = "HARNESS_CUDA_GRAPHS"  # auto or off
WARM_UP = 2  # warm-up passes, in which libraries choose their kernels and allocate memory
NARROWEST = 64  # columns of the narrowest capture
CLOSE = 1e-2


def usable(model: PreTrainedModel) -> bool:
    """Whether to capture the steps of a model. Raises BadInput for a setting that is neither auto nor off."""
    setting = os.environ.get(SETTING, "auto")
    if setting not in ("auto", "off"):
        raise BadInput(f"{SETTING}={setting} is not auto or off")
    return setting == "auto" and model.device.type == "cuda" and not adapters.derives(model)


class CapturedDecoder(LlamaDecoder):
    """A decoder whose steps are replayed, for a model whose weights change in place."""

    copies = False  # weights are read where they stand

    def __init__(self, model: PreTrainedModel, vocab: int, rows: int):
        super().__init__(model, vocab, rows)
        self.model, self.addresses = model, _addresses(model)
        self.captures: dict[tuple[int, int], tuple[Tensor, Callable[[], None]]] = {}  # by rows and columns
        self.logits: Tensor | None = None  # [rows, V] of the latest step
        self.capture: Callable[[Callable[[], None]], Callable[[], None]] | None = CudaGraphs(self.device)

    def serves(self, rows: int) -> bool:
        """Whether it has room for so many texts, and the model's weights are still at their addresses."""
        return rows <= self.rows and self.addresses == _addresses(self.model)

    def _reserve(self, width: int) -> None:
        if width > self.width:
            self.captures.clear()
        super()._reserve(width)

    def _run(self, inputs: Tensor, width: int) -> Tensor:
        used = inputs.shape[1]
        shape = min(_power(used), self.rows), min(max(_power(width), NARROWEST), self.width)
        # A free row appends token 0, which is never read: the next text in this row overwrites it.
        inputs = torch.nn.functional.pad(inputs, (0, shape[0] - used))
        if shape not in self.captures and self.capture is not None:
            try:
                self.captures[shape] = self._captured(inputs, shape[1])
            except RuntimeError as error:
                self.capture = None
                warnings.warn(f"tokens are decoded without CUDA graphs: {str(error).splitlines()[0]}", stacklevel=2)
        if shape not in self.captures:
            return super()._run(inputs[:, :used], width)
        own, replay = self.captures[shape]
        devices.copied(inputs, own)
        replay()
        assert self.logits is not None
        return self.logits[:used]

    def _captured(self, inputs: Tensor, width: int) -> tuple[Tensor, Callable[[], None]]:
        """The input buffer of a shape, and what replays its step. Raises RuntimeError if a replay differs."""
        assert self.capture is not None
        own = inputs.to(self.device)  # a new tensor on a GPU, whose address stays
        expected = self._append(*own, width)
        if self.logits is None:
            self.logits = expected.new_empty(self.rows, expected.shape[1])
        out = self.logits[: len(expected)]

        def run() -> None:
            out.copy_(self._append(*own, width))

        replay = self.capture(run)
        out.zero_()
        replay()
        if not torch.allclose(out, expected, rtol=CLOSE, atol=CLOSE, equal_nan=True):
            raise RuntimeError("a captured step gave different logits than the step itself")
        return own, replay


class CudaGraphs:
    """Captures the GPU work of a function; calling the result repeats it. Captures share their memory."""

    def __init__(self, device: torch.device):
        self.device, self.pool = device, torch.cuda.graph_pool_handle()

    def __call__(self, run: Callable[[], None]) -> Callable[[], None]:
        with torch.cuda.device(self.device):
            stream, here = torch.cuda.Stream(), torch.cuda.current_stream()
            stream.wait_stream(here)
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    run()
            here.wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # Other threads, such as NCCL's watchdog, may use the GPU meanwhile.
            with torch.cuda.graph(graph, pool=self.pool, stream=stream, capture_error_mode="thread_local"):
                run()
        return graph.replay


def _addresses(model: PreTrainedModel) -> list[tuple[int, torch.dtype]]:
    return [(t.data_ptr(), t.dtype) for t in itertools.chain(model.parameters(), model.buffers())]


def _power(n: int) -> int:
    """The smallest power of two that is at least ``n``."""
    return 1 << (n - 1).bit_length()
