"""Who exhausts something pays alone: bombs among honest neighbours, texts that cost their reader, forged ends."""

import json
import os
import time
from collections import Counter, OrderedDict, deque

import pytest
from test_code import ADD, problem
from test_sandbox import WALLED, children_of, run

from harness.errors import BadInput, RunFailed
from harness.grading.code import differential, openai_checks
from harness.grading.code.differential import accepts, grade, members_of, shown_value
from harness.grading.code.openai_checks import CheckedProblem
from harness.sandbox import End, Sandbox, SandboxOutcome, box, pool, tier
from harness.sandbox.box import Box, Refused
from harness.sandbox.threads import MOST
from harness.sandbox.values import Crowd, can_be_sent, dumps, loads
from results.scripts.robustness.bombs import BOMBS, KINDS, SAME_HASH, C

pytestmark = pytest.mark.slow


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


@pytest.fixture(scope="module", params=WALLED, ids=lambda walls: f"tier-{walls.name}")
def sandbox(request):
    try:
        Box(request.param.layers).close()
    except Refused as refusal:
        pytest.skip(f"tier {request.param.name} is not available here: {refusal}")
    with Sandbox(1, request.param) as found:
        yield found


def add(body):
    return "def add(a, b):\n" + "".join(f"    {line}\n" for line in body.split("\n"))


def test_bombs_cost_themselves_alone(sandbox, monkeypatch):
    """Each bomb among neighbours that answer right: none of those fails, and each bomb has its verdict."""
    monkeypatch.setattr(differential, "FLOOR_S", 0.5)
    monkeypatch.setattr(differential, "TOTAL_S", 5.0)
    monkeypatch.setattr(box, "GRACE_S", 0.5)
    before = children_of(os.getpid())
    programs = [program for bomb in BOMBS.values() for program in (add(bomb), "def add(a, b): return a + b")]
    assert len(BOMBS) >= 30 and sorted(BOMBS) == sorted(name for names in KINDS.values() for name in names)
    with Sandbox(2, sandbox.tier) as two:
        verdicts = grade([problem(plus=False)] * len(programs), programs, two)
    for name, wrong, right in zip(BOMBS, verdicts[::2], verdicts[1::2], strict=True):
        assert (wrong.score, wrong.error, right.score) == (0.0, False, 1.0), (name, wrong.reason, right.reason)
        assert len(wrong.reason) < 400 and wrong.reason.isprintable(), name
    assert len(children_of(os.getpid())) <= len(before)


def test_threads_are_bounded_and_honest_ones_work(sandbox):
    many = "import threading as t\nx = [t.Thread(target=t.Event().wait) for _ in range({})]\nfor y in x: y.start()\n"
    assert run(sandbox, many.format(MOST - 1) + "return len(t.enumerate())", ((1,),))[1] == [MOST]
    outcome, _ = run(sandbox, many.format(MOST) + "return 1")
    assert outcome.end is End.RAISED and "can't start new thread" in outcome.detail
    one_by_one = "import threading as t\nfor _ in range(300):\n    y = t.Thread(target=int)\n    y.start(); y.join()\n"
    assert run(sandbox, one_by_one + "return x")[1] == [1, 2]
    pool = (
        "from concurrent.futures import ThreadPoolExecutor as P\nwith P(20) as p: return sum(p.map(abs, range(-50, 0)))"
    )
    assert run(sandbox, pool)[1] == [1275, 1275]


def test_threads_are_refused_where_nobody_can_count_them(sandbox, monkeypatch):
    busy = (
        "from harness.sandbox import kernel\ndef listen(): raise OSError('busy')\nkernel.listen_to_threads = listen\n"
    )
    before, main = box._START.split("; from ")
    monkeypatch.setattr(box, "_START", f"{before}\n{busy}from {main}")
    with Sandbox(1, sandbox.tier) as uncounted:
        assert run(uncounted, "return x")[1] == [1, 2]
        outcome, _ = run(uncounted, "import threading\nthreading.Thread(target=int).start()\nreturn x")
        assert outcome.end is End.RAISED and "can't start new thread" in outcome.detail
        used = uncounted._idle.get()
        uncounted._idle.put(used)
        assert used.note == "no threads: busy"


