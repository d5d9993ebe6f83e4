"""Finds test problems in training data: whole ones, and runs of 13 words that both share.

A problem counts as found whole where its words, in their order and without gaps, stand in a training prompt or its
answer, or where a training prompt is the problem. What all problems of a task, or all prompts of a pool, begin or end
with is an instruction and no part of a problem. Runs of 13 words are the measure of GPT-3's report (arXiv 2005.14165,
appendix C); they are counted and told, since a shared definition or a stock phrase may cause one.

Words are compared without case and punctuation; signs of arithmetic are words, so that 3 + 4 is not 3 - 4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy

from harness.task import Task
from harness.types import Example

RUN = 13  # words
WHOLE = 8  # words: a shorter problem is found only where it is all of a prompt
INSTRUCTION = 5  # words that all texts share, from which on they are an instruction
_WORD = re.compile(r"\w+|[^\w\s.,;:!?'\"`$\\{}()\[\]]")
_FACTOR = numpy.uint64(1_000_003)


@dataclass(frozen=True)
class Overlap:
    """What a task and the training data share. ``whole``: (problem id, pool, example id) of every problem found."""

    problems: int
    whole: tuple[tuple[str, str, str], ...]
    shared: tuple[tuple[str, str, str], ...]  # the same of problems that share a run of words, the whole ones included

    def facts(self) -> dict[str, int]:
        """As records keep it."""
        whole, shared = ({found[0] for found in each} for each in (self.whole, self.shared))
        return {"problems": self.problems, "found_whole": len(whole), f"sharing_{RUN}_words": len(shared)}


def overlap(pools: Mapping[str, Sequence[Example]], task: Task) -> Overlap | None:
    """What ``task`` shares with the pools; None for a task that keeps its problems to itself (lm-eval's)."""
    if task.measures_itself or not task.items:
        return None
    numbers: dict[str, int] = {}
    full = [_words(problem.prompt.user, numbers) for problem in task.items]
    problems, ids = _bare(full), [problem.id for problem in task.items]
    known = {tuple(words): i for i, words in enumerate(problems) if len(words) >= WHOLE}
    known |= {tuple(words): i for i, words in enumerate(full)}
    whole: list[tuple[str, str, str]] = []
    shared: list[tuple[str, str, str]] = []
    for pool, examples in pools.items():
        asked = [_words(e.prompt.user, numbers) for e in examples]
        bare = _bare(asked)
        for prompts in (asked, bare):
            pairs = zip(examples, map(tuple, prompts), strict=True)
            whole += [(ids[known[words]], pool, e.id) for e, words in pairs if words in known]
        texts = [*bare, *(_words(_rest(e), numbers) for e in examples)]
        rows = [e.id for e in (*examples, *examples)]
        whole += [(ids[i], pool, rows[text]) for i, text in _holding(problems, texts)]
        shared += [(ids[i], pool, rows[text]) for i, text in _sharing(problems, texts)]
    return Overlap(len(ids), _distinct(whole), _distinct([*whole, *shared]))


def _rest(example: Example) -> str:
    """What else an example teaches: earlier turns and the answer."""
    earlier = [turn.content for turn in example.prompt.history]
    return "\n".join([*earlier, example.response or ""])


def _words(text: str, numbers: dict[str, int]) -> list[int]:
    """The words of a text as numbers, from 1 on, equal for equal words."""
    return [numbers.setdefault(word, len(numbers) + 1) for word in _WORD.findall(text.casefold())]


def _bare(texts: list[list[int]]) -> list[list[int]]:
    """The texts without an instruction that all of them begin or end with."""
    distinct = list({tuple(text) for text in texts})
    if len(distinct) < 2:
        return texts
    head = _common(distinct)
    tail = _common([text[::-1] for text in distinct])
    head, tail = (size if size >= INSTRUCTION else 0 for size in (head, tail))
    shortest = min(map(len, distinct))
    return texts if head + tail >= shortest else [text[head : len(text) - tail] for text in texts]


def _common(texts: Sequence[tuple[int, ...]]) -> int:
    """How many words all texts begin with."""
    low, high = min(texts), max(texts)  # of sorted sequences the first and the last differ earliest
    return next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))


def _holding(problems: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]) -> Iterable[tuple[int, int]]:
    """(problem, text) for every problem of enough words that stands in a text as a whole."""
    begins: dict[tuple[int, ...], list[int]] = {}
    for i, problem in enumerate(problems):
        if len(problem) >= WHOLE:
            begins.setdefault(tuple(problem[:WHOLE]), []).append(i)
    for text, place in _places(begins, texts, WHOLE):
        words = texts[text]
        for i in begins[tuple(words[place : place + WHOLE])]:
            if list(words[place : place + len(problems[i])]) == list(problems[i]):
                yield i, text


def _sharing(problems: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]) -> Iterable[tuple[int, int]]:
    """(problem, text) for every run of :data:`RUN` words that both have."""
    runs: dict[tuple[int, ...], list[int]] = {}
    for i, problem in enumerate(problems):
        for place in range(len(problem) - RUN + 1):
            runs.setdefault(tuple(problem[place : place + RUN]), []).append(i)
    for text, place in _places(runs, texts, RUN):
        yield from ((i, text) for i in runs[tuple(texts[text][place : place + RUN])])


def _places(
    wanted: Mapping[tuple[int, ...], object], texts: Sequence[Sequence[int]], size: int
) -> Iterable[tuple[int, int]]:
    """(text, place) wherever a run of ``size`` words is one of ``wanted``: looked up by hash in all texts at once."""
    if not wanted or not texts:
        return
    lengths = numpy.array([len(text) for text in texts])
    flat = numpy.fromiter((word for text in texts for word in text), dtype=numpy.uint64, count=int(lengths.sum()))
    if len(flat) < size:
        return
    hashes = _hashes(flat, size)
    keys = numpy.array([run for run in wanted], dtype=numpy.uint64)
    hits = numpy.flatnonzero(numpy.isin(hashes, [_hashes(key, size)[0] for key in keys]))
    ends = lengths.cumsum()
    owner = numpy.searchsorted(ends, hits, side="right")
    for hit, text in zip(hits.tolist(), owner.tolist(), strict=True):
        place = hit - int(ends[text] - lengths[text])
        if (
            tuple(texts[text][place : place + size]) in wanted
        ):  # neither another run of that hash, nor one over two texts
            yield text, place


def _hashes(words: numpy.ndarray, size: int) -> numpy.ndarray:
    """A polynomial hash, modulo 2^64, of every run of ``size`` words."""
    runs = len(words) - size + 1
    found = numpy.zeros(runs, dtype=numpy.uint64)
    with numpy.errstate(over="ignore"):
        for k in range(size):
            found = found * _FACTOR + words[k : k + runs]
    return found


def _distinct(found: Sequence[tuple[str, str, str]]) -> tuple[tuple[str, str, str], ...]:
    return tuple(dict.fromkeys(found))
