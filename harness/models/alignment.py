"""Aligns two tokenizations of one text: the byte at which each token of a response ends, and the pairs of tokens.

Byte offsets are exact where the bytes of every token are known: byte-level BPE, whose alphabet stands for the 256
bytes, and SentencePiece with byte tokens. With these a token may end inside a character. For other tokenizers a token
ends where the text decoded up to it ends; one that ends inside a character then has no known end.

The ends of two readings are compared, never ids or names. A pair is the shortest run of tokens on both sides between
two places where both have an end. Tokens that hold no byte, such as special ones within a text, do not begin a pair.
"""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.models.token_text import continuation, decoded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.models.chat_format import TextCodec

Ends = list[int | None]  # byte at which each token ends; None if unknown
SPACE = "\u2581"  # how SentencePiece writes a space
BROKEN = "\ufffd"  # stands for bytes that are not a character


def alphabet() -> dict[str, int]:
    """The byte that each character of byte-level BPE stands for: printable ones themselves, the others from 256 on."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + n): byte for n, byte in enumerate(hidden)}


class TokenBytes:
    """The bytes of every token of a tokenizer. ``known`` is False if only decoding reveals a token's text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self.added = dict(tokenizer.added_tokens_decoder)
        self.special = {*tokenizer.all_special_ids, *(i for i, token in self.added.items() if token.special)}
        self.kind = _kind(tokenizer)
        self.known = self.kind is not None
        self._bytes: dict[int, bytes] = {}
        self._alphabet = alphabet()

    def of(self, token: int) -> bytes:
        """The bytes that the token adds to a text; none for a special one. Only for a ``known`` tokenizer."""
        if token not in self._bytes:
            self._bytes[token] = self._read(token)
        return self._bytes[token]

    def alone(self, token: int) -> bytes:
        """The same for any tokenizer; where it is not ``known``, from decoding, and none for a part of a character."""
        if self.known:
            return self.of(token)
        text = "" if token in self.special else decoded(self.tokenizer, [token])
        return b"" if BROKEN in text else text.encode("utf-8", "replace")

    def name(self, token: int) -> bytes:
        """The name of an added token."""
        return str(self.added[token].content).encode()

    def _read(self, token: int) -> bytes:
        if token in self.special:
            return b""
        if token in self.added:
            return self.name(token)
        name = self.tokenizer.convert_ids_to_tokens(token)
        if name is None:
            return b""
        if self.kind == "alphabet":
            return bytes(self._alphabet[c] for c in name) if all(c in self._alphabet for c in name) else name.encode()
        if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
            return bytes([int(name[3:5], 16)])
        return name.replace(SPACE, " ").encode()


