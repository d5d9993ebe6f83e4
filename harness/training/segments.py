"""Steps of a text: where a token, a line, a sentence, a statement or a span of tokens ends.

One definition serves the weights of a text and the next steps that models propose, so that both mean the same step.

token      every token
line       a token that holds a line break
sentence   a token that holds a line break or ends with . ! or ?
statement  a line break outside brackets and triple quotes and not behind a backslash: a logical line of Python
span       every ``span``-th token
"""

from __future__ import annotations

import io
import tokenize
from collections.abc import Iterable, Sequence

from transformers import PreTrainedTokenizerBase

from harness.errors import BadInput
from harness.method import SEGMENTS


class Segments:
    """Cuts texts, given as token ids, into steps of one unit. ``span`` is the length of a span in tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, unit: str, span: int = 8):
        self.unit, self.span = unit, span
        self.pieces: list[str] = []
        self.breaks: list[bool] = []
        if unit in ("line", "sentence", "statement"):
            self.pieces = [
                str(tokenizer.decode([i], clean_up_tokenization_spaces=False)) for i in range(len(tokenizer))
            ]
            self.breaks = [self._breaks(piece) for piece in self.pieces]

    def ends(self, ids: Sequence[int]) -> list[bool]:
        """For every token of a text whether a step ends with it; the text's own end is not counted."""
        if self.unit == "token":
            return [True] * len(ids)
        if self.unit == "span":
            return [(i + 1) % self.span == 0 for i in range(len(ids))]
        if self.unit != "statement":
            return [self.breaks[token] for token in ids]
        found, text = [], ""
        for token in ids:
            text += self.pieces[token]
            ended = self.breaks[token] and complete(text)
            found.append(ended)
            text = "" if ended else text
        return found

    def places(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        """[start, stop) of every step of a text; the last one may lack its end."""
        bounds = [i + 1 for i, end in enumerate(self.ends(ids)) if end and i + 1 < len(ids)]
        return list(zip([0, *bounds], [*bounds, len(ids)], strict=True)) if len(ids) else []

    def check(self, texts: Iterable[Sequence[int]], whose: str) -> list[str]:
        """A warning where no text has more than one line. Raises BadInput where none has more than one step of another
        unit, which was then chosen for other texts.
        """
        if self.unit in ("token", "span"):
            return []
        seen = 0
        for ids in texts:
            if len(self.places(ids)) > 1:
                return []
            seen += 1
        message = f"none of {seen} texts of the {whose} has an end of a {self.unit} before its own"
        if seen and self.unit != "line":
            others = ", ".join(unit for unit in SEGMENTS if unit != self.unit)
            raise BadInput(f"{message}; set another unit of a step ({others})")
        return [f"{message}: each is one step"] if seen else []

    def first(self, ids: Sequence[int]) -> int:
        """The length of the first step of ``ids``, all of them where it does not end."""
        return next((i + 1 for i, end in enumerate(self.ends(ids)) if end), len(ids))

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings at which a step may end; a generation needs to go no further."""
        return {"line": ("\n",), "statement": ("\n",), "sentence": ("\n", ".", "!", "?")}.get(self.unit, ())

    def _breaks(self, piece: str) -> bool:
        return "\n" in piece or (self.unit == "sentence" and piece.rstrip().endswith((".", "!", "?")))


def complete(text: str) -> bool:
    """Whether Python's own tokenizer finds no open bracket, string or backslash at the end of ``text``."""
    try:
        for _ in tokenize.generate_tokens(io.StringIO(text).readline):
            pass
    except tokenize.TokenError as error:
        return "EOF in multi-line" not in str(error) and "unexpected EOF" not in str(error)
    except SyntaxError:  # broken in another way: what follows does not mend it
        return True
    return True
