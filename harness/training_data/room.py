"""Leaves out, before any work, the prompts that leave no room for an answer.

A sequence, prompt and response together, has at most ``training.max_tokens`` tokens, and never more than fit the
context of a model that reads it. A prompt of that length or more has no token to learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import BadInput
from harness.models.files import ModelFiles, text_codec
from harness.safe_read import RECORD, content, value
from harness.types import Example

if TYPE_CHECKING:  # it loads transformers, which no list of methods needs
    from harness.models.chat_format import TextCodec

CONTEXT = ("max_position_embeddings", "n_positions", "max_sequence_length")  # its names in configurations
SPECIAL = 8  # tokens that a tokenizer may add to a text and that stand for no byte of it; assumed


@dataclass(frozen=True)
class Room:
    """The longest sequence in tokens, and what bounds it, in words."""

    tokens: int
    bound: str

    def left_out(self, examples: Sequence[Example], codec: TextCodec) -> list[Example]:
        """The examples whose prompt fills the room."""
        return [e for e in examples if self._fills(codec.render(e.prompt), codec)]

    def _fills(self, text: str, codec: TextCodec) -> bool:
        # A token stands for at least one byte, so most prompts need no counting.
        if len(text.encode("utf-8", "replace")) + SPECIAL < self.tokens:
            return False
        return len(codec.encode(text)) >= self.tokens


def of(max_tokens: int, models: Sequence[ModelFiles]) -> Room:
    """The room of sequences that all of ``models`` read, which are not served."""
    bounds = [Room(max_tokens, f"training.max_tokens={max_tokens}")]
    for model in models:
        if (context := context_of(model)) is not None:
            bounds.append(Room(context, f"the context of {model.id}, {context} tokens"))
    return min(bounds, key=lambda room: room.tokens)


def context_of(model: ModelFiles) -> int | None:
    """The tokens that fit a model, from its configuration; None where that says nothing or the model is served."""
    if model.url is not None or not (model.path / "config.json").is_file():
        return None
    config = value(content(model.path / "config.json", RECORD), finite=False)
    parts = [config, config.get("text_config")] if isinstance(config, dict) else []
    found = (part.get(name) for part in parts if isinstance(part, dict) for name in CONTEXT)
    return next((n for n in found if isinstance(n, int) and n > 0), None)


def fitting(examples: Sequence[Example], room: Room, model: ModelFiles, what: str) -> tuple[list[Example], str | None]:
    """The examples that fit, in order, and a warning about the others. Raises BadInput where none fits."""
    codec = text_codec(model)
    gone = {e.id for e in room.left_out(examples, codec)} if codec is not None else set()
    if not gone:
        return list(examples), None
    if len(gone) == len(examples):
        raise BadInput(f"all {len(gone)} prompts of {what} fill {room.bound}: raise it, or give shorter prompts")
    first = next(e.id for e in examples if e.id in gone)
    return [e for e in examples if e.id not in gone], (
        f"{len(gone)} of {len(examples)} prompts of {what} fill {room.bound} and are left out (the first is {first})"
    )