def _kind(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """``alphabet`` or ``pieces``: how the names of tokens encode bytes; None if neither is certain."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    decoder = None if backend is None else json.loads(backend.to_str()).get("decoder")
    steps = [] if decoder is None else decoder.get("decoders", [decoder])
    types = [step.get("type") for step in steps]
    if types == ["ByteLevel"]:
        return "alphabet"
    return "pieces" if "ByteFallback" in types or types == ["Metaspace"] else None


@dataclass(frozen=True)
class ReadText:
    """A response as one side reads it: its text, the byte at which each token ends, and its end.

    ``closed`` says that the last of the tokens is the end of the text; it is not in ``ends``.
    """

    text: str
    ends: Ends
    closed: bool = False


class TextAligner:
    """Reads texts with the codecs of student and teacher. ``same_ids``: both read the same ids."""

    def __init__(self, student: TextCodec, teacher: TextCodec, *, same_ids: bool = False):
        self.student, self.teacher, self.same_ids = student, teacher, same_ids
        self.bytes = TokenBytes(student.tokenizer), TokenBytes(teacher.tokenizer)

    def reads(self, prompt: Sequence[int], response: Sequence[int], ends: Container[int]) -> ReadText:
        """The student's response. ``ends`` are the ids that end a text."""
        closed = bool(response) and response[-1] in ends
        body = response[:-1] if closed else response
        text, ends_of_tokens = offsets(self.bytes[0], prompt, body)
        return ReadText(text, ends_of_tokens, closed)

    def teacher_ids(self, prompt: Sequence[int], student_text: ReadText) -> tuple[tuple[int, ...], Ends]:
        """The teacher's ids of a text after its own prompt, without the end, and where each ends in that text.

        A token after the first byte that the teacher's tokenizer does not keep has no known end.
        """
        ids = self.teacher.response_ids(prompt, student_text.text, ended=False)
        text, ends_of_tokens = offsets(self.bytes[1], prompt, ids)
        student_bytes, shift = student_text.text.encode("utf-8", "replace"), 0
        if text != student_text.text and text.removeprefix(" ") == student_text.text:
            shift, text = 1, student_text.text  # of a tokenizer that begins every text with a space
        same = _common(student_bytes, text.encode("utf-8", "replace"))
        return ids, [None if e is None or e - shift > same else max(e - shift, 0) for e in ends_of_tokens]

    def share(self, text: str) -> float:
        """The share of the student's tokens of a text that are in a pair."""
        ids = self.student.response_ids((), text, ended=False)
        student_text = self.reads((), ids, set())
        pairs = pair(student_text.ends, self.teacher_ids((), student_text)[1])
        return sum(len(a) for a, _ in pairs) / max(len(ids), 1)

    def shared(self, words: tuple[int, int]) -> list[tuple[int, int]]:
        """(student's id, teacher's id) of the tokens that hold the same bytes; the two ends last. Ids below ``words``.

        If several ids of a side hold the same bytes, it is the one that the tokenizer itself uses. Special tokens,
        which hold none, match by name.
        """
        if self.same_ids:
            return [(i, i) for i in range(min(words))]
        sides = []
        for codec, table, size in zip((self.student, self.teacher), self.bytes, words, strict=True):
            id_of: dict[bytes, int] = {}
            for i in range(size):
                piece = table.alone(i) or (b"" if i not in table.special else b"\xff" + table.name(i))
                if piece and (piece not in id_of or _used(codec, piece) == i):
                    id_of[piece] = i
            sides.append(id_of)
        ours, theirs = sides
        pairs = [(i, theirs[piece]) for piece, i in ours.items() if piece in theirs]
        end = (self.student.end_id, self.teacher.end_id)
        inside = all(i < size for i, size in zip(end, words, strict=True))
        return sorted(p for p in pairs if p[0] != end[0] and p[1] != end[1]) + ([end] if inside else [])


def offsets(table: TokenBytes, prompt: Sequence[int], ids: Sequence[int]) -> tuple[str, Ends]:
    """The text of ``ids`` after ``prompt``, without a character that its end cuts, and where each token ends in it."""
    text = continuation(table.tokenizer, prompt, ids)
    if table.known:
        pieces = [table.of(i) for i in ids]
        whole = b"".join(pieces)
        for skipped in (0, 1):  # a decoder may strip the leading space of a text
            if skipped and not whole.startswith(b" "):
                break
            kept, rest = _characters(whole[skipped:])
            if kept is not None and text == kept + (BROKEN if rest else ""):
                ends, at = [], -skipped
                for piece in pieces:
                    at += len(piece)
                    ends.append(max(at, 0))
                return kept, ends
    # Bytes that are not text, or a decoder with its own rules: decode up to every token.
    ends = []
    for n in range(1, len(ids) + 1):
        part = continuation(table.tokenizer, prompt, ids[:n])
        ends.append(len(part.encode("utf-8", "replace")) if text.startswith(part) else None)
    return text, ends


def pair(ours: Ends, theirs: Ends) -> list[tuple[range, range]]:
    """The shortest possible pairs of two readings, as places of their tokens."""
    common = {e for e in ours if e is not None} & {e for e in theirs if e is not None} - {0}
    return list(zip(_runs(ours, common), _runs(theirs, common), strict=True))


def _runs(ends: Ends, common: set[int]) -> list[range]:
    """For every common end, the tokens since the last one, without leading tokens of no bytes."""
    runs: list[range] = []
    start, at = None, 0  # the first token of the open run, and the last known end
    for n, end in enumerate(ends):
        if end is not None and end <= at:
            continue  # holds no byte; an open run keeps it
        start = n if start is None else start
        at = at if end is None else end
        if end in common:
            runs.append(range(start, n + 1))
            start = None
    return runs


def _characters(data: bytes) -> tuple[str | None, bytes]:
    """The text of bytes, and the incomplete character at their end; None for other bytes."""
    try:
        return data.decode(), b""
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            return data[: error.start].decode(), data[error.start :]
        return None, b""


def _common(a: bytes, b: bytes) -> int:
    """The length of the longest common beginning."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _used(codec: TextCodec, piece: bytes) -> int | None:
    """The id with which the tokenizer writes a piece of text, if a single id does."""
    text = piece.decode("utf-8", "replace")
    ids = () if BROKEN in text else codec.response_ids(codec.encode("\n"), text, ended=False)
    return ids[0] if len(ids) == 1 else None
