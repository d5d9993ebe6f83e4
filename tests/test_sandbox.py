"""The walls: what an untrusted program can see, do, use up and claim."""

import math
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter, OrderedDict, deque
from pathlib import Path

import pytest

from harness.errors import BadInput
from harness.sandbox import TIERS, End, Sandbox, SandboxJob, Tier, box, pool, tier
from harness.sandbox.box import Box, Refused
from harness.sandbox.values import Digest, Iterated, Match, NotPlain, digest, dumps, loads

pytestmark = pytest.mark.slow

WALLED = [TIERS[0], TIERS[2]]


@pytest.fixture(scope="module", params=WALLED, ids=lambda walls: f"tier-{walls.name}")
def sandbox(request):
    """A sandbox of one box behind the walls of a tier, or a skip that says which limit is not available."""
    try:
        Box(request.param.layers).close()
    except Refused as refusal:
        pytest.skip(f"tier {request.param.name} is not available here: {refusal}")
    with Sandbox(1, request.param) as found:
        yield found


def run(sandbox, body, inputs=((1,), (2,)), limit=2.0, patience=20.0, head=""):
    """The outcome of ``def f(x): body`` and the values it returned."""
    returned = []
    indented = "".join(f"    {line}\n" for line in body.split("\n"))
    job = SandboxJob(
        f"{head}\ndef f(x):\n{indented}", "f", [dumps(list(i)) for i in inputs], [limit] * len(inputs), limit, 20
    )
    outcome = sandbox.run(job, lambda _, text, __: returned.append(text) or True, patience)
    return outcome, [loads(text) for text in returned]


def children_of(pid):
    """Pids of the live descendants of a process."""
    found, waiting = [], [pid]
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, rest = path.read_text().rpartition(")")
        except OSError:
            continue
        state, parent = rest.split()[:2]
        if state != "Z":
            parents.setdefault(int(parent), []).append(int(path.parent.name))
    while waiting:
        for child in parents.get(waiting.pop(), []):
            found.append(child)
            waiting.append(child)
    return found


def test_values_come_back(sandbox):
    outcome, values = run(sandbox, "return (x, [x, 'é'], {x: None})")
    assert outcome.end is End.DONE
    assert values == [(1, [1, "é"], {1: None}), (2, [2, "é"], {2: None})]


@pytest.mark.parametrize(
    ("body", "end", "detail"),
    [
        ("return (", End.UNDEFINED, "SyntaxError"),
        ("return undefined", End.RAISED, "NameError: name 'undefined' is not defined"),
        ("raise SystemExit(0)", End.RAISED, "SystemExit: 0"),
        ("import os; os._exit(0)", End.DIED, "exited with code 0"),
        ("import os; os.abort()", End.DIED, "SIGABRT"),
        ("import ctypes; ctypes.string_at(0)", End.DIED, "SIGSEGV"),
        ("return len(bytearray(2**40))", End.RAISED, "MemoryError"),
        ("class E(Exception):\n    def __str__(self): raise self\nraise E", End.RAISED, "cannot be shown"),
        ("a = []\na.append(a)\nreturn a", End.NOT_PLAIN, "RecursionError"),
        ("return lambda: x", End.NOT_PLAIN, "an object of type function"),
        ("return type('F', (float,), {})(x)", End.NOT_PLAIN, "a subclass of float"),
        ("import os; os.closerange(0, 100)", End.DIED, "exited"),
        ("import os\nwhile True: os.write(3, b'x' * 1000)", End.MALFORMED, ""),
        ("import os\nwhile True: os.write(3, b'.\\n' * 1000)", End.MALFORMED, ""),
        ("import os; os.write(3, b'=0 1\\n' * 9); return x", End.MALFORMED, ""),
        ("import os; os.write(3, b'=zero 1\\n'); return x", End.MALFORMED, ""),
        ("import os; os.write(3, b'!' + b'[' * 100000 + b'\\n'); return x", End.MALFORMED, ""),
    ],
)
def test_every_end_has_its_name(sandbox, body, end, detail):
    outcome, _ = run(sandbox, body)
    assert (outcome.end, detail in outcome.detail) == (end, True), outcome
    assert run(sandbox, "return x")[1] == [1, 2], "the next program must not notice"


@pytest.mark.parametrize(
    "body",
    [
        "while True: pass",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "from threading import Thread as T\nfor _ in range(9): T(target=sum, args=(iter(int, 1),)).start()\nwhile 1: 1",
        "return (i for i in iter(int, 1) if i)",
        "return 9 ** 9 ** 9",
    ],
)
def test_time_is_that_of_the_processor(sandbox, body):
    outcome, _ = run(sandbox, body, limit=0.3)
    assert outcome.end is End.TIMEOUT and "of the processor" in outcome.detail, outcome


