"""What counts as a right answer in the maths benchmarks, and what a hostile answer can cost."""

import os
import re
import subprocess
import sys
import threading
import time

import pytest
from harness.tasks.aime24 import AIME24
from harness.tasks.amc23 import AMC23
from harness.tasks.gsm8k import GSM8K
from harness.tasks.math500 import MATH500
from harness.tasks.olympiadbench import REPAIRS, OlympiadBench

from harness import data
from harness.errors import BadInput, RunFailed
from harness.grading.maths import pool as maths_pool
from harness.grading.maths.extract import after_hashes, last_box
from harness.grading.maths.task import Gold, equivalence_classes, grade, prompt
from harness.task import Data
from harness.types import Completion

TASKS = [AMC23, AIME24, OlympiadBench, MATH500, GSM8K]
BOMB = "9^{9^{9^{9}}}"

both, interval = {"several": True}, {"interval": True}
minutes, area, percent = {"unit": "minute"}, {"unit": "$cm^2$"}, {"unit": "%", "tolerance": 0.1}

# gold, rules, answers that are right, answers that are wrong
CASES = [
    ("27", {}, ["27", "27.0", "027", "$27$", "27.", "x=27", "27\\text{ minutes}", "27 degrees", "27^\\circ"], []),
    ("27", {}, ["\\$27", "27\\%", "\\{27\\}", "(27)", "28-1", "\\frac{54}{2}", "\\textbf{(E)}\\ 27"], []),
    ("27", {}, ["twenty-seven"], ["0.27", "2700", "2 7", "20 7", "3 or 27", "27, 28", "26.9999", "twenty-six", "-27"]),
    ("\\frac{1}{2}", {}, ["0.5", "\\dfrac12", "1/2", "50\\%", "\\frac{2}{4}"], ["50", "0.5\\%", "0.05", "2"]),
    ("0.5", {}, ["\\frac12", ".5"], ["0.5\\%", "50", "5"]),
    ("\\frac13", {}, ["0.333333"], ["0.333", "0.33", "3"]),
    (".0000672", {}, ["6.72\\times 10^{-5}", "6.72e-5"], [".0000671", "0"]),
    ("0", {}, ["0.0", "1-1"], ["10^{-20}", "0.0001"]),
    ("1000", {}, ["1,000", "1{,}000", "1\\,000", "1 000", "10^3"], ["1,00", "100", "1,000,000"]),
    ("58,500", {}, ["58500", "58{,}500"], ["58.5", "58"]),
    ("10,\\!080", {}, ["10080", "10,080"], ["10", "1080"]),
    ("1\\frac{4}{5}", {}, ["1.8", "\\frac95", "1 4/5"], ["4/5", "1", "14/5"]),
    ("10^{100}", {}, ["1" + "0" * 100], ["1" + "0" * 99 + "1", "1" + "0" * 101]),
    ("2^{-100}", {}, ["\\frac{1}{2^{100}}"], ["2^{-101}", "0"]),
    ("\\sqrt{3}", {}, ["1.7320508", "\\frac{3}{\\sqrt3}"], ["1.73", "-\\sqrt3"]),
    ("3", {}, ["3\\approx 3.0", "x=1+2=3", "\\boxed{3}"], ["3!", "x=3+1", BOMB.replace("9", "2")]),
    ("8 \\%", {}, ["8", "8\\%", "0.08"], ["0.8", "800"]),
    ("90^\\circ", {}, ["90", "90^{\\circ}", "90\\text{ degrees}"], ["\\frac{\\pi}{2}", "9"]),
    ("52_8", {}, ["52_{8}", "52", "42_{10}"], ["52_9", "42"]),
    ("6m", {}, ["6m", "m \\cdot 6"], ["6", "6n"]),
    ("2n", {}, ["n+n"], ["2", "2m", "2n+1"]),
    ("\\binom{2n}{n}", {}, ["\\frac{(2n)!}{n!n!}"], ["\\binom{2n}{n+1}"]),
    ("x=5", {}, ["5", "x = 5"], ["y=5", "x=6"]),
    ("y = 2x + 3", {}, ["2x+3", "y=3+2x", "2x-y+3=0"], ["y=2x-3", "3"]),
    ("5x - 7y + 4 = 0", {}, ["10x-14y+8=0", "5x-7y=-4"], ["5x-7y-4=0", "0"]),
    ("f(x)=2x", {}, ["2x", "f(t)=2t"], ["f(x)=3x", "f(t)=2x", "g(x)=2x"]),
    ("f(n)=n, g(n)=1", {}, ["g(n)=1,f(n)=n"], ["f(n)=1,g(n)=n"]),
    ("m_{\\max }=n^{2}-n-1", {}, ["n^2-n-1", "m=n^2-1-n"], ["n^2-n+1"]),
    ("6 - 5i", {}, ["-5i+6"], ["6+5i", "6"]),
    ("\\text{Evelyn}", {}, ["Evelyn", "\\text{evelyn}"], ["\\text{Carla}", "E"]),
    ("\\text{3rd}", {}, ["3rd", "\\text{3rd}"], ["3", "\\text{3 cm}"]),
    ("\\text{10 cm}", {}, ["10", "10\\text{ cm}", "10 cm", "0.1\\text{ m}"], ["11", "10\\text{ m}"]),
    ("\\text{5 apples}", {}, ["5 apples", "5"], ["6 apples", "\\text{apples}"]),
    ("\\text{(C)}", {}, ["C", "(C)"], ["D", "3"]),
    ("1,2", both, ["2,1", "1 and 2", "\\{1,2\\}", "x=1 \\text{ or } x=2"], ["1", "1,2,3", "(1,2)", "1,3"]),
    ("2500,7500", both, ["2,500 \\text{ and } 7,500"], ["2500", "25007500"]),
    ("100,200", both, ["100,200"], ["100200"]),
    ("1,-1", both, ["\\pm 1"], ["1"]),
    ("1 \\pm \\sqrt{19}", {}, ["1+\\sqrt{19}, 1-\\sqrt{19}"], ["1+\\sqrt{19}"]),
    ("(2,1)", {}, ["\\left(2, 1\\right)", "(x,y)=(2,1)", "2,1", "x=2, y=1"], ["(1,2)", "1,2", "[2,1]"]),
    ("(2,1)", {}, [], ["\\{2,1\\}", "(2,1,1)", "2", "(2,1],"]),
    ("(3,0),(-3,1)", both, ["(-3,1) \\text{ and } (3,0)", "\\{(3,0),(-3,1)\\}"], ["(0,3),(1,-3)", "(3,0)"]),
    ("[1,2]", {}, ["1 \\le x \\le 2"], ["(1,2)", "[1,2)", "1 < x < 2", "1,2"]),
    ("(1,2)", interval, ["1<x<2", "x \\in (1,2)"], ["[1,2]", "1,2", "\\{1,2\\}"]),
    ("(2,\\infty)", {}, ["x>2"], ["x\\ge 2", "[2,\\infty)", "(2,3)"]),
    ("(-\\infty, 0) \\cup\\{1\\}", {}, ["\\{1\\}\\cup(-\\infty,0)"], ["(-\\infty,0)", "(-\\infty,1]"]),
    ("(-\\infty,2)\\cup(3,\\infty)", {}, ["x<2 \\text{ or } x>3", "\\mathbb{R}\\setminus[2,3]"], ["(2,3)"]),
    ("(0,9)\\cup(9,36)", {}, ["(9,36)\\cup(0,9)"], ["(0,36)"]),
    ("k \\geqslant 2", {}, ["k>=2", "[2,\\infty)"], ["k>2", "2"]),
    (
        "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}",
        {},
        ["\\begin{bmatrix} 1 \\\\ \\frac42 \\end{bmatrix}"],
        ["\\begin{pmatrix} 2 \\\\ 1 \\end{pmatrix}"],
    ),
    ("45", minutes, ["45", "45\\text{ minutes}", "45 min", "0.75 \\text{ hours}"], ["45\\text{ seconds}", "0.75"]),
    ("166", area, ["166 \\text{ cm}^2", "166\\mathrm{~cm}^2", "166 \\text{ square centimeters}"], []),
    ("166", area, [], ["166 \\text{ cm}", "166 \\text{ m}^2"]),
    (
        "45",
        minutes,
        ["\\text{45 minutes}", "\\text{0.75 hours}", "\\mathrm{45~min}"],
        ["\\text{45 seconds}", "\\text{0.75}"],
    ),
    ("166", area, ["\\text{166 cm}^2", "\\text{166 square centimeters}"], ["\\text{166 m}^2", "\\text{16 cm}^2"]),
    (
        "10",
        {},
        ["\\text{10 cm}", "\\text{10}"],
        ["\\text{11 cm}", "\\text{10 or 11}", "\\text{10 to x}", "\\text{not 10}"],
    ),
    ("4.2", percent, ["4.2", "4.1", "4.3\\%", "0.042"], ["4.31", "42", "4.05"]),
    ("\\$18.90", {}, ["18.9", "\\$18.90", "18.90 \\text{ dollars}"], ["18", "1890"]),
]


