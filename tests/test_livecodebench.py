"""LiveCodeBench: rows with packed tests, windows, prompts, programs in the sandbox, upstream's comparison."""

import base64
import json
import os
import pickle
import zlib

import pytest
from harness.tasks.livecodebench import LiveCodeBench

from harness import data
from harness.errors import BadInput
from harness.evaluation import self_check
from harness.grading.code import contest
from harness.task import Data
from harness.types import Completion

ADD = {
    "question_id": "abc1_a", "question_content": "Add two numbers.", "contest_date": "2025-03-01T00:00:00",
    "starter_code": "", "public_test_cases": json.dumps([{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]),
    "private_test_cases": json.dumps([{"input": "5 6", "output": "11.0"}]), "metadata": "{}",
}  # fmt: skip
JOIN = {
    "question_id": "3701", "question_content": "Join.", "contest_date": "2025-01-18T00:00:00",
    "starter_code": "class Solution:\n    def join(self, a, b):\n",
    "public_test_cases": json.dumps([{"input": "1\n2", "output": "3"}, {"input": "[1]\n[2]", "output": "[1, 2]"}]),
    "private_test_cases": "[]", "metadata": json.dumps({"func_name": "join"}),
}  # fmt: skip


def packed(value):
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def task(*rows, under=None):
    cls = LiveCodeBench.under(under) if under else LiveCodeBench
    return cls(Data(rows or (ADD, JOIN), "0" * 64, "made for the test"))


def test_programs_pass_or_fail_as_upstream_says_whichever_way_they_read(tmp_path):
    right = [
        "a, b = map(int, input().split())\nprint(a + b)",
        "import sys\nif __name__ == '__main__':\n    print(sum(map(int, sys.stdin.buffer.read().split())))\n    exit()",
        "print(sum(map(int, open(0).read().split())))",
        "print(' ', sum(map(int, stdin.readline().split())) * 1.0)",  # a name of sys, as upstream imports them
    ]
    wrong = ["print(3)", "print(1 +", "import os\nos._exit(0)", "raise SystemExit"]
    programs = [*right, *wrong]
    made = [Completion("abc1_a", k, f"Thus:\n```python\n{p}\n```", 1, "stop") for k, p in enumerate(programs)]
    calls = [
        ("class Solution:\n    def join(self, a: List[int], b):\n        return a + b", 1.0),
        ("class Solution:\n    def join(self, a, b):\n        return (1, 2) if a != 1 else 3.0", 1.0),
        ("class Solution:\n    def join(self, a, b):\n        return str(a + b)", 0.0),
        ("class Solution:\n    pass", 0.0),
    ]
    made += [Completion("3701", k, f"```python\n{p}\n```", 1, "stop") for k, (p, _) in enumerate(calls)]
    verdicts = task().grade_all([*made, Completion("3701", 9, "no fence", 1, "stop")])
    wanted = [1.0] * len(right) + [0.0] * len(wrong) + [score for _, score in calls] + [0.0]
    assert [v.score for v in verdicts] == wanted
    assert verdicts[4].reason == "failed test 2 of 2: expected '11.0', got '3\\n'"
    assert verdicts[-1].reason == "no program between two code fences" and verdicts[-1].sample == 9


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [("1 2 \n3\n", "1 2\n3", True), ("1.50", "1.5", True), ("1e1 2", "10 2.0", True), ("1 2", "1\n2", False),
     ("Yes", "yes", False), ("0.30000000000000004", "0.3", False), ("", "", True), ("nan", "NaN", False)],
)  # fmt: skip
def test_lines_are_compared_as_text_or_as_exact_decimals(printed, expected, same):
    assert contest.same_lines(printed, expected) is same


def test_the_program_is_what_stands_between_the_last_two_fences():
    assert contest.program_of("```python\nold\n```\nbetter:\n```\nnew\n```\nbye") == "new"
    assert contest.program_of("```python\ncut off") is None


def test_prompts_are_upstreams_for_both_kinds_of_problem():
    first, second = (problem.prompt for problem in task().items)
    assert first.user == (
        "### Question:\nAdd two numbers.\n\n### Format: Read the inputs from stdin solve the problem and write the "
        "answer to stdout (do not directly test on the sample inputs). Enclose your code within delimiters as "
        "follows.\n"
        "```python\n# YOUR CODE HERE\n```\n\n### Answer: (use the provided format with backticks)\n\n"
    )
    assert "\n```python\nclass Solution:\n    def join(self, a, b):\n\n```\n\n### Answer" in second.user
    assert first.system.endswith("You will NOT return anything except for the program.")


def test_a_window_keeps_the_contests_of_its_days():
    assert [p.id for p in task(under="2502-2505").items] == ["abc1_a"]
    assert LiveCodeBench.under("v5").dataset.local == "livecodebench/test5.jsonl"


def test_hidden_tests_are_read_from_their_pickle_and_nothing_else_is():
    tests = json.loads(ADD["private_test_cases"])
    row = ADD | {"private_test_cases": packed(json.dumps(tests))}
    assert contest.read_row(row, "here") == contest.read_row(ADD, "here")

    class Evil:
        def __reduce__(self):
            return os.system, ("true",)

    for value, said in ((Evil(), "its pickle asks for"), ([1], "its pickle holds no text")):
        with pytest.raises(BadInput, match=rf"row 1 \(abc1_a\): its tests cannot be read \(private_test_cases: {said}"):
            contest.read_row(ADD | {"private_test_cases": packed(value)}, "row 1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question_content": None}, "row 2 has no text under 'question_content'"),
        ({"public_test_cases": "{"}, r"row 2 \(3701\): its tests cannot be read"),
        ({"public_test_cases": "[]"}, r"row 2 \(3701\) has no tests"),
        ({"public_test_cases": '[{"input": "x", "output": "1"}]'}, r"row 2 \(3701\): its tests cannot be read"),
    ],
)
def test_a_bad_row_is_named(change, message):
    with pytest.raises(BadInput, match=message):
        task(ADD, JOIN | change)


def test_published_programs_are_the_golds_of_the_self_test(tmp_path, monkeypatch):
    folder = tmp_path / "livecodebench/submissions"
    folder.mkdir(parents=True)
    (tmp_path / "livecodebench/test6.jsonl").write_text(json.dumps(ADD) + "\n" + json.dumps(JOIN))
    written = {"question_id": "abc1_a", "code_list": ["bad", "print(sum(map(int, input().split())))"]}
    (folder / "o1.json").write_text(json.dumps([written | {"graded_list": [False, True]}]))
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    (checked,) = self_check.check(["livecodebench"], lambda *_: None)
    assert (checked.status, str(checked.golds), str(checked.traps)) == ("green", "1/1", "2/2")


def test_a_file_of_the_hub_is_fetched_from_there_and_held_to_its_checksum(tmp_path, monkeypatch):
    served = tmp_path / "datasets/livecodebench/code_generation_lite/resolve" / LiveCodeBench.dataset.commit
    served.mkdir(parents=True)
    (served / "test6.jsonl").write_text(json.dumps(ADD))
    monkeypatch.setenv("HF_ENDPOINT", tmp_path.as_uri())
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(BadInput, match="not the pinned bb4c364f71921c44"):
        data.read(LiveCodeBench.dataset)
