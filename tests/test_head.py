"""The chunked head: same value, same gradients, and never more than a chunk of logits."""

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from harness import losses
from harness.errors import BadInput
from harness.models.head import Head, chunked_sum, chunks, cut, trunk

SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}


def llama(**kwargs):
    return LlamaForCausalLM(LlamaConfig(**SMALL | kwargs))


def gemma2():
    return Gemma2ForCausalLM(Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=3.0))


def cohere():
    return CohereForCausalLM(CohereConfig(**SMALL, logit_scale=0.25))


@pytest.mark.parametrize("make", [llama, lambda: llama(tie_word_embeddings=True), gemma2, cohere])
@pytest.mark.parametrize("elements", [1, 47 * 16, 10**9])
@pytest.mark.parametrize("device", ["cpu", "cuda"])  # which only decides how a chunk is sliced
def test_chunks_equal_the_full_computation(make, elements, device):
    torch.manual_seed(0)
    model, ids = make().double(), torch.randint(0, 50, (3, 9))
    teacher = torch.randn(27, 47, dtype=torch.float64)

    def gradients(total):
        model.zero_grad()
        total.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    full = losses.reverse_kl(model(ids).logits.flatten(0, 1)[:, :47], teacher).sum()
    expected = gradients(full)

    head = Head.of(model, 47)
    hidden = trunk(model)(input_ids=ids).last_hidden_state.flatten(0, 1)
    total = chunked_sum(
        hidden,
        head,
        chunks(range(27), 47, elements, device),
        lambda logits, a, b: losses.reverse_kl(logits, teacher[a:b]).sum(),
    )
    torch.testing.assert_close(total, full)
    torch.testing.assert_close(gradients(total), expected)


def test_padding_rows_of_the_head_never_matter():
    torch.manual_seed(0)
    model, ids = llama(), torch.randint(0, 47, (2, 5))
    head = Head.of(model, 47)
    before = head.logits(trunk(model)(input_ids=ids).last_hidden_state[0])
    with torch.no_grad():
        model.lm_head.weight[47:] = 1e4
    torch.testing.assert_close(Head.of(model, 47).logits(trunk(model)(input_ids=ids).last_hidden_state[0]), before)


def test_an_architecture_with_other_logits_is_refused_by_name():
    class Odd(LlamaForCausalLM):
        def forward(self, *args, **kwargs):
            out = super().forward(*args, **kwargs)
            out.logits = out.logits * 2 + 1
            return out

    with pytest.raises(BadInput, match="Odd computes its logits"):
        Head.of(Odd(LlamaConfig(**SMALL)), 50)


@pytest.mark.parametrize(
    ("steps", "elements", "bounds"),
    [
        ([0, 1, 2, 3], 20, [(0, 2), (2, 4)]),
        ([0, 0, 0, 1, 1, 2], 40, [(0, 3), (3, 6)]),  # 4 would cut step 1
        ([0, 0, 0, 0, 0, 1], 20, [(0, 5), (5, 6)]),  # a step longer than a chunk stays whole
        ([], 20, []),
    ],
)
def test_a_chunk_never_cuts_a_step(steps, elements, bounds):
    assert cut(steps, 10, elements) == bounds


def test_no_tensor_is_larger_than_a_chunk_of_logits():
    """Watches every tensor that the forward and the backward pass make."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        rows = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for t in out if isinstance(out, tuple | list) else [out]:
                if isinstance(t, torch.Tensor) and t.dim() == 2 and t.shape[1] == 997:
                    self.rows = max(self.rows, t.shape[0])
            return out

    head = Head(torch.nn.Parameter(torch.randn(997, 8)), None, 997)
    hidden = torch.randn(64, 8, requires_grad=True)
    with Largest() as seen:
        total = chunked_sum(
            hidden,
            head,
            chunks(range(64), 997, 997 * 16, "cpu"),
            lambda z, a, b: losses.forward_kl(z, -z.detach()).sum(),
        )
        total.backward()
    assert seen.rows == 16
