"""Programs that use something up, without an end: threads, memory, files, output, time; one hostile program each."""

from __future__ import annotations

FOR_EVER = "while True:\n    try:\n        {}\n    except (OSError, RuntimeError, MemoryError, ValueError): pass"
C = "import ctypes\nc = ctypes.CDLL(None)\n"
SAME_HASH = "b','.join(b'{\"int\":\"%s\"}' % hex(i * (2**61 - 1)).encode() for i in range(60000))"

# What is used up, and a body of ``add(a, b)`` that does it.
BOMBS = {
    "threads": "import threading as t\n" + FOR_EVER.format("t.Thread(target=t.Event().wait).start()"),
    "threads with small stacks": (
        "import threading as t\nt.stack_size(32768)\n" + FOR_EVER.format("t.Thread(target=t.Event().wait).start()")
    ),
    "threads that end": "import threading as t\n" + FOR_EVER.format("t.Thread(target=int).start()"),
    "threads without Python": C + "while True: c.syscall(56, 0x3D0F00, 0, 0, 0, 0)",
    "processes": "import os\n" + FOR_EVER.format("os.fork()"),
    "processes without Python": C + "while True: c.vfork(), c.syscall(56, 17, 0, 0, 0, 0), c.syscall(435, 0, 0)",
    "memory": "x = []\n" + FOR_EVER.format("x.append(bytearray(2**20))"),
    "memory of maps": "import mmap\nx = []\n" + FOR_EVER.format("x.append(mmap.mmap(-1, 2**24))"),
    "memory of one value": "return [0] * 10**9",
    "descriptors": "import os\n" + FOR_EVER.format("os.open('/dev/null', 0)"),
    "pipes": "import os\nx = []\n" + FOR_EVER.format("x.append(os.pipe()); os.write(x[-1][1], bytes(65536))"),
    "disk": "i = 0\n" + FOR_EVER.format("i += 1; open(str(i), 'wb').write(bytes(2**20))"),
    "inodes": "import os\ni = 0\n" + FOR_EVER.format("i += 1; os.mkdir(str(i))"),
    "folders in folders": "import os\n" + FOR_EVER.format("os.mkdir('d'); os.chdir('d')"),
    "flushing": "import os\nf = open(os.__file__)\n" + FOR_EVER.format("os.fsync(f)"),
    "locks of files": "import fcntl, os\n" + FOR_EVER.format("fcntl.flock(open(os.__file__), 2)"),
    "output": "import sys\nwhile True: print('x' * 10**6); print('x' * 10**6, file=sys.stderr)",
    "results without end": "import os\nwhile True: os.write(3, b'x' * 10**6)",
    "results by the byte": "import os\nwhile True: os.write(3, b'x')",
    "a reason of 4 MB": "import os\nos.write(3, b'!\"' + b'x' * 4 * 10**6 + b'\"\\n')\nreturn 0",
    "keys of one hash": f"import os\nos.write(3, b'=0 {{\"set\":[' + {SAME_HASH} + b']}}\\n')\nreturn 0",
    "pairs of one hash": f"return {{i * (2**61 - 1): 0 for i in range(1000)}}, {{}}, {SAME_HASH}[:0]",
    "an array to broadcast": "import numpy\nreturn numpy.zeros((2**17, 1), bool)",
    "semaphores": "import multiprocessing as m\nx = []\n" + FOR_EVER.format("x.append(m.Semaphore())"),
    "shared memory": (
        "from multiprocessing.shared_memory import SharedMemory as S\nx = []\n"
        + FOR_EVER.format("x.append(S(create=True, size=2**20))")
    ),
    "signals that queue": (
        "import os, signal as s\ns.pthread_sigmask(s.SIG_BLOCK, {40})\n" + FOR_EVER.format("os.kill(os.getpid(), 40)")
    ),
    "timers": ("import signal as s\ns.signal(s.SIGALRM, lambda *_: 0)\ns.setitimer(0, 1e-6, 1e-6)\nwhile True: pass"),
    "processor": "while True: pass",
    "processors": "import threading as t\nfor _ in range(20): t.Thread(target=lambda: sum(iter(int, 1))).start()\n",
    "stack": C + "import sys\nsys.setrecursionlimit(10**9)\nf = lambda: [*map(lambda _: f(), [0])]\nreturn f()",
    "barriers": (
        C + "import threading as t\ndef f():\n    while True: c.syscall(324, 1, 0, 0)\n"
        "for _ in range(8): t.Thread(target=f).start()\nf()"
    ),
    "a thread parked like vfork's": C + "c.syscall(56, 0x3D4F00, 0, 0, 0, 0)\nimport time; time.sleep(999)",
    "pages": C + "import mmap\nm = mmap.mmap(-1, 2**30)\n" + FOR_EVER.format("m.madvise(23); m.madvise(21)"),
    "sleep": "import signal; signal.pause()",
    "a lock held twice": "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()",
    "stop": "import os; os.kill(os.getpid(), 19)",
    "no channel": "import os, time\nos.close(3)\ntime.sleep(99)",
}

# The kind of exhaustion of each.
KINDS = {
    "threads": ("threads", "threads with small stacks", "threads that end", "threads without Python"),
    "processes": ("processes", "processes without Python", "a thread parked like vfork's"),
    "memory": ("memory", "memory of maps", "memory of one value", "an array to broadcast", "stack", "pages"),
    "descriptors and pipes": ("descriptors", "pipes", "semaphores", "shared memory", "signals that queue"),
    "files": ("disk", "inodes", "folders in folders", "flushing", "locks of files"),
    "output": (
        "output", "results without end", "results by the byte", "a reason of 4 MB", "keys of one hash",
        "pairs of one hash",
    ),
    "processor time": ("processor", "processors", "timers", "barriers"),
    "waiting": ("sleep", "a lock held twice", "stop", "no channel"),
}  # fmt: skip


def with_body(name: str, body: str) -> str:
    """A function ``name`` of any arguments with this body."""
    return f"def {name}(*args):\n" + "".join(f"    {line}\n" for line in body.split("\n"))
