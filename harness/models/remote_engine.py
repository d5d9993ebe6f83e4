"""The engine of a server: prompts are sent as token ids, and results mean the same as in this process.

The harness renders and encodes every prompt itself and sends its ids to ``/completions``. A vLLM server returns the
ids of the continuation with their log-probabilities; the end of a text (ending tokens, stop strings, the limit of
length and context) is then found here, by the same rules and tokenizer as for the engine in this process. Any
other OpenAI-compatible server returns text, which is encoded again and has no log-probabilities.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

from transformers import PreTrainedTokenizerBase

from harness.errors import BadInput, RunFailed
from harness.models import chat_format
from harness.models.chat_format import TextCodec
from harness.models.engine_choice import VLLM
from harness.models.files import PROBE
from harness.models.generate import Generated, Scored
from harness.models.openai_client import OpenAIClient, Passing, Unanswered
from harness.models.server_generator import MOST_STOPS, at_once
from harness.models.token_text import Stops, continuation
from harness.progress import UNWATCHED, Watch
from harness.types import SEEDS, Decoding, Prompt

NEUTRAL = {  # overrides all defaults of the server and of its model's generation_config
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
Waiting = Callable[[int, int], None]  # finished texts, and their total


class Server(Protocol):
    """The destination of an engine's requests, of which ``requests`` may run in parallel."""

    client: OpenAIClient
    kind: str
    requests: int
    restarts: int  # restarts after it died

    def context(self) -> int | None:
        """The maximum number of tokens that it reads, None if unknown."""

    def ready(self) -> None:
        """Returns when it answers; starts the server if that is the harness' to do."""

    def revive(self, trouble: str) -> bool:
        """After failed requests: whether to send the remaining ones again."""

    def load(self, folder: Path) -> None:
        """Gives it the weights of a folder."""

    def sleep(self) -> None:
        """Called when it is not needed for a while."""

    def stop(self) -> None:
        """Called when it is not needed any more."""