REFUSED = {
    "membarrier": "324, 1, 0, 0", "flock": "73, 0, 2", "fadvise64": "221, 0, 0, 0, 4",
    "copy_file_range": "326, 0, 0, 1, 0, 1, 0", "a clone like vfork's": "56, 0x3D4F00, 0, 0, 0, 0",
    "futex with priorities": "202, 0, 6, 0, 0, 0, 0", "madvise PAGEOUT": "28, 0, 0, 21",
    "mmap HUGETLB": "9, 0, 4096, 3, 0x40022, -1, 0", "mmap LOCKED": "9, 0, 4096, 3, 0x2022, -1, 0", "sync": "162",
    "syncfs": "306, 0", "userfaultfd": "323, 0", "io_uring_setup": "425, 1, 0", "mlock": "149, 0, 4096",
    "fanotify_init": "300, 0, 0", "inotify_init1": "294, 0", "migrate_pages": "256, 0, 0, 0, 0",
    "move_pages": "279, 0, 0, 0, 0, 0, 0", "set_mempolicy": "238, 0, 0, 0", "splice": "275, 0, 0, 0, 0, 0, 0",
    "vmsplice": "278, 0, 0, 0, 0", "tee": "276, 0, 0, 0, 0", "mknod": "133, 0, 0o10644, 0",
    "sched_setscheduler": "144, 0, 1, 0", "sched_setattr": "314, 0, 0, 0", "ioprio_set": "251, 1, 0, 0",
    "perf_event_open": "298, 0, 0, -1, -1, 0", "memfd_create": "319, 0, 0", "keyctl": "250, 0, 0",
    "quotactl": "179, 0, 0, 0, 0", "pidfd_open": "434, 1, 0", "process_vm_readv": "310, 1, 0, 0, 0, 0, 0",
    "personality": "135, 0x40000", "prctl": "157, 4, 1", "semget": "64, 0, 1, 0o1600", "shmget": "29, 0, 4096, 0o1600",
    "msgget": "68, 0, 0o1600", "mq_open": "240, 0, 0o102, 0o600, 0", "timer_create": "222, 0, 0, 0",
    "rt_sigqueueinfo": "129, 1, 9, 0", "rt_sigsuspend": "130, 0, 8", "futex_waitv": "449, 0, 0, 0, 0, 0",
    "seccomp": "317, 1, 0, 0", "setns": "308, 0, 0", "execve": "59, 0, 0, 0", "fallocate": "285, 3, 0, 0, 1",
}  # fmt: skip


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_what_parks_threads_or_reaches_others_is_refused(sandbox, call):
    """By number, as a program without Python would ask."""
    if os.uname().machine != "x86_64":
        pytest.skip("the numbers are those of x86_64")
    outcome, values = run(sandbox, f"{C}c.syscall.restype = ctypes.c_long\nreturn c.syscall({call})")
    assert outcome.end is End.DONE and values == [-1, -1], outcome


def test_a_program_may_ask_for_its_files_to_be_written(sandbox):
    assert run(sandbox, "import os\nf = open('/dev/null', 'w')\nos.fsync(f)\nos.fdatasync(f)\nreturn x")[1] == [1, 2]


@pytest.mark.parametrize("code", [0, 1, 9, 97, 137, 255])
def test_no_exit_code_is_the_sandboxs(sandbox, code):
    outcome, _ = run(sandbox, f"import os; os._exit({code})")
    assert (outcome.end, outcome.detail) == (End.DIED, f"the process exited with code {code}")


def test_no_signal_is_the_sandboxs(sandbox):
    ends = {}
    for number in {*range(1, 65)} - {17, 18, 20, 21, 22, 23, 28, 32, 33}:  # those that end nothing, or only stop
        body = f"import os, signal\nsignal.signal({number}, 0) if {number} not in (9, 19) else 0\n"
        ends[number] = run(sandbox, body + f"os.kill(os.getpid(), {number})\nreturn x", limit=0.4)[0]
    assert ends.pop(19).end is End.TIMEOUT  # it is stopped, and waits
    assert {outcome.end for outcome in ends.values()} == {End.DIED}, ends
    assert run(sandbox, "return x")[1] == [1, 2]


