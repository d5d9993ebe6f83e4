"""In-process generation: equal to transformers' own greedy search, and independent of batch mates."""

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from harness.models import files as harness_models
from harness.models.generate import Generator
from harness.models.llama_decoder import LlamaDecoder, containing
from harness.progress import Watch
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


SHAPE = {
    "vocab_size": 258,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 200,
    "pad_token_id": 257,
    "bos_token_id": None,
    "eos_token_id": 256,
}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
FAMILY = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, attention_bias=True, mlp_bias=True)),
    "llama3": lambda: LlamaForCausalLM(
        LlamaConfig(**SHAPE, rope_parameters=LLAMA3 | {"original_max_position_embeddings": 64})
    ),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=None)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE, tie_word_embeddings=True)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE)),
}
WINDOW = {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 0}


def of_family(make, tokenizer, **kwargs):
    torch.manual_seed(3)
    model = make().eval()
    for parameter in model.parameters():  # biases and norms start as constants
        torch.nn.init.normal_(parameter, std=0.3)
    return Generator(model, tokenizer, **kwargs)


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("fused", [True, False])
def test_the_batched_decoder_decodes_as_transformers_does(generator, monkeypatch, name, fused):
    """Seven prompts of mixed lengths through three rows: rows leave, enter, move, and the cache grows."""
    if not fused:
        monkeypatch.setattr("harness.models.llama_decoder.FUSED_ELEMENTS", 0)
    monkeypatch.setattr("harness.models.llama_decoder.GROWTH", 3)
    ours = of_family(FAMILY[name], generator.tokenizer, batch=3)
    assert ours._decoder_fits()
    prompts = [[(7 * i + j) % 250 for j in range(n)] for i, n in enumerate((3, 40, 1, 9, 22, 5, 14))]
    made = ours.continue_ids(prompts, Decoding(max_new_tokens=17), [0] * 7)
    for prompt, row in zip(prompts, made, strict=True):
        with torch.no_grad():
            theirs = ours.model.generate(torch.tensor([prompt]), max_new_tokens=17, do_sample=False, pad_token_id=257)
            logits = ours.model(torch.tensor([[*prompt, *row.ids]])).logits[0, len(prompt) - 1 : -1]
        assert list(row.ids) == theirs[0, len(prompt) :].tolist()
        expected = logits.log_softmax(-1).gather(-1, torch.tensor(row.ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(row.log_probs), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_the_batched_decoder_and_transformers_sample_the_same_text(generator, monkeypatch, temperature):
    ours = of_family(FAMILY["qwen2"], generator.tokenizer, batch=4)
    prompts = [[(5 * i + j) % 250 for j in range(1 + 4 * i)] for i in range(9)]
    decoding, seeds = Decoding(temperature, max_new_tokens=12), list(range(9))
    through_decoder = ours.continue_ids(prompts, decoding, seeds)
    monkeypatch.setattr(LlamaDecoder, "fit", staticmethod(lambda model: False))
    through_model = ours.continue_ids(prompts, decoding, seeds)
    assert [g.ids for g in through_decoder] == [g.ids for g in through_model]
    for a, b in zip(through_decoder, through_model, strict=True):
        assert a.log_probs == pytest.approx(b.log_probs, abs=1e-4)


def test_prompts_that_begin_one_text_share_its_pass(generator, monkeypatch):
    """Beginnings of two texts, one of them twice: the ids of each are those that it has alone; two texts are run."""
    ours = of_family(FAMILY["qwen2"], generator.tokenizer, batch=9)
    texts = [[(5 * k + 3 * j) % 250 for j in range(30)] for k in range(2)]
    prompts = [text[:n] for n in (4, 11, 12, 30) for text in texts] + [texts[0][:11]]
    assert containing(prompts) == [6, 7, 6, 7, 6, 7, 6, 7, 6]
    run = []
    through = LlamaDecoder._through
    monkeypatch.setattr(
        LlamaDecoder, "_through", lambda self, x, *rest: run.append(x.shape[:-1]) or through(self, x, *rest)
    )
    assert ours._decoder_fits()
    run.clear()
    decoding, seeds = Decoding(1.0, max_new_tokens=6), list(range(len(prompts)))
    shared = ours.continue_ids(prompts, decoding, seeds)
    assert [tuple(shape) for shape in run if len(shape) == 2] == [(2, 30)]
    alone = [ours.continue_ids([prompt], decoding, [seed])[0] for prompt, seed in zip(prompts, seeds, strict=True)]
    assert [g.ids for g in shared] == [g.ids for g in alone]
    for a, b in zip(shared, alone, strict=True):
        assert a.log_probs == pytest.approx(b.log_probs, abs=1e-4)


def test_steps_of_one_text_are_scored_in_one_pass_of_its_contexts(generator, monkeypatch):
    ours = of_family(FAMILY["qwen2"], generator.tokenizer, batch=4)
    text = [(5 * j) % 250 for j in range(40)]
    pairs = [(text[:n], [(n + i) % 250 for i in range(1 + n % 3)]) for n in range(5, 40, 5)]
    pairs += [(text[:7], []), (text[:7], text[7:12])]
    greedy = ours.continue_ids([text[:20]], Decoding(max_new_tokens=3), [0])[0]
    pairs.append((text[:20], greedy.ids))
    calls = []
    forward = ours.model.forward
    monkeypatch.setattr(ours.model, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    assert ours._decoder_fits()
    calls.clear()
    stepwise = ours.score(pairs)
    assert not calls
    whole = [ours.score([pair])[0] for pair in pairs]
    assert len(calls) == len(pairs)
    for a, b in zip(stepwise, whole, strict=True):
        assert a.greedy == b.greedy and a.log_probs == pytest.approx(b.log_probs, abs=1e-4)
    assert stepwise[-1].greedy == (True, True, True) and stepwise[-3].log_probs == ()


def test_unsupported_models_go_through_transformers(generator):
    class Odd(LlamaForCausalLM):
        pass

    model = FAMILY["llama"]()
    assert LlamaDecoder.fit(model)
    handle = model.model.layers[0].register_forward_hook(lambda *_: None)
    assert not LlamaDecoder.fit(model)
    handle.remove()
    model.model.layers[1].mlp.up_proj = torch.nn.Sequential(model.model.layers[1].mlp.up_proj)
    assert not LlamaDecoder.fit(Odd(model.config))
    assert not LlamaDecoder.fit(Qwen2ForCausalLM(Qwen2Config(**SHAPE, **WINDOW)))
    dynamic = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    assert not LlamaDecoder.fit(LlamaForCausalLM(LlamaConfig(**SHAPE, rope_parameters=dynamic)))


def test_new_weights_are_used_at_once(generator):
    """The student moves between two rollouts."""
    ours = of_family(FAMILY["llama"], generator.tokenizer)
    before = ours.continue_ids([[1, 2, 3]], Decoding(max_new_tokens=8), [0])[0]
    with torch.no_grad():
        for parameter in ours.model.parameters():
            parameter.add_(torch.randn_like(parameter))
    after = ours.continue_ids([[1, 2, 3]], Decoding(max_new_tokens=8), [0])[0]
    theirs = ours.model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=8, do_sample=False, pad_token_id=257)
    assert before.ids != after.ids and list(after.ids) == theirs[0, 3:].tolist()


@pytest.mark.parametrize("batch", [1, 8])
def test_every_text_is_heard_of_once_as_soon_as_it_is_whole(generator, batch):
    heard = Heard()
    asked = Generator(generator.model, generator.tokenizer, batch)
    made = asked.generate(["ab", "abc", "x" * 300], Decoding(max_new_tokens=4), [0] * 3, heard)
    assert heard.texts == dict(enumerate(made)) and heard.order[0] == 2  # the third one fills the context
    assert heard.tokens == sum(g.tokens for g in made)


class Heard(Watch):
    def __init__(self):
        self.texts, self.order, self.tokens = {}, [], 0

    def wrote(self, tokens):
        self.tokens += tokens

    def finished(self, row, made):
        assert row not in self.texts
        self.texts[row] = made
        self.order.append(row)
