"""Judges behind an OpenAI-compatible server: OpenAI itself, vLLM, SGLang, llama.cpp, ``transformers serve``.

One request per question over ``/chat/completions``. What may pass (429, 5xx, a timeout, a dropped connection,
a reply that is no completion) is tried again after a growing wait; the rest is not.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from harness.errors import BadInput
from harness.grading.judges.contract import JudgeOptions, Unanswered
from harness.grading.judges.protocols import Reply
from harness.options import option

OPENAI = "https://api.openai.com/v1"
LONGEST_WAIT_S = 60.0
REPLY_BYTES = 4_000_000  # a completion is far smaller; what is longer is not read to its end
PASSING = {408, 409, 425, 429}  # and every 5xx
Answer = TypeVar("Answer")
REFUSALS = {401, 403, 404}  # a wrong key, model or path: every question would meet it


@dataclass(frozen=True)
class ServerOptions(JudgeOptions):
    """Settings of ``openai:`` judges."""

    revision: str | None = option(None, "which version of the model a floating name stands for today")
    budget_usd: float | None = option(None, "never spend more than this", low=0)
    price_in: float | None = option(None, "USD per million prompt tokens", low=0)
    price_out: float | None = option(None, "USD per million reply tokens", low=0)
    parallel: int = option(8, "questions asked at once", low=1, high=256)
    timeout_s: float = option(120.0, "seconds that one reply may take", low=0.1)
    retries: int = option(5, "further attempts after a 429, 5xx, timeout or broken reply", low=0)
    backoff_s: float = option(1.0, "wait before the first retry, doubled for each further one", low=0)
    length_field: str = option(
        "max_tokens", "what the server calls the limit", choices=("max_tokens", "max_completion_tokens")
    )


class Passing(Exception):
    """A failure worth another attempt, after ``wait_s`` where the server names a wait."""

    def __init__(self, reason: str, wait_s: float | None = None):
        super().__init__(reason)
        self.wait_s = wait_s


class Server:
    """``ask`` is called from many threads; each call is its own connection."""

    def __init__(self, model: str, url: str, options: ServerOptions):
        self.model, self.url, self.options = model, url.rstrip("/"), options
        self.parallel = options.parallel

    @classmethod
    def named(cls, name: str, options: ServerOptions) -> Server:
        """The server of ``MODEL[@URL]``. Raises BadInput for an address that is no http(s) URL."""
        model, at, url = name.partition("@http")
        url = f"http{url}" if at else os.environ.get("OPENAI_BASE_URL") or OPENAI
        if not model or not _is_address(url):
            raise BadInput(f"--judge openai:{name}: write openai:MODEL or openai:MODEL@http://host:port/v1")
        if url.startswith(OPENAI) and not os.environ.get("OPENAI_API_KEY"):
            raise BadInput(f"--judge openai:{name}: set OPENAI_API_KEY, or name a server with @http://host:port/v1")
        return cls(model, url, options)

    def identity(self) -> dict[str, Any]:
        """Without the address: the same model is the same judge wherever it is served."""
        return {"kind": "openai", "model": self.model, "revision": self.options.revision}

    def ask(self, messages: list[dict[str, str]], temperature: float, max_tokens: int, top_logprobs: int) -> Reply:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "temperature": temperature,
            self.options.length_field: max_tokens,
        }
        if top_logprobs:
            body |= {"logprobs": True, "top_logprobs": top_logprobs}
        return self.request("/chat/completions", body, lambda content: _reply(content, top_logprobs))

    def request(self, path: str, body: dict[str, Any], read: Callable[[bytes], Answer]) -> Answer:
        """What ``read`` makes of the answer. Raises Unanswered when there is none after all attempts, and what
        ``read`` raises; a :class:`Passing` failure is tried again."""
        content = json.dumps(body).encode()
        attempt = 0
        while True:
            try:
                return read(self._post(path, content))
            except Passing as trouble:
                if attempt == self.options.retries:
                    raise Unanswered(f"{trouble} ({attempt + 1} attempts)") from None
                time.sleep(self._wait(attempt) if trouble.wait_s is None else trouble.wait_s)
                attempt += 1

    def _wait(self, attempt: int) -> float:
        """Doubled each time and spread by half, so that parallel questions do not return in step."""
        return min(self.options.backoff_s * 2**attempt, LONGEST_WAIT_S) * random.uniform(0.5, 1.0)

    def _post(self, path: str, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("OPENAI_API_KEY", "").strip():
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(f"{self.url}{path}", data=body, headers=headers)
        deadline = time.monotonic() + self.options.timeout_s
        try:
            with urllib.request.urlopen(request, timeout=self.options.timeout_s) as answer:
                return _read_until(answer, deadline)
        except urllib.error.HTTPError as error:
            said = f"HTTP {error.code}: {_message(error)}"
            if error.code in PASSING or error.code >= 500:
                raise Passing(said, _retry_after(error)) from None
            raise Unanswered(said, refused=error.code in REFUSALS) from None
        except TimeoutError:
            raise Passing(f"no reply within {self.options.timeout_s:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise Passing(f"{type(error).__name__}: {getattr(error, 'reason', error)}") from None


def _is_address(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number, a broken IPv6 address
        return False


def _read_until(answer: http.client.HTTPResponse, deadline: float) -> bytes:
    """The body, however slowly it drips. Raises TimeoutError beyond ``deadline`` (time.monotonic)."""
    parts, size = [], 0
    while part := answer.read1(65536):
        parts.append(part)
        size += len(part)
        if time.monotonic() > deadline:
            raise TimeoutError
        if size > REPLY_BYTES:
            raise Passing(f"a reply of more than {REPLY_BYTES} bytes")
    return b"".join(parts)


def _reply(body: bytes, top_logprobs: int) -> Reply:
    """The completion in a response body. Raises Passing when there is none, Unanswered when the
    log-probabilities that the protocol reads are missing."""
    try:
        completion = json.loads(body)
        choice = completion["choices"][0]
        text = choice["message"]["content"] or ""
        usage = completion.get("usage") or {}
        first: list[tuple[str, float]] = []
        if top_logprobs:
            if not choice.get("logprobs"):
                raise Unanswered("the server sends no logprobs, which this protocol reads", refused=True)
            tokens = choice["logprobs"]["content"] or [{"top_logprobs": []}]
            first = [(str(t["token"]), float(t["logprob"])) for t in tokens[0]["top_logprobs"]]
        return Reply(
            text=str(text),
            first_token=tuple(first),
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or 0),
            model=str(completion.get("model") or ""),
        )
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        raise Passing(f"the reply is no chat completion: {body[:80]!r}") from None


def _message(error: urllib.error.HTTPError) -> str:
    """What the server says of its refusal, on one line."""
    try:
        with error:
            content = error.read(10_000).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return str(error.reason)
    with contextlib.suppress(ValueError, LookupError, TypeError, RecursionError):  # not in OpenAI's form
        content = json.loads(content)["error"]["message"]
    return " ".join(str(content).split())[:200] or str(error.reason)


def _retry_after(error: urllib.error.HTTPError) -> float | None:
    """The wait that the server asks for in seconds, within reason."""
    try:
        return min(max(float(error.headers.get("Retry-After", "")), 0.0), LONGEST_WAIT_S)
    except ValueError:
        return None
