"""Renders and encodes prompts, and encodes responses, as a model's tokenizer and chat template prescribe."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from harness.errors import BadInput
from harness.models import token_text
from harness.types import Prompt


class TextCodec:
    """Renders prompts for a model with this tokenizer, and reads and writes its tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self.turn_end = token_text.turn_end(tokenizer)
        self.thinks = token_text.thinks(tokenizer)

    def render(self, prompt: Prompt) -> str:
        """The exact text whose tokens the model continues."""
        if not self.tokenizer.chat_template:
            return prompt.plain
        if not prompt.chat:  # encode() leaves the begin-of-sequence token to the template, which is not used here
            begins = self.tokenizer("a")["input_ids"][:1] == [self.tokenizer.bos_token_id]
            return (self.tokenizer.bos_token if begins else "") + prompt.plain
        turns = [{"role": "user", "content": prompt.user}]
        if prompt.system is not None:
            turns.insert(0, {"role": "system", "content": prompt.system})
        try:
            text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # jinja errors of the template's own raise_exception, e.g. "no system role"
            if prompt.system is None:
                raise BadInput(f"the model's chat template refuses a user turn: {error}") from None
            merged = Prompt(user=f"{prompt.system}\n\n{prompt.user}", plain=prompt.plain, prefill=prompt.prefill)
            return self.render(merged)
        # With a model that thinks first, a prefill would end up inside its thoughts.
        return text if self.thinks else text + prompt.prefill

    def begins_itself(self, prompt: Prompt) -> bool:
        """Whether the answer is a chat reply that the model begins itself; stop strings do not apply to it."""
        return bool(self.tokenizer.chat_template) and prompt.chat and (self.thinks or not prompt.prefill)

    def encode(self, text: str) -> list[int]:
        """Token ids of a rendered prompt. A template has already written the begin-of-sequence token."""
        ids = self.tokenizer(text, add_special_tokens=not self.tokenizer.chat_template)["input_ids"]
        end = self.tokenizer.eos_token_id
        return ids[:-1] if ids and ids[-1] == end and not text.endswith(self.tokenizer.eos_token) else ids

    def response_ids(self, prompt: Sequence[int], text: str, *, ended: bool) -> tuple[int, ...]:
        """Token ids of a response behind the ids of its prompt, with the end of its turn where it ``ended``."""
        ids = token_text.response_ids(self.tokenizer, prompt, text)
        return (*ids, self.end_id) if ended else ids

    @property
    def end_id(self) -> int:
        """The token that ends a response in training: the template's end of a turn, else the end of sequence."""
        return self.tokenizer.eos_token_id if self.turn_end is None else self.turn_end
