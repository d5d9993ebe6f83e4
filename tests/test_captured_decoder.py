"""Captured steps, as a GPU has them: recorded and replayed on a CPU, they write what the plain decoder writes."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from conftest import byte_tokenizer
from test_generate import FAMILY, of_family
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.errors import BadInput
from harness.models import captured_decoder
from harness.models.captured_decoder import CapturedDecoder
from harness.models.llama_decoder import LlamaDecoder
from harness.types import Decoding

ASKING = {"_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "lift_fresh", "lift_fresh_copy"}


class Tape(TorchDispatchMode):
    """Stands in for a CUDA graph: records every operation with its tensors, and repeats them without the Python.

    What asks a tensor for its numbers, or brings numbers of the host in, would be fixed in a graph, and is refused.
    """

    def __init__(self, device=None):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        assert operation.overloadpacket.__name__ not in ASKING, operation
        made = operation(*args, **(kwargs or {}))
        self.calls.append((operation, args, kwargs or {}, made))
        return made

    def __call__(self, run):
        tape = type(self)()
        with tape:
            run()
        return tape.replay

    def replay(self):
        for operation, args, kwargs, made in self.calls:
            for old, new in zip(tree_leaves(made), tree_leaves(operation(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@pytest.fixture
def capturing(monkeypatch):
    """Generators capture their steps, and a capture that is given up is an error."""
    monkeypatch.setattr(captured_decoder, "usable", lambda model: True)
    monkeypatch.setattr(captured_decoder, "CudaGraphs", Tape)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "tokens are decoded without CUDA graphs")
        yield monkeypatch


PROMPTS = [[(7 * i + j) % 250 for j in range(n)] for i, n in enumerate((3, 70, 1, 9, 22, 5, 14))]


def equal(some, others):
    assert [(g.ids, g.text, g.finish) for g in some] == [(g.ids, g.text, g.finish) for g in others]
    for a, b in zip(some, others, strict=True):
        assert a.log_probs == pytest.approx(b.log_probs, abs=1e-5)


def places(decoder) -> list[int]:
    parts = (decoder.logits, decoder.blocked, decoder.cos, *(part for pair in decoder.cache for part in pair))
    return [part.data_ptr() for part in parts]


def plainly(ours, monkeypatch, *asked):
    """The texts of a decoder that captures nothing, on the same unfused weights."""
    with monkeypatch.context() as patch:
        patch.setattr(captured_decoder, "usable", lambda model: False)
        return ours.continue_ids(*asked)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILY)
def test_captured_steps_write_the_same_texts(capturing, name):
    """Rows leave, enter and move, the cache grows; then every step is a replay, in which no Python of it runs."""
    capturing.setattr("harness.models.llama_decoder.FUSED_ELEMENTS", 0)
    capturing.setattr("harness.models.llama_decoder.GROWTH", 3)
    ours = of_family(FAMILY[name], byte_tokenizer(), batch=3)
    ours.end_ids = set(range(0, 258, 11))  # texts end at different tokens
    greedy, hot = ((PROMPTS, Decoding(t, max_new_tokens=17), range(7)) for t in (0.0, 1.0))
    made = [ours.continue_ids(*asked) for asked in (greedy, hot, hot)]  # at last in a cache that does not grow
    decoder, held = ours._captured, dict(ours._captured.captures)
    assert decoder.capture is not None and len({n for n, _ in held}) > 1
    standing = places(decoder)
    capturing.setattr(CapturedDecoder, "_append", None)
    equal(ours.continue_ids(*hot), made[1])
    assert ours._captured is decoder and decoder.captures == held and places(decoder) == standing
    capturing.setattr(CapturedDecoder, "_append", LlamaDecoder._append)
    equal(plainly(ours, capturing, *greedy), made[0])
    equal(plainly(ours, capturing, *hot), made[1])


def test_captured_steps_follow_weights_that_move_in_place_and_end_with_a_tensor_that_is_elsewhere(capturing):
    capturing.setattr("harness.models.llama_decoder.FUSED_ELEMENTS", 0)
    ours = of_family(FAMILY["qwen2"], byte_tokenizer(), batch=4)
    asked = PROMPTS[:4], Decoding(1.0, max_new_tokens=9), range(4)
    before = ours.continue_ids(*asked)
    decoder, held = ours._captured, dict(ours._captured.captures)
    optimizer = torch.optim.AdamW(ours.model.parameters(), 0.1)
    for parameter in ours.model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    after = ours.continue_ids(*asked)
    assert ours._captured is decoder and decoder.captures == held
    assert [g.ids for g in after] != [g.ids for g in before]
    equal(after, plainly(ours, capturing, *asked))
    weight = ours.model.model.layers[0].mlp.up_proj.weight
    weight.data = weight.data + 1.0
    moved = ours.continue_ids(*asked)
    assert ours._captured is not decoder and [g.ids for g in moved] != [g.ids for g in after]
    equal(moved, plainly(ours, capturing, *asked))
    ours.continue_ids(PROMPTS[:2], *asked[1:])  # fewer rows than it has
    assert ours._captured.rows == 4
    ours.release()
    equal(ours.continue_ids(*asked), moved)


@pytest.mark.parametrize("fault", ["captures nothing", "cannot capture"])
def test_a_capture_that_is_not_the_step_is_given_up(capturing, fault):
    def broken(device):
        def capture(run):
            if fault == "cannot capture":
                raise RuntimeError("operation not permitted when stream is capturing\nmore")
            return lambda: None

        return capture

    capturing.setattr(captured_decoder, "CudaGraphs", broken)
    capturing.setattr("harness.models.llama_decoder.FUSED_ELEMENTS", 0)
    ours = of_family(FAMILY["qwen3"], byte_tokenizer(), batch=3)
    asked = PROMPTS, Decoding(max_new_tokens=5), range(7)
    with pytest.warns(
        UserWarning, match="without CUDA graphs: (a captured step gave different|operation not permitted)"
    ):
        equal(ours.continue_ids(*asked), plainly(ours, capturing, *asked))
    assert not ours._captured.captures


def test_steps_are_captured_on_a_gpu_unless_they_are_switched_off(monkeypatch):
    on = lambda device: SimpleNamespace(device=torch.device(device), modules=list)  # noqa: E731
    assert captured_decoder.usable(on("cuda:1")) and not captured_decoder.usable(on("cpu"))
    monkeypatch.setenv(captured_decoder.SETTING, "off")
    assert not captured_decoder.usable(on("cuda"))
    monkeypatch.setenv(captured_decoder.SETTING, "no")
    with pytest.raises(BadInput, match="HARNESS_CUDA_GRAPHS=no is not auto or off"):
        captured_decoder.usable(on("cuda"))
