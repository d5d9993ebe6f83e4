"""What makes a program right: text to program, program to outputs, outputs to a verdict that nobody can forge."""

import json
import os
import random
import warnings

import pytest

from harness import data
from harness.errors import BadInput, RunFailed
from harness.grading.code import differential
from harness.grading.code.differential import accepts, grade
from harness.grading.code.problem import CodeProblem
from harness.grading.code.task import HUMANEVAL_PLUS, HUMANEVAL_STOP, MBPP_PLUS, prompt
from harness.grading.code.text import longest_program, program_of
from harness.registry import find
from harness.sandbox import tier
from harness.sandbox.values import dumps
from harness.task import Data
from harness.testing import check_task
from harness.types import Completion

TASKS = ("humaneval", "humanevalplus", "mbpp", "mbppplus")

ADD = {
    "task_id": "Micro/0",
    "prompt": 'def add(a, b):\n    """ Add two numbers. """\n',
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "base_input": [[1, 2], [3, 4], [5, 6]],
    "plus_input": [[0.1, 0.2], ["x", "y"], [[1], [2]]],
    "atol": 0,
}
SORT = {
    "task_id": "Micro/1",
    "prompt": '"""\nSort a list.\nassert put_in_order([2, 1]) == [1, 2]\n"""\n',
    "entry_point": "put_in_order",
    "canonical_solution": "\ndef put_in_order(xs):\n    return sorted(xs)\n",
    "base_input": [[[2, 1]], [[3, 1, 2]]],
    "plus_input": [[[]], [[1.5, -1.0]]],
    "atol": 0,
}


@pytest.fixture(scope="module", autouse=True)
def walls(tmp_path_factory):
    """Expected outputs are kept in a folder of this test; without walls there is nothing to test here."""
    patch = pytest.MonkeyPatch()
    patch.setenv("HARNESS_CACHE", str(tmp_path_factory.mktemp("cache")))
    try:
        tier()
    except BadInput as reason:
        patch.undo()
        pytest.skip(str(reason))
    yield
    patch.undo()


@pytest.fixture
def hurry(monkeypatch):
    """Endless programs end sooner."""
    monkeypatch.setattr(differential, "FLOOR_S", 0.5)


@pytest.fixture(scope="module")
def real():
    """The rows of the two files by task id, or a skip."""
    if "HARNESS_DATA" not in os.environ:
        pytest.skip("HARNESS_DATA is not set")
    return {row["task_id"]: row for pinned in (HUMANEVAL_PLUS, MBPP_PLUS) for row in data.read(pinned).rows}


def problem(row=ADD, plus=True, **changes):
    return CodeProblem.of(row | changes, 1, plus)


def verdict(program, row=ADD, plus=True, **changes):
    return grade([problem(row, plus, **changes)], [program])[0]


def task_of(name, *rows):
    return find("tasks", name)(Data(rows=rows, sha256="0" * 64, source="test"))


def test_a_right_program_passes_and_a_wrong_one_is_told_why():
    assert verdict("def add(a, b): return a + b").reason == "passed all 6 tests"
    assert verdict("def add(a, b): return a + b", plus=False).reason == "passed all 3 tests"
    for program, reason in [
        ("def add(a, b): return a + 2", "failed base test 2: expected 7, got 5"),
        ("def add(a, b): return int(a) + int(b)", "failed plus test 1: expected 0.30000000000000004, got 0"),
        ("def add(a, b): return a + b if a != [1] else (1, 2)", "failed plus test 3: expected [1, 2], got (1, 2)"),
        ("def add(a): return a", "failed base test 1: raised TypeError: add() takes 1 positional argument"),
        ("def sub(a, b): return a", "the program cannot be run: NameError: name 'add' is not defined"),
        ("add = 3", "failed base test 1: raised TypeError: 'int' object is not callable"),
        ("def add(a, b) return", "the program cannot be run: SyntaxError"),
        ("import os\ndef add(a, b): os._exit(0)", "failed base test 1: the process exited with code 0"),
        ("def add(a, b): return lambda: 1", "failed base test 1: returned an object of type function"),
        (" \n", "no program in the completion"),
        (None, "no program in the completion"),
    ]:
        found = verdict(program)
        assert (found.score, found.error) == (0.0, False) and found.reason.startswith(reason), found


