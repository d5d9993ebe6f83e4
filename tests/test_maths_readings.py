"""Where an answer stands in a text, by protocol; stop strings by form; parser failures in the figures."""

import os
import time

import pytest
from harness.tasks.amc23 import AMC23
from harness.tasks.gsm8k import GSM8K
from harness.tasks.minerva_math import MinervaMath

from harness.evaluation import evaluate
from harness.grading.maths import extract, pool, qwen25_reading
from harness.grading.maths.readings import QWEN25, QWEN25_WITH_UNITS
from harness.grading.maths.task import Gold, equivalence_classes, grade, judge
from harness.task import Data
from harness.types import Completion


@pytest.fixture(scope="module", autouse=True)
def no_worker_left():
    yield
    pool.shared_pool().close()


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so \\boxed 8.", "8"),
        ("so \\boxed8", "8"),
        ("so \\boxed -2.5 and", "-2.5"),
        ("\\boxed{7} or rather \\boxed 9", "9"),
        ("\\boxed 9, no: \\boxed{7}", "7"),
        ("\\boxed x", "x"),
        ("\\boxed 1/2", None),
        ("put it in \\boxed form", None),
        ("\\boxed", None),
    ],
)
def test_a_box_needs_no_braces_around_a_number(text, answer):
    assert extract.last_box(text) == answer


TWO = Gold("1,-2", several=True)


@pytest.mark.parametrize(
    ("gold", "text", "right"),
    [
        (TWO, "$x=\\boxed{1}$ and $x=\\boxed{-2}$", True),
        (TWO, "The roots are $\\boxed{1}$ and $\\boxed{-2}$.", True),
        (TWO, "\\boxed{-2}, \\boxed{1}", True),
        (TWO, "\\boxed{1,-2}", True),
        (Gold("(1,2)"), "$x=\\boxed{1}$, $y=\\boxed{2}$", True),
        (Gold("(1,2)"), "$y=\\boxed{2}$, $x=\\boxed{1}$", True),
        (TWO, "First $\\boxed{1}$. No: $\\boxed{-2}$.", False),
        (TWO, "It is \\boxed{1}. Wait, \\boxed{-2}", False),
        (TWO, "$x=\\boxed{1}$ and $x=\\boxed{2}$", False),
        (TWO, "\\boxed{-2}", False),
        (Gold("(1,2)"), "$x=\\boxed{2}$, $y=\\boxed{1}$", False),
        (Gold("(1,2)"), "$x=\\boxed{1}$. $y=\\boxed{2}$", False),
    ],
)
def test_the_last_sentence_may_box_every_part(gold, text, right):
    assert grade([gold], [text])[0].correct == right


@pytest.mark.slow
def test_listed_boxes_are_read_in_linear_time():
    for text in (
        "\\boxed{1}," * 50_000,
        "\\boxed{" * 100_000,
        "\\boxed{1}" * 50_000 + "\\boxed{",
        "\\boxed " * 100_000,
    ):
        began = time.process_time()
        extract.last_boxes(text)
        assert time.process_time() - began < 5, text[:20]


def gsm8k(protocol=None):
    kind = GSM8K.under(protocol) if protocol else GSM8K
    return kind(Data(rows=[{"question": "?", "answer": "so\n#### 18"}], sha256="0", source="rows of a test"))


@pytest.mark.parametrize(
    ("line", "right"),
    [
        ("#### 18", True),
        ("#### 18 dollars per day", True),
        ("#### **18**", True),
        ("#### 18</s>", True),
        ("#### 9<|im_end|>18", False),
        ("#### $18", True),
        ("#### \\$18.00", True),
        ("**#### 18**", True),
        ("#### 18 eggs.", True),
        ("#### 18 or 19", False),
        ("#### 18 million", False),
        ("#### 18 is wrong", False),
        ("#### 18 + 1", False),
        ("#### **19**", False),
        ("#### 9 dollars per day", False),
        ("#### 1 8", False),
    ],
)
def test_a_line_of_hashes_is_a_number_with_what_surrounds_it(line, right):
    task = gsm8k()
    assert task.grade(task.items[0], f"9 * 2 = 18\n{line}").score == right


