"""Training prompts to leave out: those that contain a test problem, and those that leave no room for an answer.

Every function returns what it found; :mod:`harness.training.pools` decides, before any work.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import BadInput
from harness.models.files import ModelFiles, text_codec
from harness.models.loading import context_of
from harness.task import Task
from harness.types import Example

if TYPE_CHECKING:
    import numpy

    from harness.models.chat_format import TextCodec

# Test problems in training data: whole ones, and runs of 13 words that both share.
#
# A problem counts as found completely if its words, in order and without gaps, are in a training prompt or its
# answer, or if a training prompt is the problem. Text at the beginning or end of all problems of a task, or all prompts
# of a pool, is an instruction and not part of a problem. Runs of 13 words are the measure of GPT-3's report (arXiv
# 2005.14165, appendix C); they are only counted and reported, because a shared definition or a stock phrase may cause
# one.
#
# Words are compared without case and punctuation; signs of arithmetic are words, so that 3 + 4 is not 3 - 4.

OVERLAP_WORDS = 13
WHOLE_WORDS = 8  # a shorter problem is found only if it is a whole prompt
INSTRUCTION_WORDS = 5  # words shared by all texts; at least this many form an instruction
_WORD = re.compile(r"\w+|[^\w\s.,;:!?'\"`$\\{}()\[\]]")
_FACTOR = 1_000_003


@dataclass(frozen=True)
class Overlap:
    """The overlap of a task and the training data. ``whole``: (problem id, pool, example id) of every problem found."""

    problems: int
    whole: tuple[tuple[str, str, str], ...]
    shared: tuple[tuple[str, str, str], ...]  # the same for a shared run of words, including whole problems

    def facts(self) -> dict[str, int]:
        """The form for records."""
        whole, shared = ({match[0] for match in each} for each in (self.whole, self.shared))
        return {"problems": self.problems, "found_whole": len(whole), f"sharing_{OVERLAP_WORDS}_words": len(shared)}


def overlap(pools: Mapping[str, Sequence[Example]], task: Task) -> Overlap | None:
    """The overlap of ``task`` with the pools; None for a task without accessible problems (lm-eval's)."""
    if task.measures_itself or not task.items:
        return None
    numbers: dict[str, int] = {}
    full = [_words(problem.prompt.user, numbers) for problem in task.items]
    problems, ids = _bare(full), [problem.id for problem in task.items]
    known = {tuple(words): i for i, words in enumerate(problems) if len(words) >= WHOLE_WORDS}
    known |= {tuple(words): i for i, words in enumerate(full)}
    whole: list[tuple[str, str, str]] = []
    shared: list[tuple[str, str, str]] = []
    for pool, examples in pools.items():
        prompts = [_words(e.prompt.user, numbers) for e in examples]
        bare = _bare(prompts)
        for form in (prompts, bare):
            pairs = zip(examples, map(tuple, form), strict=True)
            whole += [(ids[known[words]], pool, e.id) for e, words in pairs if words in known]
        texts = [*bare, *(_words(_rest(e), numbers) for e in examples)]
        rows = [e.id for e in (*examples, *examples)]
        whole += [(ids[i], pool, rows[text]) for i, text in _holding(problems, texts)]
        shared += [(ids[i], pool, rows[text]) for i, text in _sharing(problems, texts)]
    return Overlap(len(ids), _distinct(whole), _distinct([*whole, *shared]))


def _rest(example: Example) -> str:
    """The other texts of an example: earlier turns and the answer."""
    earlier = [turn.content for turn in example.prompt.history]
    return "\n".join([*earlier, example.response or ""])


def _words(text: str, numbers: dict[str, int]) -> list[int]:
    """The words of a text as numbers, from 1, equal for equal words."""
    return [numbers.setdefault(word, len(numbers) + 1) for word in _WORD.findall(text.casefold())]


def _bare(texts: list[list[int]]) -> list[list[int]]:
    """The texts without an instruction that all of them begin or end with."""
    distinct = list({tuple(text) for text in texts})
    if len(distinct) < 2:
        return texts
    head = _common(distinct)
    tail = _common([text[::-1] for text in distinct])
    head, tail = (size if size >= INSTRUCTION_WORDS else 0 for size in (head, tail))
    shortest = min(map(len, distinct))
    return texts if head + tail >= shortest else [text[head : len(text) - tail] for text in texts]


def _common(texts: Sequence[tuple[int, ...]]) -> int:
    """The number of words that all texts begin with."""
    low, high = min(texts), max(texts)  # in sorted order, the first and the last sequence differ earliest
    return next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))