@pytest.fixture(scope="module", autouse=True)
def no_worker_left():
    yield
    maths_pool.shared_pool().close()


def boxed(*answers):
    return [f"Hence 999 and so \\boxed{{{answer}}}, as said." for answer in answers]


def test_right_and_wrong_answers_in_every_notation():
    asked = [
        (Gold(gold, **rules), answer, expected)
        for gold, rules, right, wrong in CASES
        for expected, answers in ((True, right), (False, wrong))
        for answer in answers
    ]
    judged = grade([gold for gold, *_ in asked], boxed(*(answer for _, answer, _ in asked)))
    differing = [
        f"{answer} for {gold.text} should be {expected}"
        for (gold, answer, expected), verdict in zip(asked, judged, strict=True)
        if verdict.correct != expected or verdict.error
    ]
    assert differing == []


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so \\boxed{1} or rather \\boxed{2}.", "2"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{ \\{1, 2\\} }", "\\{1, 2\\}"),
        ("\\boxed {7}", "7"),
        ("\\fbox{7}", "7"),
        ("\\boxed{\\boxed{3}}", "3"),
        ("\\boxed{5} so again \\boxed{5", "5"),
        ("\\boxed{5", None),
        ("\\boxed{\\frac{1}{2}", None),
        ("boxed{5} 5 $5$ **5** #### 5", None),
        ("", None),
    ],
)
def test_the_last_closed_box_is_the_answer(text, answer):
    assert last_box(text) == answer


