"""From texts that lost something on their way to programs; one rule each, with as many texts that stay as they are."""

import pytest

from harness.errors import BadInput
from harness.grading.code.problem import CodeProblem
from harness.grading.code.task import HUMANEVAL_STOP
from harness.grading.code.text import as_evalplus_reads, indented, read, repaired
from harness.registry import find
from harness.sandbox import tier
from harness.task import Data
from harness.types import Completion

ROW = {
    "task_id": "Micro/0",
    "prompt": 'def add(a, b):\n    """ Add two numbers. """\n',
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "base_input": [[1, 2], [3, 4], [5, 6]],
    "plus_input": [],
    "atol": 0,
}
BODY = "    return a + b"
PROGRAM = "def add(a, b):\n    return a + b"
MARKERS = ["<|endoftext|>", "<|im_end|>", "<|eot_id|>", "</s>", "<|EOT|>", "<end_of_turn>", "<|end|>", "<eos>"]

RIGHT = {  # our reading passes these
    "lost all its spaces": "return a + b",
    "lost one space": "   return a + b",
    "lost the first line's alone": "c = a + b\n    return c",
    "lost one of the first line's": "   c = a + b\n    return c",
    "lost every line's": "c = a + b\nreturn c",
    "nested": "if a:\n    return a + b\nreturn b",
    "too deep": "        return a + b",
    "a blank line before": "\nreturn a + b",
    "text behind": "return a + b\n\nThis adds the numbers.",
    "a fenced body": "```python\n    return a + b\n```",
    "a fenced body that lost its spaces": "Sure:\n```python\nreturn a + b\n```\n",
    "thoughts before a body": f"<think>\ndef add(a, b):\n    return 0\n    # longer\n</think>\n{BODY}",
    "thoughts before a fence": "<think>```python\ndef add(a, b):\n    x = 1\n    return 0\n```</think>\n"
    f"```python\n{PROGRAM}\n```",
    "thoughts in other marks": f"<thinking>def add(a, b):\n    x = 1\n    return 0\n</thinking>\n{PROGRAM}",
    "the mark of the next turn": f"{BODY}<|user|>\nthanks",
    "thoughts that the template opened": f"hm\ndef add(a, b): return 0\n</think>\n{PROGRAM}",
    "non-breaking spaces": "\u00a0\u00a0\u00a0\u00a0return\u00a0a + b",
    "ideographic spaces": "    return a\u3000+\u3000b",
    "a zero-width space": f"\u200b{BODY}\u200b",
    "a byte order mark": f"\ufeff{PROGRAM}",
    "a tab": "\treturn a + b",
    **{f"{marker} behind a body": f"{BODY}{marker}" for marker in MARKERS},
    **{f"{marker} behind a program": f"{PROGRAM}{marker}\nHuman: no" for marker in MARKERS},
}
WRONG = {  # and none of these
    "another body": "return a - b",
    "prose": "return the sum of a and b",
    "thoughts that never close": f"<think>\n{PROGRAM}",
    "other thoughts that never close": f"<thinking>\n{PROGRAM}",
    "an answer in the thoughts alone": f"<think>\n{PROGRAM}\n</think>\nI do not know.",
    "a program behind the marker": f"<|im_end|>\n{PROGRAM}",
    "a top-level line": "print(add(1, 2))",
    "an assignment without return": "c = a + b",
    "a comment": "# return a + b",
    "a fenced call": "```python\nprint(add(1, 2))\n```",
    "the wrong of two": "c = a\n    return c",
    "nothing": "\u200b\u00a0",
}


ONE_LINERS = [
    "add = lambda a, b: a + b",
    "```\nadd = lambda a, b: a + b\n```",
    "```\n\nadd = lambda a, b: a + b\n```",
    "```\nadd = lambda a, b: a + b\n\n```",
]


