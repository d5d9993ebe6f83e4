"""The silent ways to lose points between a prompt and a model are said aloud, and sound models draw no word."""

import json

import pytest
from conftest import byte_tokenizer, tiny_model

from harness.cli import main
from harness.models.generate import Generator
from harness.types import Decoding, Prompt

SHORT = Decoding(max_new_tokens=8)
ASKED = Prompt(user="2 + 2?", plain="Problem: 2 + 2?\n", system="Reason.")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
POLITE = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    + CHATML
)


@pytest.fixture
def generator(tmp_path):
    """A tiny random model; the test gives it a tokenizer with other manners."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model(tmp_path, 0))
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    return Generator(model, tokenizer)


def begins_with_bos(tokenizer):
    from tokenizers.processors import TemplateProcessing

    rule = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = rule


def said(generator, prompt=ASKED, decoding=SHORT):
    return generator.warnings([prompt], decoding)


def test_sound_models_draw_no_word(generator):
    assert said(generator) == []
    generator.tokenizer.chat_template = CHATML
    assert said(generator) == []
    generator.tokenizer.chat_template = "<s>" + CHATML
    begins_with_bos(generator.tokenizer)
    assert said(generator) == []


def test_a_missing_template(generator):
    generator.tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    (word,) = said(generator)
    assert "chat template is missing" in word and "<|im_start|>" in word


def test_a_template_applied_twice(generator):
    generator.tokenizer.chat_template = CHATML
    (word,) = said(generator, Prompt(user="<|im_start|>user\n2 + 2?<|im_end|>\n", plain=""))
    assert "already holds <|im_start|>" in word


def test_two_begins_and_none(generator):
    begins_with_bos(generator.tokenizer)
    words = " ".join(said(generator, Prompt(user="", plain="<s>2 + 2?")))
    assert "already holds <s>" in words and "two begin-of-sequence" in words
    generator.tokenizer.chat_template = "<s><s>" + CHATML
    assert any("two begin-of-sequence tokens" in word for word in said(generator))
    generator.tokenizer.chat_template = CHATML
    assert any("lacks the begin-of-sequence token" in word for word in said(generator))


def test_an_injected_system_prompt(generator):
    generator.tokenizer.chat_template = POLITE
    assert said(generator) == []  # the task brings a system turn of its own
    (word,) = said(generator, Prompt(user="2 + 2?", plain=""))
    assert "adds a system prompt of its own: 'You are a helpful assistant.'" in word


def test_penalties_that_are_not_applied(generator):
    generator.model.generation_config.repetition_penalty = 1.1
    (word,) = said(generator)
    assert "repetition_penalty=1.1, which is not applied" in word


def test_prompts_that_leave_no_room(generator):
    (word,) = said(generator, Prompt(user="", plain="x" * 300))
    assert "1 of 1 prompts fill the context of 256 tokens" in word
    (word,) = said(generator, Prompt(user="", plain="x" * 250))
    assert "leave fewer than the 8 tokens" in word


def test_the_record_keeps_the_first_prompt_and_the_warnings(tmp_path, monkeypatch, capsys):
    model = tiny_model(tmp_path / "model", 0)
    settings = json.loads((model / "generation_config.json").read_text())
    (model / "generation_config.json").write_text(json.dumps(settings | {"repetition_penalty": 1.05}))
    words = ["--recipe", "micro", "--student", str(model), "--results", str(tmp_path / "results"), "--json"]
    short = ["--set", "evaluation.limit=2", "--set", "evaluation.max_new_tokens=4"]
    assert main(["run", "--method", "untouched", "--task", "gsm8k", *words, *short]) == 0
    captured = capsys.readouterr()
    (record,) = json.loads(captured.out)["records"]
    assert "repetition_penalty=1.05" in captured.err and any("repetition_penalty=1.05" in w for w in record["warnings"])
    assert any("hit the length limit" in w for w in record["warnings"])
    assert record["first_prompt"].endswith("Solution:\n") or record["first_prompt"]
    assert main(["show", record["run_id"], "--results", str(tmp_path / "results")]) == 0
    assert repr(record["first_prompt"]) in capsys.readouterr().out
