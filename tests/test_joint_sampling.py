"""Text of two models: drawn from the distribution that the papers state, and recorded with its log-probabilities."""

import numpy as np
import pytest
import torch
from conftest import byte_tokenizer
from loss_formulas import softmax
from transformers import LlamaConfig, LlamaForCausalLM

from harness.method import Mixture, Speculation
from harness.models.generate import Generator
from harness.models.joint_sampling import JointGenerator
from harness.types import Decoding

torch.set_num_threads(1)
ROWS = 3000


def model(seed, positions=32, hidden=16):
    torch.manual_seed(seed)
    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=260,
        hidden_size=hidden,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=positions,
        initializer_range=0.5,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def pair(batch=4096, positions=(32, 32)):
    tokenizer = byte_tokenizer()
    return JointGenerator(
        *(Generator(model(s, n, h), tokenizer, batch) for s, n, h in zip((0, 1), positions, (16, 24), strict=True))
    )


def probabilities(generator, ids, temperature=1.0, top_p=1.0):
    """[258] the distribution that the papers sample from, in numpy."""
    with torch.no_grad():
        z = generator.model(torch.tensor([ids])).logits[0, -1, :258].double().numpy()
    if temperature == 0:
        return np.eye(258)[z.argmax()]
    p = softmax(z / temperature)
    order = np.argsort(-p)
    kept = order[: np.searchsorted(np.cumsum(p[order]), top_p) + 1] if top_p < 1 else order
    cut = np.zeros_like(p)
    cut[kept] = p[kept]
    return cut / cut.sum()


MIXED = Mixture(0.3)
SPECULATIVE = Speculation(20, Decoding(temperature=0.8, top_p=0.9), Decoding(temperature=0.6, top_p=0.8))


def expected(joint, how, decoding, ids):
    """[258] the next token's distribution in closed form."""
    if isinstance(how, Mixture):
        q, p = (probabilities(g, ids, decoding.temperature, decoding.top_p) for g in (joint.student, joint.teacher))
        return how.teacher_share * p + (1 - how.teacher_share) * q
    q = probabilities(joint.student, ids, how.student.temperature, how.student.top_p)
    p = probabilities(joint.teacher, ids, how.teacher.temperature, how.teacher.top_p)
    accepted = np.zeros(258)
    accepted[np.argsort(-probabilities(joint.teacher, ids))[: how.top_k]] = 1
    return q * accepted + (q * (1 - accepted)).sum() * p


CASES = [(MIXED, Decoding(1.0, 1.0, 2)), (MIXED, Decoding(0.7, 0.8, 2)), (SPECULATIVE, Decoding(max_new_tokens=2))]


@pytest.mark.parametrize(("how", "decoding"), CASES)
def test_tokens_are_as_frequent_as_the_sampler_says(how, decoding):
    joint, prompt = pair(), [10, 20, 30]
    made = joint.continue_ids([prompt] * ROWS, how, decoding, list(range(ROWS)))
    of_first = expected(joint, how, decoding, prompt)
    counts = np.bincount([g.ids[0] for g in made], minlength=258)
    assert not counts[of_first == 0].any()
    # Pearson's statistic over the frequent tokens and the rest: mean = degrees of freedom, here below mean + 5 sd.
    large = ROWS * of_first >= 5
    assert large.sum() >= 3
    observed, wanted = np.append(counts[large], counts[~large].sum()), ROWS * of_first[large]
    wanted = np.append(wanted, ROWS - wanted.sum())
    observed, wanted = observed[wanted > 1e-6], wanted[wanted > 1e-6]
    statistic, freedom = ((observed - wanted) ** 2 / wanted).sum(), len(wanted) - 1
    assert statistic < freedom + 5 * np.sqrt(2 * freedom)
    # The second token depends on the first: its mean log-probability is minus the entropy, where there are many.
    likeliest = int(counts.argmax())
    then = [g.ids[1] for g in made if g.ids[0] == likeliest and len(g.ids) > 1]
    after = expected(joint, how, decoding, [*prompt, likeliest])
    logs = np.log(after[then])
    assert abs(logs.mean() - (after[after > 0] * np.log(after[after > 0])).sum()) < 6 * logs.std() / len(then) ** 0.5