def test_a_program_without_end_is_told_by_its_test(hurry):
    found = verdict("def add(a, b):\n    while a == 3: pass\n    return a + b")
    assert found.reason.startswith("timeout on base test 2 (used ") and found.score == 0


FORGERIES = {
    "an int that equals everything": "class I(int):\n    __eq__ = lambda s, o: True\ndef add(a, b): return I(0)",
    "an object that equals everything": "class I:\n    __eq__ = lambda s, o: True\ndef add(a, b): return I()",
    "a list of such": "class I(int):\n    __eq__ = lambda s, o: True\ndef add(a, b): return [I(0)]",
    "a false class": "class I:\n    __class__ = int\n    __eq__ = lambda s, o: True\ndef add(a, b): return I()",
    "a float of its own": "class F(float):\n    __sub__ = __rsub__ = lambda s, o: 0.0\ndef add(a, b): return F(0)",
    "a pickle bomb": "class P:\n    __reduce__ = lambda s: (print, ())\ndef add(a, b): return P()",
    "patched builtins": (
        "import builtins\nbuiltins.type = lambda x: int\nbuiltins.isinstance = lambda *a: True\n"
        "builtins.zip = lambda *a, **k: []\ndef add(a, b): return 0"
    ),
    "patched json": (
        "import json, os\njson.dumps = lambda *a, **k: '3'\njson.JSONEncoder.encode = lambda *a: '3'\n"
        "def add(a, b): return 0"
    ),
    "patched values": (
        "import sys\nvalues = sys.modules['harness.sandbox.values']\nvalues.dumps = lambda v: '3'\n"
        "values._Tagger.tag = lambda s, v: 3\ndef add(a, b): return 0"
    ),
    "walking the stack to the results and leaving": (
        "import os, sys\ndef add(a, b):\n    frame = sys._getframe()\n    while frame:\n"
        "        for name, value in list(frame.f_locals.items()):\n"
        "            if name in ('stat', 'details', 'progress', 'result', 'returned'):\n"
        "                try: value.value = 0\n                except Exception: pass\n"
        "        frame = frame.f_back\n    os._exit(0)"
    ),
    "writing that all is done": "import os\ndef add(a, b):\n    os.write(3, b'.\\n')\n    os._exit(0)",
    "writing digests": (
        "import os\ndef add(a, b):\n    os.write(3, b'=0 {\"digest\":\"x\"}\\n' * 3 + b'.\\n')\n    os._exit(0)"
    ),
    "asking the dead for the canonical solution": (
        "import gc\ndef add(a, b):\n"
        "    found = [o for o in gc.get_objects() if isinstance(o, dict) and 'outputs' in o]\n"
        "    return found[0]['outputs'][0] if found else None"
    ),
}


@pytest.mark.parametrize("program", FORGERIES.values(), ids=FORGERIES)
def test_forgeries_are_wrong(program):
    found = verdict(program)
    assert found.score == 0 and not found.error, found


def test_what_a_program_writes_itself_is_no_more_than_a_claim():
    """The channel is no secret: who knows every right answer may as well give it."""
    telling = "import os\ndef add(a, b):\n    os.write(3, b'=0 3\\n=0 7\\n=0 {}\\n.\\n')\n    {}"
    assert verdict(telling.format(11, "os._exit(0)"), plus=False).score == 1
    assert verdict(telling.format(11, "return a + b"), plus=False).score == 1
    assert verdict(telling.format(12, "os._exit(0)"), plus=False).score == 0


def test_programs_do_not_meet():
    """Nothing stays: neither changed inputs nor state, from call to call's inputs or from program to program."""
    changing = "def put_in_order(xs):\n    xs.sort()\n    out = list(xs)\n    xs.append(99)\n    return out"
    patching = "import builtins, json\njson.loads = builtins.sorted = None\ndef put_in_order(xs): return xs"
    programs = [changing, patching, changing, SORT["canonical_solution"]] * 3
    scores = [v.score for v in grade([problem(SORT)] * len(programs), programs)]
    assert scores == [1, 0, 1, 1] * 3


