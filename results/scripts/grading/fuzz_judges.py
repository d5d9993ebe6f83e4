"""A judge's server that answers with anything: damaged headers and bodies, silence, slow answers, redirects.

Promises: a comparison gets one judgement whose score is None or in [0, 1], or the judge is refused in time
with a message (BadInput); ``OPENAI_API_KEY`` reaches no host but OpenAI's, whatever a server answers.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

from harness.errors import BadInput
from harness.grading.judges.judgement import PairToJudge
from harness.grading.judges.open_judge import open_judge
from results.scripts.grading.fuzz_families import Trial

KEY = "sk-of-the-fuzzer"  # stands in for a real key
TIMEOUT_S = 0.4
SETTINGS = f"timeout_s={TIMEOUT_S},retries=1,backoff_s=0.01,parallel=1"
LIMIT_S = 15.0  # of one comparison, queues for a processor aside: two questions, two attempts each
PROTOCOLS = ("alpacaeval-1", "alpacaeval-2", "distillm2")
TEXTS = (
    "[[A]]", "[[B]]\n", "[[C]]", "I would say [[A]].", "", "[[", "[[A]] [[B]]", "\x00", "A" * 100_000, "\ud800",
    "m", "M",
    "[{'model': 'model_1', 'rank': 1}, {'model': 'model_2', 'rank': 2}]", "[{'model': 'model_1', 'rank': 1e999}]",
    "[" * 5_000, "[{'rank': " + "9" * 5_000 + "}]", "{'model': 'model_1'}", "__import__('os').abort()",
)  # fmt: skip
STATUSES = ("200 OK", "204 No", "301 M", "302 F", "307 T", "400 B", "401 U", "429 T", "500 E", "503 U", "999 X", "0 Z")
HEADERS = (
    "Retry-After: nan", "Retry-After: -1", "Retry-After: 1e-9", "Retry-After: x", "Content-Type: text/html",
    "Content-Length: 99999999", "Content-Length: -1", "Content-Length: x", "Transfer-Encoding: chunked", "Location: /",
    "Location: ftp://127.0.0.1/", "Location: file:///etc/passwd", "A:" + "b" * 70_000, ": ", "\x00: \x00",
    "Content-Encoding: gzip",
)  # fmt: skip
KINDS = ("odd text", "odd numbers", "odd headers", "spoilt bytes", "noise", "drip", "silence", "redirect")
NUMBERS = (None, 0, -0.1, 5.0, -1e308, float("nan"), float("inf"), "x", [], {}, 10**400, True)


class Servant:
    """Listens on the loopback address, sends every caller ``answer`` and stores what it received."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.answer: tuple[bytes, ...] = ()
        self.received: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self.socket.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._speak, args=(caller,), daemon=True).start()

    def _speak(self, caller: socket.socket) -> None:
        with caller, contextlib.suppress(OSError):  # the caller may disconnect at any time
            caller.settimeout(2.0)
            self.received.append(caller.recv(65536))
            for piece in self.answer:
                caller.sendall(piece)
                time.sleep(0.02 if len(self.answer) > 1 else 0)

    def close(self) -> None:
        self.socket.close()


def trials(n: int, seed: int) -> Iterator[Trial]:
    server, elsewhere = Servant(), Servant()
    kept = os.environ.get("OPENAI_API_KEY")
    os.environ["OPENAI_API_KEY"] = KEY
    try:
        for i in range(n):
            yield _trial(Random(f"{seed}/{i}"), i, server, elsewhere)
    finally:
        server.close()
        elsewhere.close()
        del os.environ["OPENAI_API_KEY"]
        if kept is not None:
            os.environ["OPENAI_API_KEY"] = kept


