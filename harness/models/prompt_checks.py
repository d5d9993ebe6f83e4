"""Finds silent faults between prompt and model before the first token is generated.

Each of these has moved published scores by tens of points: a template left out or applied twice, a second
begin-of-sequence token, a system prompt added by the template, a penalty that one engine applies and another does
not, a prompt that fills the context.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from harness.models.token_text import MARK
from harness.types import Decoding, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.models.chat_format import TextCodec

# Tokens that only chat templates write.
CHAT_TOKENS = ("<|im_start|>", "<|start_header_id|>", "<start_of_turn>", "[INST]", "<|user|>", "<|Assistant|>")
# Settings of generation_config.json that change the distribution, with their neutral values.
PENALTIES = {
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "bad_words_ids": [],
    "min_new_tokens": 0,
    "min_length": 0,
}


def of_prompts(codec: TextCodec, prompts: Sequence[Prompt]) -> list[str]:
    """Warnings about how ``prompts`` are rendered, for any reader: the student, the teacher, or a server."""
    tokenizer = codec.tokenizer
    chat = bool(tokenizer.chat_template) and prompts[0].chat
    found = [*_template(tokenizer, prompts[0], chat), *_begin(codec, prompts[0])]
    if chat:
        found += _injected(codec, prompts[0])
        found += _thoughts(codec, prompts)
    return found


def _template(tokenizer, prompt: Prompt, chat: bool) -> Iterator[str]:
    known = tokenizer.get_vocab()
    if not tokenizer.chat_template and any(token in known for token in CHAT_TOKENS):
        token = next(token for token in CHAT_TOKENS if token in known)
        yield f"the chat template is missing: the tokenizer has {token} but no template, so plain text is continued"
    written = [prompt.system or "", prompt.user] if chat else [prompt.plain]
    marks = {*CHAT_TOKENS, *tokenizer.all_special_tokens}
    doubled = sorted(token for token in marks if any(token in text for text in written))
    if doubled:
        how = "the chat template is applied to a text that" if chat else "the plain text"
        yield f"{how} already holds {doubled[0]}: a template applied twice?"


def _begin(codec: TextCodec, prompt: Prompt) -> Iterator[str]:
    tokenizer = codec.tokenizer
    begin = tokenizer.bos_token_id
    if begin is None:
        return
    ids = codec.encode(codec.render(prompt))
    if ids[:2] == [begin, begin]:
        yield f"the prompt begins with two begin-of-sequence tokens ({tokenizer.bos_token})"
    elif begin not in ids[:1] and tokenizer("a")["input_ids"][:1] == [begin]:
        yield f"the prompt lacks the begin-of-sequence token ({tokenizer.bos_token}) that the tokenizer puts first"


def _thoughts(codec: TextCodec, prompts: Sequence[Prompt]) -> Iterator[str]:
    if codec.thinks and any(prompt.prefill for prompt in prompts):
        yield (
            "the model thinks before it answers: the answer is not opened for it with the task's prefill, which would "
            "stand inside its thoughts"
        )


def _injected(codec: TextCodec, prompt: Prompt) -> Iterator[str]:
    """The text that the template puts before the first turn."""
    rendered = codec.render(Prompt(user=MARK, plain="", system=prompt.system))
    before = rendered.partition(MARK)[0]
    for known in (prompt.system, *sorted(codec.tokenizer.all_special_tokens, key=len, reverse=True)):
        before = before.replace(known, " ") if known else before
    lines = [line.strip() for line in re.sub(r"<[^<>]*>", " ", before).split("\n")]
    prose = " ".join(" ".join(line for line in lines if line not in ("system", "user", "assistant")).split())
    if len(prose.split()) > 2:
        yield f"the chat template adds a system prompt of its own: {prose[:120]!r}"


def penalties(model: PreTrainedModel) -> Iterator[str]:
    """Settings of the model's own generation that change its distribution and that no engine here applies."""
    config = model.generation_config
    for name, neutral in PENALTIES.items():
        value = getattr(config, name, None)
        if value is not None and value != neutral:
            yield f"the model's generation_config asks for {name}={value}, which is not applied here"


def room(codec: TextCodec, prompts: Sequence[Prompt], decoding: Decoding, limit: int | None) -> Iterator[str]:
    """Prompts that leave an answer less room than it may take in a context of ``limit`` tokens."""
    if not limit:
        return
    lengths = [len(codec.encode(codec.render(prompt))) for prompt in prompts]
    full = sum(length >= limit for length in lengths)
    tight = sum(length < limit < length + decoding.max_new_tokens for length in lengths)
    if full:
        yield f"{full} of {len(prompts)} prompts fill the context of {limit} tokens and get no answer"
    if tight:
        yield (
            f"{tight} of {len(prompts)} prompts leave fewer than the {decoding.max_new_tokens} tokens that an answer "
            f"may have in the context of {limit}"
        )