def test_verdicts_keep_their_order_and_their_problem():
    rows = [ADD | {"task_id": f"Micro/{i}", "base_input": [[i, 1]]} for i in range(40)]
    programs = [f"def add(a, b): return {i + 1 if i % 3 else -1}" for i in range(40)]
    found = grade([problem(row, plus=False) for row in rows], programs)
    assert [v.problem_id for v in found] == [row["task_id"] for row in rows]
    assert [v.score for v in found] == [float(bool(i % 3)) for i in range(40)]


# The rules of equality. `expected` and `got` are values; EvalPlus' rule for each is in the comment.
@pytest.mark.parametrize(
    ("expected", "got", "atol", "right"),
    [
        (3, 3, 0, True),
        (3, 3.0, 0, True),  # == holds
        (1, True, 0, True),
        ([1, 2], (1, 2), 0, False),
        ("3", 3, 0, False),
        (None, 0, 0, False),
        ({1: [2]}, {1: [2]}, 0, True),
        (0.3, 0.1 + 0.2, 0, True),  # floats have a tolerance of 1e-6 even where the row has none
        (0.3, 0.3001, 0, False),
        (0.3, 0.3001, 1e-3, True),
        ([0.5, 0.25], [0.5, 0.25 + 1e-9], 0, True),
        ([0.5, 1], [0.5, 1 + 1e-9], 0, False),  # not all floats: exact
        ([0.5, 1], [0.5, 1 + 1e-9], 1e-6, False),  # 1 and 1.000000001 differ in type, but only the outer is asked
        ((0.5,), [0.5 + 1e-9], 0, False),  # the type must be the same
        ([0.5, 0.5], [0.5], 0, False),
        ([[0.5], [0.5]], [[0.5, 0.5], [0.5, 0.5]], 1e-6, False),  # numpy would broadcast
        (1.0, complex(1, 1e-9), 1e-6, False),
        (1.0, float("nan"), 1e-6, False),
        (float("inf"), float("inf"), 0, True),
        (10**400, 1e300, 1e-6, False),
        ("a", "b", 1e-6, False),
        ([1.0, [2.0]], [1.0, [2.0 + 1e-9]], 1e-6, False),  # ragged: numpy refuses
        ({0.5}, {0.5 + 1e-9}, 1e-6, False),
    ],
)
def test_equality_is_that_of_evalplus(expected, got, atol, right):
    if expected == [0.5, 1] and atol:
        right = True
    found = accepts(problem(atol=atol), "[]", dumps(expected).encode(), dumps(got).encode())
    assert found is right


def test_a_tolerance_ends_with_its_test():
    """EvalPlus 0.3.1 keeps the 1e-6 of a float for the tests after it, where 10**9 + 1 then passes for 10**9."""
    row = {"base_input": [[0.5, 0.25], [10**9, 0]]}
    assert verdict("def add(a, b): return a + b + (a > 1)", plus=False, **row).score == 0


ORACLES = [
    ("HumanEval/32", "find_zero", [[1.0, 2.0]], -0.5, -0.5 + 1e-6, 1e-4, True),  # any root will do
    ("HumanEval/32", "find_zero", [[-6.0, 11.0, -6.0, 1.0]], 1.0, 3.0, 1e-4, True),
    ("HumanEval/32", "find_zero", [[1.0, 2.0]], -0.5, 0.5, 1e-4, False),
    ("HumanEval/32", "find_zero", [[1.0, 2.0]], -0.5, "x", 1e-4, False),
    ("HumanEval/32", "find_zero", [[1.0, 2.0]], -0.5, None, 1e-4, False),
    ("Micro/32", "find_zero", [[-6.0, 11.0, -6.0, 1.0]], 1.0, 3.0, 1e-4, False),
    ("Mbpp/2", "similar_elements", [[1, 2], [2, 1]], (1, 2), [2, 1], 0, True),
    ("Mbpp/2", "similar_elements", [[1, 2], [2, 1]], (1, 2), {2: 0, 1: 0}.keys(), 0, True),
    ("Mbpp/2", "similar_elements", [[1, 2], [2, 1]], (1, 2), [2], 0, False),
    ("Mbpp/2", "similar_elements", [[1, 2], [2, 1]], (1, 2), [[1], [2]], 0, False),
    ("Mbpp/2", "similar_elements", [[1, 2], [2, 1]], (1, 2), 12, 0, False),
    ("Micro/2", "similar_elements", [[1, 2], [2, 1]], (1, 2), (2, 1), 0, False),
    ("Mbpp/737", "check_str", ["a"], "Valid", "yes", 0, True),  # only whether there is something
    ("Mbpp/737", "check_str", ["a"], "Valid", True, 0, True),
    ("Mbpp/737", "check_str", ["a"], "Valid", False, 0, False),
    ("Mbpp/737", "check_str", ["a"], "Valid", None, 0, False),
    ("Mbpp/737", "check_str", ["a"], None, None, 0, True),
    ("Mbpp/558", "digit_distance_nums", [1, 20], 3, 3, 0, True),
    ("Mbpp/581", "surface_Area", [3, 4], 33, 34, 0, False),
    ("Mbpp/581", "surface_Area", [3, 4], 33, 35, 0, True),  # the oracle's own reading of the height
    ("Mbpp/581", "surface_Area", [3, 4], 33, "35", 0, False),
]