@pytest.mark.parametrize(
    ("protocol", "text", "right"),
    [
        ("lm-eval-strict-match", "#### 18", True),
        ("lm-eval-strict-match", "#### 18.", True),
        ("lm-eval-strict-match", "#### 18 dollars", True),
        ("lm-eval-strict-match", "#### 17\n#### 18", False),  # the first one counts
        ("lm-eval-strict-match", "#### $18", False),
        ("lm-eval-strict-match", "The answer is 18.", False),
        ("lm-eval-strict-match", "#### 18.0", False),
        ("lm-eval-flexible-extract", "so he has $18", True),
        ("lm-eval-flexible-extract", "#### **18**", True),
        ("lm-eval-flexible-extract", "18 of 20", False),
        ("lm-eval-flexible-extract", "eighteen", False),
        ("lm-eval-cot-strict-match", "The answer is 18.", True),
        ("lm-eval-cot-strict-match", "The answer is 18 now", True),
        ("lm-eval-cot-strict-match", "the answer is 18.", False),
        ("lm-eval-cot-strict-match", "The answer is $18.", False),
        ("few-shot-forms", "so\nA: 18", True),
        ("few-shot-forms", "The answer is 18.", True),
        ("few-shot-forms", "the final answer is $18.", True),
        ("few-shot-forms", "**Answer:** 18", True),
        ("few-shot-forms", "The answer is 17. No, the answer is 18.", True),
        ("few-shot-forms", "A: 18/2", False),
        ("few-shot-forms", "A: 1,8", False),
        ("few-shot-forms", "it costs 18", False),
        ("few-shot-forms", "The answer is 18.5", False),
        (None, "The answer is 18.", False),
        (None, "A: 18", False),
        ("strict", "The answer is 18.", False),
        ("strict", "#### 18", True),
    ],
)
def test_gsm8k_by_protocol(protocol, text, right):
    task = gsm8k(protocol)
    assert task.grade(task.items[0], text).score == right
    assert task.grader_identity()["reading"] == task.reading.name


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So 3 and then 1,234 apples.", "1234"),
        ("first 5, then \\boxed{6}, of 7", "6"),
        ("so \\boxed{6", "6"),
        ("The answer is 27.", "27"),
        ("The answer is: $\\frac12$.", "\\frac{1}{2}"),
        ("The final answer is $5$. I hope it is correct.", "5"),
        ("\\boxed{45^\\circ}", "45"),
        ("\\boxed{12 \\text{ cm}}", "12"),
        ("\\boxed{k=3}", "3"),
        ("\\boxed{5 sq . m}", "50"),  # its list takes "sq" before "sq . m", and 5 . becomes 5 0.
        ("答案是18\n\nand 7", "18"),
        ("\\boxed{033}", "33"),
        ("nothing", None),
    ],
)
def test_qwens_extraction(text, answer):
    assert qwen25_reading.extract(text) == answer


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ("0.5", "50", True),  # a percentage either way
        ("50", "0.5", True),
        ("1000", "1000.09", True),  # within 1e-4
        ("1000", "1000.11", False),
        ("27", "28", False),
        ("\\frac{1}{3}", "0.33333", True),
        ("\\frac{1}{3}", "0.333", False),
        ("(1,2)", "[1,2]", True),  # so does their kind
        ("(1,2)", "[1,3]", False),
        ("(1,2)", "(1.00001,2)", True),
        ("1,2", "(1,2)", True),  # brackets count for nothing
        ("1,2", "(2,1)", False),
        ("\\text{east}", "\\text{east}", True),  # a unit to it: nothing is left on either side
        ("\\text{even}", "\\text{east}", False),
        ("C", "(C)", True),
        ("C", "(D)", False),
        ("x^2+1", "1+x^{2}", True),
        ("x^2+1", "x^2-1", False),
        ("3u+v=4", "v+3u=4", True),
        ("3u+v=4", "4=3u+v", False),  # a side of two characters counts as a name, and is dropped
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{bmatrix}1\\\\2.0001\\end{bmatrix}", True),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix}2\\\\1\\end{pmatrix}", False),
    ],
)
def test_qwens_equality(gold, answer, right):
    assert judge([Gold(gold)], [qwen25_reading.stripped(answer)], QWEN25)[0].correct == right