@pytest.mark.parametrize(("how", "decoding"), CASES)
def test_recorded_log_probs_are_those_of_the_joint_sampler(how, decoding):
    joint = pair()
    prompts = [[5], [7, 8, 9, 10], [1, 2]] * 4
    made = joint.continue_ids(prompts, how, Decoding(decoding.temperature, decoding.top_p, 5), list(range(12)))
    for prompt, g in zip(prompts, made, strict=True):
        assert g.prompt_tokens == len(prompt) and len(g.log_probs) == len(g.ids)
        for i, token in enumerate(g.ids):
            of = expected(joint, how, decoding, [*prompt, *g.ids[:i]])
            assert g.log_probs[i] == pytest.approx(np.log(of[token]), abs=1e-4)


@pytest.mark.parametrize("how", [MIXED, SPECULATIVE])
def test_a_row_does_not_depend_on_its_batch(how):
    prompts = [[3 * i % 250 + 1] * (1 + i % 5) for i in range(10)]
    decoding, seeds = Decoding(1.0, 1.0, 6), [100 + i for i in range(10)]
    together = pair().continue_ids(prompts, how, decoding, seeds)
    for batch in (1, 3):
        assert [g.ids for g in pair(batch).continue_ids(prompts, how, decoding, seeds)] == [g.ids for g in together]
    backwards = pair(4).continue_ids(prompts[::-1], how, decoding, seeds[::-1])[::-1]
    assert [g.ids for g in backwards] == [g.ids for g in together]
    other = pair().continue_ids(prompts, how, decoding, [s + 1000 for s in seeds])
    assert [g.ids for g in other] != [g.ids for g in together]


@pytest.mark.parametrize("how", [MIXED, SPECULATIVE])
def test_a_text_ends_with_its_end_token_and_its_neighbours_go_on(how):
    joint = pair()
    joint.student.end_ids = set(range(80))
    made = joint.continue_ids([[1, 2]] * 40, how, Decoding(1.0, 1.0, 6), list(range(40)))
    assert {g.finish for g in made} == {"stop", "length"} and len({len(g.ids) for g in made}) > 3
    for g in made:
        ends = [t < 80 for t in g.ids]
        assert not any(ends[:-1]) and ends[-1] is (g.finish == "stop")
        assert g.finish == "stop" or len(g.ids) == 6
    free = pair().continue_ids([[1, 2]] * 40, how, Decoding(1.0, 1.0, 6), list(range(40)))
    assert all(whole.ids[: len(g.ids)] == g.ids for g, whole in zip(made, free, strict=True))


@pytest.mark.parametrize("positions", [(8, 32), (32, 8)])
def test_the_smaller_context_bounds_a_text_and_a_full_one_gets_none(positions):
    joint = pair(positions=positions)
    made = joint.continue_ids([[1] * n for n in (2, 7, 8, 9)], SPECULATIVE, Decoding(max_new_tokens=100), [0] * 4)
    assert [len(g.ids) for g in made] == [6, 1, 0, 0]
    assert [g.finish for g in made] == ["length"] * 4 and made[2].text == "" and made[2].log_probs == ()
    assert joint.continue_ids([[1] * 9], MIXED, Decoding(1.0, 1.0, 5), [0])[0].ids == ()
    assert joint.continue_ids([], MIXED, Decoding(1.0, 1.0, 5), []) == []


def test_the_ends_of_both_samplers_are_the_models_themselves():
    joint, decoding = pair(), Decoding(1.0, 1.0, 4)
    prompts, seeds = [[4, 5], [6]], [1, 2]
    alone = joint.continue_ids(prompts, Mixture(0.0), decoding, seeds)
    for prompt, g in zip(prompts, alone, strict=True):
        for i, token in enumerate(g.ids):
            own = probabilities(joint.student, [*prompt, *g.ids[:i]])
            assert g.log_probs[i] == pytest.approx(np.log(own[token]), abs=1e-4)
    greedy = Decoding(temperature=0.0)
    of_teacher = joint.continue_ids(prompts, Speculation(1, greedy, greedy), decoding, seeds)
    best = joint.teacher.continue_ids(prompts, Decoding(max_new_tokens=4), seeds)
    assert [g.ids for g in of_teacher] == [g.ids for g in best]  # only the teacher's likeliest token is accepted
    of_student = joint.continue_ids(prompts, Speculation(258, greedy, greedy), decoding, seeds)
    best = joint.student.continue_ids(prompts, Decoding(max_new_tokens=4), seeds)
    assert [g.ids for g in of_student] == [g.ids for g in best]  # every token is accepted