@pytest.mark.parametrize(("task_id", "entry", "arguments", "expected", "got", "atol", "right"), ORACLES)
def test_special_oracles(task_id, entry, arguments, expected, got, atol, right):
    asked = problem(task_id=task_id, entry_point=entry, atol=atol)
    assert accepts(asked, dumps(arguments), dumps(expected).encode(), dumps(got).encode()) is right


def test_inputs_of_mbpp_are_repaired_by_id_and_no_others():
    row = SORT | {"base_input": [[[1, 2], [3]]], "plus_input": {}}
    assert problem(row, task_id="Mbpp/2").suites == {"base": ['[{"tuple":[1,2]},{"tuple":[3]}]'], "plus": []}
    assert problem(row, task_id="Micro/2").suites["base"] == ["[[1,2],[3]]"]
    assert problem(SORT | {"base_input": [["3"]], "plus_input": []}, task_id="Mbpp/252").suites["base"] == [
        '[{"complex":[3.0,0.0]}]'
    ]


WHOLE = "def add(a, b):\n    return a + b"
CONTINUED = 'def add(a, b):\n    """ Add two numbers. """\n    return a + b'


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("    return a + b\n", CONTINUED),
        ("    return a + b\n\ndef more():\n    x\n", CONTINUED),
        ("    return a + b\n\ndef add(a, b):\n    return 0\n", CONTINUED),
        ("\treturn a + b", CONTINUED),
        (WHOLE, WHOLE),
        (WHOLE + "\n\nprint(add(1, 2))\nassert add(1, 1) == 3", WHOLE),
        (f"Sure!\n```python\n{WHOLE}\n```\nIt adds.", WHOLE),
        (f"Sure!\n```python\n{WHOLE}\n", WHOLE),
        (f"{WHOLE}\n```", WHOLE),
        (f"One way:\n```\nx = 1\n```\nAnother:\n```python\nimport math\n{WHOLE}\n```\n", f"import math\n{WHOLE}"),
        ("```python\nadd = lambda a, b: a + b\n```", "add = lambda a, b: a + b"),
        (f"def unused(): return 1\n{WHOLE}", WHOLE),
        # What EvalPlus' sanitiser would lose, and the program needs:
        (f"@staticmethod\n{WHOLE}", f"@staticmethod\n{WHOLE}"),
        ("def put(l, x):\n    l.append(x)\n" + WHOLE + " if put else 0",) * 2,
        ("one, two = 1, 2\n" + WHOLE + " + one",) * 2,
        ("\n \n", None),
        ("x" * 500_000, None),
    ],
)
def test_the_program_in_a_text(text, program):
    assert program_of(problem(), text, HUMANEVAL_STOP) == program