@pytest.fixture(scope="module", autouse=True)
def walls(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("HARNESS_CACHE", str(tmp_path_factory.mktemp("cache")))
    try:
        tier()
    except BadInput as reason:
        patch.undo()
        pytest.skip(str(reason))
    yield
    patch.undo()


def task(protocol=None, row=ROW):
    found = find("tasks", "humaneval")
    return (found.under(protocol) if protocol else found)(Data(rows=[row], sha256="0" * 64, source="test"))


def graded(task, texts):
    completions = [Completion("Micro/0", i, text, 0, "stop") for i, text in enumerate(texts)]
    return task.grade_all(completions)


def test_our_reading_passes_what_lost_something_and_nothing_else():
    verdicts = graded(task(), [*RIGHT.values(), *WRONG.values()])
    for (name, text), verdict in zip((RIGHT | WRONG).items(), verdicts, strict=True):
        assert verdict.score == float(name in RIGHT), (name, text, verdict.reason, verdict.extracted)


def test_evalplus_reading_is_its_sanitiser_by_the_letter():
    from evalplus.sanitize import sanitize

    problem = CodeProblem.of(ROW, 1, False)
    for text in [*RIGHT.values(), *WRONG.values(), PROGRAM, BODY, f"@cache\n{PROGRAM}", *ONE_LINERS]:
        if not text.strip():
            continue
        plain = text.replace("\t", "    ")
        known = {sanitize(source, "add").strip() for source in (plain, problem.stub + _cut(plain))}
        assert as_evalplus_reads(problem, text, HUMANEVAL_STOP).strip() in known, text
    for protocol in ("evalplus-0.2.0", "evalplus-0.2.0-completion", "distillm2"):
        verdicts = graded(task(protocol), [BODY, PROGRAM, "return a + b", f"{BODY}<|im_end|>"])
        assert [v.score for v in verdicts] == [1.0, 1.0, 0.0, 0.0]


def _cut(text):
    return text[: min((at for at in map(text.find, HUMANEVAL_STOP) if at >= 0), default=len(text))]


def test_both_numbers_stand_beside_each_other_where_a_verdict_differs():
    ours = task()
    texts = [BODY, "return a + b", "return a - b", f"{BODY}</s>"]
    rows = [
        {"problem_id": "Micro/0", "sample": i, "text": text, "score": v.score}
        for i, (text, v) in enumerate(zip(texts, graded(ours, texts), strict=True))
    ]
    again, inner = [], ours.grade_programs
    ours.grade_programs = lambda completions, programs: again.extend(programs) or inner(completions, programs)
    assert ours.read_figures(rows) == {
        "texts_repaired": 3,
        "repairs": {"end marker": 1, "first indentation": 2},
        "evalplus_reading": {"score": 0.25, "verdicts_that_differ": 2},
    }
    assert len(again) == 3  # only what EvalPlus reads otherwise is run a second time
    assert ours.read_figures(rows[:1]) == {} and len(again) == 3
    assert task("evalplus-0.2.0").read_figures(rows) == {}


@pytest.mark.parametrize(
    "text",
    [
        BODY,
        '    return "</s>"',
        "    return '<|im_end|>\u00a0'",
        '    x = """\n</s>\n\u200b"""\n    return x',
        "    # don't\n    return a <b> c",
        "no <|unknown|> marker",
    ],
)
def test_what_is_sound_or_inside_a_string_stays(text):
    assert repaired(text) == (text, [])


@pytest.mark.parametrize(
    "body",
    [
        BODY,
        "    c = a\n    return c\n\nprint(add(1, 2))",
        "def helper():\n    return 1",
        "import math",
        "x = 1",
        "no program at all",
        "",
        "\n\n",
    ],
)
def test_a_body_that_fits_or_is_none_is_not_moved(body):
    assert indented(ROW["prompt"], body) == body


def test_a_stub_that_ends_in_no_function_moves_nothing():
    assert indented('"""Sort."""\n', "  return x") == "  return x"
    assert indented("def f(x):\n", "return x") == "    return x"
    assert indented("class A:\n    def f(self):\n", "return 1") == "        return 1"


def test_a_program_with_a_marker_in_its_string_is_run_whole():
    row = ROW | {"canonical_solution": '    return "</s>"\n', "base_input": [[1, 2]]}
    assert (
        graded(
            task(row=row),
            ['    return "</s>"', f"```python\n{PROGRAM.replace('a + b', chr(34) + '</s>' + chr(34))}\n```"],
        )[0].score
        == 1.0
    )


def test_the_names_of_what_was_mended():
    problem = CodeProblem.of(ROW, 1, False)
    found = read(problem, "<think>x</think>return\u00a0a + b<|im_end|>", HUMANEVAL_STOP)
    assert found.repairs == ("thoughts", "end marker", "odd spaces", "first indentation")
    assert found.program.endswith("    return a + b")


def _in_a_list(program, by="   "):
    return "".join(f"{by}{line}\n" for line in ["```python", *program.splitlines(), "```"])


@pytest.mark.parametrize(
    "text",
    [
        _in_a_list(PROGRAM),
        f"1. Add them:\n\n{_in_a_list(PROGRAM)}\n2. Done.",
        f"- {PROGRAM.splitlines()[0]}:\n{_in_a_list(PROGRAM, '  ')}",
        _in_a_list(PROGRAM).replace("```", "~~~"),
        f"1. Add:\n{_in_a_list(PROGRAM).rsplit('   ```', 1)[0]}",  # never closed
    ],
)
def test_a_code_block_in_a_list_is_read_without_its_indentation(text):
    moved, found = repaired(text)
    assert "indented fence" in found and f"\n{PROGRAM.splitlines()[0]}\n" in moved
    assert graded(task(), [text])[0].score == 1.0


@pytest.mark.parametrize(
    "text",
    [
        f"```python\n{PROGRAM}\n```",
        _in_a_list("x = = 1"),  # a program neither way
        "   no fence\n   at all",
        '    """Adds.\n\n    ```\n    add 1 to 2\n    ```\n    """\n    return a + b',
    ],
)
def test_other_blocks_are_left_as_they_are(text):
    assert repaired(text) == (text, [])


def test_a_wrong_program_in_a_list_stays_wrong():
    assert graded(task(), [f"1. So:\n{_in_a_list(PROGRAM.replace('+', '-'))}"])[0].score == 0.0
