"""The models and the tokenizer of the `train` benchmark, the same in both environments."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from results.scripts.bench.measure import ROOT

VOCAB = 32_768


def pair(models: str) -> tuple[Any, Any, Any]:
    """Student (30 M parameters beyond the micro scale), teacher, tokenizer."""
    if models == "micro":
        from transformers import AutoTokenizer

        folder = ROOT / "harness" / "micro" / "weights"
        student, teacher = (
            AutoModelForCausalLM.from_pretrained(folder / name, dtype=torch.float32) for name in ("student", "teacher")
        )
        return student, teacher.eval(), AutoTokenizer.from_pretrained(folder / "student")
    student = _llama(1, hidden_size=512, intermediate_size=1408, num_hidden_layers=4, num_attention_heads=8)
    teacher = _llama(2, hidden_size=768, intermediate_size=2048, num_hidden_layers=6, num_attention_heads=12)
    return student, teacher.eval(), _words()


def _llama(seed: int, **sizes: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = LlamaConfig(vocab_size=VOCAB, tie_word_embeddings=True, max_position_embeddings=1024, **ids, **sizes)
    return LlamaForCausalLM(config)


def _words() -> PreTrainedTokenizerFast:
    """A tokenizer that makes every word one token."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    words = Tokenizer(WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, VOCAB)}, "w3"))
    words.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", padding_side="left"
    )
