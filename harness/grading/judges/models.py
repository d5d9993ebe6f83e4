"""A language model as judge: asks the questions, parses the replies, and stores every answer immediately.

The place where a model runs (``server``, ``local``) is independent of its prompts (``protocols``). If a question fails,
only its comparison stays unanswered, and the next run asks it again.
"""

from __future__ import annotations

import dataclasses
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.data import cache_dir
from harness.durable import CacheFile, digest
from harness.errors import BadInput
from harness.grading.judges.answering import JudgeOptions, Model
from harness.grading.judges.judgement import FORMS, Judge, Judgement, PairToJudge
from harness.grading.judges.protocols import JudgeProtocol, Reply, judge_protocol
from harness.models.openai_client import Unanswered
from harness.options import build, key_values

log = logging.getLogger(__name__)

GIVEN_UP_AFTER = 10  # consecutive failures, after retries, that end the questions


@dataclass(frozen=True)
class JudgeQuestion:
    """One prompt to the judge, its ``key`` in the cache, and its highest possible cost."""

    key: str
    messages: list[dict[str, str]]
    candidate_first: bool
    tokens: int
    usd: float


@dataclass(frozen=True)
class Failure:
    """Why a question has no answer. ``replied``: the judge replied without a verdict."""

    reason: str
    replied: bool


