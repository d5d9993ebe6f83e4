"""Published protocols: what they change, their cards and hashes, and OpenAI's checks behind the walls."""

import dataclasses
import json
import os

import pytest

from harness.cli import main
from harness.errors import BadInput, RunFailed
from harness.evaluation import benchmarks, measurement
from harness.evaluation.cards import cards
from harness.grading.code.openai_checks import OpenAIChecks
from harness.grading.code.task import last_fence
from harness.models.generate import Generator
from harness.records.record import identity_of
from harness.task import Data, Dataset
from harness.types import Completion, Prompt

needs_data = pytest.mark.skipif("HARNESS_DATA" not in os.environ, reason="needs the benchmark files of HARNESS_DATA")


def protocol_of(name, protocol=None):
    task = benchmarks.open_task(name, protocol=protocol)
    return measurement.protocol_of(task, task.decoding, None, "template")


def test_a_protocol_changes_what_it_says_and_carries_its_name():
    own, avg32 = protocol_of("amc23@micro"), protocol_of("amc23@micro", "avg32")
    assert "name" not in own and avg32["name"] == "avg32"
    assert avg32["decoding"]["samples"] == 32 and avg32["decoding"]["temperature"] == 0.6
    assert own["hash"] != avg32["hash"] and own["card"] != avg32["card"]
    assert own["prompts_sha256"] == avg32["prompts_sha256"]


def test_the_same_measurement_by_another_name_has_the_same_hash_and_identity():
    own, named = protocol_of("amc23@micro"), protocol_of("amc23@micro", "strict")
    assert own["hash"] == named["hash"] and named["name"] == "strict"
    assert identity_of({"seed": 0}, own) == identity_of({"seed": 0}, named)


def test_a_changed_decoding_shows_in_the_name():
    task = benchmarks.open_task("amc23@micro", protocol="avg32")
    changed = dataclasses.replace(task.decoding, samples=4)
    assert measurement.protocol_of(task, changed, None, "t")["name"] == "avg32, decoding changed"


def test_unknown_protocols_are_refused_with_the_known_ones():
    with pytest.raises(BadInput, match="unknown protocol of amc23 'avg23'; did you mean avg32"):
        benchmarks.open_task("amc23@micro", protocol="avg23")
    with pytest.raises(BadInput, match="the micro world has no such problems"):
        benchmarks.open_task("humaneval@micro", protocol="humaneval-original")


def test_of_several_tasks_those_that_have_a_protocol_get_it():
    both = benchmarks.open_all(["amc23", "humaneval"], "micro", None, None, "avg32")
    assert [task.protocol for task in both] == ["avg32", None]
    with pytest.raises(BadInput, match="unknown protocol of amc23, humaneval"):
        benchmarks.open_all(["amc23", "humaneval"], "micro", None, None, "alpacaeval-2")


def test_the_completion_protocol_leaves_the_chat_template_out(models):
    prompt = benchmarks.open_task("humaneval@micro", protocol="evalplus-0.2.0-completion").items[0].prompt
    assert not prompt.chat
    assert protocol_of("humaneval@micro", "evalplus-0.2.0-completion")["template"] == "none: plain text"

    class Chatty:
        chat_template = "{{ messages }}"
        bos_token, bos_token_id = "<s>", 1

        def __call__(self, text):
            return {"input_ids": [1, 7]}

    generator = Generator.__new__(Generator)
    generator.tokenizer = Chatty()
    assert generator.render(Prompt("u", "plain", chat=False)) == "<s>plain"


def test_the_bare_stub_is_asked_as_distillm2_does():
    own = benchmarks.open_task("mbpp@micro").items[0].prompt
    asked = benchmarks.open_task("mbpp@micro", protocol="distillm2").items[0].prompt
    assert asked.user == own.plain and asked.prefill == "" and asked.chat


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a\n```python\nx\n```\nb\n```python\ny\n```", "```python\ny\n```"),
        ("```\nx\n```\nand\n```python\ncut off", "```\nx\n```"),
        ("```python\nnever closed", ""),
        ("no fence", ""),
    ],
)
def test_the_last_closed_fence(text, found):
    assert last_fence(text) == found


def test_under_the_last_fence_only_fenced_programs_count():
    task = benchmarks.open_task("humaneval@micro", protocol="last-fence")
    problem = task.items[0]
    program = problem.reference.prompt + problem.reference.canonical_solution
    wrong = f"First\n```python\ndef {problem.reference.entry_point}(xs):\n    return 'no'\n```\n"
    fenced = f"```python\n{program}\n```\n"
    texts = [wrong + fenced, fenced + wrong, program, ""]
    verdicts = task.grade_all([Completion(problem.id, k, text, 0, "stop") for k, text in enumerate(texts)])
    assert [v.score for v in verdicts] == [1.0, 0.0, 0.0, 0.0]


