"""Generation from a server in a process of its own, through the same calls as from a model in this one."""

import json

import pytest
from openai_stub import serving

from harness.cli import main
from harness.errors import RunFailed
from harness.evaluation import evaluate
from harness.evaluation.benchmarks import open_task
from harness.models.openai_client import ClientOptions, Passing
from harness.models.server_generator import ServerGenerator, _served
from harness.progress import TextCount
from harness.types import Decoding, Prompt

QUICK = ClientOptions(retries=2, backoff_s=0.01, timeout_s=5.0)
DECODING = Decoding(temperature=0.6, top_p=0.9, max_new_tokens=64, stop=("\n\n", "END", "c", "d", "e"))


def test_prompts_become_turns_or_text():
    generator = ServerGenerator("m", "http://127.0.0.1:9/v1")
    chat = generator.render(Prompt(user="u", plain="p", system="s", prefill="```"))
    assert json.loads(chat.removeprefix("chat:")) == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "```"},
    ]
    assert generator.render(Prompt(user="u", plain="p", chat=False)) == "text:p"
    words = generator.warnings([Prompt("u", "p", prefill="x")], DECODING)
    assert len(words) == 2 and "other servers may start over" in words[1]


def test_requests_carry_decoding_seed_and_an_opened_answer():
    with serving() as stub:
        generator = ServerGenerator("stub", stub.url, options=QUICK)
        prompts = [Prompt(user="first", plain="p"), Prompt(user="second", plain="p", prefill="So")]
        tally = TextCount(lambda *told: None, 2)
        made = generator.generate([generator.render(p) for p in prompts], DECODING, [7, 2**40 + 3], tally)
        one, two = sorted(stub.requests(), key=lambda body: len(body["messages"]))
    assert len(made) == 2 and made[0].finish == "stop" and made[0].tokens == 10
    assert (tally.texts, tally.tokens) == (2, 20)
    assert (one["temperature"], one["top_p"], one["max_tokens"], one["seed"]) == (0.6, 0.9, 64, 7)
    assert one["stop"] == ["\n\n", "END", "c", "d"] and "continue_final_message" not in one
    assert two["continue_final_message"] and not two["add_generation_prompt"] and two["seed"] < 2**31


@pytest.mark.parametrize("trouble", ["429", "500", "garbage", "drop"])
def test_passing_trouble_is_tried_again(trouble):
    with serving(trouble, then="ok") as stub:
        generator = ServerGenerator("stub", stub.url, batch=1, options=QUICK)
        assert generator.generate(["chat:" + json.dumps([{"role": "user", "content": "x"}])], DECODING, [0])
        assert len(stub.requests()) == 2


def test_lasting_trouble_ends_in_one_line():
    with serving(then="500") as stub:
        generator = ServerGenerator("stub", stub.url, options=QUICK)
        with pytest.raises(RunFailed, match="the server of stub gave no completion: HTTP 500: told to answer 500"):
            generator.generate(["text:x"] * 3, DECODING, [0, 1, 2])


@pytest.mark.parametrize(
    ("choice", "text", "finish"),
    [
        ({"message": {"content": "a"}, "finish_reason": "stop"}, "a", "stop"),
        ({"message": {"content": "ab"}, "finish_reason": "length"}, "ab", "length"),
        ({"message": {"content": "ab END not"}, "finish_reason": "length"}, "ab ", "stop"),
        ({"message": {"content": None}, "finish_reason": "stop"}, "", "stop"),
    ],
)
def test_replies_are_cut_and_their_end_is_told(choice, text, finish):
    found = _served(json.dumps({"choices": [choice]}).encode(), ("message", "content"), Decoding(stop=("END",)))
    assert (found.text, found.finish, found.tokens) == (text, finish, 0)
    with pytest.raises(Passing, match="not a completion"):
        _served(b'{"choices": []}', ("text",), Decoding())


@pytest.mark.parametrize("name", ["gsm8k@micro", "alpaca_eval@micro"])
def test_it_serves_an_evaluation(name):
    task = open_task(name)
    with serving() as stub:
        generator = ServerGenerator("stub", stub.url, options=QUICK)
        completions = evaluate.complete(task, task.items[:3], generator, task.decoding, 0, lambda *_: None)
        assert [c.problem_id for c in completions] == [p.id for p in task.items[:3]]
        asked = {body["messages"][-1]["content"] for body in stub.requests()}
    assert asked == {p.prompt.user for p in task.items[:3]} and all(c.text for c in completions)


def test_a_served_model_is_measured_from_the_command_line(tmp_path, models, capsys):
    words = ["run", "--task", "gsm8k", "--set", "evaluation.limit=2", "--results", str(tmp_path / "results"), "--json"]
    with serving() as stub:
        assert main([*words, "--method", "untouched", "--student", f"openai:stub@{stub.url}"]) == 0
        (record,) = json.loads(capsys.readouterr().out)["records"]
        assert len(stub.requests()) == 2
    assert record["student"] == "openai:stub" and "127.0.0.1" not in json.dumps(record)
    assert record["protocol"]["template"] == "the server's" and record["first_prompt"].startswith("chat:")
    assert any("its own chat template" in word for word in record["warnings"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "sft", "--student", "openai:stub@http://127.0.0.1:9/v1"], "can only be evaluated; method sft"),
        (["--method", "untouched", "--student", "openai:stub"], "written openai:MODEL@http://host:port/v1"),
    ],
)
def test_a_served_model_is_not_trained(words, message, tmp_path, capsys):
    assert main(["run", "--task", "gsm8k", "--results", str(tmp_path / "results"), *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[1]",
        b'{"choices": [{"text": "a"}], "usage": {"completion_tokens": 1e999}}',
        b'{"choices": [{"text": "a"}], "usage": {"completion_tokens": NaN}}',
        b'{"choices": [{"text": "a"}], "usage": [1]}',
        b'{"choices": ' + b"[" * 100_000,
        b'{"choices": ' + b"9" * 100_000 + b"}",
        b"\xff\xfe",
    ],
)
def test_odd_replies_are_tried_again_and_no_traceback(content):
    with pytest.raises(Passing, match="not a completion"):
        _served(content, ("text",), Decoding())


def test_a_count_of_tokens_is_never_negative():
    found = _served(b'{"choices": [{"text": "a"}], "usage": {"completion_tokens": -5}}', ("text",), Decoding())
    assert found.tokens == 0