class ModelJudge(Judge):
    """Asks ``model`` by ``protocol``; stores answers with a verdict in ``folder``."""

    def __init__(self, model: Model, protocol: JudgeProtocol, temperature: float, budget: JudgeBudget, folder: Path):
        self.model, self.protocol, self.temperature, self.budget = model, protocol, temperature, budget
        self.cache = JudgementCache(folder, self.identity())
        self.progress: Callable[[int, int], None] = lambda done, total: None  # receives the number of questions

    @property
    def rates(self) -> bool:
        return self.protocol.rates

    def identity(self) -> dict[str, Any]:
        return self.model.identity() | {
            "protocol": self.protocol.name,
            "prompt_sha256": self.protocol.prompt_sha256,
            "temperature": self.temperature,
            "max_tokens": self.protocol.max_tokens,
            "orders": self.protocol.shown,
            **({"reading": self.protocol.reading} if self.protocol.reading else {}),
        }

    def judge(self, comparisons: Sequence[PairToJudge]) -> list[Judgement]:
        """Raises BadInput before any question when the estimate is over budget, and at the first when the
        server refuses the key or the model's name."""
        by_comparison = [self._questions(c) for c in comparisons]
        missing = {q.key: q for questions in by_comparison for q in questions if q.key not in self.cache}
        failures = self._ask_all(list(missing.values())) if missing else {}
        self._watch_model(q.key for questions in by_comparison for q in questions if q.key not in failures)
        return [self._judgement(questions, failures) for questions in by_comparison]

    def _questions(self, comparison: PairToJudge) -> list[JudgeQuestion]:
        questions = []
        for candidate_first in self.protocol.orders(comparison.instruction):
            messages = self.protocol.question(comparison, candidate_first)
            order = "candidate first" if candidate_first else "reference first"
            key = digest([order, comparison.instruction, comparison.reference, comparison.candidate])
            tokens, usd = self.budget.estimate(messages, self.protocol.max_tokens)
            questions.append(JudgeQuestion(key, messages, candidate_first, tokens, usd))
        return questions

    def _ask_all(self, questions: list[JudgeQuestion]) -> dict[str, Failure]:
        """Asks, stores each answer as it arrives, and returns why the other keys have none."""
        tokens, usd = sum(q.tokens for q in questions), sum(q.usd for q in questions)
        self.budget.check(len(questions), tokens, usd)
        log.warning("judge: %d questions, at most about %d tokens, $%.4g", len(questions), tokens, usd)
        failures: dict[str, Failure] = {}
        in_a_row, answered, unfit = 0, False, 0
        stop = threading.Event()
        try:
            for number, (question, outcome) in enumerate(self._outcomes(questions, stop), 1):
                self.progress(number, len(questions))
                if isinstance(outcome, Reply):
                    in_a_row, answered = 0, True
                    if not self._keep(question, outcome):
                        failures[question.key] = Failure(self._no_verdict(outcome), True)
                    continue
                if outcome.refused and not answered:
                    raise BadInput(f"the judge refuses the questions: {outcome}")
                failures[question.key] = Failure(str(outcome), False)
                if outcome.of_question:  # for example too long: the next one may succeed
                    unfit += 1
                    continue
                in_a_row += 1
                if in_a_row == GIVEN_UP_AFTER and not stop.is_set():
                    log.warning("judge: %d questions failed in a row; the rest are not asked", in_a_row)
                    stop.set()
        finally:
            stop.set()  # threads finish their question and take no other
        if unfit:
            log.warning("judge: %d of %d questions do not fit the judge's context", unfit, len(questions))
        return failures

    def _no_verdict(self, reply: Reply) -> str:
        """Why a reply gives no verdict: it contains none, or it was cut before it."""
        shown = f"no verdict in the reply {reply.text[:80]!r}"
        if not reply.cut:
            return shown
        limit = self.protocol.max_tokens
        return (
            f"{shown}, which was cut at {limit} tokens; a judge that reasons first needs more: --judge …,max_tokens=N"
        )

    def _keep(self, question: JudgeQuestion, reply: Reply) -> bool:
        """Whether the reply has a verdict. Only such replies are stored; the next run asks the others again."""
        share = self.protocol.read(reply)
        if share is None:
            return False
        self.cache.add(question.key, CachedReply(share, reply.text, reply.model))
        return True

    def _outcomes(
        self, questions: list[JudgeQuestion], stop: threading.Event
    ) -> Iterator[tuple[JudgeQuestion, Reply | Unanswered]]:
        """Yields each question with its reply or failure. Uses daemon threads, so that Ctrl-C ends at once."""
        todo: queue.SimpleQueue[JudgeQuestion] = queue.SimpleQueue()
        done: queue.SimpleQueue[tuple[JudgeQuestion, Reply | Exception]] = queue.SimpleQueue()
        for question in questions:
            todo.put(question)

        def work() -> None:
            while True:
                try:
                    question = todo.get_nowait()
                except queue.Empty:
                    return
                try:
                    done.put((question, self._ask(question, stop)))
                except Exception as error:  # an Unanswered or any other error: raised in the thread that waits for it
                    done.put((question, error))

        for _ in range(min(self.model.parallel, len(questions))):
            threading.Thread(target=work, daemon=True).start()
        for _ in questions:
            question, outcome = done.get()
            if not isinstance(outcome, Reply | Unanswered):
                raise outcome
            yield question, outcome

    def _ask(self, question: JudgeQuestion, stop: threading.Event) -> Reply:
        if stop.is_set():
            raise Unanswered("not asked: the judge stopped answering")
        if not self.budget.reserve(question.usd):
            raise Unanswered(f"not asked: the budget of ${self.budget.limit_usd:g} is spent")
        reply = None
        try:
            reply = self.model.ask(
                question.messages, self.temperature, self.protocol.max_tokens, self.protocol.top_logprobs
            )
        finally:
            self.budget.settle(question.usd, reply)
        return reply

    def _watch_model(self, keys: Iterator[str]) -> None:
        """Checks the model that the server reports: an alias may point to another one during a run."""
        served = sorted({self.cache[key].model for key in keys} - {""})
        if len(served) > 1:
            log.warning("judge: the answers come from %s; ask for one of them by name", " and ".join(served))

    def _judgement(self, questions: list[JudgeQuestion], failures: Mapping[str, Failure]) -> Judgement:
        """A comparison counts only if every order of it was answered, because one order alone has a position bias."""
        failed = [failures[q.key] for q in questions if q.key in failures]
        if failed:
            return Judgement(None, failed[0].reason, unparsed=all(f.replied for f in failed))
        by_order = []
        for question in questions:
            share = self.cache[question.key].share  # of the response shown first
            by_order.append(share if question.candidate_first else 1 - share)
        shown = ", ".join(
            f"{score:.3g} with the {'candidate' if q.candidate_first else 'reference'} first"
            for q, score in zip(questions, by_order, strict=True)
        )
        replies = [(q, self.cache[q.key].reply) for q in questions]
        words = "\n\n".join(
            f"{'Candidate' if q.candidate_first else 'Reference'} first: {reply}" for q, reply in replies if reply
        )
        return Judgement(sum(by_order) / len(by_order), f"preferred {shown}", tuple(by_order), words=words or None)


class OpenAIJudge(ModelJudge):
    """A model behind any OpenAI-compatible server."""

    name, takes = "openai", "MODEL[@URL][,key=value...]"

    @classmethod
    def open(cls, argument: str, protocol: str, keep: Path | None) -> OpenAIJudge:
        from harness.grading.judges.answering import ServerModel, ServerOptions

        model, options = _model_and_settings(cls, argument, ServerOptions)
        budget = JudgeBudget(options.budget_usd, options.price_in, options.price_out)
        return cls(ServerModel(model, options), *_way(options, protocol), budget, keep or cache_dir() / "judgements")


class HuggingFaceJudge(ModelJudge):
    """A local Hugging Face model, run by transformers."""

    name, takes = "hf", "DIR_OR_ID[,key=value...]"

    @classmethod
    def open(cls, argument: str, protocol: str, keep: Path | None) -> HuggingFaceJudge:
        from harness.grading.judges.answering import LocalModel, LocalOptions

        model, options = _model_and_settings(cls, argument, LocalOptions)
        return cls(
            LocalModel(model, options), *_way(options, protocol), JudgeBudget(), keep or cache_dir() / "judgements"
        )