def _holding(problems: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]) -> Iterable[tuple[int, int]]:
    """(problem, text) for every problem of enough words that a text contains completely."""
    begins: dict[tuple[int, ...], list[int]] = {}
    for i, problem in enumerate(problems):
        if len(problem) >= WHOLE_WORDS:
            begins.setdefault(tuple(problem[:WHOLE_WORDS]), []).append(i)
    for text, place in _places(begins, texts, WHOLE_WORDS):
        words = texts[text]
        for i in begins[tuple(words[place : place + WHOLE_WORDS])]:
            if list(words[place : place + len(problems[i])]) == list(problems[i]):
                yield i, text


def _sharing(problems: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]) -> Iterable[tuple[int, int]]:
    """(problem, text) for every run of :data:`OVERLAP_WORDS` words that both have."""
    runs: dict[tuple[int, ...], list[int]] = {}
    for i, problem in enumerate(problems):
        for place in range(len(problem) - OVERLAP_WORDS + 1):
            runs.setdefault(tuple(problem[place : place + OVERLAP_WORDS]), []).append(i)
    for text, place in _places(runs, texts, OVERLAP_WORDS):
        yield from ((i, text) for i in runs[tuple(texts[text][place : place + OVERLAP_WORDS])])


def _places(
    runs: Mapping[tuple[int, ...], object], texts: Sequence[Sequence[int]], size: int
) -> Iterable[tuple[int, int]]:
    """(text, place) wherever a run of ``size`` words is one of ``runs``: looked up by hash in all texts at once."""
    if not runs or not texts:
        return
    import numpy  # imported late: listing methods does not need it

    lengths = numpy.array([len(text) for text in texts])
    flat = numpy.fromiter((word for text in texts for word in text), dtype=numpy.uint64, count=int(lengths.sum()))
    if len(flat) < size:
        return
    hashes = _hashes(flat, size)
    keys = numpy.array([run for run in runs], dtype=numpy.uint64)
    hits = numpy.flatnonzero(numpy.isin(hashes, [_hashes(key, size)[0] for key in keys]))
    ends = lengths.cumsum()
    owner = numpy.searchsorted(ends, hits, side="right")
    for hit, text in zip(hits.tolist(), owner.tolist(), strict=True):
        place = hit - int(ends[text] - lengths[text])
        # Compare the words too: hashes may collide, and a run may cross the end of a text.
        if tuple(texts[text][place : place + size]) in runs:
            yield text, place


def _hashes(words: numpy.ndarray, size: int) -> numpy.ndarray:
    """A polynomial hash, modulo 2^64, of every run of ``size`` words."""
    import numpy

    runs = len(words) - size + 1
    hashes = numpy.zeros(runs, dtype=numpy.uint64)
    with numpy.errstate(over="ignore"):
        for k in range(size):
            hashes = hashes * numpy.uint64(_FACTOR) + words[k : k + runs]
    return hashes


def _distinct(matches: Sequence[tuple[str, str, str]]) -> tuple[tuple[str, str, str], ...]:
    return tuple(dict.fromkeys(matches))


# Leaves out, before any work, the prompts that leave no room for an answer.
#
# A sequence, prompt and response together, has at most ``training.max_tokens`` tokens, and never more than fit the
# context of a model that reads it. A prompt of that length or more has no token to learn.

SPECIAL = 8  # tokens without bytes that a tokenizer may add to a text; assumed


@dataclass(frozen=True)
class Room:
    """The longest sequence in tokens, and its limit in words."""

    tokens: int
    bound: str

    def left_out(self, examples: Sequence[Example], codec: TextCodec) -> list[Example]:
        """The examples whose prompt fills the room."""
        return [e for e in examples if self._fills(codec.render(e.prompt), codec)]

    def _fills(self, text: str, codec: TextCodec) -> bool:
        # A token covers at least one byte, so most prompts need no counting.
        if len(text.encode("utf-8", "replace")) + SPECIAL < self.tokens:
            return False
        return len(codec.encode(text)) >= self.tokens


def room_of(max_tokens: int, models: Sequence[ModelFiles]) -> Room:
    """The room of sequences that all of ``models`` read, which are not served."""
    bounds = [Room(max_tokens, f"training.max_tokens={max_tokens}")]
    for model in models:
        if (context := context_of(model)) is not None:
            bounds.append(Room(context, f"the context of {model.id}, {context} tokens"))
    return min(bounds, key=lambda room: room.tokens)


def fitting(examples: Sequence[Example], room: Room, model: ModelFiles, what: str) -> tuple[list[Example], str | None]:
    """The examples that fit, in order, and a warning about the others. Raises BadInput if none fits."""
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
