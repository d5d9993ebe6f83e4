"""Small models with the special tokens, endings and chat templates of public families, base and instruct, by code.

The templates are shortened: one turn after another, what the family writes before and behind each, its own system text.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from conftest import byte_tokenizer

CHATML = (
    "{%- if messages[0].role == 'system' %}{{ '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}"
    "{%- else %}{{ '<|im_start|>system\\nSYSTEM<|im_end|>\\n' }}{%- endif %}"
    "{%- for m in messages if m.role != 'system' %}"
    "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}"
)
QWEN3 = (
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{%- if m.role == 'assistant' and loop.last and '</think>' not in m.content %}{{ '<think>\\n\\n</think>\\n\\n' }}"
    "{%- endif %}{{ m.content + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
    "{%- endif %}"
)
DEEPSEEK = (
    "{{ bos_token }}{%- for m in messages %}{%- if m.role == 'system' %}{{ m.content }}"
    "{%- elif m.role == 'user' %}{{ '### Instruction:\\n' + m.content + '\\n' }}"
    "{%- else %}{{ '### Response:\\n' + m.content + '\\n<|EOT|>\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '### Response:\\n' }}{%- endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{%- for m in messages %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
GEMMA = (
    "{{ bos_token }}"
    "{%- if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{%- endif %}"
    "{%- for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' + m.content"
    " + '<end_of_turn>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{%- endif %}"
)
MISTRAL = (
    "{{ bos_token }}{%- for m in messages %}{%- if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{%- elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}"
    "{%- else %}{{ raise_exception('Only user and assistant roles are supported') }}{%- endif %}{%- endfor %}"
)


@dataclass(frozen=True)
class Family:
    """What base and instruct model of a family differ in; ``end`` is the token that ends an instruct response."""

    tokens: tuple[str, ...]
    bos: str | None
    base_eos: str
    base_template: str | None
    eos: str
    template: str
    end: str
    system: str  # what becomes of a system turn


FAMILIES = {
    "qwen2.5": Family(
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), None, "<|endoftext|>",
        CHATML.replace("SYSTEM", "You are a helpful assistant."), "<|im_end|>",
        CHATML.replace("SYSTEM", "You are Qwen, created by Alibaba Cloud."), "<|im_end|>", "the template's",
    ),
    "qwen2.5-math": Family(
        # One template on both sides: only the end of sequence differs.
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), None, "<|endoftext|>",
        CHATML.replace("SYSTEM", "Please reason step by step."), "<|im_end|>",
        CHATML.replace("SYSTEM", "Please reason step by step."), "<|im_end|>", "the template's",
    ),
    "qwen3": Family(
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"), None, "<|endoftext|>", None,
        "<|im_end|>", QWEN3, "<|im_end|>", "the template's",
    ),
    "deepseek-coder": Family(
        ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<|EOT|>"), "<｜begin▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>", None, "<|EOT|>", DEEPSEEK, "<|EOT|>", "the template's",
    ),
    "llama3": Family(
        ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|begin_of_text|>", "<|end_of_text|>", None, "<|eot_id|>", LLAMA3, "<|eot_id|>", "the template's",
    ),
    "gemma": Family(
        ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), "<bos>", "<eos>", None, "<eos>", GEMMA,
        "<end_of_turn>", "merged into the user's turn",
    ),
    "mistral": Family(
        ("<s>", "</s>"), "<s>", "</s>", None, "</s>", MISTRAL, "</s>", "merged into the user's turn",
    ),
}  # fmt: skip


# What a template writes between the ask and an answer, and between the answer and its end, where that is anything.
FRAMES = {
    "qwen3": ("<think>\n\n</think>\n\n", ""),
    "deepseek-coder": ("", "\n"),
    "mistral": (" ", ""),
}


def tokenizer(family: Family, *, instruct: bool, more: tuple[str, ...] = ()):
    """The byte tokenizer with the family's special tokens; ``more`` are added behind them."""
    made = byte_tokenizer()
    made.add_special_tokens({"additional_special_tokens": [*family.tokens, *more]})
    made.eos_token = family.eos if instruct else family.base_eos
    if family.bos:
        made.bos_token = family.bos
    made.chat_template = family.template if instruct else family.base_template
    return made


def model(folder: Path, family: Family, *, instruct: bool, seed: int, width: int, more: tuple[str, ...] = ()) -> Path:
    """A random model of the family in ``folder``, its embedding padded to ``width`` rows."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    made = tokenizer(family, instruct=instruct, more=more)
    config = LlamaConfig(
        vocab_size=width, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=512, initializer_range=0.3, eos_token_id=made.eos_token_id,
        bos_token_id=made.bos_token_id, pad_token_id=made.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def pair(root: Path, name: str) -> tuple[Path, Path]:
    """(base student, instruct teacher) of a family, of different widths."""
    family = FAMILIES[name]
    return (
        model(root / "base", family, instruct=False, seed=0, width=288),
        model(root / "instruct", family, instruct=True, seed=1, width=272),
    )
