"""What a run trains on, in a few lines that are printed before any work: counts, content hash, the first example."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness.types import Example

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


def _rendered(example: Example, codec: TextCodec) -> str:
    """Prompt and response with their special tokens, and how many of the latter's tokens are learnt."""
    if example.response is None:
        return f"{codec.render(example.prompt)!r}, which a model answers"
    prompt, response, learnt = codec.example_ids(example)
    texts = [codec.tokenizer.decode(ids, clean_up_tokenization_spaces=False) for ids in (prompt, response)]
    share = f" ({sum(learnt)} of {len(learnt)} tokens learnt)" if learnt else ""
    return f"{texts[0]!r}, answered {texts[1]!r}{share}"