@pytest.mark.parametrize(
    "body",
    [
        "import signal; signal.setitimer(signal.ITIMER_PROF, 0)\nwhile True: pass",
        "import signal; signal.signal(signal.SIGPROF, signal.SIG_IGN)\nwhile True: pass",
    ],
)
def test_who_stops_the_timer_is_watched_from_outside(sandbox, body):
    outcome, _ = run(sandbox, body, limit=0.3)
    assert outcome.end is End.TIMEOUT and outcome.cpu < 5, outcome


def test_who_closes_the_channel_and_stays_is_ended(sandbox, monkeypatch):
    monkeypatch.setattr(box, "GRACE_S", 0.2)
    outcome, _ = run(sandbox, "import os, time\nos.close(3)\ntime.sleep(99)")
    assert outcome.end is End.DIED and "SIGKILL" in outcome.detail, outcome


@pytest.mark.parametrize("body", ["import time; time.sleep(999)", "import os; os.kill(os.getpid(), 19)"])
def test_waiting_for_ever_is_a_timeout(sandbox, body):
    outcome, _ = run(sandbox, body, limit=0.5)
    assert outcome.end is End.TIMEOUT and "without computing" in outcome.detail, outcome


def test_a_trickle_is_no_progress(sandbox):
    """It naps, so a busy machine may take it for starved; either way it is given up."""
    outcome, _ = run(
        sandbox, "import os, time\nwhile True: os.write(3, b'='); time.sleep(0.1)", limit=0.5, patience=4.0
    )
    assert outcome.end in (End.TIMEOUT, End.STALLED), outcome


def test_a_slow_machine_is_no_timeout():
    """Four programs that need most of their limit share one core: each has time enough, however long it takes."""
    from concurrent.futures import ThreadPoolExecutor

    body = "import time\nwhile time.process_time() < 0.5: pass\nreturn x"
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        with Sandbox(4, TIERS[-1]) as crowded, ThreadPoolExecutor(4) as threads:
            outcomes = list(threads.map(lambda _: run(crowded, body, inputs=((1,),), limit=0.9)[0], range(4)))
    finally:
        os.sched_setaffinity(0, cores)
    assert [outcome.end for outcome in outcomes] == [End.DONE] * 4


def looks(monkeypatch, job, states):
    """What the watch says at each look, half a second apart, of calls returned, busy, CPU seconds."""
    now, state = [0.0], [box._State()]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(box, "_state_of", lambda _: state[0])
    watch, said = box._Watch(job, 10.0, 0), []
    for calls, busy, seconds in states:
        state[0] = box._State(running=busy is True, blocked=busy == "D", seconds=seconds)
        now[0] += box.TICK_S
        said.append(watch.look(calls))
    return said