def test_reasons_are_short_and_harmless(sandbox):
    body = "raise ValueError('\\x1b[2J\\u202eabc\\n\\r\\u2066|`<b>' * 10**5)"
    detail = run(sandbox, body)[0].detail
    assert len(detail) <= 300 and detail.isprintable() and detail.startswith("ValueError: \\x1b[2J\\u202eabc\\n")
    forged = "import os, time\nos.write(3, b'!\"\\\\u202e\\\\u001b[1m' + b'x' * {} + b'\"\\n')\ntime.sleep(9)"
    outcome, _ = run(sandbox, forged.format(100))
    assert outcome.end is End.RAISED and outcome.detail.startswith("\\u202e\\x1b[1mxxx")
    assert run(sandbox, forged.format(4 * 10**6))[0].end is End.MALFORMED
    for seconds in ("nan", "inf", "-1", "1e9", "9" * 99, ""):
        assert run(sandbox, f"import os\nos.write(3, b'={seconds} 1\\n')\nreturn x")[0].end is End.MALFORMED, seconds


def test_installed_packages_are_not_there(sandbox):
    body = (
        "import numpy, os, sys\nhome, x = os.path.dirname(os.__file__), 0\n"
        "for path in (home + '/site-packages', home + '/dist-packages', '/usr/lib/python3/dist-packages',\n"
        "             os.path.dirname(os.path.dirname(numpy.__file__)), os.path.expanduser('~/.local')):\n"
        "    try: x += len(set(os.listdir(path)) - {'numpy', 'numpy.libs'})\n"
        "    except OSError: pass\n"
        "return x"
    )
    assert run(sandbox, body)[1] == [0, 0]
    for module in ("pip", "pytest", "torch", "sympy", "evalplus"):
        body = f"import sys\nsys.path += {pytest.__file__.rsplit('/', 2)[0]!r},\nimport {module}\nreturn x"
        outcome = run(sandbox, body)[0]
        assert outcome.end is End.RAISED and outcome.detail.startswith(("ModuleNotFoundError", "PermissionError")), (
            outcome
        )
    body = "import xml.dom.minidom, email.mime.text, http.client, csv, pprint, numpy.polynomial\nreturn x"
    assert run(sandbox, body)[1] == [1, 2], "what belongs to the interpreter is"


KEYS = [hex(i * (2**61 - 1)) for i in range(50_000)]
SAME = ",".join(f'{{"int":"{key}"}}' for key in KEYS)
COSTLY = {
    "a set": f'{{"set":[{SAME}]}}',
    "a frozenset in a set": f'{{"set":[{{"frozenset":[{SAME}]}}]}}',
    "a set of a tuple": f'{{"set":{{"tuple":[{SAME}]}}}}',
    "a dict": '{"dict":[' + ",".join(f'[{{"int":"{key}"}},0]' for key in KEYS) + "]}",
    "a Counter": '{"Counter":[' + ",".join(f'[{{"int":"{key}"}},0]' for key in KEYS) + "]}",
    "few enough, and all of one hash": f'{{"set":[{",".join(SAME.split(",")[:900])}]}}',
    "a list for a set": f"[{SAME}]",
    "many sets": "[" + ",".join(['{"set":[1,2]}'] * 200_000) + "]",
    "digits": "9" * 4_000_000,
    "decimals": "0." + "1" * 4_000_000,
    "integers": "[" + ",".join(["9" * 4299] * 900) + "]",
    "brackets": "[" * 4_000_000,
    "sets in sets": '{"frozenset":[' * 300 + "0" + "]}" * 300,
    "an array to broadcast": '{"numpy":["|b1",[131072,1],"' + "01" * 131072 + '"]}',
    "a wide array of texts": '{"numpy":["<U999",[100000],[' + ",".join(['"a"'] * 100_000) + "]]}",
    "a long dtype": '{"numpy":["<U900000",[1],["zz"]]}',
    "a shape": '{"numpy":["<i8",[4294967295,4294967295],""]}',
    "no axis too many": '{"numpy":["<i8",' + json.dumps([1] * 999) + ',"0000000000000000"]}',
    "not a truth value": '{"numpy":["|b1",null,"02"]}',
    "a date": '{"numpy":["<M8[s]",null,"0000000000000000"]}',
    "a record": '{"numpy":["|V8",null,"0000000000000000"]}',
    "objects as bytes": '{"numpy":["|O",[1],"0000000000000000"]}',
    "a long text in a list": "[" + '"a",' * 100_000 + '"' + "b" * 2_000_000 + '"]',
}


