"""What a task writes comes back from the tokenizer, or is told with task, item and what was lost; stops and chats."""

import json

import pytest
from conftest import byte_tokenizer, tiny_model
from test_token_text import CHATML, chat, llama2, mistral, unigram, wordpiece

from harness.cli import main
from harness.evaluation import evaluate
from harness.evaluation.benchmarks import open_task
from harness.evaluation.round_trip import ITEMS, check_task
from harness.models.chat_format import TextCodec
from harness.models.token_text import continuation, response_ids
from harness.types import Completion, Decoding, Prompt

NAMES = ("humaneval@micro", "mbpp@micro", "amc23@micro", "alpaca_eval@micro")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [byte_tokenizer, llama2, mistral, unigram], ids=lambda f: f.__name__)
def test_sound_tokenizers_give_everything_back(name, make):
    task = open_task(name)
    found = check_task(task, TextCodec(make()), task.items)
    assert (found.lost, found.items, found.warning) == ([], ITEMS, None)


def test_a_response_gets_no_space_of_its_own():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    core.train_from_iterator([" \n \n def f(x):\n   return x\n"] * 8, trainer)  # space and line break are one token
    spaced = PreTrainedTokenizerFast(tokenizer_object=core)
    prompt = spaced("def f(x):\n")["input_ids"]
    for text in ("x = 1", "   return x\n", "\n", " y", "é"):
        assert continuation(spaced, prompt, response_ids(spaced, prompt, text)) == text


def test_a_tokenizer_that_loses_text_is_told_in_one_line():
    task = open_task("humaneval@micro")
    found = check_task(task, TextCodec(wordpiece()), task.items)
    assert {lost.part for lost in found.lost} == {"prompt", "reference"} and len(found.lost) == 2 * ITEMS
    assert "\n" not in found.warning
    assert found.warning.startswith(
        "humaneval@micro: the tokenizer does not reproduce the text of 16 of 16 tested items"
    )
    assert f"item {task.items[0].id}: in its prompt 'def " in found.warning


def test_a_lowercase_tokenizer_is_told_too():
    from tokenizers import normalizers

    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    task = open_task("amc23@micro")
    assert "'P" in check_task(task, TextCodec(tokenizer), task.items).warning


@pytest.mark.parametrize(
    ("content", "whole"),
    [("m.content | trim", True), ("5", False), ("m.content | upper", False), ("m.content[:20]", False)],
)
def test_a_template_that_does_not_write_the_prompt_is_told(content, whole):
    task = open_task("amc23@micro")
    codec = TextCodec(chat(f"{{% for m in messages %}}{{{{ {content} }}}}{{% endfor %}}"))
    said = check_task(task, codec, task.items).warning
    assert said is None if whole else said.startswith(f"{task.title}: the chat template does not write the text of 16")


@pytest.mark.parametrize("lowercase", [False, True])
def test_the_command_and_a_run_say_it(tmp_path, capsys, lowercase):
    folder = tiny_model(tmp_path / "model", 0)
    if lowercase:
        facts = json.loads((folder / "tokenizer.json").read_text())
        (folder / "tokenizer.json").write_text(json.dumps(facts | {"normalizer": {"type": "Lowercase"}}))
    assert main(["check", "--model", str(folder), "--task", "amc23@micro"]) == int(lowercase)
    out = capsys.readouterr().out
    assert ("does not reproduce" in out) is lowercase and out.count("\n") == 1
    run = ["run", "--method", "untouched", "--student", str(folder), "--task", "amc23@micro", "--json"]
    run += ["--set", "evaluation.limit=2", "--set", "evaluation.max_new_tokens=2", "--results", str(tmp_path / "r")]
    assert main(run) == 0
    (record,) = json.loads(capsys.readouterr().out)["records"]
    assert any("does not reproduce" in warning for warning in record["warnings"]) is lowercase
    assert main(["check", "--model", "openai:m@http://localhost:1/v1"]) == 2


class Chatty(TextCodec):
    """Notes the decoding of every call; its answers are the prompts."""

    batch = 4

    def __init__(self, tokenizer):
        super().__init__(tokenizer)
        self.calls = []

    def generate(self, texts, decoding, seeds, watch=None):
        self.calls.append((len(texts), decoding.stop))
        return [Completion("", 0, text, 1, "stop") for text in texts]


def answers(template, task, stop=("\n\nProblem:",)):
    speaker = Chatty(chat(template, "<|im_start|>", "<|im_end|>"))
    made = evaluate.complete(task, task.items[:4], speaker, Decoding(stop=stop), 0, lambda *told: None)
    assert [c.problem_id for c in made] == [p.id for p in task.items[:4]]
    return {stop for _, stop in speaker.calls}


def test_stop_strings_of_a_plain_text_end_no_chat_reply():
    maths, code = open_task("amc23@micro"), open_task("humaneval@micro")
    stop = ("\n\nProblem:",)
    assert answers(None, maths) == {stop} == answers(None, code)
    assert answers(CHATML, maths) == {()}
    opened = any(problem.prompt.prefill for problem in code.items)
    assert opened and answers(CHATML, code) == {stop}  # the answer was opened: the model continues it
    thinking = CHATML + "{# </think> #}"
    assert answers(thinking, code) == {()}


def test_a_model_that_thinks_first_is_not_given_the_opening():
    prompt = Prompt(user="U", plain="P", prefill="```python\n")
    assert TextCodec(chat(CHATML)).render(prompt).endswith("assistant\n```python\n")
    assert TextCodec(chat(CHATML + "{# </think> #}")).render(prompt).endswith("assistant\n")