def test_the_watch_knows_starved_from_waiting(monkeypatch):
    """A program that gets no processor at all is not out of time; it is tried again (the caller's second chance)."""
    job = SandboxJob("", "f", ["[]"] * 9, [1.0] * 9, 1.0, 5.0)
    waiting, starved, tampering = [(0, False, 0.0)], [(0, True, 0.0)], [(0, True, 0.4 * i) for i in range(9)]
    assert looks(monkeypatch, job, waiting * 6) == [None] * 5 + [End.TIMEOUT]
    assert looks(monkeypatch, job, starved * 22) == [None] * 21 + [End.STALLED]
    assert looks(monkeypatch, job, tampering) == [None] * 7 + [End.TIMEOUT] * 2
    assert looks(monkeypatch, job, [(0, "D", 0.0)] * 33).index(End.STALLED) == 21, "a disk has its time"
    monkeypatch.setattr(box, "BLOCKED_S", 2.0)
    assert looks(monkeypatch, job, [(0, "D", 0.0)] * 33).index(End.TIMEOUT) == 14, "but not for ever"
    napping = [(call // 3, False, 0.0) for call in range(11)]  # each call within its limit, all of them not
    assert looks(monkeypatch, job, napping) == [None] * 10 + [End.TIMEOUT]


@pytest.mark.parametrize(
    "body",
    [
        "return open('/etc/passwd').read()",
        "import os; return os.listdir('/')[0:0] + os.listdir('/home')",
        "import os; return os.listdir('/proc')",
        "open('/tmp/../escaped', 'w')",
        "import os; open(os.__file__, 'a')",
        "import socket; socket.socket()",
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import subprocess; subprocess.run(['/bin/true'])",
        "import os; os.execv('/bin/true', ['true'])",
        "import os; os.fork()",
        "while True: __import__('os').fork()",
        "import os; os.kill(os.getppid(), 9)",
        "import os; os.kill(-1, 9)",
        "import os; os.killpg(0, 9)",
        "import fcntl, os; fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())",
        "import os; os.setpriority(os.PRIO_PROCESS, 0, -5)",
        "import resource as r; r.setrlimit(r.RLIMIT_CPU, (999, 999))",
        "import os; os.setuid(0); os.chroot('/tmp')",
        "import os; os.unshare(0x10000000)" if hasattr(os, "unshare") else "import os; os.mknod('/tmp/n', 0o60000)",
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()",
        "open('/dev/null/../../tmp/big', 'wb').write(bytes(2**25))",
    ],
)
def test_what_is_forbidden_raises(sandbox, body):
    outcome, _ = run(sandbox, f"{body}\nreturn x")
    assert outcome.end is End.RAISED, outcome
    assert re.match(
        "PermissionError|FileNotFoundError|NotADirectoryError|ValueError|RuntimeError|OSError", outcome.detail
    )


@pytest.mark.parametrize("call", ["ptrace(16, 1, 0, 0)", "mount(0, b'/', 0, 32, 0)", "syscall(435, 0, 0)", "vfork()"])
def test_the_kernel_refuses_even_c(sandbox, call):
    outcome, values = run(sandbox, f"import ctypes\nreturn ctypes.CDLL(None).{call}")
    assert outcome.end is End.DONE and values == [-1, -1]


def test_nothing_of_the_outside_is_told(sandbox, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    with Sandbox(1, sandbox.tier) as fresh:
        outcome, values = run(fresh, "import os, sys\nreturn dict(os.environ), sys.argv[1:2], os.getcwd()", ((1,),))
    assert outcome.end is End.DONE
    environment, _, cwd = values[0]
    assert environment == {} and cwd in ("/tmp", "/var/tmp", "/")


def test_the_full_tier_is_alone_in_a_small_world(sandbox):
    if sandbox.tier.name != "A":
        pytest.skip("only with namespaces")
    body = "import os, socket\nreturn os.getuid(), os.getppid(), socket.gethostname(), os.path.exists('/usr/bin')"
    _, values = run(sandbox, body)
    assert values == [(65534, 1, "sandbox", False)] * 2
    body = "import os\nopen('note', 'w').write('hello')\nreturn os.listdir(), open('note').read()"
    assert run(sandbox, body)[1] == [(["note"], "hello")] * 2
    assert run(sandbox, "import os\nreturn os.listdir()")[1] == [[], []], "the next program finds an empty directory"


def test_output_and_standard_library_work(sandbox):
    body = "import hashlib, decimal, random, threading\nprint('\\ud800' * 99)\nreturn len(hashlib.md5(b'').hexdigest())"
    assert run(sandbox, body)[1] == [32, 32]
    assert run(sandbox, "import numpy\nreturn int(numpy.linalg.norm([3 * x, 4 * x]))")[1] == [5, 10]
    with Sandbox(1, sandbox.tier) as another:  # the order of a set of strings is the same in every box
        body = "return list({'a', 'b', 'c', 'd', 'e', 'f'})"
        assert run(another, body)[1] == run(sandbox, body)[1]


def test_no_process_is_left(sandbox):
    run(sandbox, "return x")
    before = children_of(os.getpid())
    run(sandbox, "import threading, time\nthreading.Thread(target=time.sleep, args=(99,)).start()\nreturn x")
    assert children_of(os.getpid()) == before
    with Sandbox(2, sandbox.tier) as another:
        run(another, "return x")
        assert len(children_of(os.getpid())) > len(before)
    assert children_of(os.getpid()) == before


def test_the_guard_alone_still_reaps(tmp_path):
    """Tier C lets a program fork; what it leaves is found and ended."""
    with Sandbox(1, TIERS[-1]) as guard:
        mark = tmp_path / "mark"
        child = f"    os.setsid()\n    open({str(mark)!r}, 'w')\n    time.sleep(99)"
        body = f"import os, time\nif os.fork() == 0:\n{child}\nwhile not os.path.exists({str(mark)!r}): pass\nreturn x"
        run(guard, "return x")
        before = children_of(os.getpid())
        assert run(guard, body)[1] == [1, 2]
        assert children_of(os.getpid()) == before


def test_boxes_end_with_their_owner(tmp_path):
    """Even when the owner is killed in the middle of a program."""
    script = (
        "import sys\nfrom harness.sandbox import SandboxJob, Sandbox\n"
        "box = Sandbox(1)\n"
        "def told(*_): print(flush=True); return True\n"
        "text = 'import time\\ndef f(x):\\n    if x: time.sleep(99)'\n"
        "job = SandboxJob(text, 'f', ['[0]', '[1]'], [60, 60], 60, 60)\n"
        "box.run(job, told)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    owner.stdout.readline()  # the first call has returned, the second sleeps
    inside = children_of(owner.pid)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in inside):
        assert time.monotonic() < deadline, "processes outlived their owner"
        time.sleep(0.05)
    assert inside


def test_a_lost_box_is_replaced(sandbox):
    with Sandbox(1, sandbox.tier) as another:
        run(another, "return x")
        idle = another._idle.get()
        idle.process.kill()
        another._idle.put(idle)
        assert run(another, "return x")[0].end is End.LOST
        assert run(another, "return x")[1] == [1, 2]


def test_a_failing_receiver_ends_the_program(sandbox):
    def receive(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sandbox.run(SandboxJob("def f(x): return x", "f", ["[1]"], [2.0], 2.0, 5), receive)
    assert run(sandbox, "return x")[1] == [1, 2]


def test_the_tier_is_stated_and_demanded(monkeypatch):
    guard = Tier("C", (), "unshare: Operation not permitted")
    monkeypatch.setattr(pool, "_best_tier", lambda: guard)
    monkeypatch.delenv("HARNESS_SANDBOX", raising=False)
    with pytest.raises(BadInput, match=r"tier C \(limits\); unshare: Operation not permitted.*HARNESS_SANDBOX=C"):
        tier()
    monkeypatch.setenv("HARNESS_SANDBOX", "C")
    assert tier() is guard
    with pytest.raises(BadInput, match="tier C"):
        tier(accept="A")
    monkeypatch.setenv("HARNESS_SANDBOX", "docker")
    with pytest.raises(BadInput, match="choose A, B or C"):
        tier()


PLAIN = [
    None, True, -1, 2**64, -(10**5000), 0.1, -0.0, math.inf, "", "a\n\u2028\ud800", b"\x00", bytearray(b"x"), 1 + 2j,
    [], [1, "a", [None]], (1,), ((), ((),)), set(), {1, 2.5}, frozenset({"x"}), {}, {1: [2], "a": {(): 0.5}},
    Counter("aab"), OrderedDict([(2, 1), (1, 2)]), deque([1, 2]), {frozenset({1}): {2}},
]  # fmt: skip


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: repr(value)[:20] if type(value) is not int else "int")
def test_plain_values_survive(value):
    text = dumps(value)
    back = loads(text)
    assert back == value and type(back) is type(value) and "\n" not in text and text.isascii()


def test_what_only_looks_like_a_value():
    assert math.isnan(loads(dumps(math.nan)))
    assert isinstance(loads(dumps(re.match("a", "a"))), Match)
    walked = loads(dumps(iter([1, 2])))
    assert isinstance(walked, Iterated) and set(walked) == {1, 2} and walked != (1, 2) and walked != [1, 2]
    assert set(loads(dumps({1: 2}.keys()))) == {1}


class _Equal(int):
    def __eq__(self, other):
        return True

    __hash__ = int.__hash__


class _Liar:
    __class__ = int

    def __eq__(self, other):
        return True


@pytest.mark.parametrize(
    "value",
    [_Equal(1), _Liar(), object(), print, int, type("S", (str,), {})("a"), signal.SIGINT],
    ids=("equal", "liar", "object", "function", "type", "str", "signal"),
)
def test_nothing_else_is_a_value(value):
    for wrapped in (value, [value], (0, [value]), {"a": value}):
        with pytest.raises(NotPlain):
            dumps(wrapped)


@pytest.mark.parametrize(
    "text",
    ["", "nope", "{}", '{"tuple":1}', '{"a":1,"b":2}', '{"eval":"1"}', "NaN", "[" * 10**6, '{"set":[[1]]}',
     '{"dict":[1]}', '{"int":"zz"}', '{"float":"x"}', '{"complex":["a","b"]}', '{"bytes":"0"}', "9" * 5000,
     '{"tuple":null}'],
    ids=range(16),
)  # fmt: skip
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError):
        loads(text)


def test_large_values_travel_as_digests():
    large = list(range(10**6))
    told = loads(dumps(large))
    assert isinstance(told, Digest) and "list of 1000000" in told
    assert told == loads(dumps(list(map(float, large)))) != loads(dumps([*large[:-1], 0]))
    assert digest([1, True, 0.0, {1: {2, 3}}]) == digest([True, 1.0, 0, {1.0: {3.0, 2}}])
    assert digest([(1, 2)]) != digest([[1, 2]]) and digest([1.5]) != digest([1]) and digest("1") != digest(1)
    with pytest.raises(NotPlain):
        dumps([_Equal(1)] * 10**6)
    with pytest.raises(NotPlain):
        dumps([[*range(9), _Liar()]] * 10**6)