def test_a_number_without_a_box_is_no_answer():
    (verdict,) = grade([Gold("27")], ["The answer is 27. Answer: $27$ #### 27"])
    assert (verdict.correct, verdict.extracted, verdict.reason) == (False, None, "no boxed answer")
    (empty,) = grade([Gold("27")], ["\\boxed{27} \\boxed{}"])
    assert (empty.correct, empty.extracted, empty.reason) == (False, "", "the answer is empty")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("9\n#### 9", "9"),
        ("#### 1,234 \nand more", "1,234"),
        ("#### 8\n#### 9", "9"),
        ("\\boxed{8}\n#### 9", "9"),
        ("#### 8\n\\boxed{9}", "9"),
        ("#### \\boxed{9}", "9"),
        ("\\boxed{9}", "9"),
        ("the answer is 9", None),
    ],
)
def test_gsm8k_also_takes_what_follows_the_hashes(text, answer):
    assert after_hashes(text) == answer


def test_reading_boxes_is_linear_in_the_text():
    for text in ("\\boxed{" * 100_000, "\\boxed{" * 100_000 + "}", "\\" * 700_000, "\\boxed{\\}" * 100_000):
        began = time.process_time()
        last_box(text)
        assert time.process_time() - began < 5, text[:20]


@pytest.mark.slow
def test_a_bomb_costs_its_item_and_nothing_else(monkeypatch):
    monkeypatch.setattr(maths_pool, "CPU_LIMIT_S", 1.0)
    monkeypatch.setattr("harness.grading.maths.task.shared_pool", lambda: pool)
    pool = maths_pool.Pool(size=1)
    nested = "(" * 900 + "1" + ")" * 900
    try:
        verdicts = grade(
            [Gold("3"), Gold("\\sqrt{2}"), Gold("3"), Gold("3"), Gold("\\sqrt{8}")],
            boxed(BOMB, "\\sqrt 2", nested, "9" * 3000, "2\\sqrt2"),
        )
    finally:
        pool.close()
    assert [v.correct for v in verdicts] == [False, True, False, False, True]
    assert verdicts[0].error and "CPU time" in verdicts[0].reason
    assert "longer than" in verdicts[3].reason