def test_cards_show_every_protocol_with_its_hash(capsys):
    found = {card["name"]: card for card in cards("humaneval@micro")}
    assert {"evalplus-0.2.0", "evalplus-0.2.0-completion", "humaneval-original", "distillm2"} <= set(found)
    assert found["the task's own"]["hash"] == protocol_of("humaneval@micro")["card"]
    assert (
        found["humaneval-original"]["hash"] is None and "no such problems" in found["humaneval-original"]["unavailable"]
    )
    assert main(["show", "task", "amc23@micro"]) == 0
    text = capsys.readouterr().out
    assert "protocol: avg32" in text and "decoding.samples: 32" in text and "measures the same" in text
    assert main(["show", "task", "alpaca_eval@micro", "--json"]) == 0
    names = [card["name"] for card in json.loads(capsys.readouterr().out)["protocols"]]
    assert {"alpacaeval-1", "alpacaeval-2", "distillm2"} <= set(names)


def test_a_card_without_data_says_why_it_has_no_hash(tmp_path, monkeypatch):
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    card = cards("amc23")[0]
    assert card["hash"] is None and "$HARNESS_DATA/amc23/test.jsonl is missing" in card["unavailable"]
    assert card["dataset"]["n"] == 40


@needs_data
def test_alpacaeval_2_compares_with_the_other_reference():
    one, two = (benchmarks.open_unjudged("alpaca_eval", name) for name in ("alpacaeval-1", "alpacaeval-2"))
    assert one.items[0].prompt == two.items[0].prompt and one.items[0].reference != two.items[0].reference
    assert (one.judge_protocol, two.judge_protocol) == ("alpacaeval-1", "alpacaeval-2")


ROW = {
    "task_id": "Own/0",
    "prompt": 'def double(xs):\n    """Twice each."""\n',
    "entry_point": "double",
    "canonical_solution": "    return [2 * x for x in xs]\n",
    "test": "import random\n\ndef check(candidate):\n    for _ in range(5):\n        xs = [random.random()]\n"
    "        assert candidate(xs) == double(xs)\n    assert candidate([]) == []\n",
}


def checks(**changes):
    from harness.grading.code.task import CodeTask

    class Own(OpenAIChecks, CodeTask):
        name, version = "own", "1"
        dataset = Dataset("own.jsonl", "example/own", "0" * 40, "own.jsonl", "0" * 64, 1)
        plus, completion_stop = False, ()

    return Own(Data([ROW | changes], "0" * 64, "made for the test"))


@pytest.mark.parametrize(
    ("completion", "score", "reason"),
    [
        ("    return [x + x for x in xs]\n", 1.0, "accepts all 6 outputs"),
        ("    return [x + x for x in xs]\n\ndef cut_off(:", 1.0, "accepts"),
        ("    return xs\n", 0.0, "check refuses the outputs: AssertionError"),
        ("    raise ValueError(1)\n", 0.0, "call 1 of 6: a call raised (ValueError: 1)"),
        ("    return ((", 0.0, "could not be defined"),
        ("", 0.0, "check refuses the outputs"),
        (
            "    class Any(list):\n        def __eq__(self, other):\n            return True\n    return Any()\n",
            0.0,
            "plain",
        ),
        ("    global check\n    check = print\n    return xs\n", 0.0, "check refuses"),
    ],
)
def test_openais_checks_judge_replayed_outputs(completion, score, reason):
    task = checks()
    (verdict,) = task.grade_all([Completion("Own/0", 3, completion, 0, "stop")])
    assert (verdict.score, verdict.sample) == (score, 3) and reason in verdict.reason


def test_a_check_that_refuses_its_own_solution_is_no_verdict():
    with pytest.raises(RunFailed, match="Own/0: OpenAI's check refuses the canonical solution"):
        checks(canonical_solution="    return 1\n").grade_all([Completion("Own/0", 0, "", 0, "stop")])
    with pytest.raises(BadInput, match="row 1: field 'test' is missing"):
        checks(test=None)


@needs_data
def test_openais_file_accepts_its_own_solutions():
    task = benchmarks.open_task("humaneval", protocol="humaneval-original")
    some = [task.items[i] for i in (0, 32, 38, 53, 163)]  # 32 asks for a root, 38 and 53 draw their inputs
    golds = [Completion(p.id, 0, p.reference.canonical_solution, 0, "stop") for p in some]
    assert [v.score for v in task.grade_all(golds)] == [1.0] * 5
    nothing = [Completion(p.id, 0, "    return None\n", 0, "stop") for p in some]
    assert [v.score for v in task.grade_all(nothing)] == [0.0] * 5
