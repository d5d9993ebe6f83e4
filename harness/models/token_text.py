"""Token ids to text and back, with the same rules for all continuations and responses.

A continuation is the text of prompt and continuation decoded together, minus the text of the prompt. Decoded alone, a
continuation loses its first space under decoders that strip one (Llama 2, Mistral 7B), keeps the ``##`` of WordPiece,
and breaks a character whose bytes are split by the cut. Special tokens are skipped; spaces are never cleaned up.
"""

from __future__ import annotations

import io
import tokenize
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput
from harness.method import SEGMENTS
from harness.models import chat_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARK = "harness-mark"
THOUGHT, THOUGHT_ENDS = "<think>", "</think>"
# Texts after which a response keeps its own start: one after another, as a tokenizer may merge the start with any.
ANCHORS = ("\n", "a\n", "(", "a")
# Texts before and after a cut: an indented body, a word, a character of several bytes.
PROBES = (("def f(x):\n", "   return x\n"), ("x =", " y"), ("a", "b"), ("\n", "é"))


def decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, special: bool = False) -> str:
    """The text of ``ids``; special tokens are written out only if ``special``."""
    return tokenizer.decode(list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False)


def continuation(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], ids: Sequence[int], *, special: bool = False
) -> str:
    """The text of ``ids`` after ``prompt``; a character divided by the cut belongs to it as a whole.

    Decodes the whole sequence twice, so that no context is too short. Call it once per text, not per token.
    """
    if not ids:
        return ""
    before = decoded(tokenizer, prompt, special=special)
    return behind(before, decoded(tokenizer, [*prompt, *ids], special=special))


def behind(before: str, whole: str) -> str:
    """``whole`` without ``before``, which may end in replacement characters that ``whole`` completes."""
    if whole.startswith(before):
        return whole[len(before) :]
    same = next(
        (i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), min(len(before), len(whole))
    )
    return whole[same:]


def response_ids(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], text: str) -> tuple[int, ...]:
    """The ids of a response that reads as ``text`` after ``prompt``.

    The response's own ids, unless they read differently there: a tokenizer that puts a space before every text adds one
    to the response. Then those after another text, without it; where no way reads as ``text``, its own.
    """
    alone = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    if continuation(tokenizer, prompt, alone) == text:
        return alone
    for before in ANCHORS:
        anchor = tokenizer(before, add_special_tokens=False)["input_ids"]
        anchored = tokenizer(before + text, add_special_tokens=False)["input_ids"]
        ids = tuple(anchored[len(anchor) :])
        if anchored[: len(anchor)] == anchor and continuation(tokenizer, prompt, ids) == text:
            return ids
    return alone


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that the chat template writes after an assistant's turn; None without a template or such a token.

    Found by rendering one exchange: the added token that directly follows the answer, spaces aside.
    """
    if not tokenizer.chat_template:
        return None
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": MARK}]
    try:
        text = chat_template.render(tokenizer, turns)
    except Exception:  # jinja errors of the template's own raise_exception: it cannot render a whole exchange
        return None
    rest = text.rpartition(MARK)[2].lstrip() if MARK in text else ""
    added = {str(token): i for i, token in tokenizer.added_tokens_decoder.items()}
    longest = max((token for token in added if token and rest.startswith(token)), key=len, default=None)
    return None if longest is None else added[longest]


def answer_frame(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """The text that the chat template writes before an answer, and between the answer and its end; mostly none.

    Mistral's puts a space in front, DeepSeek-Coder's a line break after, Qwen3's an empty thinking block in front.
    """
    end = turn_end(tokenizer)
    if end is None:
        return "", ""
    turns = [{"role": "user", "content": "question"}]
    try:
        rendered = chat_template.render(tokenizer, turns, add_generation_prompt=True)
        whole = chat_template.render(tokenizer, [*turns, {"role": "assistant", "content": MARK}])
    except Exception:  # jinja errors of the template's own raise_exception
        return "", ""
    if not whole.startswith(rendered):
        return "", ""
    before, _, behind_it = whole[len(rendered) :].partition(MARK)
    return before, behind_it.partition(str(tokenizer.convert_ids_to_tokens(end)))[0]


def thinks(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template belongs to a model that thinks before it answers.

    True if the prompt ends inside an open thinking block, or if the template has thinking tags and the prompt does
    not close them.
    """
    template = tokenizer.chat_template
    if not template:
        return False
    try:
        rendered = chat_template.render(tokenizer, [{"role": "user", "content": MARK}], add_generation_prompt=True)
    except Exception:  # jinja errors of the template's own raise_exception; Generator.render reports them
        return False
    opened = rendered.rpartition(MARK)[2]
    if THOUGHT in opened or THOUGHT_ENDS in opened:
        return opened.rfind(THOUGHT) > opened.rfind(THOUGHT_ENDS)
    return THOUGHT_ENDS in str(template)