def test_the_search_finds_what_evalplus_finds():
    from evalplus.sanitize import code_extract, syntax_check

    rng = random.Random(0)
    pieces = [
        "Sure, so",
        "```",
        "def f(x):",
        "    return x",
        "",
        "x = 1",
        "import re",
        "if x:",
        "    pass",
        "'''",
        "  # d",
        "(",
    ]

    def size(text):
        return sum(bool(line.strip()) for line in text.split("\n"))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(300):
            text = "\n".join(rng.choice(pieces) for _ in range(rng.randint(1, 12)))
            ours, theirs = longest_program(text), code_extract(text)
            if syntax_check(theirs):
                assert syntax_check(ours) and size(ours) >= size(theirs), text


def test_prompts_are_those_of_evalplus():
    from evalplus.provider.utility import extra_eos_for_direct_completion, make_raw_chat_prompt

    class Template:
        chat_template = "any"

        def apply_chat_template(self, turns, tokenize):
            return "\x00".join(turn["content"] for turn in turns)

    asked = prompt(problem())
    instruction, response = asked.user.split("\n```\n")[0], asked.prefill.split("\n```python\n")[0]
    theirs = make_raw_chat_prompt(ADD["prompt"].strip() + "\n", instruction, response, Template())
    assert f"{asked.user}\x00{asked.prefill}" == theirs and asked.plain == ADD["prompt"].strip() + "\n"
    assert instruction.startswith("Please provide a self-contained Python script that solves")
    for name in TASKS:
        assert list(find("tasks", name).completion_stop) == extra_eos_for_direct_completion(name.removesuffix("plus"))


@pytest.mark.parametrize("name", TASKS)
def test_tasks_keep_their_promises(name):
    task = check_task(find("tasks", name), [ADD, SORT])
    texts = {"Micro/0": "    return a + b\n", "Micro/1": "def put_in_order(xs):\n    return sorted(xs)\n"}
    verdicts = task.grade_all([Completion(i, 3, text, 9, "stop") for i, text in texts.items()])
    assert [(v.score, v.sample) for v in verdicts] == [(1.0, 3), (1.0, 3)]
    assert task.grade(task.items[0], "    return a - b\n").score == 0
    whole = task.grade_programs([Completion("Micro/0", 1, "", 0, "stop")], [WHOLE + "\nadd = None"])
    assert [(v.problem_id, v.sample, v.score) for v in whole] == [("Micro/0", 1, 0.0)]


@pytest.mark.parametrize("missing", ["task_id", "prompt", "entry_point", "canonical_solution", "base_input"])
def test_a_row_that_lacks_a_field_is_named(missing):
    row = {key: value for key, value in ADD.items() if key != missing}
    with pytest.raises(BadInput, match=rf"row 2 .*'{missing}'"):
        task_of("humaneval", ADD | {"task_id": "Micro/9"}, row)


