"""The ROUGE-L suite: values of rouge-score, the maximum over references, MiniLLM's prompts and sampling."""

import os
from pathlib import Path

import pytest
from harness.tasks.dolly import Dolly
from harness.tasks.self_instruct import SelfInstruct
from harness.tasks.sinst import SuperNaturalInstructions
from harness.tasks.vicuna_rouge import VicunaRouge

from harness import data
from harness.errors import BadInput
from harness.evaluation.known_answers import known_answers
from harness.evaluation.self_check import counts_as_right
from harness.grading.instruction.rouge import rouge_l
from harness.metrics import metric_of
from harness.task import Data
from harness.types import Completion

SUITE = (Dolly, SelfInstruct, VicunaRouge, SuperNaturalInstructions)
FILES = Path(os.environ.get("HARNESS_DATA", "")) / "rouge_suite"
needs_files = pytest.mark.skipif(not FILES.is_dir(), reason="needs the files below HARNESS_DATA")
ALPACA = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n"
    "### Response:\n"
)
ROW = {"instruction": "Add.", "input": "1 2", "prompt": ALPACA, "output": "The sum is three"}


def opened(*rows, under=None):
    task = Dolly if under is None else Dolly.under(under)
    return task(Data(rows=rows, sha256="0" * 64, source="made for the test"))


@pytest.mark.parametrize(
    ("answer", "references", "expected"),
    [
        ("the sum is three", ["The sum is three"], 1.0),
        ("three is the sum", ["The sum is three"], 0.5),  # the longest common subsequence is `the sum`
        ("sum", ["The sum is three"], 0.4),  # precision 1, recall 1/4
        ("The sums are three", ["The sum is three"], 0.75),  # stemmed
        ("four", ["three", "four"], 1.0),
        ("", ["three"], 0.0),
        ("§", ["§"], 0.0),  # no letter a to z and no digit
    ],
)
def test_rouge_l_by_hand(answer, references, expected):
    assert rouge_l(answer, references) == pytest.approx(expected)


def test_a_completion_ends_at_the_end_of_text_and_is_stripped():
    task = opened(ROW)
    (verdict,) = task.grade_all([Completion("0", 0, "\n The sum is three <|endoftext|> and more", 9, "stop")])
    assert (verdict.score, verdict.extracted) == (1.0, "The sum is three")
    (verdict,) = task.grade_all([Completion("0", 0, "<|endoftext|>The sum is three", 9, "stop")])
    assert verdict.score == 0.0


def test_prompts_of_the_protocols():
    own, minillm, instruction = (opened(ROW, under=name).items[0].prompt for name in (None, "minillm", "instruction"))
    assert (own.user, own.plain, own.chat) == (ALPACA, ALPACA, True)
    assert (minillm.plain, minillm.chat) == (ALPACA, False)
    assert (instruction.user, instruction.plain) == ("Add.\n\n1 2", "Add.\n\n1 2")
    bare = opened(ROW | {"input": ""}, under="instruction").items[0].prompt
    assert bare.user == "Add."


def test_sampling_is_minillms_and_scores_are_no_percentages():
    for task in SUITE:
        decoding = task.decoding
        assert (decoding.temperature, decoding.top_p, decoding.max_new_tokens, decoding.samples) == (1.0, 1.0, 256, 5)
        assert metric_of(task).name == "rougeL"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": ""}, "row 1 has no text under 'prompt'"),
        ({"instruction": None}, "row 1 has no text under 'instruction'"),
        ({"input": 3}, "row 1: 'input' is not text"),
        ({"output": []}, "row 1 has no text and no list of texts under 'output'"),
        ({"output": ["a", 3]}, "row 1 has no text and no list of texts under 'output'"),
        ({"output": None}, "row 1 has no text and no list of texts under 'output'"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(change, message):
    with pytest.raises(BadInput, match="made for the test: " + message):
        opened(ROW | change)


def test_a_reference_without_words_is_counted():
    task = opened(ROW, ROW | {"output": "¿?"})
    rows = [{"problem_id": "0"}, {"problem_id": "1"}]
    assert task.remarks(rows) == ["1 of 2 problems have no reference with a letter a to z or a digit: they score 0"]
    assert task.remarks(rows[:1]) == []


@needs_files
@pytest.mark.parametrize("task", SUITE, ids=lambda task: task.name)
def test_the_file_is_the_pinned_one_and_golds_are_told_from_the_rest(task):
    read = data.read(task.dataset)
    here = task(read)
    assert read.sha256 == task.dataset.sha256 and len(here.items) == task.dataset.n
    known = known_answers(here)[:200]
    assert {k.passes for k in known} == {True, False}
    verdicts = here.grade_all([Completion(k.problem_id, 0, k.text, 1, "stop") for k in known])
    assert [counts_as_right(here, v.score) for v in verdicts] == [k.passes for k in known]


@needs_files
def test_several_references_are_read_from_a_list():
    here = SuperNaturalInstructions(data.read(SuperNaturalInstructions.dataset))
    assert sum(len(p.reference) > 1 for p in here.items) == 388