def facts(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """How this tokenizer differs from one whose texts decode in isolation and end with the end-of-sequence token.

    Empty for most. Part of every content hash, so that texts made under other rules are not reused.
    """
    differences: dict[str, Any] = {}
    end = turn_end(tokenizer)
    if end is not None and end != tokenizer.eos_token_id:
        differences["turn_end"] = tokenizer.convert_ids_to_tokens(end)
    if any(_differs(tokenizer, before, after) for before, after in PROBES):
        differences["decoded"] = "behind the prompt"
    if thinks(tokenizer):
        differences["thinks"] = True
    return differences


def _differs(tokenizer: PreTrainedTokenizerBase, before: str, after: str) -> bool:
    """Whether ``after`` decoded alone is not what it is after ``before``."""
    prompt = tokenizer(before, add_special_tokens=False)["input_ids"]
    ids = tokenizer(after, add_special_tokens=False)["input_ids"]
    return bool(ids) and continuation(tokenizer, prompt, ids) != decoded(tokenizer, ids)


class Stops:
    """Stop strings, searched in the decoded newest tokens: one may span tokens or lie inside a token.

    A match in the newest tokens is confirmed on the whole continuation before it ends a text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]):
        self.tokenizer, self.stop = tokenizer, tuple(s for s in stop if s)
        self.tail = max((len(s.encode()) for s in self.stop), default=0) + 4
        self.ends = {s[-1] for s in self.stop}
        self.completes: dict[int, bool] = {}  # whether a token can be the last one of a stop string

    def hit(self, prompt: Sequence[int], ids: Sequence[int]) -> bool:
        """Whether the newest of ``ids``, which continue ``prompt``, completes a stop string. Call after each."""
        if not self.stop:
            return False
        newest = ids[-1]
        if newest not in self.completes:
            piece = decoded(self.tokenizer, [newest], special=True)
            # Part of a character decodes to the replacement sign; some tokenizers drop a leading blank.
            self.completes[newest] = not piece or "\ufffd" in piece or " " in self.ends or bool(self.ends & set(piece))
        if not self.completes[newest] or not self._in(self._latest(prompt, ids)):
            return False
        return self._in(continuation(self.tokenizer, prompt, ids, special=True)) or self._in(
            continuation(self.tokenizer, prompt, ids)
        )

    def cut(self, text: str) -> str:
        """``text`` up to the first stop string."""
        ends = [text.find(s) for s in self.stop]
        return text[: min((e for e in ends if e >= 0), default=len(text))]

    def _in(self, text: str) -> bool:
        return any(s in text for s in self.stop)

    def _latest(self, prompt: Sequence[int], ids: Sequence[int]) -> str:
        """Decodes the newest tokens and a few before; more if the text would begin inside a character."""
        size = self.tail + 4
        while True:
            window = [*prompt[len(prompt) + len(ids) - size :], *ids] if size > len(ids) else ids[-size:]
            if size >= len(prompt) + len(ids):
                return decoded(self.tokenizer, [*prompt, *ids], special=True)
            text = decoded(self.tokenizer, window, special=True)
            if not text.startswith("\ufffd"):
                return text
            size *= 2


# Steps of a text: where a token, a line, a sentence, a statement or a span of tokens ends.
#
# Weights and proposals use this one definition, so that both mean the same step.
#
# token      every token
# line       a token that holds a line break
# sentence   a token that holds a line break or ends with . ! or ?
# statement  a line break outside brackets and triple quotes and not after a backslash: a logical line of Python
# span       every ``span``-th token


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
        """For every token of a text, whether a step ends with it; the end of the text does not count."""
        if self.unit == "token":
            return [True] * len(ids)
        if self.unit == "span":
            return [(i + 1) % self.span == 0 for i in range(len(ids))]
        if self.unit != "statement":
            return [self.breaks[token] for token in ids]
        ends, text = [], ""
        for token in ids:
            text += self.pieces[token]
            ended = self.breaks[token] and complete(text)
            ends.append(ended)
            text = "" if ended else text
        return ends

    def places(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        """[start, stop) of every step of a text; the last one may lack its end."""
        bounds = [i + 1 for i, end in enumerate(self.ends(ids)) if end and i + 1 < len(ids)]
        return list(zip([0, *bounds], [*bounds, len(ids)], strict=True)) if len(ids) else []

    def check(self, texts: Iterable[Sequence[int]], whose: str) -> list[str]:
        """A warning if no text has more than one line. Raises BadInput if none has more than one step of another
        unit, because that unit does not suit these texts.
        """
        if self.unit in ("token", "span"):
            return []
        count = 0
        for ids in texts:
            if len(self.places(ids)) > 1:
                return []
            count += 1
        message = f"none of {count} texts of the {whose} has an end of a {self.unit} before its own"
        if count and self.unit != "line":
            others = ", ".join(unit for unit in SEGMENTS if unit != self.unit)
            raise BadInput(f"{message}; set another unit of a step ({others})")
        return [f"{message}: each is one step"] if count else []

    def first(self, ids: Sequence[int]) -> int:
        """The length of the first step of ``ids``; all of them if it does not end."""
        return next((i + 1 for i, end in enumerate(self.ends(ids)) if end), len(ids))

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings at which a step may end, so that generation can stop there."""
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
    except SyntaxError:  # broken in another way, which later text does not repair
        return True
    return True
