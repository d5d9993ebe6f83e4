"""Judges behind an OpenAI-compatible server: OpenAI itself, vLLM, SGLang, llama.cpp, ``transformers serve``.

One request per question over ``/chat/completions``; :mod:`harness.models.openai_client` says which servers are asked,
which key they get, and how long anything may take.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from harness.errors import BadInput
from harness.grading.judges.contract import JudgeOptions
from harness.grading.judges.protocols import Reply
from harness.grading.thinking import CLOSED
from harness.models.openai_client import OPENAI, ClientOptions, OpenAIClient, Passing, Unanswered, split_name
from harness.options import option
from harness.safe_read import printable

LONGEST_NAME = 200  # characters of the name that a server gives its model
MOST_TOKENS = 10**9  # of a prompt or reply


@dataclass(frozen=True)
class ServerOptions(JudgeOptions, ClientOptions):
    """Settings of ``openai:`` judges."""

    revision: str | None = option(None, "which version of the model a floating name stands for today")
    budget_usd: float | None = option(None, "never spend more than this", low=0)
    price_in: float | None = option(None, "USD per million prompt tokens", low=0)
    price_out: float | None = option(None, "USD per million reply tokens", low=0)
    parallel: int = option(8, "questions asked at once", low=1, high=256)


class ServerModel:
    """The judging model of ``MODEL[@URL]``; the URL is ``OPENAI_BASE_URL`` or OpenAI's own where none is given.

    Raises BadInput for a name, address or key that cannot be used.
    """

    def __init__(self, name: str, options: ServerOptions):
        where = f"--judge openai:{name}"
        model, url = split_name(name, where)
        if not model:
            raise BadInput(f"{where}: write openai:MODEL or openai:MODEL@http://host:port/v1")
        self.options, self.parallel = options, options.parallel
        self.client = OpenAIClient(model, url or os.environ.get("OPENAI_BASE_URL") or OPENAI, options, where)

    def identity(self) -> dict[str, Any]:
        """Without the address: the same model is the same judge wherever it is served."""
        return {"kind": "openai", "model": self.client.model, "revision": self.options.revision}

    def ask(self, messages: list[dict[str, str]], temperature: float, max_tokens: int, top_logprobs: int) -> Reply:
        body: dict[str, Any] = {
            "model": self.client.model,
            "messages": messages,
            "temperature": temperature,
            self.options.length_field: max_tokens,
        }
        if top_logprobs:
            body |= {"logprobs": True, "top_logprobs": top_logprobs}
        return self.client.request("/chat/completions", body, lambda content: _reply(content, top_logprobs))


def _reply(body: bytes, top_logprobs: int) -> Reply:
    """The completion in a response body. Raises Passing when there is none, Unanswered when the
    log-probabilities that the protocol reads are missing."""
    try:
        completion = json.loads(body)
        choice = completion["choices"][0]
        text = str(choice["message"]["content"] or "")
        usage = completion.get("usage") or {}
        first: list[tuple[str, float]] = []
        if top_logprobs:
            if not choice.get("logprobs"):
                raise Unanswered("the server sends no logprobs, which this protocol reads", refused=True)
            top = _answer_token(choice["logprobs"]["content"] or [])
            first = [(str(t["token"]), float(t["logprob"])) for t in top]
        return Reply(
            text=text,
            first_token=tuple(first),
            prompt_tokens=_count(usage.get("prompt_tokens")),
            completion_tokens=_count(usage.get("completion_tokens")),
            model=printable(str(completion.get("model") or "")[:LONGEST_NAME]),
            cut=choice.get("finish_reason") == "length",
        )
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        raise Passing(f"the reply is no chat completion: {body[:80]!r}") from None


def _count(told: Any) -> int:
    """A number of tokens as a server tells it, within what one reply can have; the cost is computed from it."""
    return min(max(int(told or 0), 0), MOST_TOKENS)


def _answer_token(tokens: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The alternatives at the first token of the answer: the first of all, or the first behind the thinking."""
    words = [str(t["token"]) for t in tokens]
    ends = [found.end() for found in CLOSED.finditer("".join(words))]
    if not ends:
        return tokens[0]["top_logprobs"] if tokens else []
    lengths = accumulate(map(len, words))
    ended = next(i for i, length in enumerate(lengths) if length >= ends[-1])
    return next((t["top_logprobs"] for t in tokens[ended + 1 :] if str(t["token"]).strip()), [])