@pytest.mark.parametrize("text", COSTLY.values(), ids=COSTLY)
@pytest.mark.parametrize(("task_id", "entry"), [("Micro/0", "add"), ("Mbpp/2", "similar_elements")])
def test_a_claim_costs_its_reader_little(task_id, entry, text):
    begin = time.process_time()
    for expected in (3, [0.5] * 1000, list(range(3000)), {1, 2}, {"a": 1}):
        asked = problem(task_id=task_id, entry_point=entry, atol=1e-6)
        try:
            assert not accepts(asked, "[[1],[2]]", dumps(expected).encode(), text.encode())
            assert len(shown_value(text)) <= 80
        except ValueError as error:
            assert len(str(error)) < 500
    can_be_sent(text)
    assert time.process_time() - begin < 30


@pytest.mark.parametrize(
    "made", [list, tuple, deque, set, frozenset, dict.fromkeys, OrderedDict.fromkeys, Counter, iter]
)
def test_a_long_value_of_any_type_is_described_in_one_line(made):
    text = dumps(made(range(500)))
    shown = shown_value(text)
    assert len(shown) <= 80 and shown.isprintable()
    assert not accepts(problem(), "[1,2]", dumps(3).encode(), text.encode())


def test_sets_are_built_as_far_as_they_are_expected():
    for value in ({1, 2, 3}, frozenset("ab"), {1: 2, 3: {4}}, [{1}, {2}], {-1, -2, 0}):
        assert loads(dumps(value), most=10) == value
    assert members_of([{1, 2}, {3: {4, 5}}, ({6},)]) == 6
    assert isinstance(loads(dumps({1, 2, 3}), most=2), Crowd)
    assert isinstance(loads(dumps([{1, 2}, {3, 4}]), most=3)[1], Crowd)
    large = set(range(5000))
    assert accepts(problem(), "[]", dumps(large).encode(), dumps(large | set()).encode())
    assert accepts(problem(), "[]", dumps(dict.fromkeys(large, 1)).encode(), dumps(dict.fromkeys(large, True)).encode())
    similar = problem(task_id="Mbpp/2", entry_point="similar_elements")
    assert accepts(similar, "[]", dumps(tuple(range(5000))).encode(), dumps(large).encode()), "a set for a long tuple"


@pytest.mark.parametrize(
    ("text", "right"),
    [("1", True), ('{"set":[1]}', True), ('{"numpy":["<i8",null,"0300000000000000"]}', True), ('[{"dict":[]}]', True),
     ("1],[2", False), ("1,2", False), ("", False), ("NaN", False), ('{"digest":"x"}', False), ('{"a":1}', False),
     ('{"iterated":[1]}', False), ("[" * 99999, False), ('{"set":[1],"set":[1],"x":1}', False)],
)  # fmt: skip
def test_what_goes_on_to_a_check_is_one_value(text, right):
    assert can_be_sent(text) is right


ROW = ADD | {"plus_input": [[0.1, 0.2]]}
NUMPY = {
    "return np.int64(a + b)": False,  # 0.30000000000000004 becomes 0
    "return np.float64(a + b)": True,
    "return np.add(a, b)": True,
    "return np.array(a + b)": True,
    "return np.array([a + b])": True,  # of one element, and so a truth value
    "return [np.float64(a + b)]": False,
    "return np.float32(a + b)": True,  # NumPy compares in float32
    "return np.float32(a + b + 1e-6)": False,  # no tolerance: the type is not float
    "return np.float64(a + b + 1e-9)": False,
    "return np.array([a + b, a + b])": False,
    "return np.array([])": False,
    "return np.bool_(True)": False,
    "return np.str_(a + b)": False,
    "return np.longdouble(a) + np.longdouble(b)": False,
    "return np.datetime64(1, 's')": False,
    "class F(np.ndarray): __eq__ = lambda s, o: True\nreturn np.zeros(1).view(F)": False,
    "return np.ma.array([a + b])": False,
}


