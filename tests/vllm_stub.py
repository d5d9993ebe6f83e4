"""Stand-ins that speak the protocol of vLLM's server.

:func:`serving` answers in a thread with a real model, by plain forward passes of transformers over whole texts: no code
of the harness is in it. Run as a script it stands for the interpreter of vLLM's environment: it takes vLLM's arguments
and answers without a model, so that starting, dying and starting again take no time.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

DIES = "STUB_VLLM_DIES"  # a folder: each file in it kills the next server that is asked for a text, and is removed


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            entry = {"id": self.server.name, "max_model_len": self.server.context}
            self._send(200, {"data": [entry]})
        else:
            self._send(200, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, body))
        if self.path == "/tokenize":
            self._send(200, {"tokens": self.server.tokenize(body["prompt"])})
        elif self.path == "/collective_rpc":
            assert body["method"] == "reload_weights"
            with self.server.lock:
                self.server.reload(body["kwargs"]["weights_path"])
            self._send(200, {"results": [None]})
        elif self.path == "/v1/completions":
            if (body.get("prompt_logprobs") or 0) > self.server.top:
                said = f"Requested prompt logprobs of {body['prompt_logprobs']}, greater than {self.server.top}"
                self._send(400, {"error": {"message": said}})
                return
            with self.server.lock:
                choice = self.server.complete(body)
            self._send(200, {"choices": [choice], "usage": {"completion_tokens": len(choice.get("token_ids") or ())}})
        else:
            self._send(200, {})

    def _send(self, status: int, content: object) -> None:
        raw = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


@contextlib.contextmanager
def serving(folder: Path, *, name: str = "m", context: int = 256, top: int = 300, ids: bool = True) -> Iterator:
    """A server of the model in ``folder``; ``ids=False`` returns text alone, as servers other than vLLM do."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.name, server.context, server.top, server.seen, server.lock = name, context, top, [], threading.Lock()
    server.tokenize = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]

    def reload(path) -> None:
        server.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()

    @torch.no_grad()
    def complete(body: dict) -> dict:
        prompt, out, told = list(body["prompt"]), [], []
        dice = torch.Generator().manual_seed(body.get("seed") or 0)
        finish, ends = "length", set(body.get("stop_token_ids") or ([] if body.get("ignore_eos") else [256]))
        for _ in range(body["max_tokens"]):
            logits = server.model(torch.tensor([prompt + out])).logits[0, -1].float()
            t = body["temperature"]
            chosen = int(logits.argmax() if t == 0 else torch.multinomial((logits / t).softmax(-1), 1, generator=dice))
            out.append(chosen)
            told.append(float(logits.log_softmax(-1)[chosen]))
            text = tokenizer.decode(out, skip_special_tokens=True)
            if chosen in ends or any(stop in text for stop in body.get("stop") or ()):
                finish = "stop"
                break
        choice = {"text": tokenizer.decode(out, skip_special_tokens=True), "finish_reason": finish}
        if ids:
            choice |= {"token_ids": out, "logprobs": {"token_logprobs": told}}
        if (k := body.get("prompt_logprobs")) is not None:
            scores = server.model(torch.tensor([prompt])).logits[0].float().log_softmax(-1)
            rows: list = [None]
            for i, token in enumerate(prompt[1:]):
                order = scores[i].argsort(descending=True).tolist()
                rows.append(
                    {str(v): {"logprob": float(scores[i, v]), "rank": order.index(v) + 1} for v in {*order[:k], token}}
                )
            choice["prompt_logprobs"] = rows
        return choice

    server.reload, server.complete = reload, complete
    reload(folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def _as_interpreter(words: list[str]) -> None:
    """What the harness runs: ``-c CODE`` for the version, or the launch script with vLLM's arguments."""
    if words[0] == "-c":
        print("0.0.stub")
        return
    asked = dict(zip(words[1::2], words[2::2], strict=False))
    if "broken" in asked["--model"]:
        sys.exit("RuntimeError: this model cannot be served")
    if "silent" in asked["--model"]:
        with socket.create_server(("127.0.0.1", int(asked["--port"]))):  # takes connections and says nothing
            sys.stdin.buffer.read()
        return
    server = ThreadingHTTPServer(("127.0.0.1", int(asked["--port"])), Handler)
    server.name, server.context, server.top, server.seen = "model", 256, 99, []
    server.lock, weights = threading.Lock(), [asked["--model"]]
    server.reload = weights.append

    def complete(body: dict) -> dict:
        for sign in sorted(Path(os.environ[DIES]).glob("*")):
            sign.unlink()
            os._exit(1)
        # The text says which weights the server has.
        ids = [*f"{len(weights)}{Path(weights[-1]).name}".encode(), 256]
        return {"text": "", "token_ids": ids, "logprobs": {"token_logprobs": [-1.0] * len(ids)}}

    server.complete = complete
    threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    _as_interpreter(sys.argv[1:])