class RemoteEngine(TextCodec):
    """Generates with the model behind ``server``; see :class:`harness.models.engine_choice.Engine`.

    ``limit`` is the context of the model in tokens. ``waiting`` is called regularly while no text arrives.
    """

    def __init__(
        self,
        server: Server,
        tokenizer: PreTrainedTokenizerBase,
        end_ids: Collection[int],
        limit: int | None,
        words: int | None = None,
        waiting: Waiting = lambda came, total: None,
    ):
        super().__init__(tokenizer, words)
        self.server, self.batch, self.limit, self.waiting = server, server.requests, limit, waiting
        self.end_ids = {*end_ids, tokenizer.eos_token_id} | (set() if self.turn_end is None else {self.turn_end})

    def warnings(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str]:
        """Warnings about these prompts with this model, and about what its server does not reveal.

        Raises BadInput if the server reads fewer tokens than a prompt and its answer need.
        """
        if not prompts:
            return []
        needed = max(len(self.encode(self.render(prompt))) for prompt in prompts) + decoding.max_new_tokens
        needed = min(needed, self.limit or needed)
        room = self.server.context()
        if room is not None and room < needed:
            raise _short(f"the engine {self.server.client.model}", room, needed)
        warnings = [
            *chat_format.check_prompts(self, prompts),
            *chat_format.check_room(self, prompts, decoding, self.limit),
        ]
        if self.server.kind != VLLM:
            warnings.append(
                "the server returns text, which is encoded again: it decides where texts end, and gives no "
                "log-probabilities"
            )
        return warnings

    def generate(
        self, texts: Sequence[str], decoding: Decoding, seeds: Sequence[int], watch: Watch = UNWATCHED
    ) -> list[Generated]:
        """One continuation of each rendered text, in order. ``watch`` receives each as soon as it is complete."""
        return self.continue_ids([self.encode(text) for text in texts], decoding, seeds, watch)

    def continue_ids(
        self,
        prompts: Sequence[Sequence[int]],
        decoding: Decoding,
        seeds: Sequence[int],
        watch: Watch = UNWATCHED,
    ) -> list[Generated]:
        """One continuation of each prompt given as token ids, in order. Raises RunFailed where there is none."""
        contexts = [list(prompt) or [self.tokenizer.eos_token_id] for prompt in prompts]
        limit = self.limit or float("inf")
        budgets = [max(0, int(min(decoding.max_new_tokens, limit - len(p)))) for p in contexts]
        stops, continuations = Stops(self.tokenizer, decoding.stop), {}

        def keep(i: int, made: Generated) -> None:
            continuations[i] = made
            watch.wrote(made.tokens)
            watch.finished(i, made)

        for i, prompt in enumerate(contexts):
            if budgets[i] == 0:  # one that fills the context gets no answer
                keep(i, Generated("", (), (), "length", len(prompt)))
        rows = [i for i in range(len(contexts)) if budgets[i]]
        bodies = {i: self._body(contexts[i], decoding, seeds[i], budgets[i]) for i in rows}
        self._ask(rows, bodies, lambda i, reply: self._read(reply, contexts[i], stops, budgets[i]), keep)
        return [continuations[i] for i in range(len(contexts))]

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Scored]:
        """Scores every token of the continuation of each (context, continuation), both given as token ids."""
        token_pairs = [(list(context) or [self.tokenizer.eos_token_id], list(answer)) for context, answer in pairs]
        results = []
        for row, (before, tail) in zip(self.scored([c + a for c, a in token_pairs], 1), token_pairs, strict=True):
            scores = [row[len(before) + j][token] for j, token in enumerate(tail)]
            results.append(Scored(tuple(value for value, _ in scores), tuple(rank == 1 for _, rank in scores)))
        return results

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """For each (context, continuation): the continuation's log-probability in nats, and whether it is greedy."""
        token_pairs = []
        for context, answer in pairs:
            before = self.encode(context) or [self.tokenizer.eos_token_id]
            joint = self.encode(context + answer)
            tail = joint[len(before) :] if joint[: len(before)] == before else None
            token_pairs.append((before, list(self.response_ids(before, answer, ended=False)) if tail is None else tail))
        return [(sum(scored.log_probs), all(scored.greedy)) for scored in self.score(token_pairs)]

    def scored(
        self,
        texts: Sequence[Sequence[int]],
        k: int,
        arrived: Callable[[int], None] = lambda i: None,
    ) -> list[list[dict[int, tuple[float, int]]]]:
        """The log-probability and the rank, from 1, of the ``k`` likeliest tokens and of the text's token.

        One list per text, one entry per token; the entry of the first token, which nothing predicts, is empty. Only
        vLLM returns this (``prompt_logprobs``). Raises RunFailed if the server does not.
        """
        rows_by_text: dict[int, list[dict[int, tuple[float, int]]]] = {}

        def keep(i: int, rows: list[dict[int, tuple[float, int]]]) -> None:
            rows_by_text[i] = rows
            arrived(i)

        bodies = {
            i: {
                "model": self.server.client.model,
                "prompt": list(ids),
                "max_tokens": 1,
                "temperature": 0.0,
                "prompt_logprobs": k,
                "add_special_tokens": False,
            }
            for i, ids in enumerate(texts)
        }
        self._ask(range(len(texts)), bodies, lambda i, reply: _scores(reply, texts[i]), keep)
        return [rows_by_text[i] for i in range(len(texts))]

    def _ask(
        self,
        rows: Sequence[int],
        bodies: dict[int, dict[str, Any]],
        read: Callable[[int, bytes], Any],
        keep: Callable[[int, Any], None],
    ) -> None:
        """Sends the requests and passes on every answer. After a restart, the remaining ones are sent again."""
        came: set[int] = set()
        if rows:
            self.server.ready()

        def ask(i: int) -> Any:
            return self.server.client.request("/completions", bodies[i], lambda reply: read(i, reply))

        while left := [i for i in rows if i not in came]:
            try:
                for i, answer in at_once(left, ask, self.server.requests, lambda: self.waiting(len(came), len(rows))):
                    came.add(i)
                    keep(i, answer)
            except Unanswered as trouble:
                if trouble.of_question or trouble.refused or not self.server.revive(str(trouble)):
                    raise RunFailed(
                        f"the engine {self.server.client.model} gave no answer: {trouble}; run again, what was "
                        "finished is kept"
                    ) from None

    def _body(self, prompt: list[int], decoding: Decoding, seed: int, budget: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.server.client.model,
            "prompt": prompt,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            self.server.client.options.length_field: budget,
            "seed": seed % len(SEEDS),
        }
        if self.server.kind != VLLM:
            return body | ({"stop": list(decoding.stop[:MOST_STOPS])} if decoding.stop else {})
        return (
            body
            | NEUTRAL
            | {
                "logprobs": 1,
                "return_token_ids": True,
                "add_special_tokens": False,
                "ignore_eos": True,  # the ending tokens are those of the harness, named here
                "stop_token_ids": sorted(self.end_ids),
                "stop": list(decoding.stop),
                "include_stop_str_in_output": True,
            }
        )

    def _read(self, content: bytes, prompt: list[int], stops: Stops, budget: int) -> Generated:
        """The continuation in a reply, ended by the rules of this process. Raises Passing if there is none."""
        try:
            choice = json.loads(content)["choices"][0]
            ids = choice.get("token_ids")
            if ids is None:
                if self.server.kind == VLLM:
                    raise Unanswered("it returns no token_ids; vLLM does since version 0.10.2", refused=True)
                return self._from_text(str(choice["text"] or ""), choice.get("finish_reason"), prompt, stops, budget)
            token_log_probs = (choice.get("logprobs") or {}).get("token_logprobs") or []
            log_probs = [float(value) for value in token_log_probs] if len(token_log_probs) == len(ids) else []
            return self._ended([int(i) for i in ids], log_probs, prompt, stops, budget)
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
            raise Passing(f"the reply is not a completion: {content[:80]!r}") from None

    def _ended(self, ids: list[int], log_probs: list[float], prompt: list[int], stops: Stops, budget: int) -> Generated:
        """The text of the ids up to the first that ends it, or to an id that the models do not share."""
        n, finish = 0, "length"
        for n, token in enumerate(ids[:budget], 1):
            if token >= self.words and token not in self.end_ids:
                n -= 1
                break
            if token in self.end_ids or stops.hit(prompt, ids[:n]):
                finish = "stop"
                break
        return self._made(ids[:n], log_probs[:n], prompt, stops, finish)

    def _made(
        self, ids: Sequence[int], log_probs: Sequence[float], prompt: list[int], stops: Stops, finish: str
    ) -> Generated:
        whole = continuation(self.tokenizer, prompt, ids)
        text = stops.cut(whole)
        finish = "stop" if len(text) < len(whole) else finish
        return Generated(text, tuple(ids), tuple(log_probs), finish, len(prompt))

    def _from_text(self, text: str, reason: Any, prompt: list[int], stops: Stops, budget: int) -> Generated:
        """A continuation that arrived as text: encoded here, with the end of turn if the server ended it."""
        cut = stops.cut(text)
        stopped = len(cut) < len(text)
        ids = self.response_ids(prompt, cut, ended=reason == "stop" and not stopped)[:budget]
        return Generated(cut, tuple(ids), (), "length" if reason == "length" and not stopped else "stop", len(prompt))