@pytest.mark.parametrize("body", NUMPY)
def test_numpy_comes_back_from_a_program(body):
    found = grade([problem(ROW)], ["import numpy as np\n" + add(body)])[0]
    assert (found.score, found.error) == (float(NUMPY[body]), False), found.reason


def test_numpy_counts_as_evalplus_counts_it():
    """Every output against every expected value, under the lines of evalplus.eval.unsafe_execute (0.3.1)."""
    import numpy as np
    from evalplus.eval import _special_oracle as special
    from evalplus.eval import is_floats

    def theirs(entry, arguments, out, exp, atol):
        try:
            exact_match = out == exp
            if entry == "surface_Area":
                with np.errstate(all="ignore"):
                    exact_match = exact_match or abs(out - special._surface_Area(*arguments)) <= atol
            elif entry == "digit_distance_nums":
                exact_match = exact_match or out == special._digit_distance_nums(*arguments)
            elif entry in special.MBPP_OUTPUT_SET_EQ_TASKS:
                exact_match = set(out) == set(exp)
            elif entry in special.MBPP_OUTPUT_NOT_NONE_TASKS:
                exact_match = out == exp if isinstance(out, bool) else exp == (out is not None)
            if atol == 0 and is_floats(exp):
                atol = 1e-6
            if not exact_match and atol != 0:
                assert type(out) == type(exp)  # noqa: E721
                if isinstance(exp, list | tuple):
                    assert len(out) == len(exp)
                # ours: shapes agree and do not merely broadcast
                assert np.shape(out) == np.shape(exp)
                assert np.allclose(out, exp, rtol=1e-07, atol=atol)
            else:
                assert exact_match
        except (AssertionError, TypeError, ValueError, OverflowError):
            return False
        return True

    array = np.array
    outs = [np.int64(3), np.int8(3), np.uint16(3), np.float64(3), np.float32(0.1), np.float64(0.1), np.bool_(True),
            np.float64(0.1 + 1e-9), np.bool_(False), np.str_("a"), np.str_(""), np.bytes_(b"a"), np.complex128(3),
            np.float16(0.5), np.float64("nan"), np.float64("inf"), np.int64(35), np.longlong(3), array(3), array([3]),
            array([[3]]), array([1, 2]), array([2, 1]), array([1, 1, 2]), array([]), array([0.1]), array([35]),
            array([0.1 + 1e-9]), array(["a"]), array(["a", "b"]), array([True]), array([2**70]), array([None]),
            array(["x", None], dtype=object), array([[1], [2], [3]]), [np.int64(1), np.float64(2)],
            [np.float64(0.1)], [np.float64(0.1 + 1e-9)], [0.1 + 1e-9], (np.int64(1), 2), {np.int64(1), 2},
            {np.int64(1): np.str_("a")}, [array([1]), array([2])], [array([1, 2])], [array([0.1 + 1e-9])],
            [[0.1 + 1e-9, 0.2], array([1.0, 2.0])], [array([1.0, 2.0]), [0.1 + 1e-9, 0.2]], [np.str_("a")],
            [np.bool_(True)], [np.longlong(1), np.intc(2)], 3, True, None, [3], [], [1, 2], {1, 2}]  # fmt: skip
    expected = [3, 3.0, True, False, "a", "", b"a", 0.1, 0.5, [3], [[3]], [1, 2], (1, 2), [], [0.1], ["a"],
                ["a", "b"], [True], [2**70], ["x", None], [1, 2.0], {1, 2}, {1: "a"}, [[1], [2]], [[1, 2]], [[0.1]],
                [[0.1, 0.2], [1.0, 2.0]], None, float("inf"), 33, 35, [1.0, 2.0], [None]]  # fmt: skip
    oracles = {"add": ("Micro/0", []), "similar_elements": ("Mbpp/2", [[1], [2]]), "check_str": ("Mbpp/737", ["a"]),
               "surface_Area": ("Mbpp/581", [3, 4]), "digit_distance_nums": ("Mbpp/558", [1, 20])}  # fmt: skip
    accepted = refused = 0
    for entry, (task_id, arguments) in oracles.items():
        for atol in (0, 1e-6):
            asked = problem(task_id=task_id, entry_point=entry, atol=atol)
            for exp in expected:
                their_exp = exp is not None if entry == "check_str" else exp  # as their ground truth is kept
                for out in outs:
                    right = theirs(entry, arguments, out, their_exp, atol)
                    told = dumps(exp).encode(), dumps(out).encode()
                    assert accepts(asked, dumps(arguments), *told) is right, (entry, out, exp, atol)
                    accepted, refused = accepted + right, refused + (not right)
    assert accepted > 300 and refused > 300


