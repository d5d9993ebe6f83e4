"""How prompts are rendered and how texts end: chat template, ending token, thinking switch, token ids.

Base and instruct models of one family share a vocabulary and differ in exactly this. A format can be applied to a
model, which then renders, trains, saves and stops by it instead of by its own. :class:`TextCodec` renders and encodes
prompts, and encodes responses, as tokenizer and template prescribe. :func:`check_prompts` finds faults between prompt
and model before the first token is generated.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput
from harness.models import chat_template, token_text
from harness.models.token_text import MARK
from harness.types import Decoding, Example, Prompt, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    pass

MERGED = "merged into the user's turn"  # of a system turn that a template has no place for
DAY = datetime.date(2024, 7, 26)  # Llama 3's templates write this date if they cannot ask for today's
_TODAY = re.compile(r"""\bstrftime_now\(\s*(?P<quote>["'])(?P<format>[^"'\\]*)(?P=quote)\s*\)""")
THINKING = "enable_thinking"  # the variable with which templates switch thinking, as Qwen3's does


@dataclass(frozen=True)
class ChatFormat:
    """``template`` is Jinja source, None for plain text; ``end`` the token that ends a response, as text.

    ``origin`` is teacher, student, none, or the name of a file. ``stops`` are the ids of all tokens at
    which a text ends: ``end`` first, then the other endings that the models of a pair know.
    """

    origin: str
    template: str | None
    end: str
    thinking: bool | None = None
    stops: tuple[int, ...] = ()

    def identity(self) -> dict[str, Any]:
        """The facts that determine token ids, for hashes."""
        template = None if self.template is None else hashlib.sha256(self.template.encode()).hexdigest()[:16]
        return {"template": template, "end": self.end}

    def same_as(self, tokenizer: PreTrainedTokenizerBase) -> bool:
        """Whether the tokenizer already renders and ends texts in this format."""
        return template_of(tokenizer) == self.template and ending(tokenizer) == self.end

    def put_on(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Makes the tokenizer render and end texts in this format; both are saved with it."""
        tokenizer.chat_template = self.template
        tokenizer.eos_token = self.end

    def stop(self, model: PreTrainedModel) -> None:
        """Makes the model's generation stop in this format; this is saved with the weights."""
        model.generation_config.eos_token_id = list(self.stops)
        model.config.eos_token_id = list(self.stops)
        if model.generation_config.pad_token_id is None:  # otherwise generate warns at every call
            model.generation_config.pad_token_id = self.stops[0]


def own(tokenizer: PreTrainedTokenizerBase, origin: str, thinking: bool | None = None) -> ChatFormat:
    """The tokenizer's own format. Raises BadInput for a thinking switch that its template does not have."""
    return with_template(tokenizer, origin, template_of(tokenizer), thinking)


def with_template(
    tokenizer: PreTrainedTokenizerBase, origin: str, template: str | None, thinking: bool | None
) -> ChatFormat:
    """The format of a template in the vocabulary of a tokenizer. Raises BadInput for one that renders no question."""
    if thinking is not None:
        if template is None or THINKING not in template:
            raise BadInput(
                f"models.thinking={str(thinking).lower()}: the chat template ({origin}) has no {THINKING} switch; "
                "leave models.thinking out"
            )
        # Written into the template, so that any program that loads the trained student renders prompts the same way.
        template = f"{{%- set {THINKING} = {str(thinking).lower()} %}}\n{template}"
    before = tokenizer.chat_template
    tokenizer.chat_template = template
    try:
        on_one_day(tokenizer)
        template = tokenizer.chat_template
        if template is not None:
            _check(tokenizer, origin)
        return ChatFormat(origin, template, ending(tokenizer), thinking)
    finally:
        tokenizer.chat_template = before


def _check(tokenizer: PreTrainedTokenizerBase, origin: str) -> None:
    """Raises BadInput for a template that cannot render a question, or that leaves the question out."""
    mark = token_text.MARK
    try:
        text = chat_template.render(tokenizer, [{"role": "user", "content": mark}], add_generation_prompt=True)
    except Exception as error:  # jinja errors of syntax, and of the template's own raise_exception
        reason = " ".join(str(error).split())[:160]
        raise BadInput(f"the chat template ({origin}) cannot render a user's turn: {reason}") from None
    if mark not in text:
        raise BadInput(f"the chat template ({origin}) leaves out the user's text")


def on_one_day(tokenizer: PreTrainedTokenizerBase) -> None:
    """Writes :data:`DAY` into templates that ask for today's date, as those of Llama 3.2, Mistral Small and SmolLM3 do.

    Otherwise the prompt would change from day to day under the same protocol, and a student would read another one than
    it was trained on. The saved student keeps the date.
    """

    def dated(template: str) -> str:
        return _TODAY.sub(lambda match: repr(DAY.strftime(match["format"])), template)

    own_template = tokenizer.chat_template
    if isinstance(own_template, dict):
        tokenizer.chat_template = {name: dated(template) for name, template in own_template.items()}
    elif own_template:
        tokenizer.chat_template = dated(own_template)


def template_of(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The chat template that renders by default; None if there is none."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return template or None


def ending(tokenizer: PreTrainedTokenizerBase) -> str:
    """The token that ends a response: the template's end of a turn, else the end of sequence."""
    end = token_text.turn_end(tokenizer)
    return tokenizer.eos_token if end is None else str(tokenizer.convert_ids_to_tokens(end))


def system_turn(tokenizer: PreTrainedTokenizerBase) -> str:
    """The treatment of a system turn: by the template, or merged into the user's first turn."""
    if template_of(tokenizer) is None:
        return "in the plain text"
    turns = [{"role": "system", "content": token_text.MARK}, {"role": "user", "content": "question"}]
    try:
        accepted = token_text.MARK in chat_template.render(tokenizer, turns, add_generation_prompt=True)
    except Exception:  # jinja errors of the template's own raise_exception
        accepted = False
    return "the template's" if accepted else MERGED


class TextCodec:
    """Renders prompts for a model with this tokenizer, and encodes and decodes its first ``words`` tokens.

    ``words`` is smaller than the vocabulary if a pair of models shares fewer ids: text of the others is written in
    pieces.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, words: int | None = None):
        self.tokenizer, self.words = tokenizer, words or len(tokenizer)
        self.turn_end = token_text.turn_end(tokenizer)
        self.thinks = token_text.thinks(tokenizer)
        self.frame = token_text.answer_frame(tokenizer)

    def render(self, prompt: Prompt) -> str:
        """The exact text whose tokens the model continues."""
        if not self.tokenizer.chat_template:
            return prompt.plain
        if not prompt.chat:  # encode() leaves the begin-of-sequence token to the template, which is not used here
            begins = self.tokenizer("a")["input_ids"][:1] == [self.tokenizer.bos_token_id]
            return (self.tokenizer.bos_token if begins else "") + prompt.plain
        try:
            text = chat_template.render(self.tokenizer, prompt.turns(), add_generation_prompt=True)
        except Exception as error:  # jinja errors of the template's own raise_exception, e.g. "no system role"
            if prompt.system is None:
                raise BadInput(f"the model's chat template refuses a user turn: {error}") from None
            return self.render(_merged(prompt))
        if prompt.system and prompt.system.strip() not in text:  # some templates silently drop system turns
            return self.render(_merged(prompt))
        # With a model that thinks first, a prefill would end up inside its thinking.
        return text if self.thinks else text + prompt.prefill

    def begins_itself(self, prompt: Prompt) -> bool:
        """Whether the answer is a chat reply that the model begins itself; stop strings do not apply to it."""
        return bool(self.tokenizer.chat_template) and prompt.chat and (self.thinks or not prompt.prefill)

    def encode(self, text: str) -> list[int]:
        """Token ids of a rendered prompt. A template has already written the begin-of-sequence token."""
        ids = self.tokenizer(text, add_special_tokens=not self.tokenizer.chat_template)["input_ids"]
        end = self.tokenizer.eos_token_id
        cut = ids and ids[-1] == end and not text.endswith(self.tokenizer.eos_token)
        return self._known(ids[:-1] if cut else ids)

    def response_ids(self, prompt: Sequence[int], text: str, *, ended: bool) -> tuple[int, ...]:
        """Token ids of a response after the ids of its prompt, with the end of its turn where it ``ended``."""
        ids = tuple(self._known(token_text.response_ids(self.tokenizer, prompt, text)))
        return (*ids, self.end_id) if ended else ids

    def answer_ids(self, prompt: Prompt, text: str, *, ended: bool = True) -> tuple[int, ...]:
        """Token ids of an answer to a prompt as the chat template writes it into a conversation, its frame included.

        An answer with its own thinking gets no empty thinking block in front.
        """
        before, behind = self.frame if prompt.chat else ("", "")
        before = "" if prompt.prefill or token_text.THOUGHT_ENDS in text else before
        framed = f"{before}{text}{behind if ended else ''}"
        rendered = self.render(prompt)
        ids = self.encode(rendered)
        if framed == text:
            return self.response_ids(ids, text, ended=ended)
        # If a template adds text around answers, tokens may span the border, so encode answer and frame together.
        whole = self.encode(rendered + framed)
        if whole[: len(ids)] != ids:
            return self.response_ids(ids, framed, ended=ended)
        return (*whole[len(ids) :], self.end_id) if ended else tuple(whole[len(ids) :])

    def _known(self, ids: Sequence[int]) -> list[int]:
        """The ids, with each id from ``words`` on replaced by the ids of the two halves of its text."""
        known: list[int] = []
        for i in ids:
            if i < self.words:
                known.append(i)
                continue
            text = self.tokenizer.decode([i])
            for part in (text[:1], text[1:]):
                known += [k for k in self.tokenizer(part, add_special_tokens=False)["input_ids"] if k < self.words]
        return known

    def example_ids(self, example: Example) -> tuple[tuple[int, ...], tuple[int, ...], tuple[bool, ...] | None]:
        """Token ids of a labelled example: its prompt, what follows it, and which of the latter are learnt.

        None means all of them. In a conversation with several learnt turns, the response begins with the first of
        these, and the turns of the user between them are not learnt. An earlier turn is learnt with the ids that the
        template gives it, including its end, and only if they follow the ids that would ask for it. A template
        that writes an earlier turn differently (some drop its thoughts) makes it a part of the prompt.
        """
        assert example.response is not None, "labelled examples have responses"
        prompt = tuple(self.encode(self.render(example.prompt)))
        response = self.answer_ids(example.prompt, example.response)
        spans = self._earlier_answers(example, prompt) if example.taught > 1 else []
        if not spans:
            return prompt, response, None
        first = spans[0].start
        learnt = [any(place in span for span in spans) for place in range(first, len(prompt))]
        return prompt[:first], (*prompt[first:], *response), (*learnt, *[True] * len(response))

    def _earlier_answers(self, example: Example, prompt: Sequence[int]) -> list[range]:
        """The positions of the learnt turns before the response in the ids of the prompt, in order."""
        if not self.tokenizer.chat_template:
            return []
        history, whole, places = example.prompt.history, self.render(example.prompt), []
        end = self.tokenizer.decode([self.end_id])
        answers = [i for i, turn in enumerate(history) if turn.role == "assistant"]
        for i in answers[-(example.taught - 1) :]:
            rendered = self.render(replace(example.prompt, history=history[: i - 1], user=history[i - 1].content))
            close = whole.find(end, len(rendered) + len(history[i].content.strip()))
            if not whole.startswith(rendered) or close < 0:
                continue
            before, through = self.encode(rendered), self.encode(whole[: close + len(end)])
            if tuple(before) == tuple(prompt[: len(before)]) and tuple(through) == tuple(prompt[: len(through)]):
                places.append(range(len(before), len(through)))
        return places

    @property
    def pad_id(self) -> int:
        """A padding token that every reader of the batch knows; it is neither learnt nor attended to."""
        pad = self.tokenizer.pad_token_id
        return pad if pad < self.words else self.end_id

    @property
    def end_id(self) -> int:
        """The token that ends a response in training: the template's end of a turn, else the end of sequence."""
        return self.tokenizer.eos_token_id if self.turn_end is None else self.turn_end


def _merged(prompt: Prompt) -> Prompt:
    """The prompt with its system text in front of the first turn of the user, for templates without system turns."""
    if not prompt.history:
        return replace(prompt, user=f"{prompt.system}\n\n{prompt.user}", system=None)
    first, *rest = prompt.history
    opened = Turn(first.role, f"{prompt.system}\n\n{first.content}")
    return replace(prompt, system=None, history=(opened, *rest))


# Finds silent faults between prompt and model before the first token is generated.
#
# Each of these has moved published scores by tens of points: a template missing or applied twice, a second
# begin-of-sequence token, a system prompt added by the template, a penalty that one engine applies and another does
# not, a prompt that fills the context.

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


def check_prompts(codec: TextCodec, prompts: Sequence[Prompt]) -> list[str]:
    """Warnings about how ``prompts`` are rendered, for any reader: the student, the teacher, or a server."""
    tokenizer = codec.tokenizer
    chat = bool(tokenizer.chat_template) and prompts[0].chat
    warnings = [*_template_faults(tokenizer, prompts[0], chat), *_begin_faults(codec, prompts[0])]
    if chat:
        warnings += _injected(codec, prompts[0])
        warnings += _thoughts(codec, prompts)
    return warnings


def _template_faults(tokenizer, prompt: Prompt, chat: bool) -> Iterator[str]:
    known = tokenizer.get_vocab()
    if not tokenizer.chat_template and any(token in known for token in CHAT_TOKENS):
        token = next(token for token in CHAT_TOKENS if token in known)
        yield f"the chat template is missing: the tokenizer has {token} but no template; the model continues plain text"
    texts = [prompt.system or "", prompt.user] if chat else [prompt.plain]
    marks = {*CHAT_TOKENS, *tokenizer.all_special_tokens}
    doubled = sorted(token for token in marks if any(token in text for text in texts))
    if doubled:
        how = "the chat template is applied to a text that" if chat else "the plain text"
        yield f"{how} already holds {doubled[0]}: a template applied twice?"


def _begin_faults(codec: TextCodec, prompt: Prompt) -> Iterator[str]:
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


def check_penalties(model: PreTrainedModel) -> Iterator[str]:
    """Settings of the model's generation_config that change its distribution and that no engine here applies."""
    config = model.generation_config
    for name, neutral in PENALTIES.items():
        value = getattr(config, name, None)
        if value is not None and value != neutral:
            yield f"the model's generation_config asks for {name}={value}, which is not applied here"


def check_room(codec: TextCodec, prompts: Sequence[Prompt], decoding: Decoding, limit: int | None) -> Iterator[str]:
    """Prompts that leave too little room for an answer in a context of ``limit`` tokens."""
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