def _scores(content: bytes, ids: Sequence[int]) -> list[dict[int, tuple[float, int]]]:
    """``prompt_logprobs`` of a reply. Raises Passing if it has none."""
    try:
        prompt_log_probs = json.loads(content)["choices"][0]["prompt_logprobs"]
        rows = [
            {int(token): (float(entry["logprob"]), int(entry["rank"])) for token, entry in (row or {}).items()}
            for row in prompt_log_probs
        ]
        if len(rows) == len(ids) and all(token in row for token, row in zip(ids[1:], rows[1:], strict=True)):
            return rows
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        pass
    raise Passing(f"the reply holds no prompt_logprobs of its {len(ids)} tokens: {content[:80]!r}") from None


def _short(who: str, room: int, needed: int) -> BadInput:
    return BadInput(
        f"{who} reads {room} tokens and the run needs {needed}; start it with --max-model-len {needed}, or ask for "
        "shorter texts"
    )


def check(client: OpenAIClient, codec: TextCodec, tokens: int, where: str) -> None:
    """Raises BadInput if a running server has another model or tokenizer, or too short a context.

    ``tokens`` is the longest prompt and answer together. Unknown facts (only vLLM reports its context, only
    vLLM and SGLang have ``/tokenize``) are not checked.
    """
    name = client.model
    try:
        served = client.request("/models", None, lambda reply: json.loads(reply)["data"])
    except Unanswered as trouble:
        raise BadInput(f"{where}: the server of {name} does not answer: {trouble}") from None
    except (ValueError, LookupError, TypeError):
        raise BadInput(f"{where}: the server of {name} does not list its models (GET /models)") from None
    by_name = {str(one.get("id")): one for one in served if isinstance(one, dict)}
    if name not in by_name:
        raise BadInput(f"{where}: the server has {', '.join(sorted(by_name)) or 'no model'}, not {name}; name that")
    context = by_name[name].get("max_model_len")
    if isinstance(context, int) and context < tokens:
        raise _short(f"{where}: the server of {name}", context, tokens)
    body = {"model": name, "prompt": PROBE, "add_special_tokens": False}
    try:
        theirs = client.request("/tokenize", body, lambda reply: json.loads(reply)["tokens"], below_base=False)
    except (Unanswered, ValueError, LookupError, TypeError):
        return
    own = codec.tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    if list(theirs) != list(own):
        raise BadInput(
            f"{where}: the server of {name} has another tokenizer than the models of this run; serve one of the "
            "same family"
        )