def test_a_worker_killed_from_outside_is_replaced():
    pool = maths_pool.Pool(size=1)
    pair = (
        {"text": "\\sqrt2", "several": False, "interval": False, "unit": "", "tolerance": None},
        "\\sqrt{2}",
    )
    try:
        assert pool.compare([pair]) == [{"equal": True}]
        (worker,) = pool.workers
        os.killpg(worker.process.pid, 9)
        assert pool.compare([pair, pair]) == [{"equal": True}] * 2
        assert pool.workers != [worker]
    finally:
        pool.close()
    assert pool.workers == []


def test_an_interrupt_leaves_no_answer_behind_for_the_next_request(monkeypatch):
    pool = maths_pool.Pool(size=1)
    rules = {"several": False, "interval": False, "unit": "", "tolerance": None}

    def interrupted(self):
        raise KeyboardInterrupt

    try:
        with monkeypatch.context() as patch:
            patch.setattr(maths_pool.Pool, "_collect", interrupted)
            with pytest.raises(KeyboardInterrupt):
                pool.compare([(rules | {"text": "x"}, "x+0")])
        assert pool.workers == []
        assert pool.compare([(rules | {"text": "x"}, "y+0")]) == [{"equal": False}]
    finally:
        pool.close()


def test_a_grader_that_cannot_start_says_why(monkeypatch, tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'no module named math_verify' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(RunFailed, match="does not start: no module named math_verify"):
        maths_pool.Pool(size=1).compare([({"text": "1"}, "2")])


def test_threads_share_the_workers():
    found = {}

    def work(number):
        found[number] = [j.correct for j in grade([Gold(f"\\sqrt{{{number}}}")] * 5, boxed(*"12345"))]

    threads = [threading.Thread(target=work, args=(n * n,)) for n in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n * n: [k == n for k in range(1, 6)] for n in range(1, 6)}


def test_workers_end_with_the_process_and_import_no_torch():
    program = (
        "import sys\n"
        "from harness.grading.maths.task import Gold, grade\n"
        "from harness.grading.maths.pool import shared_pool\n"
        "import harness.tasks.amc23, harness.tasks.olympiadbench\n"
        "grade([Gold('x')], ['\\\\boxed{x+1}'])\n"
        "assert not {'torch', 'sympy', 'math_verify'} & set(sys.modules)\n"
        "print(shared_pool().workers[0].process.pid)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    group = int(done.stdout)
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("a grading process outlived the process that started it")


def test_equivalence_classes_join_notations():
    answers = ["1/2", "0.5", None, "\\frac12", "2", "2.0", "x", "1/2"]
    assert equivalence_classes(answers) == [0, 0, None, 0, 1, 1, 2, 0]


def rows_of(task):
    row = {"problem": "What?", "question": "What?", "answer": "#### 1", "id": 7, "unique_id": "a/7"}
    return [row | {"final_answer": ["$\\frac{1}{2}$"]}] if task is OlympiadBench else [row]


def opened(task, rows):
    return task(Data(rows=rows, sha256="0", source="rows of a test"))


@pytest.mark.parametrize("task", TASKS)
def test_the_prompt_is_qwens_with_a_template_and_plain_without(task):
    (problem,) = opened(task, rows_of(task)).items
    assert problem.prompt == prompt("What?")
    assert problem.prompt.system == "Please reason step by step, and put your final answer within \\boxed{}."
    assert (problem.prompt.user, problem.prompt.plain) == ("What?", "Problem: What?\nSolution:\n")


@pytest.mark.parametrize("task", TASKS)
def test_a_missing_field_is_named_with_its_row(task):
    complete = rows_of(task)[0]
    question = "problem" if task in (AMC23, AIME24, MATH500) else "question"
    lacking = {key: value for key, value in complete.items() if key != question}
    with pytest.raises(BadInput, match=f"rows of a test: row 2 has no '{question}'"):
        opened(task, [complete, lacking])


def test_golds_are_read_as_their_files_mean_them():
    assert opened(AMC23, [{"id": 1, "problem": "?", "answer": 27.0}]).items[0].reference == Gold("27")
    assert opened(GSM8K, [{"question": "?", "answer": "so\n#### 1,234"}]).items[0].reference == Gold("1234")
    row = {"id": 2592, "question": "?", "final_answer": ["4.2"], "unit": "%", "error": "1e-1"}
    assert opened(OlympiadBench, [row]).items[0].reference == Gold("4.2", unit="%", tolerance=0.1)
    row = {"id": 2349, "question": "?", "final_answer": ["$221,$8$"], "is_multiple_answer": True}
    assert opened(OlympiadBench, [row]).items[0].reference == Gold("221,8", several=True)
    with pytest.raises(BadInput, match="row 1 has no '#### answer'"):
        opened(GSM8K, [{"question": "?", "answer": "1234"}])
    with pytest.raises(BadInput, match="row 1: 'final_answer' is not a list of texts"):
        opened(OlympiadBench, [{"id": 1, "question": "?", "final_answer": "4"}])


def test_verdicts_keep_the_order_and_the_sample_of_the_completions():
    rows = [{"id": n, "problem": "?", "answer": float(n)} for n in (1, 2)]
    task = opened(AMC23, rows)
    texts = [("2", 1, "\\boxed{2}"), ("1", 0, "2"), ("2", 0, "\\boxed{1}"), ("1", 3, "\\boxed{1}")]
    verdicts = task.grade_all([Completion(i, k, text, 1, "stop") for i, k, text in texts])
    assert [(v.problem_id, v.sample, v.score) for v in verdicts] == [
        ("2", 1, 1.0),
        ("1", 0, 0.0),
        ("2", 0, 0.0),
        ("1", 3, 1.0),
    ]
    assert task.grade(task.items[0], "\\boxed{1}").score == 1.0
    with pytest.raises(BadInput, match="amc23 has no problem '3'"):
        task.grade_all([Completion("3", 0, "", 0, "stop")])


@pytest.mark.skipif("HARNESS_DATA" not in os.environ, reason="needs the benchmark files below HARNESS_DATA")
@pytest.mark.parametrize("kind", TASKS, ids=lambda kind: kind.name)
def test_every_gold_passes_and_every_gold_plus_one_fails(kind):
    task = kind(data.read(kind.dataset))
    assert len(task.items) == kind.dataset.n
    golds = [Completion(p.id, 0, task.gold_completion(p), 1, "stop") for p in task.items]
    assert [v for v in task.grade_all(golds) if v.score != 1.0] == []
    # The same values in other words, so that the golds do not pass by their spelling alone.
    values = [p for p in task.items if not re.search(r"[,=%_]|\\(?:text|mbox|circ|cup|ge|pm|in )", p.reference.text)]
    for addition, expected in ((0, 1.0), (1, 0.0)):
        changed = [
            Completion(p.id, 0, f"\\boxed{{{p.reference.text} + {addition}}}", 1, "stop")
            for p in values
            if "matrix" not in p.reference.text
        ]
        assert [v for v in task.grade_all(changed) if v.score != expected or v.error] == []


@pytest.mark.skipif("HARNESS_DATA" not in os.environ, reason="needs the benchmark files below HARNESS_DATA")
def test_repairs_touch_only_what_the_file_spells_badly():
    rows = {str(row["id"]): row for row in data.read(OlympiadBench.dataset).rows}
    for number, repaired in REPAIRS.items():
        assert rows[number]["final_answer"][0] != repaired