def _model_and_settings(judge: type[ModelJudge], argument: str, known: type) -> tuple[str, Any]:
    """The model's name and the settings after it. Raises BadInput for a setting that ``known`` does not have."""
    if not argument:
        raise BadInput(f"--judge {judge.name!r} is not a judge; the forms are {FORMS}")
    name, *settings = argument.split(",")
    return name, build(known, key_values(settings, f"--judge {judge.name}:{argument}"), f"judge {judge.name}")


def _way(options: JudgeOptions, protocol: str) -> tuple[JudgeProtocol, float]:
    """The prompts and the sampling temperature: the protocol's, unless the settings say otherwise."""
    chosen = judge_protocol(options.protocol or protocol)
    if options.max_tokens is not None:
        chosen = dataclasses.replace(chosen, max_tokens=options.max_tokens)
    return chosen, chosen.temperature if options.temperature is None else options.temperature


# The cost of judging: estimated before the first question, counted during the run, never over the budget.

BYTES_PER_TOKEN = 3  # bytes of prompt per token; 4 is usual for English, so this overestimates
TURN_TOKENS = 8  # that a chat template adds to a turn


class JudgeBudget:
    """Tokens and money of one judge. ``price_in`` and ``price_out`` are USD per million tokens.

    Raises BadInput if a limit is given without prices.
    """

    def __init__(self, limit_usd: float | None = None, price_in: float | None = None, price_out: float | None = None):
        if limit_usd is not None and (price_in is None or price_out is None):
            raise BadInput("budget_usd needs price_in and price_out, the judge's USD per million tokens")
        self.limit_usd, self.price_in, self.price_out = limit_usd, price_in or 0.0, price_out or 0.0
        self.spent_usd = 0.0
        self._reserved = 0.0
        self._lock = threading.Lock()

    def estimate(self, messages: Sequence[Mapping[str, str]], max_tokens: int) -> tuple[int, float]:
        """Tokens and USD that one question costs at most, by its bytes and the longest reply."""
        texts = [m["content"].encode("utf-8", "replace") for m in messages]
        prompt = sum(len(text) // BYTES_PER_TOKEN + TURN_TOKENS for text in texts)
        return prompt + max_tokens, self._price(prompt, max_tokens)

    def check(self, questions: int, tokens: int, usd: float) -> None:
        """Raises BadInput, before any question, if the estimate is above the limit."""
        if self.limit_usd is not None and usd > self.limit_usd:
            raise BadInput(
                f"judging {questions} questions may cost ${usd:.4g} ({tokens} tokens), over "
                f"budget_usd={self.limit_usd:g}; raise it, or grade fewer completions (answers are kept)"
            )

    def reserve(self, usd: float) -> bool:
        """Reserves ``usd`` for a question; False if that could exceed the limit."""
        with self._lock:
            if self.limit_usd is not None and self.spent_usd + self._reserved + usd > self.limit_usd + 1e-9:
                return False
            self._reserved += usd
            return True

    def settle(self, usd: float, reply: Reply | None) -> None:
        """Replaces the reserved amount by the one used, or keeps it if the server does not report usage."""
        with self._lock:
            self._reserved -= usd
            if reply is not None:
                has_usage = reply.prompt_tokens + reply.completion_tokens > 0
                self.spent_usd += self._price(reply.prompt_tokens, reply.completion_tokens) if has_usage else usd

    def _price(self, prompt: int, completion: int) -> float:
        return (prompt * self.price_in + completion * self.price_out) / 1e6


# The cache of a judge's answers: no question is paid for twice, and an interrupted run continues.
#
# One file per judge identity (model, revision, prompt, temperature), one line per answered question.


@dataclass(frozen=True)
class CachedReply:
    """A verdict: the share in [0, 1] of the response shown first, the reply that it was read from, and the model."""

    share: float
    reply: str = ""
    model: str = ""  # the model that the server reports


class JudgementCache:
    """Answers by question key, in ``folder``. Threads may share it, and processes the file.

    Raises BadInput, before any question is paid for, if the folder cannot be written.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]):
        self._journal = CacheFile(folder, identity)
        self.path = self._journal.path
        self._answers: dict[str, CachedReply] = dict(self._journal.read(_kept_reply))

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def __getitem__(self, key: str) -> CachedReply:
        return self._answers[key]

    def add(self, key: str, answer: CachedReply) -> None:
        """Stores an answer on disk. Raises RunFailed if it cannot be written."""
        self._answers[key] = answer
        self._journal.add({key: dataclasses.asdict(answer)})


def _kept_reply(fields: dict[str, Any]) -> CachedReply | None:
    """A cached answer, or None if its fields are invalid."""
    share, words = fields.get("share"), [fields[key] for key in fields.keys() - {"share"}]
    sound = type(share) in (int, float) and 0 <= share <= 1 and fields.keys() <= {"share", "reply", "model"}
    return CachedReply(**fields) if sound and all(isinstance(word, str) for word in words) else None
