"""The interface of a place that runs a judging model, and the settings common to all model judges."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

from harness.errors import BadInput
from harness.grading.judges.protocols import Reply
from harness.grading.thinking import CLOSED
from harness.models.openai_client import OPENAI, ClientOptions, OpenAIClient, Passing, Unanswered, split_name
from harness.options import option
from harness.safe_read import printable
from harness.types import Decoding, Prompt


class Model(Protocol):
    """Where a judge runs. ``ask`` raises :class:`harness.models.openai_client.Unanswered` and is called from
    ``parallel`` threads."""

    parallel: int

    def identity(self) -> dict[str, Any]: ...

    def ask(self, messages: list[dict[str, str]], temperature: float, max_tokens: int, top_logprobs: int) -> Reply: ...


@dataclass(frozen=True)
class JudgeOptions:
    """Settings of every model judge, written after commas in its specification."""

    protocol: str | None = option(
        None, "how the judge is asked: alpacaeval-1, alpacaeval-2, arena-hard, distillm2 or mt-bench"
    )
    temperature: float | None = option(None, "sampling temperature; the protocol's unless set", low=0, high=2)
    max_tokens: int | None = option(
        None, "longest reply, including the reasoning before the verdict; the protocol's unless set", low=1
    )


# A Hugging Face model in this process as the judge: a folder, a hub id, or ``micro:teacher``.
#
# One question at a time; to judge many with a large model, serve it and use ``openai:``.


@dataclass(frozen=True)
class LocalOptions(JudgeOptions):
    """Settings of ``hf:`` judges."""

    device: str = option("cpu", "where the model runs, e.g. cuda")
    dtype: str = option("float32", "of the weights", choices=("float32", "bfloat16", "float16"))
    trust_remote_code: bool = option(False, "run Python code from the model's folder (auto_map)")


class LocalModel:
    """The weights are identified when the judge is opened and loaded at the first question."""

    parallel = 1

    def __init__(self, name: str, options: LocalOptions):
        from harness.models.files import locate

        self.files, self.options = locate(name, options.trust_remote_code), options
        self._generator: Any = None

    def identity(self) -> dict[str, Any]:
        identity = {"kind": "hf", "model": self.files.id, "revision": self.files.sha256}
        return identity | ({"trust_remote_code": True} if self.files.trusted else {})

    def ask(self, messages: list[dict[str, str]], temperature: float, max_tokens: int, top_logprobs: int) -> Reply:
        if self._generator is None:
            self._generator = self._load()
        generator = self._generator
        turns = {m["role"]: m["content"] for m in messages}
        plain = "\n\n".join(m["content"] for m in messages) + "\n\n"
        text = generator.render(Prompt(turns["user"], plain, turns.get("system")))
        ids = generator.encode(text)
        if generator.limit and len(ids) + max_tokens > generator.limit:
            raise Unanswered(
                f"a question of {len(ids)} tokens and a reply of {max_tokens} do not fit the judge's context of "
                f"{generator.limit}",
                of_question=True,
            )
        first = self._first_token(ids, top_logprobs) if top_logprobs else ()
        from harness.types import stable_seed

        decoding = Decoding(temperature=temperature, max_new_tokens=max_tokens)
        (made,) = generator.continue_ids([ids], decoding, [stable_seed("judge", text)])
        return Reply(made.text, first, len(ids), made.tokens, cut=made.finish == "length")

    def _load(self) -> Any:
        from harness.models.files import load_model, load_tokenizer
        from harness.models.generate import Generator

        model = load_model(self.files, self.options.dtype, self.options.device)
        return Generator(model, load_tokenizer(self.files), batch=1)

    def _first_token(self, ids: list[int], top: int) -> tuple[tuple[str, float], ...]:
        """The ``top`` likeliest first tokens of the reply with their log-probabilities at temperature 1."""
        import torch

        model, tokenizer = self._generator.model, self._generator.tokenizer
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids], device=model.device), logits_to_keep=1).logits[0, -1]
        log_probs = logits[: len(tokenizer)].float().log_softmax(-1)
        best = log_probs.topk(min(top, len(log_probs)))
        return tuple(
            (tokenizer.decode([token]), value)
            for token, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        )


# Judges behind an OpenAI-compatible server: OpenAI itself, vLLM, SGLang, llama.cpp, ``transformers serve``.
#
# One request per question over ``/chat/completions``; :mod:`harness.models.openai_client` says which servers are
# asked, which key they get, and how long anything may take.


LONGEST_NAME = 200  # characters of the name that a server gives its model
MOST_TOKENS = 10**9  # of a prompt or reply


@dataclass(frozen=True)
class ServerOptions(JudgeOptions, ClientOptions):
    """Settings of ``openai:`` judges."""

    revision: str | None = option(None, "the version that a floating model name means today")
    budget_usd: float | None = option(None, "never spend more than this", low=0)
    price_in: float | None = option(None, "USD per million prompt tokens", low=0)
    price_out: float | None = option(None, "USD per million reply tokens", low=0)
    parallel: int = option(8, "number of parallel questions", low=1, high=256)


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
        return self.client.request("/chat/completions", body, lambda content: _reply_of(content, top_logprobs))


def _reply_of(body: bytes, top_logprobs: int) -> Reply:
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
        raise Passing(f"the reply is not a chat completion: {body[:80]!r}") from None


def _count(reported: Any) -> int:
    """A number of tokens as reported by a server, bounded to the size of one reply; the cost is computed from it."""
    return min(max(int(reported or 0), 0), MOST_TOKENS)


def _answer_token(tokens: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The alternatives at the first token of the answer: the first of all, or the first after the thinking."""
    words = [str(t["token"]) for t in tokens]
    ends = [mark.end() for mark in CLOSED.finditer("".join(words))]
    if not ends:
        return tokens[0]["top_logprobs"] if tokens else []
    lengths = accumulate(map(len, words))
    ended = next(i for i, length in enumerate(lengths) if length >= ends[-1])
    return next((t["top_logprobs"] for t in tokens[ended + 1 :] if str(t["token"]).strip()), [])
