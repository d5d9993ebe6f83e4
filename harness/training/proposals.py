"""Proposals of both models for the next line after the same prefix, each scored by a checker.

Every line of a text ends a prefix at which the two models are compared. Where one of them wrote the text, its lines
are that model's proposals and only the other model generates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from typing import Any

from harness.models.generate import Generator
from harness.models.token_text import behind, continuation, decoded
from harness.training.batching import TrainingSequence
from harness.training.cost import Cost
from harness.types import Decoding, Example, Source

Checker = Callable[[Mapping[str, Any], str, str], float | None]


class Proposals:
    """Scores the next lines that teacher and student propose after every line of a text.

    ``check(meta, prefix, line)`` returns the validity of a line after the text so far, in [0, 1], or None where it is
    unknown. ``longest`` bounds a proposed line in tokens.
    """

    def __init__(self, student: Generator, teacher: Generator, check: Checker, longest: int = 48):
        self.generators = {Source.STUDENT: student, Source.TEACHER: teacher}
        self.check = check
        self.decoding = Decoding(max_new_tokens=longest, stop=("\n",))

    def judge(
        self, sequences: Seq[TrainingSequence], labelled: Seq[Example], prompts: Seq[Example], step: int, cost: Cost
    ) -> list[TrainingSequence]:
        """The sequences with ``validity`` set: per token (teacher, student), NaN where the validity is unknown."""
        tokenizer = self.generators[Source.STUDENT].tokenizer
        places = [(s, *line) for s in range(len(sequences)) for line in _lines(sequences[s], tokenizer)]
        scores: dict[Source, list[float]] = {}
        for author in (Source.TEACHER, Source.STUDENT):
            lines = self._propose(author, sequences, places, cost)
            scores[author] = []
            for (s, _, _, prefix, _), line in zip(places, lines, strict=True):
                sequence = sequences[s]
                example = (labelled if sequence.source is Source.DATA else prompts)[sequence.example]
                valid = self.check(example.meta, prefix, line)
                scores[author].append(float("nan") if valid is None else float(valid))
        # Every token of a line gets the validity of that line.
        validity = [[(float("nan"),) * 2] * len(s.response) for s in sequences]
        for place, pair in zip(places, zip(*scores.values(), strict=True), strict=True):
            s, start, stop = place[:3]
            validity[s][start:stop] = [pair] * (stop - start)
        return [dataclasses.replace(s, validity=tuple(v)) for s, v in zip(sequences, validity, strict=True)]

    def _propose(self, author: Source, sequences: Seq[TrainingSequence], places: list, cost: Cost) -> list[str]:
        """The author's next line at every place; where it wrote the text, the line of the text."""
        lines = [line for *_, line in places]
        open_places = [i for i, place in enumerate(places) if sequences[place[0]].source is not author]
        # Generate only where the other model wrote the text; its own lines are its proposals already.
        if open_places:
            generator = self.generators[author]
            prefixes = []
            for i in open_places:
                s, start = places[i][:2]
                prefixes.append((*sequences[s].prompt, *sequences[s].response[:start]))
            made = generator.continue_ids(prefixes, self.decoding, [0] * len(prefixes))
            cost.add(generated_tokens=sum(g.tokens for g in made))
            if author is Source.TEACHER:
                cost.add(teacher_forward_tokens=sum(g.tokens + g.prompt_tokens for g in made))
            for i, generated in zip(open_places, made, strict=True):
                lines[i] = generated.text
        return lines


def _lines(sequence: TrainingSequence, tokenizer) -> list[tuple[int, int, str, str]]:
    """(first token, end, text before, text of the line) for every line of a response."""
    found, start, prefix = [], 0, ""
    for i, token in enumerate(sequence.response):
        last = i + 1 == len(sequence.response)
        if last or "\n" in decoded(tokenizer, [token], special=True):
            text = continuation(tokenizer, sequence.prompt, sequence.response[: i + 1])
            found.append((start, i + 1, prefix, behind(prefix, text).rstrip("\n")))
            prefix, start = text, i + 1
    return found
