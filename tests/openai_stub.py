"""A small OpenAI-compatible chat server in a process of its own, which can be told to misbehave.

It prefers the response that contains "good" and replies in the form that the question asks for. Run alone it
prints its port. ``trouble`` names what happens to the first requests, one word each, then to all the rest:

    ok 400 401 404 429 500 toolong hang drip garbage empty nonsense drop die nologprobs greedy first cut think
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PATIENCE_S = 30  # of "hang", well beyond the clients' time limits


@dataclass
class Stub:
    """A running server: its address and what it has been asked."""

    url: str

    def requests(self) -> list[dict]:
        with urllib.request.urlopen(f"{self.url}/requests", timeout=10) as answer:
            return json.loads(answer.read())


@contextlib.contextmanager
def serving(*trouble: str, then: str = "ok") -> Iterator[Stub]:
    """A server whose first requests meet ``trouble`` and all later ones ``then``; ended with the block."""
    process = subprocess.Popen(
        [sys.executable, __file__, then, *trouble],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield Stub(f"http://127.0.0.1:{int(process.stdout.readline())}/v1")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def verdict(body: dict, always_first: bool) -> tuple[str, float]:
    """The reply's text in the form asked for, and the share of the response shown first."""
    text = body["messages"][-1]["content"]
    good, bad = text.find("good"), text.find("bad")
    share = 0.5 if good < 0 and bad < 0 else float(bad < 0 or 0 <= good < bad)
    share = 1.0 if always_first else share
    if body.get("logprobs"):
        return ("m" if share >= 0.5 else "M"), share
    if "[[A]]" in text:
        letter = {1.0: "A", 0.0: "B", 0.5: "C"}[share]
        return f"At first [[C]] came to mind.\n\n[[{letter}]]", share
    ranks = (1, 2) if share >= 0.5 else (2, 1)
    return f"[{{'model': 'model_1', 'rank': {ranks[0]}}}, {{'model': 'model_2', 'rank': {ranks[1]}}}]", share


def completion(body: dict, trouble: str) -> dict:
    if "prompt" in body:  # /completions: plain text goes on
        choice = {"index": 0, "text": f" goes on after {body['prompt']}", "finish_reason": "stop"}
        return {"model": body["model"], "choices": [choice], "usage": {"completion_tokens": 10}}
    text, share = verdict(body, always_first=trouble == "first")
    text = {"nonsense": "I like both of them!", "empty": ""}.get(trouble, text)
    thought = "<think>\n[[B]]?\n</think>\n\n" if trouble == "think" else ""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": thought + text},
        "finish_reason": "length" if trouble == "cut" else "stop",
    }
    if body.get("logprobs") and trouble != "nologprobs":
        # exp(-0.1054) = 0.9: the first response gets 0.9 of the two letters' mass when it is preferred
        logprobs = [("m", -0.1054 if share > 0.5 else -2.3026), ("M", -2.3026 if share > 0.5 else -0.1054)]
        top = [{"token": token, "logprob": logprob} for token, logprob in logprobs]
        before = [{"token": t, "logprob": 0.0, "top_logprobs": []} for t in ("<think>", "hm", "</think>", "\n\n")]
        answer = {"token": text, "logprob": -0.1, "top_logprobs": top}
        choice["logprobs"] = {"content": [*(before if thought else []), answer]}
    usage = {"prompt_tokens": 100, "completion_tokens": 1000 if trouble == "greedy" else 10}
    return {"object": "chat.completion", "model": body["model"], "choices": [choice], "usage": usage}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        """Quiet: the tests read what happened through ``/requests``."""

    def do_GET(self) -> None:
        self._send(200, self.server.seen)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(self.server.seen)
            self.server.seen.append(body | {"authorization": self.headers.get("Authorization")})
        trouble = self.server.trouble[number] if number < len(self.server.trouble) else self.server.then
        if trouble == "die":
            os._exit(1)
        if trouble == "drop":
            self.close_connection = True
        elif trouble == "hang":
            time.sleep(PATIENCE_S)
        elif trouble == "drip":
            self._drip()
        elif trouble == "garbage":
            self._send_bytes(200, b"<html>\xff bad gateway")
        elif trouble == "toolong":
            self._send(400, {"error": {"message": "This model's maximum context length is 4096 tokens."}})
        elif trouble.isdigit():
            self._send(int(trouble), {"error": {"message": f"told to answer {trouble}"}})
        else:
            self._send(200, completion(body, trouble))

    def _send(self, status: int, content: object) -> None:
        self._send_bytes(status, json.dumps(content).encode())

    def _send_bytes(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if status == 429:
            self.send_header("Retry-After", "0.01")
        self.end_headers()
        self.wfile.write(content)

    def _drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        with contextlib.suppress(OSError):  # the client has had enough
            for _ in range(PATIENCE_S * 20):
                self.wfile.write(b" ")
                time.sleep(0.05)


def main(then: str, *trouble: str) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.then, server.trouble, server.seen, server.lock = then, trouble, [], threading.Lock()
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
