"""In-process generation: equal to transformers' own greedy search, and independent of batch mates."""

import pytest
import torch

from harness.models import files as harness_models
from harness.models.generate import Generator
from harness.types import Decoding, Prompt

TEXTS = ["a", "a much longer prompt than the others", "xyz", "", "def f():\n    "]


@pytest.fixture(scope="module")
def generator(models):
    files = harness_models.locate(str(models[0]))
    return Generator(harness_models.load_model(files), harness_models.load_tokenizer(files), batch=2)


def test_greedy_equals_transformers(generator):
    made = generator.generate(TEXTS[:3], Decoding(max_new_tokens=12), [0] * 3)
    for text, ours in zip(TEXTS, made, strict=False):
        ids = torch.tensor([generator.encode(text)])
        # Only ids of the tokenizer count: the model's vocabulary is padded.
        theirs = generator.model.generate(
            ids, max_new_tokens=12, do_sample=False, suppress_tokens=list(range(258, 260)), pad_token_id=257
        )
        assert list(ours.ids) == theirs[0, ids.shape[1] :].tolist()
        assert ours.finish == ("stop" if ours.ids[-1] == generator.tokenizer.eos_token_id else "length")


def test_a_sample_depends_on_its_seed_alone(generator):
    decoding, seeds = Decoding(temperature=0.9, top_p=0.9, max_new_tokens=10), [5, 6, 7, 8, 9]
    texts = ["ab", "abc", "x", "yy", "def f():"]
    together = generator.generate(texts, decoding, seeds)
    backwards = generator.generate(texts[::-1], decoding, seeds[::-1])[::-1]
    alone = [generator.generate([t], decoding, [s])[0] for t, s in zip(texts, seeds, strict=True)]
    assert [g.ids for g in together] == [g.ids for g in backwards] == [g.ids for g in alone]
    assert generator.generate(["ab"], decoding, [50])[0].ids != together[0].ids


def test_sampling_follows_the_distribution(generator):
    from scipy.stats import chisquare

    many = Generator(generator.model, generator.tokenizer, batch=2000)
    rows = many.generate(["q"] * 4000, Decoding(temperature=1.0, max_new_tokens=1), list(range(4000)))
    counts = torch.bincount(torch.tensor([row.ids[0] for row in rows]), minlength=258)
    with torch.no_grad():
        expected = generator.model(torch.tensor([generator.encode("q")])).logits[0, -1, :258].softmax(-1)
    frequent = expected > 5 / 4000
    pooled = [torch.cat([t[frequent], t[~frequent].sum()[None]]).double() for t in (counts, expected)]
    assert chisquare(pooled[0], pooled[1] / pooled[1].sum() * 4000).pvalue > 0.001
    recorded = torch.tensor([row.log_probs[0] for row in rows[:50]])
    torch.testing.assert_close(recorded, expected.log()[[row.ids[0] for row in rows[:50]]], rtol=1e-4, atol=1e-4)


def test_stop_strings_end_and_are_cut(generator):
    free = generator.generate(["ab"], Decoding(max_new_tokens=30), [0])[0]
    stop = free.text[3:5]
    cut = generator.generate(["ab"], Decoding(max_new_tokens=30, stop=(stop,)), [0])[0]
    assert cut.text == free.text[: free.text.index(stop)] and cut.finish == "stop"
    assert cut.tokens < free.tokens


def test_a_prompt_that_fills_the_context_gets_no_answer_and_harms_nobody(generator):
    texts = ["z" * 300, "ab"]
    long, short = generator.generate(texts, Decoding(max_new_tokens=5), [0, 0])
    assert (long.text, long.tokens, long.finish) == ("", 0, "length")
    assert short.ids == generator.generate(["ab"], Decoding(max_new_tokens=5), [0])[0].ids


def test_loglikelihood_is_the_sum_of_log_probs(generator):
    pairs = [("ab", "zz"), ("a longer context", "c"), ("ab", "hello")]
    for (context, continuation), (value, greedy) in zip(pairs, generator.loglikelihood(pairs), strict=True):
        ids = torch.tensor([generator.encode(context + continuation)])
        with torch.no_grad():
            log_probs = generator.model(ids).logits[0, :-1, :258].log_softmax(-1)
        size = len(continuation)
        expected = log_probs.gather(-1, ids[0, 1:, None])[-size:].sum()
        assert value == pytest.approx(float(expected), abs=1e-3)
        assert greedy == bool((log_probs.argmax(-1)[-size:] == ids[0, -size:]).all())


def test_a_chat_template_is_rendered_once_with_its_prefill(generator):
    prompt = Prompt(user="U", plain="P", system="S", prefill="```python\n")
    assert generator.render(prompt) == "P"
    generator.tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}|{% endfor %}"
        "{% if add_generation_prompt %}A:{% endif %}"
    )
    try:
        assert generator.render(prompt) == "system:S|user:U|A:```python\n"
        generator.tokenizer.chat_template = (
            "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
            "{{ m['role'] }}:{{ m['content'] }}|{% endfor %}A:"
        )
        assert generator.render(prompt) == "user:S\n\nU|A:```python\n"
    finally:
        generator.tokenizer.chat_template = None
