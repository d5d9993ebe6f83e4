"""How a model is asked and how its texts end: the chat template, the ending token, the thinking switch.

Base and instruct models of one family share a vocabulary and differ in exactly this. A format can be put over a model,
which is then rendered, trained, saved and stopped by it instead of by its own.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput
from harness.models import token_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MERGED = "merged into the user's turn"  # of a system turn for which a template has no place
DAY = datetime.date(2024, 7, 26)  # which Llama 3's templates write where they cannot ask for the day
_TODAY = re.compile(r"""\bstrftime_now\(\s*(?P<quote>["'])(?P<format>[^"'\\]*)(?P=quote)\s*\)""")
THINKING = "enable_thinking"  # the variable with which templates switch thinking, as Qwen3's does


@dataclass(frozen=True)
class ChatFormat:
    """``template`` is Jinja source, None for plain text; ``end`` the token that ends a response, as text.

    ``origin`` says whose it is: teacher, student, none, or the name of a file. ``stops`` are the ids of all tokens at
    which a text ends: ``end`` first, then the other endings that the models of a pair know.
    """

    origin: str
    template: str | None
    end: str
    thinking: bool | None = None
    stops: tuple[int, ...] = ()

    def identity(self) -> dict[str, Any]:
        """What decides token ids, for hashes."""
        template = None if self.template is None else hashlib.sha256(self.template.encode()).hexdigest()[:16]
        return {"template": template, "end": self.end}

    def same_as(self, tokenizer: PreTrainedTokenizerBase) -> bool:
        """Whether the tokenizer renders and ends texts so already."""
        return template_of(tokenizer) == self.template and ending(tokenizer) == self.end

    def put_on(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Makes the tokenizer render and end texts so; it is saved with both."""
        tokenizer.chat_template = self.template
        tokenizer.eos_token = self.end

    def stop(self, model: PreTrainedModel) -> None:
        """Makes the model's generation stop so; it is saved with the weights."""
        model.generation_config.eos_token_id = list(self.stops)
        model.config.eos_token_id = list(self.stops)
        if model.generation_config.pad_token_id is None:  # else generate warns of every call
            model.generation_config.pad_token_id = self.stops[0]


def own(tokenizer: PreTrainedTokenizerBase, origin: str, thinking: bool | None = None) -> ChatFormat:
    """The format that a tokenizer brings. Raises BadInput for a thinking switch that its template does not have."""
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
        # Written into the template, so that the trained student is asked alike by any program that loads it.
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
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": mark}], tokenize=False, add_generation_prompt=True
        )
    except Exception as error:  # jinja errors of syntax, and of the template's own raise_exception
        reason = " ".join(str(error).split())[:160]
        raise BadInput(f"the chat template ({origin}) cannot render a user's turn: {reason}") from None
    if mark not in text:
        raise BadInput(f"the chat template ({origin}) leaves out what the user says")


def on_one_day(tokenizer: PreTrainedTokenizerBase) -> None:
    """Writes :data:`DAY` into templates that ask for today's date, as those of Llama 3.2, Mistral Small and SmolLM3 do.

    Asked tomorrow, such a model would read another prompt under the same protocol, and a student another one than it
    was trained on. The saved student carries the date.
    """

    def dated(template: str) -> str:
        return _TODAY.sub(lambda found: repr(DAY.strftime(found["format"])), template)

    found = tokenizer.chat_template
    if isinstance(found, dict):
        tokenizer.chat_template = {name: dated(template) for name, template in found.items()}
    elif found:
        tokenizer.chat_template = dated(found)


def template_of(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The chat template that renders by default; None where there is none."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return template or None


def ending(tokenizer: PreTrainedTokenizerBase) -> str:
    """The token that ends a response: the template's end of a turn, else the end of sequence."""
    end = token_text.turn_end(tokenizer)
    return tokenizer.eos_token if end is None else str(tokenizer.convert_ids_to_tokens(end))


def system_turn(tokenizer: PreTrainedTokenizerBase) -> str:
    """What becomes of a system turn: the template's own, or merged into the user's first turn."""
    if template_of(tokenizer) is None:
        return "in the plain text"
    turns = [{"role": "system", "content": token_text.MARK}, {"role": "user", "content": "question"}]
    try:
        taken = token_text.MARK in tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except Exception:  # jinja errors of the template's own raise_exception
        taken = False
    return "the template's" if taken else MERGED