def test_qwens_grader_keeps_units_of_minerva_math():
    assert judge([Gold("4.5 m")], [qwen25_reading.extract("\\boxed{4.5 m}", units=False)], QWEN25_WITH_UNITS)[0].correct
    assert not judge([Gold("4.5 m")], ["4.5"], QWEN25_WITH_UNITS)[0].correct
    assert MinervaMath.protocols["qwen25-math"].changes["reading"] is QWEN25_WITH_UNITS


def test_maj_at_k_votes_by_the_reading():
    assert equivalence_classes(["50", "0.5", "7"], QWEN25) == [0, 0, 1]
    assert equivalence_classes(["50", "0.5", "7"]) == [0, 1, 2]


def amc(n=2):
    rows = [{"id": i, "problem": f"problem {i}", "answer": 8.0} for i in range(n)]
    return AMC23(Data(rows=rows, sha256="0", source="rows of a test"))


class Talker:
    """Writes on into the next problem; cut as a generator cuts."""

    batch = 4
    reply = "6\n\nProblem: in other words, what is 4+4?\n\\boxed{8}"

    def __init__(self, chat):
        self.chat, self.tokenizer = chat, None

    def begins_itself(self, prompt):
        return self.chat and prompt.chat

    def render(self, prompt):
        return prompt.user if self.begins_itself(prompt) else prompt.plain

    def generate(self, texts, decoding, seeds, watch=None):
        from types import SimpleNamespace

        ends = [at for at in map(self.reply.find, decoding.stop) if at >= 0]
        text = self.reply[: min(ends, default=len(self.reply))]
        return [SimpleNamespace(text=text, tokens=1, finish="stop") for _ in texts]


@pytest.mark.parametrize(("chat", "right"), [(True, 1.0), (False, 0.0)])
@pytest.mark.parametrize("protocol", [None, "avg32", "qwen25-math"])
def test_stop_strings_of_plain_text_do_not_cut_a_chat(chat, right, protocol):
    task = amc()
    decoding = (AMC23.under(protocol) if protocol else AMC23).decoding
    completions = evaluate.complete(task, task.items, Talker(chat), decoding, 0, lambda *_: None)
    assert {verdict.score for verdict in task.grade_all(completions)} == {right}


def test_parser_failures_are_counted_beside_the_score():
    task = amc(4)
    texts = ["\\boxed{8}", "\\boxed{\\frac}", "\\boxed{)(}", "\\boxed{9}"]
    completions = [Completion(p.id, 0, text, 1, "stop") for p, text in zip(task.items, texts, strict=False)]
    completions += [Completion(task.items[2].id, 0, texts[2], 1, "stop")] if len(completions) < 3 else []
    rows = evaluate.rows(completions, task.grade_all(completions))
    assert [row["score"] for row in rows[:2]] == [1.0, 0.0]
    failed = task.measures(rows)["unreadable"]
    assert sum(failed.values()) == sum("parser failed" in row["reason"] for row in rows) >= 1
    (remark,) = task.remarks(rows)
    assert f"{sum(failed.values())} of 4 answers not readable because the parser failed" in remark
    assert f"{task.title}: {remark}" in evaluate.warnings_of(task, rows, {"truncated": 0, "errors": 0})
    assert task.measures(rows[:1]) == {} and task.remarks(rows[:1]) == []


@pytest.mark.skipif("HARNESS_DATA" not in os.environ, reason="needs the benchmark files below HARNESS_DATA")
def test_qwens_reading_accepts_its_golds():
    from harness.evaluation.benchmarks import open_task

    task = open_task("math500", protocol="qwen25-math")
    verdicts = task.grade_all([Completion(p.id, 0, task.gold_completion(p), 1, "stop") for p in task.items[::5]])
    assert [v.reason for v in verdicts if not v.score] == []
