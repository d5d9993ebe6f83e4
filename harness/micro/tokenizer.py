"""The micro models' tokenizer: byte-level BPE, so it encodes any text, and pre-tokenized so that numbers stay whole.

Newlines and indents are separate tokens: a prompt's tokens followed by its response's are the tokens of
the joined text, and ids at evaluation equal ids in training. Nothing is put before or after a text.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

VOCABULARY = 640
END, PAD = "<|end|>", "<|pad|>"
# Operators and commas keep the spaces after them, so "12" is the same token in a sum and in a list.
PIECES = Regex(r"\n| {4}| (?:[-+*%=<>]|==) |\\boxed\{|, (?=-?\d)| ?\d{1,2}| ?[A-Za-z_]+|\s| ?[^\sA-Za-z_\d]+")


def train(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer with ``VOCABULARY`` entries: two specials, the 256 bytes and the merges of ``texts``."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(PIECES, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )
