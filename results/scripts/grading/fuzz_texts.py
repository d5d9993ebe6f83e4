"""Completions that break graders: noise, depth, size, half of everything, and bombs.

A kind is a function of a random generator and of a completion that is graded right.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

LATEX = (  # noqa: SIM905 (words read best as words)
    r"\frac \sqrt \left( \right) \{ \} \cup \pm \infty \text \begin{cases} \end{cases} \boxed { } ( ) [ ] ^ _ & \\ "
    r"\sum \int \binom \log \sin \pi ^\circ \% \$ $ , ; = < > \le \in \mathbb{R} \cdots ! ' 0 1 27 3.5 -1 x y f(x) 1,0"
).split()
PYTHON = (  # noqa: SIM905
    "def class return yield lambda async await if else: for while True: try: except: finally: import from global "
    "None ... * ** @ := -> { } [ ] ( ) ' \" ''' # \\ \t \n \n \n    0 1e999 0x f''  =  == x y self print exec eval ;"
).split(" ")
ODD = "\x00\x07\x1b\x7f\x85\u200b\u202e\u2028\ufeff\ufffe\U000e0001\U0010ffffé漢א٣２½Ω🤖\u0301\ud800\udfff"


def noise(rng: Random, _: str) -> str:
    return rng.randbytes(rng.randrange(300)).decode(rng.choice(["latin-1", "utf-8", "utf-16-le"]), "replace")


def odd_characters(rng: Random, right: str) -> str:
    made = list(right)
    for _ in range(rng.randrange(1, 12)):
        made.insert(rng.randrange(len(made) + 1), rng.choice(ODD))
    return "".join(made)


def lone_surrogates(rng: Random, _: str) -> str:
    return "".join(chr(rng.randrange(0xD800, 0xE000)) for _ in range(rng.randrange(1, 40))) + "\\boxed{\udc00}```\ud800"


def noise_in_a_box(rng: Random, _: str) -> str:
    return "\\boxed{" + " ".join(rng.choices(LATEX, k=rng.randrange(1, 14))) + "}"


def noise_in_a_fence(rng: Random, _: str) -> str:
    return "```python\n" + " ".join(rng.choices(PYTHON, k=rng.randrange(1, 60))) + "\n```"


def deep_nesting(rng: Random, _: str) -> str:
    depth = int(10 ** rng.uniform(1, 4))
    opening, closing = rng.choice(
        [("(", ")"), ("[", "]"), ("{", "}"), ("\\frac{", "}{1}"), ("\\sqrt{", "}"), ("-", "")]
    )
    inside = opening * depth + "1" + closing * rng.choice([depth, 0, depth // 2])
    return rng.choice([f"\\boxed{{{inside}}}", f"```python\nx = {inside}\n```", inside, "\\boxed{" * depth + "1"])


def huge_numbers(rng: Random, _: str) -> str:
    digits = "9" * int(10 ** rng.uniform(1, 4.5))
    forms = [digits, f"-{digits}", f"0.{digits}", f"{digits}/{digits}", f"10^{{{digits[:4]}}}", f"1e{digits[:4]}"]
    number = rng.choice(forms)
    return rng.choice([f"\\boxed{{{number}}}", f"#### {number}", f"    return {number}", f"```\nx = {number}\n```"])


def unterminated(rng: Random, right: str) -> str:
    tail = rng.choice(["```python\n", "\\boxed{", '"""', "'''", "(", "$", "\\left(", "f'{", "\\", "~~~", "<think>"])
    return right[: rng.randrange(len(right) + 1)] + tail * rng.randrange(1, 4)


def cut(rng: Random, right: str) -> str:
    return right[: rng.randrange(len(right) + 1)]


def spoilt(rng: Random, right: str) -> str:
    made = list(right)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(made))
        made[at : at + rng.randrange(3)] = rng.choice([[], [chr(rng.randrange(32, 127))], made[: rng.randrange(9)]])
        made = made or [" "]
    return "".join(made)


def shuffled(rng: Random, right: str) -> str:
    lines = right.split("\n")
    return "\n".join(rng.sample(lines, len(lines)))


def repeated(rng: Random, right: str) -> str:
    return (right + rng.choice(["", "\n", "\r", " No: "])) * rng.randrange(2, 12)


def forged_values(rng: Random, right: str) -> str:
    """A program that writes a forged value to the result channel before it returns."""
    forged = f"={rng.choice(['0'] * 9 + ['nan', '9' * 400])} {_value(rng, 4)}"
    if rng.random() < 0.3:
        at = rng.randrange(len(forged))
        forged = forged[:at] + rng.choice(['"', "[", "}", "\\ud800", "", "9" * 5000]) + forged[at + 1 :]
    telling = f"__import__('os').write(3, {(forged + chr(10)).encode()!r})"
    return re.sub(r"^( +)(?=return\b)", lambda match: f"{match[1]}{telling}\n{match[1]}", right, count=1, flags=re.M)


def _value(rng: Random, depth: int) -> str:
    """A text that is a tagged value or almost one: see :mod:`harness.sandbox.values`."""
    plain = ["0", "-1", "1e999", "true", "null", '"\\u202e"', str(2**61 - 1), '{"int":"0x1fffffffffffffff"}', "NaN"]
    if not depth or rng.random() < 0.2:
        return rng.choice(plain)
    inner = [_value(rng, depth - 1) for _ in range(rng.choice([0, 1, 2, 2, 3, 900 if depth == 1 else 3]))]
    tag = rng.choice(["set", "frozenset", "tuple", "dict", "Counter", "iterated", "digest", "bytes", "float", "other"])
    listed = f"[{','.join(inner)}]"
    dtype = rng.choice(["<i8", "<f4", "|b1", "<U3", "|O", "<M8[s]", "<f16"])
    shape = rng.choice(["null", "[]", "[1]", "[2,1]", "[4294967295,0]", listed])
    content = rng.choice(['"00"', '"0000000000000000"', '["abc"]', listed])
    return rng.choice([listed, f'{{"{tag}":{listed}}}', f'{{"numpy":["{dtype}",{shape},{content}]}}'])


def nothing(rng: Random, _: str) -> str:
    return rng.choice(
        ["", " ", "\n" * rng.randrange(500), "\t", "\u3000", "None", "```", "```python\n```", "\\boxed{}"]
    )


KINDS: dict[str, Callable[[Random, str], str]] = {
    function.__name__.replace("_", " "): function
    for function in (
        noise,
        odd_characters,
        lone_surrogates,
        noise_in_a_box,
        noise_in_a_fence,
        deep_nesting,
        huge_numbers,
        unterminated,
        cut,
        spoilt,
        shuffled,
        repeated,
        forged_values,
        nothing,
    )
}

_PROGRAM = "```python\n{}\n```\n$\\boxed{{{}}}$"  # a program for code tasks, an answer for maths tasks


def _bomb(body: str, answer: str, head: str = "") -> str:
    return _PROGRAM.format(f"{head}def NAME(*arguments, **named):\n    {body}", answer)


GENTLE_BOMBS = (
    "fork bomb",
    "memory bomb",
    "thread bomb",
    "output flood",
    "endless recursion",
    "kills its group",
    "fills the disk",
    "a value without end",
    "leaves with success",
)
BOMBS = {
    "fork bomb": _bomb("import os\n    while True: os.fork()", "9" * 1900),
    "memory bomb": _bomb("return [0] * 10**12", "10^{10^{10}}"),
    "thread bomb": _bomb(
        "import threading, time\n    while True: threading.Thread(target=time.sleep, args=(99,)).start()",
        "1" + "!" * 40,
    ),
    "output flood": _bomb("import os\n    while os.write(3, b'x' * 65536): pass", "\\sum_{i=1}^{10^9} i"),
    "endless recursion": _bomb("return NAME()", "(" * 900 + ")" * 900),
    "kills its group": _bomb(
        "import os\n    os.killpg(0, 9); os.kill(-1, 9); os.kill(os.getppid(), 9)", "\\frac" * 300
    ),
    "fills the disk": _bomb("while True: open('/tmp/f', 'ab').write(bytes(2**20))", "x^{x^{x^{x^{x}}}}"),
    "a value without end": _bomb("import itertools\n    return list(iter(int, 1)) and itertools.count()", "0.(3)"),
    "leaves with success": _bomb("import os\n    os._exit(0)", "\\infty"),
    "infinite loop": _bomb("while True: pass", "9^{9^{9^{9^{9}}}}"),
    "loop at definition": _PROGRAM.format("while True:\n    pass\ndef NAME(): return 1", "(1+x)^{9999999}"),
    "catches its alarm": _bomb(
        "while True:\n        try:\n            while True: pass\n        except BaseException: pass",
        "\\binom{10^9}{10^8}",
    ),
    "sleeps": _bomb("import time\n    time.sleep(10**6)", "\\prod_{i=1}^{9^9} (x-i)"),
    "stops itself": _bomb("import os\n    os.kill(os.getpid(), 19)", "1/3" * 600),
    "regex bomb": _bomb("import re\n    return re.match('(a*)*b', 'a' * 60)", "\\text{" * 300 + "a" * 1000),
    "keys of one hash": _bomb(
        "import os\n    os.write(3, b'=0 {\"set\":[' + b','.join(b'{\"int\":\"%s\"}' % hex(i * (2**61 - 1)).encode()"
        " for i in range(60000)) + b']}\\n')",
        "\\{" + "2305843009213693951," * 900,
    ),
    "barriers": _bomb("import ctypes\n    while True: ctypes.CDLL(None).syscall(324, 1, 0, 0)", "\\bar" * 300),
    "large power": _bomb("return 9**9**9", "2^{10^{8}} - 1"),
}