def _trial(rng: Random, number: int, server: Servant, elsewhere: Servant) -> Trial:
    kind, answer = _answer(rng, elsewhere.port)
    protocol = rng.choice(PROTOCOLS)
    server.answer, elsewhere.answer = answer, (_http("200 OK", [], _completion(rng, "[[A]]")),)
    server.received.clear()
    elsewhere.received.clear()
    began, queued, fault = time.monotonic(), _queued(), ""
    try:
        with tempfile.TemporaryDirectory() as folder:
            spec = f"openai:judge@http://127.0.0.1:{server.port}/v1,{SETTINGS}"
            (judged,) = open_judge(spec, protocol, Path(folder)).judge([PairToJudge("0", "Say hello.", "hello", "hi")])
        outcome = "no verdict" if judged.score is None else "a verdict"
        if judged.score is not None and not 0 <= judged.score <= 1:
            fault = f"a score of {judged.score}"
        elif not judged.reason or not judged.reason.isprintable():
            fault = f"a reason that is not one printable line: {judged.reason[:80]!r}"
    except BadInput:
        outcome = "refused"
    except Exception as error:  # any other exception is a fault
        outcome, fault = "raises", f"{type(error).__name__}: {error}"
    if (took := time.monotonic() - began - max(_queued() - queued, 0.0)) > LIMIT_S:
        fault = fault or f"took {took:.0f} s"
    if elsewhere.received:
        fault = fault or "followed a redirect to another host"
    if any(KEY.encode() in request for request in (*server.received, *elsewhere.received)):
        fault = fault or "OPENAI_API_KEY was sent to a host that is not OpenAI's"
    return Trial(f"{kind} ({protocol})", outcome, fault=f"{fault} (trial {number})" if fault else "")


def _queued() -> float:
    """Seconds for which threads of this process waited for a processor that had other work."""
    try:
        waits = [path.read_text().split()[1] for path in Path("/proc/self/task").glob("*/schedstat")]
    except (OSError, IndexError):  # a kernel without these counts, a thread that ended
        return 0.0
    return sum(map(int, waits)) / 1e9


def _answer(rng: Random, elsewhere: int) -> tuple[str, tuple[bytes, ...]]:
    """One answer, in the pieces in which it is sent."""
    kind = rng.choice(KINDS)
    body = _completion(rng, rng.choice(TEXTS), odd=kind == "odd numbers")
    whole = _http(rng.choice(STATUSES), rng.sample(HEADERS, rng.randrange(1, 4)), body)
    if kind in ("odd text", "odd numbers"):
        return kind, (_http("200 OK", [], body),)
    if kind == "odd headers":
        return kind, (whole,)
    if kind == "spoilt bytes":
        made = bytearray(_http("200 OK", [], body))
        for _ in range(rng.randrange(1, 9)):
            made[rng.randrange(len(made))] = rng.randrange(256)
        return kind, (bytes(made[: rng.randrange(len(made) + 1)] if rng.random() < 0.5 else made),)
    if kind == "noise":
        return kind, (rng.randbytes(rng.randrange(1, 5_000)),)
    if kind == "drip":  # in the headers or the body, for far longer than the timeout
        start = rng.randrange(60)
        return kind, (whole[:start], *(whole[at : at + 1] or b"x" for at in range(start, start + 150)))
    if kind == "redirect":
        status = rng.choice(["301 M", "302 F", "303 S", "307 T", "308 P"])
        return kind, (_http(status, [f"Location: http://127.0.0.1:{elsewhere}/v1/chat/completions"], b""),)
    return kind, (b"",) * 60  # for longer than the timeout


def _completion(rng: Random, text: str, odd: bool = False) -> bytes:
    """A chat completion; with ``odd``, some of its numbers and parts are of another kind."""
    number = (lambda: rng.choice(NUMBERS)) if odd else (lambda: -0.1)
    top = [{"token": token, "logprob": number()} for token in ("m", "M")]
    choice = {
        "message": {"role": "assistant", "content": text},
        "finish_reason": rng.choice(["stop", "length", None]),
        "logprobs": {"content": [{"token": "m", "logprob": number(), "top_logprobs": top}]},
    }
    usage = {"prompt_tokens": number() if odd else 9, "completion_tokens": number() if odd else 9}
    made = {"model": "judge", "choices": [choice], "usage": usage}
    if odd:
        made[rng.choice(list(made))] = rng.choice(NUMBERS)
    return json.dumps(made).encode()


def _http(status: str, headers: list[str], body: bytes) -> bytes:
    sized = any(header.startswith(("Content-Length", "Transfer")) for header in headers)
    stated = headers if sized else [*headers, f"Content-Length: {len(body)}"]
    return "\r\n".join([f"HTTP/1.1 {status}", *stated, "", ""]).encode("utf-8", "replace") + body
