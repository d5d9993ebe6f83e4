"""What a run trains on, in a few lines that are printed before any work: counts, content hash, the first example."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness.models import chat_format
from harness.training.examples import MICRO
from harness.training_data import plain
from harness.types import Example, Prompt

if TYPE_CHECKING:
    from harness.models.text_codec import TextCodec
    from harness.training.job import TrainingData


def lines(data: TrainingData, codec: TextCodec | None) -> Iterator[str]:
    """One line a pool, and the first training example as the student reads it."""
    pools = {"prompts": data.prompts, "labelled": data.labelled, "validation": data.validation}
    for name, told in data.told.items():
        yield f"data.{name}: {len(pools[name]):,} examples of {told}; sha256 {data.facts[name]['sha256'][:12]}"
    first = next((pools[name][0] for name in ("labelled", "prompts") if pools[name]), None)
    if first is not None and codec is not None:
        yield f"the first training example is {_rendered(first, codec)}"
        if first.prompt.system and chat_format.system_turn(codec.tokenizer) == chat_format.MERGED:
            yield "the chat template takes no system turn: its text stands in front of the user's first turn"


def unlike(data: TrainingData, asked: Prompt, codec: TextCodec | None) -> list[str]:
    """Where the task's first prompt reaches the student differently from what it was trained on.

    The micro world is left out: its prompts are made in the forms of its tasks.
    """
    if codec is None:
        return []
    pools = {"labelled": data.labelled, "prompts": data.prompts}
    read = {
        name: pool for name, pool in pools.items() if pool and not str(data.facts[name]["source"]).startswith(MICRO)
    }
    found = (plain.differences(pool[0].prompt, asked, codec) for pool in read.values())
    return list(dict.fromkeys(line for lines in found for line in lines))


def _rendered(example: Example, codec: TextCodec) -> str:
    """Prompt and response with their special tokens, and how many of the latter's tokens are learnt."""
    end = f"{codec.tokenizer.decode([codec.end_id])} (id {codec.end_id})"
    if example.response is None:
        return f"{codec.render(example.prompt)!r}, which a model answers; an answer ends with {end}"
    prompt, response, learnt = codec.example_ids(example)
    texts = [codec.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False) for ids in (prompt, response)]
    share = f" ({sum(learnt)} of {len(learnt)} tokens learnt)" if learnt else ""
    return f"{texts[0]!r}, answered {texts[1]!r}{share}; an answer ends with {end}"
