"""Tokenizers made by code in the manners of public families: byte-level BPE, SentencePiece, and one that loses text."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from harness.models.alignment import alphabet

END, PAD, SPACE = "<|end|>", "<|pad|>", "\u2581"


def _wrapped(made: Tokenizer, end: str = END) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=end, pad_token=PAD, clean_up_tokenization_spaces=False
    )


def byte_level(words: Sequence[str] = (), *, end: str = END, order: int = 1) -> PreTrainedTokenizerFast:
    """The 256 bytes and the ``words``, each merged byte by byte from the left; words may begin or end in a character.

    ``order`` -1 numbers the tokens from the other end: the same cuts under other ids.
    """
    of = {byte: c for c, byte in alphabet().items()}
    names, merges = [PAD, end, *(of[byte] for byte in range(256))], []
    for word in words:
        letters = [of[byte] for byte in (word if isinstance(word, bytes) else word.encode())]
        for n in range(1, len(letters)):
            left, right = "".join(letters[:n]), letters[n]
            if (left, right) not in merges:
                merges.append((left, right))
            if left + right not in names:
                names.append(left + right)
    vocab = {name: i for i, name in enumerate(names[::order])}
    made = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([PAD, end])
    return _wrapped(made, end)


def sentencepiece(words: Sequence[str] = (), *, prefix: bool = True, end: str = "</s>") -> PreTrainedTokenizerFast:
    """Llama's manner: spaces as letters, bytes for unknown characters; with ``prefix`` a space before every text,
    which the decoder strips.
    """
    letters = [SPACE, *map(chr, range(33, 127)), "\n"]
    names = [PAD, end, *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    merges = []
    for word in words:
        word = word.replace(" ", SPACE)
        for n in range(1, len(word)):
            left, right = word[:n], word[n]
            if right not in names or left not in names:
                break
            if (left, right) not in merges:
                merges.append((left, right))
            if left + right not in names:
                names.append(left + right)
    made = Tokenizer(
        models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=merges, byte_fallback=True, unk_token=None)
    )
    changes = [normalizers.Replace(" ", SPACE)]
    made.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), *changes] if prefix else changes)
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    made.add_special_tokens([PAD, end])
    return _wrapped(made, end)


def lower_case() -> PreTrainedTokenizerFast:
    """Byte-level, but every text is put into lower case first."""
    made = byte_level()
    made.backend_tokenizer.normalizer = normalizers.Lowercase()
    return made