def test_who_lost_its_sandbox_is_tried_again_alone(sandbox, monkeypatch):
    """And only once: who brings it about has its verdict all the same."""
    tries = []
    real = Sandbox.run

    def lose(self, job, *rest):
        tries.append(job.program)
        # The second program loses its sandbox once, the third always; the first run is the canonical solution.
        if "# loses" in job.program and (tries.count(job.program) == 1 or "always" in job.program):
            return SandboxOutcome(End.LOST, "it was killed or could not be reached", 0)
        return real(self, job, *rest)

    monkeypatch.setattr(Sandbox, "run", lose)
    right = "def add(a, b): return a + b"
    programs = [right, right + "  # loses once", right + "  # loses always"]
    verdicts = grade([problem(plus=False)] * 3, programs, sandbox)
    assert [(v.score, v.error) for v in verdicts] == [(1.0, False), (1.0, False), (0.0, True)]
    assert tries.count(programs[2]) == 2 and "the sandbox was lost" in verdicts[2].reason


def test_a_box_that_cannot_start_is_tried_for_a_while(sandbox, monkeypatch):
    waits, starts = [], iter([Refused("no process could be started"), Refused("again")])

    def start(layers):
        for refusal in starts:
            raise refusal
        return Box(layers)

    monkeypatch.setattr(pool, "Box", start)
    monkeypatch.setattr(pool.time, "sleep", waits.append)
    with Sandbox(1, sandbox.tier) as another:
        assert run(another, "return x")[1] == [1, 2]
    assert waits == [0, 0.5, 2]
    starts = iter([Refused("never")] * 9)
    with Sandbox(1, sandbox.tier) as another, pytest.raises(RunFailed, match="no longer works: never"):
        run(another, "return x")


CHECKED = CheckedProblem(
    task_id="HumanEval/0", prompt='def add(a, b):\n    """Add."""\n', entry_point="add", atol=0.0, inputs={},
    canonical_solution="    return a + b\n",
    test="def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate([1], [2]) == [1, 2]\n",
)  # fmt: skip


@pytest.mark.parametrize(
    ("body", "score"),
    [("return a + b", 1), ("import numpy\nreturn numpy.int64(a + b) if a == 1 else a + b", 1),
     ("import numpy\nreturn numpy.int64(4) if a == 1 else a + b", 0), ("return lambda: 3", 0),
     (f"import os\nos.write(3, b'=0 {{\"set\":[' + {SAME_HASH} + b']}}\\n')\nreturn a + b", 0),
     ("import os\nos.write(3, b'=0 3],[[1,2]\\n=0 1\\n.\\n')\nos._exit(0)", 0), ("import os; os._exit(97)", 0)],
)  # fmt: skip
def test_openais_checks_get_values_and_no_bombs(sandbox, body, score):
    calls = openai_checks._calls(CHECKED, sandbox)
    begin = time.process_time()
    found, reason, error = openai_checks._judge(CHECKED, add(body), calls, sandbox)
    assert (found, error) == (score, False), reason
    assert time.process_time() - begin < 5
