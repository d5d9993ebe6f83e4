"""A continuation is what prompt and continuation decode to, minus the prompt, whatever the tokenizer and the cut."""

import random

import pytest
from conftest import byte_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from harness.models import token_text
from harness.models.token_text import Stops, continuation, decoded, response_ids

PROMPT = "def add(x, y):\n"
BODIES = ["    return x + y\n", "   return x\n", "  # é 日本 🙂\n    y", " a b", "x", "", " ", "return x\n\n\ndef f():"]


def fast(core, **special):
    return PreTrainedTokenizerFast(tokenizer_object=core, clean_up_tokenization_spaces=False, **special)


def pieces(byte_fallback=True):
    words = ["▁", "▁▁", "▁▁▁", "▁▁▁▁", "▁return", "▁x", "▁+", "▁y", "▁def", "def", "return"]
    letters = list("abcdefghijklmnopqrstuvwxyz():,+#_0123456789")
    fallback = [f"<0x{i:02X}>" for i in range(256)] if byte_fallback else []
    return ["<unk>", "<s>", "</s>", *fallback, *letters, *words]


def llama2():
    """Llama 2: a space before every text, bytes for what is unknown, a decoder that strips the first space."""
    vocab = {piece: i for i, piece in enumerate(pieces())}
    merges = []
    for word in ("▁▁", "▁▁▁", "▁▁▁▁", "▁x", "▁+", "▁y"):
        merges.append((word[:-1], word[-1]))
    core = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return fast(core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>")


def mistral():
    """Metaspace on both sides."""
    vocab = {piece: i for i, piece in enumerate(pieces())}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    core.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always"), decoders.Fuse()]
    )
    return fast(core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>")


def unigram():
    scored = [(piece, -float(i) / 100) for i, piece in enumerate(pieces())]
    core = Tokenizer(models.Unigram(scored, unk_id=0, byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return fast(core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>")


def wordpiece():
    """Spaces are what the decoder makes of word borders, and it cleans up before signs."""
    words = [
        "[UNK]",
        "[SEP]",
        *"abcdefghijklmnopqrstuvwxyz0123456789().,:!+=",
        *[f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"],
    ]
    core = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece(cleanup=True)
    return fast(core, eos_token="[SEP]", unk_token="[UNK]", pad_token="[SEP]")


KINDS = {
    "byte level": byte_tokenizer,
    "llama 2": llama2,
    "mistral": mistral,
    "unigram": unigram,
    "wordpiece": wordpiece,
}
FAITHFUL = [name for name in KINDS if name != "wordpiece"]  # it drops spaces and line breaks: no text comes back


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return KINDS[request.param]()


def test_every_cut_of_a_text_gives_two_parts_that_make_it(tokenizer):
    for body in BODIES:
        ids = tokenizer(PROMPT + body, add_special_tokens=False)["input_ids"]
        whole = decoded(tokenizer, ids)
        for cut in range(len(ids) + 1):
            before, after = decoded(tokenizer, ids[:cut]), continuation(tokenizer, ids[:cut], ids[cut:])
            assert whole.endswith(after)
            kept = whole[: len(whole) - len(after)]
            # A character that the cut divides is the continuation's, whole; its signs before the cut count for nothing.
            assert before.startswith(kept) and set(before[len(kept) :]) <= {"\ufffd"}, (body, cut)
            if "\ufffd" not in before:
                assert before + after == whole


def test_random_ids_too(tokenizer):
    rng = random.Random(7)
    for _ in range(300):
        ids = [rng.randrange(len(tokenizer)) for _ in range(rng.randint(1, 14))]
        cut = rng.randrange(len(ids) + 1)
        whole, after = decoded(tokenizer, ids), continuation(tokenizer, ids[:cut], ids[cut:])
        assert whole.endswith(after) if cut < len(ids) else after == ""
        assert token_text.behind(decoded(tokenizer, ids[:cut]), whole) == after or cut == len(ids)


@pytest.mark.parametrize("kind", FAITHFUL)
def test_a_response_reads_as_written_behind_its_prompt(kind):
    tokenizer = KINDS[kind]()
    prompt = tokenizer(PROMPT)["input_ids"]
    for body in BODIES:
        assert continuation(tokenizer, prompt, response_ids(tokenizer, prompt, body)) == body


def test_what_comes_alone_is_what_it_always_was_on_byte_level():
    tokenizer = byte_tokenizer()
    for body in BODIES:
        alone = tuple(tokenizer(body, add_special_tokens=False)["input_ids"])
        assert response_ids(tokenizer, [1, 2, 3], body) == alone
        assert continuation(tokenizer, [1, 2, 3], alone) == decoded(tokenizer, alone) == body


def test_a_decoder_that_strips_a_space_strips_none_of_a_continuation():
    tokenizer = llama2()
    ids = [tokenizer.convert_tokens_to_ids(piece) for piece in ("▁▁▁", "▁return", "▁x")]
    assert decoded(tokenizer, ids) == "   return x"  # a space short: decoded alone
    assert continuation(tokenizer, tokenizer(PROMPT)["input_ids"], ids) == "    return x"


def test_special_tokens_are_skipped_on_both_sides(tokenizer):
    end = tokenizer.eos_token_id
    prompt = tokenizer("a b", add_special_tokens=False)["input_ids"]
    ids = tokenizer("a x", add_special_tokens=False)["input_ids"]
    assert continuation(tokenizer, [end, *prompt], [*ids, end]) == continuation(tokenizer, prompt, ids)
    assert tokenizer.eos_token in continuation(tokenizer, prompt, [*ids, end], special=True)


def test_a_stop_string_is_seen_with_the_token_that_completes_it(tokenizer):
    """Against the definition: the whole continuation, decoded after every token."""
    text = "a b x (y): a b\n\n\ndef f() é日 x\ny end"
    prompt = tokenizer(PROMPT + "é", add_special_tokens=False)["input_ids"]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    for stop in ("\n\n", " x", "x", "(y):", "\ndef ", "日 x", " a b", "é", "not there", "a b", "add"):
        stops = Stops(tokenizer, (stop,))
        for end in range(1, len(ids) + 1):
            there = stop in continuation(tokenizer, prompt, ids[:end])
            assert stops.hit(prompt, ids[:end]) == there, (stop, end)
            if there:
                break


def test_a_stop_string_of_the_prompt_is_none_of_the_continuation(tokenizer):
    prompt = tokenizer("a b add x", add_special_tokens=False)["input_ids"]
    ids = tokenizer("y y", add_special_tokens=False)["input_ids"]
    stops = Stops(tokenizer, ("add", "x y"))
    assert not any(stops.hit(prompt, ids[:end]) for end in range(1, len(ids) + 1))


def test_a_long_run_of_bytes_hides_no_stop_string():
    tokenizer = llama2()
    ids = tokenizer("日本" * 40 + "\n\n", add_special_tokens=False)["input_ids"]
    assert Stops(tokenizer, ("\n\n",)).hit([], ids)
    assert not Stops(tokenizer, ("\n\n",)).hit([], ids[:-1])


def test_a_stop_string_that_is_a_special_token_ends_the_text(tokenizer):
    ids = [*tokenizer("a", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    assert Stops(tokenizer, (tokenizer.eos_token,)).hit([], ids)
    assert not Stops(tokenizer, (tokenizer.eos_token,)).hit([], ids[:-1])


def test_the_cost_of_stop_strings_does_not_grow_with_the_text(monkeypatch):
    """Tokens decoded while a text of 4,000 grows stay in proportion to it."""
    tokenizer, seen = byte_tokenizer(), [0]
    inner = token_text.decoded

    def counted(tokenizer, ids, **how):
        seen[0] += len(ids)
        return inner(tokenizer, ids, **how)

    monkeypatch.setattr(token_text, "decoded", counted)
    ids = tokenizer("ab\n" * 1400, add_special_tokens=False)["input_ids"]
    stops = Stops(tokenizer, ("\n\n", "\ndef "))
    for end in range(1, len(ids) + 1):
        assert not stops.hit([1] * 2000, ids[:end])
    assert seen[0] < 40 * len(ids)


# The end of a turn


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chat(template, *added):
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(list(added), special_tokens=True)
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (CHATML, "<|im_end|>"),
        ("{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }} <eos>{% endfor %}", "<eos>"),
        ("{% for m in messages %}{{ m['content'] }}<|eot_id|>{% endfor %}<eos>", "<|eot_id|>"),
        ("{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}|{% endfor %}", None),  # no token of its own
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", None),
        ("{{ raise_exception('never') }}", None),
        ("{{ messages[0]['content'] }}<|im_end|>", None),  # writes no answers
        (None, None),
    ],
)
def test_the_end_of_a_turn_is_the_token_that_the_template_writes(template, end):
    tokenizer = chat(template, "<|im_start|>", "<|im_end|>", "<|eot_id|>")
    found = token_text.turn_end(tokenizer)
    assert found == (None if end is None else tokenizer.convert_tokens_to_ids(end))


def test_both_ends_stop_and_the_templates_is_taught(models):
    import torch

    from harness.models import files
    from harness.models.generate import Generator
    from harness.types import Decoding

    tokenizer = chat(CHATML, "<|im_start|>", "<|im_end|>")
    model = files.load_model(files.locate(str(models[0])))
    speaker = Generator(model, tokenizer)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert speaker.end_id == end and speaker.end_ids == {tokenizer.eos_token_id, end}
    assert speaker.response_ids(speaker.encode("q"), "ab", ended=True)[-1] == end
    assert speaker.response_ids(speaker.encode("q"), "ab", ended=False)[-1] != end
    for last in (end, tokenizer.eos_token_id):
        with torch.no_grad():
            model.lm_head.weight.zero_()
            bias = torch.zeros(model.lm_head.weight.shape[0])
            bias[last] = 1
        handle = model.lm_head.register_forward_hook(lambda *_, bias=bias: bias.expand(*_[2].shape))
        (made,) = speaker.generate(["q"], Decoding(max_new_tokens=5), [0])
        handle.remove()
        assert (made.ids, made.text, made.finish) == ((last,), "", "stop")


def test_nothing_changes_where_the_template_ends_a_turn_with_what_the_tokenizer_ends():
    assert token_text.facts(byte_tokenizer()) == {}
    assert token_text.facts(chat("{% for m in messages %}{{ m['content'] }}<eos>{% endfor %}")) == {}
    assert token_text.facts(chat(CHATML, "<|im_start|>", "<|im_end|>")) == {"turn_end": "<|im_end|>"}
    assert token_text.facts(llama2()) == {"decoded": "behind the prompt"}


def test_the_micro_world_has_no_rule_of_its_own():
    from harness.models import files

    assert files.text_rule(files.locate("micro:student")) == {} == files.text_rule(files.locate("micro:teacher"))


# Thinking


@pytest.mark.parametrize(
    ("template", "thinks"),
    [
        ("{{ messages[0]['content'] }}{% if add_generation_prompt %}<think>\n{% endif %}", True),
        ("{{ messages[0]['content'].split('</think>')[-1] }}A:", True),
        ("{{ messages[0]['content'].split('</think>')[-1] }}<think>\n\n</think>\n\n", False),
        (CHATML, False),
        ("{{ raise_exception('never') }}", False),
        (None, False),
    ],
)
def test_a_template_that_thinks_is_told_by_what_it_opens_or_knows(template, thinks):
    assert token_text.thinks(chat(template, "<|im_start|>", "<|im_end|>")) is thinks