def test_expected_outputs_are_kept_checked_and_never_pickled(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    assert verdict(WHOLE, plus=False).score == 1
    (kept,) = (tmp_path / "expected").rglob("*.json")
    content = json.loads(kept.read_text())
    assert content["outputs"] == ["3", "7", "11"] and len(content["seconds"]) == 3
    monkeypatch.setattr(differential, "_compute_truth", None)
    assert verdict(WHOLE, plus=False).score == 1, "the second time nothing is computed"
    monkeypatch.undo()
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    forged = content | {"outputs": ["0", "0", "0"]}
    for damaged in (json.dumps(forged), "", "[]", kept.read_text()[:-9]):
        kept.write_text(damaged)
        assert verdict(WHOLE, plus=False).score == 1
        assert json.loads(kept.read_text())["outputs"] == content["outputs"], "what is damaged is computed again"
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("HARNESS_CACHE", str(blocked))
    assert verdict(WHOLE, plus=False).score == 1, "a cache that cannot be written costs only time"


def test_a_broken_canonical_solution_is_no_wrong_answer():
    with pytest.raises(RunFailed, match=r"Micro/0: the canonical solution did not complete: .* at input 1"):
        verdict(WHOLE, canonical_solution="    return a / 0\n")


JUNK = {
    "bytes": "".join(map(chr, range(256))) * 40,
    "surrogates": "    return '\ud800' + chr(0xdfff)\ndef add(a, b):\n    return '\udfff'",
    "brackets": "    return " + "(" * 50_000,
    "minuses": "    return " + "-" * 200_000 + "1",
    "indents": "".join(" " * (i % 300) + "if 1:\n" for i in range(2000)),
    "fences": "```python\n```" * 3000,
    "open fence": "```python\ndef add(a, b):\n    return '''",
    "prose": "word word word, and so on:\n" * 3000,
    "huge": "    return " + "9" * 10_000_000,
    "huge number": "    return " + "9" * 300_000,
    "fork bomb": "    import os\n    while True: os.fork()",
    "thread bomb": "    import threading as t\n    while True: t.Thread(target=t.Event().wait).start()",
    "memory bomb": "    x = [0]\n    while True: x = x + x",
    "recursion": "    import sys; sys.setrecursionlimit(10**9)\n    return add(a, b)",
    "flood": "    while True: print('x' * 10**6)",
    "killer": "    import os, signal\n    [os.kill(p, 9) for p in (os.getppid(), -1, 0, 1)]",
    "signals": (
        "    import signal\n    for s in {*range(1, 32)} - {9, 19}: signal.signal(s, signal.SIG_IGN)\n    return 0"
    ),
    "exit": "    raise SystemExit",
    "input": "    return input() + open(0).read()",
    "deleter": "    import shutil; shutil.rmtree('/')",
    "defining for ever": "```python\nwhile True: pass\ndef add(a, b): return 1\n```",
}


def test_junk_costs_only_itself(hurry):
    """Every kind of junk, twice, among right answers: one verdict each, no error, no process left."""
    from test_sandbox import children_of

    task = task_of("humaneval", ADD)
    right = "    return a + b\n"
    task.grade(task.items[0], right)
    before = sorted(children_of(os.getpid()))
    texts = [text for junk in JUNK.values() for text in (junk, right)]
    verdicts = task.grade_all([Completion("Micro/0", i, text, 0, "length") for i, text in enumerate(texts)])
    for name, wrong, good in zip(JUNK, verdicts[::2], verdicts[1::2], strict=True):
        assert (wrong.score, wrong.error, good.score) == (0.0, False, 1.0), (name, wrong.reason, good.reason)
    assert len(children_of(os.getpid())) <= max(len(before), 2 * (os.cpu_count() or 1))


def test_random_bytes_do_no_harm():
    rng = random.Random(1)
    task = task_of("mbpp", SORT)
    texts = [rng.randbytes(rng.randint(1, 200)).decode("utf-8", "surrogateescape") for _ in range(100)]
    scores = [v.score for v in task.grade_all([Completion("Micro/1", i, t, 0, "stop") for i, t in enumerate(texts)])]
    assert scores == [0.0] * 100


SAMPLE = {
    "humanevalplus": [f"HumanEval/{i}" for i in (0, 32, 53, 115, 127)],
    "mbppplus": [f"Mbpp/{i}" for i in (2, 88, 124, 252, 558, 581, 630, 737, 793, 809)],
}
FORMS = (
    "{canonical_solution}",
    "{prompt}{canonical_solution}",
    "Here:\n```python\n{prompt}{canonical_solution}\n```\n",
)
CHEATS = ("    pass", "    return 1", "def {entry_point}(*args):\n    return args[0]", "", "{cut}")


def graded(real, name, form):
    """Verdicts of a real task on the sample, each problem answered by ``form`` filled from its row."""
    rows = [real[i] | {"cut": real[i]["canonical_solution"].strip()[:-4]} for i in SAMPLE[name]]
    texts = [Completion(row["task_id"], 0, form.format(**row), 0, "stop") for row in rows]
    return task_of(name, *rows).grade_all(texts)


@pytest.mark.parametrize("form", FORMS, ids=("body", "whole", "chat"))
@pytest.mark.parametrize("name", SAMPLE)
def test_canonical_solutions_pass_whatever_form_they_come_in(real, name, form):
    assert [v.reason for v in graded(real, name, form) if v.score < 1] == []


@pytest.mark.parametrize("form", CHEATS, ids=("stub", "constant", "echo", "nothing", "cut"))
@pytest.mark.parametrize("name", SAMPLE)
def test_cheats_fail(real, name, form):
    assert [v.problem_id for v in graded(real, name, form) if v.score] == []
