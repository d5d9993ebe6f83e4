"""Generates text with any OpenAI-compatible server (vLLM, SGLang, llama.cpp, ``transformers serve``, OpenAI).

Chat prompts go to ``/chat/completions``, where the server's own template renders them; plain prompts to
``/completions``. A rendered text starts with ``chat:`` or ``text:`` to say which it is.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from harness.errors import RunFailed
from harness.models.generation_cache import CachedAnswer
from harness.models.openai_client import PATIENT_S, ClientOptions, OpenAIClient, Passing, Unanswered
from harness.progress import UNWATCHED, Watch
from harness.types import SEEDS, Decoding, Prompt

CHAT, TEXT = "chat:", "text:"
MOST_STOPS = 4  # the maximum that OpenAI's servers accept; the others are applied here
PATIENT = ClientOptions(timeout_s=PATIENT_S)


class ServerGenerator:
    """Generates like :class:`harness.models.generate.Generator`, as far as a server can.

    A server returns neither token ids nor log-probabilities, and it may ignore the seed or batch differently.
    ``batch`` requests run at once.
    """

    def __init__(self, model: str, url: str, batch: int = 16, options: ClientOptions | None = None):
        self.server, self.batch = OpenAIClient(model, url, options or PATIENT), batch

    def render(self, prompt: Prompt) -> str:
        """The turns as JSON after ``chat:``, or the plain text after ``text:``."""
        if not prompt.chat:
            return TEXT + prompt.plain
        turns = prompt.turns()
        if prompt.prefill:
            turns.append({"role": "assistant", "content": prompt.prefill})
        return CHAT + json.dumps(turns, ensure_ascii=False)

    def begins_itself(self, prompt: Prompt) -> bool:
        """Whether the model begins the answer itself, see :class:`harness.models.chat_format.TextCodec`."""
        return prompt.chat and not prompt.prefill

    def warnings(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str]:
        """Warnings about what a server does not reveal or guarantee."""
        warnings = ["a server applies its own chat template and generation_config; neither can be inspected here"]
        if any(prompt.chat and prompt.prefill for prompt in prompts):
            warnings.append(
                "the answer has a prefill, which vLLM and SGLang continue; other servers may start over, "
                "and a model that thinks first has it inside its thoughts"
            )
        return warnings

    def generate(
        self,
        texts: Sequence[str],
        decoding: Decoding,
        seeds: Sequence[int],
        watch: Watch = UNWATCHED,
    ) -> list[CachedAnswer]:
        """One continuation of each rendered text, in order. Raises RunFailed when the server returns none."""
        answers: dict[int, CachedAnswer] = {}
        for i, answer in self.each(texts, decoding, seeds):
            answers[i] = answer
            watch.wrote(answer.tokens)
            watch.finished(i, answer)
        return [answers[i] for i in range(len(texts))]

    def each(
        self, texts: Sequence[str], decoding: Decoding, seeds: Sequence[int]
    ) -> Iterator[tuple[int, CachedAnswer]]:
        """Each continuation with its index in ``texts``, in order of arrival.

        Raises RunFailed for a missing one, after the running requests have ended.
        """
        try:
            yield from at_once(range(len(texts)), lambda i: self._one(texts[i], seeds[i], decoding), self.batch)
        except Unanswered as failed:
            raise RunFailed(
                f"the server of {self.server.model} gave no completion: {failed}; run again, its completions are kept"
            ) from None

    def _one(self, text: str, seed: int, decoding: Decoding) -> CachedAnswer:
        body: dict[str, Any] = {
            "model": self.server.model,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            self.server.options.length_field: decoding.max_new_tokens,
            "seed": seed % len(SEEDS),
        }
        if decoding.stop:
            body["stop"] = list(decoding.stop[:MOST_STOPS])
        if text.startswith(TEXT):
            path, where = "/completions", ("text",)
            body["prompt"] = text.removeprefix(TEXT)
        else:
            path, where = "/chat/completions", ("message", "content")
            body["messages"] = json.loads(text.removeprefix(CHAT))
            if body["messages"][-1]["role"] == "assistant":
                body |= {"add_generation_prompt": False, "continue_final_message": True}
        return self.server.request(path, body, lambda content: _served(content, where, decoding))


def _served(content: bytes, where: Sequence[str], decoding: Decoding) -> CachedAnswer:
    """The completion in a response body, cut at every stop string. Raises Passing if there is none."""
    try:
        reply = json.loads(content)
        choice = reply["choices"][0]
        text: Any = choice
        for key in where:
            text = text[key]
        text = str(text or "")
        ends = [at for at in map(text.find, decoding.stop) if at >= 0]
        finish = "length" if choice.get("finish_reason") == "length" and not ends else "stop"
        tokens = max(int((reply.get("usage") or {}).get("completion_tokens") or 0), 0)
        return CachedAnswer(text[: min(ends, default=len(text))], tokens, finish)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        raise Passing(f"the reply is not a completion: {content[:80]!r}") from None


# Several parallel requests to a server; answers in order of arrival.

Answer = TypeVar("Answer")
POLL_S = 5.0  # interval of the calls of ``waiting``
_ENDED = object()  # marks the end of a thread's work


def at_once(
    numbers: Sequence[int],
    ask: Callable[[int], Answer],
    threads: int,
    waiting: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, Answer]]:
    """``(i, ask(i))`` for every ``i``, in order of arrival; ``waiting`` is called while none arrives.

    Raises the error of the first failed ``ask``, after the running ones have ended and their answers were passed on.
    """
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
    for i in numbers:
        todo.put(i)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            try:
                i = todo.get_nowait()
            except queue.Empty:
                break
            try:
                done.put((i, ask(i)))
            except BaseException as error:  # raised again below, in the waiting thread
                stop.set()
                done.put((None, error))
        done.put((_ENDED, None))

    working = min(threads, len(numbers))
    for _ in range(working):
        threading.Thread(target=work, daemon=True).start()  # daemon threads, so that Ctrl-C takes effect at once
    failed: BaseException | None = None
    try:
        while working:
            try:
                i, outcome = done.get(timeout=POLL_S)
            except queue.Empty:
                waiting()
                continue
            if i is _ENDED:
                working -= 1
            elif i is None:
                failed = failed or outcome
            else:
                yield i, outcome
    finally:
        stop.set()
    if failed is not None:
        raise failed
