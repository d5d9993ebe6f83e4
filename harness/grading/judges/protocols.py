"""Judge protocols: the prompt, the order of the two responses, and how the reply is parsed.

``alpacaeval-1``  alpaca_eval's ``alpaca_eval_gpt4``: ranks the two, in an order drawn by the instruction
``alpacaeval-2``  its ``weighted_alpaca_eval_gpt4_turbo``: one token, score P(m) / (P(m) + P(M))
``arena-hard``    Arena-Hard's own: an answer of the judge's, then one of five verdicts, both orders
``mt-bench``      MT-Bench's own: one answer in its conversation, rated from 1 to 10 (:mod:`.judgement`)
``distillm2``     reasons, then [[A]], [[B]] or [[C]] for a tie, both orders (arXiv 2503.07067; words our own)

Prompts and parsers of the first two are read from the installed package alpaca_eval. Turns are split before responses
are filled in, and each placeholder is filled once, so that no response can forge a turn or insert another field;
alpaca_eval fills first and splits afterwards.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import math
import random
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.errors import RunFailed, unknown
from harness.grading.end_marker import END_MARKER
from harness.grading.judges import judgement
from harness.grading.judges.judgement import PairToJudge
from harness.grading.thinking import answer_of

ROUNDED_ZERO, LEAST_LOGPROB = 0.01, -1e4  # the range of values accepted as log-probabilities
REPLY_LIMIT = 20_000  # characters of a reply that are read; a judge's verdict is far shorter

RUBRIC = """\
Two assistants, A and B, answered the same request. Decide whose answer serves the person who asked better.

Weigh, in this order: whether the answer does what was asked; whether what it says is correct; whether it \
is useful, sufficiently deep and clearly put. Do not reward an answer for being longer, for coming first or \
second, or for its tone or formatting alone.

Give your reasons in a few sentences. Then end with your verdict on a line of its own: [[A]] if assistant \
A's answer is better, [[B]] if assistant B's is, [[C]] if neither is.

<request>
{instruction}
</request>

<answer_of_A>
{output_1}
</answer_of_A>

<answer_of_B>
{output_2}
</answer_of_B>"""


@dataclass(frozen=True)
class Reply:
    """A judge's answer: its text, the likeliest first tokens with log-probabilities, tokens in and out."""

    text: str
    first_token: tuple[tuple[str, float], ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model: str = ""  # the model that the server reports
    cut: bool = False  # the reply was cut at the token limit


@dataclass(frozen=True)
class JudgeProtocol:
    """One way of asking. ``read`` gives the share in [0, 1] of the response shown first, or None.

    ``reading`` names the rule of ``read`` where another rule went by the same protocol name before; it enters the
    judge's identity, so that answers kept under the older rule are not used.
    """

    name: str
    turns: tuple[tuple[str, str], ...]  # (role, template with {instruction}, {output_1}, {output_2})
    read: Callable[[Reply], float | None]
    temperature: float
    max_tokens: int
    both_orders: bool = False
    top_logprobs: int = 0
    reading: str = ""

    @property
    def rates(self) -> bool:
        """Whether it rates one answer, instead of comparing two."""
        return False

    @property
    def shown(self) -> str:
        """The order in which the two responses are shown, as stated in identities."""
        return "both" if self.both_orders else "drawn by instruction"

    def question(self, pair: PairToJudge, candidate_first: bool) -> list[dict[str, str]]:
        """The chat turns that ask about ``pair``."""
        first, second = (pair.candidate, pair.reference) if candidate_first else (pair.reference, pair.candidate)
        return self.messages(pair.instruction, first, second)

    @property
    def prompt_sha256(self) -> str:
        return hashlib.sha256(json.dumps(self.turns).encode()).hexdigest()

    def orders(self, instruction: str) -> tuple[bool, ...]:
        """For each question about ``instruction``, whether the candidate is shown first."""
        if self.both_orders:
            return (False, True)
        # alpaca_eval's draw: RandomSwitchTwoColumnsProcessor, seed 0, on the instruction alone
        return (random.Random(f"is_switched_outputs{instruction}0").choices([False, True], k=1)[0],)

    def messages(self, instruction: str, first: str, second: str) -> list[dict[str, str]]:
        """The chat turns that show ``first`` and ``second`` in this order."""
        fields = {"instruction": instruction, "output_1": first, "output_2": second}

        def fill(template: str) -> str:
            return re.sub(r"\{(instruction|output_1|output_2)\}", lambda match: fields[match[1]], template)

        return [{"role": role, "content": fill(template)} for role, template in self.turns]


def judge_protocol(name: str) -> JudgeProtocol:
    """The protocol called ``name``. Raises BadInput with the known names for any other."""
    if name not in PROTOCOLS:
        raise unknown("judge protocol", name, PROTOCOLS)
    return PROTOCOLS[name]()


def _alpacaeval_1() -> JudgeProtocol:
    turns = _turns("alpaca_eval_gpt4/alpaca_eval.txt")
    return JudgeProtocol("alpacaeval-1", turns, _read_ranking, temperature=0.0, max_tokens=100)


def _alpacaeval_2() -> JudgeProtocol:
    turns = _turns("alpaca_eval_clf_gpt4_turbo/alpaca_eval_clf.txt")
    return JudgeProtocol("alpacaeval-2", turns, _read_logprobs, temperature=1.0, max_tokens=1, top_logprobs=5)


def _distillm2() -> JudgeProtocol:
    return JudgeProtocol(
        "distillm2",
        (("user", RUBRIC),),
        _read_letter,
        temperature=1.0,
        max_tokens=1024,
        both_orders=True,
        reading="last verdict on a line of its own",
    )


class RatingProtocol(JudgeProtocol):
    """Asks for a rating of one answer; ``read`` gives it as a share."""

    @property
    def rates(self) -> bool:
        return True

    @property
    def shown(self) -> str:
        return "one answer"

    def orders(self, instruction: str) -> tuple[bool, ...]:
        return (True,)

    def question(self, pair: PairToJudge, candidate_first: bool) -> list[dict[str, str]]:
        return judgement.rating_messages(pair)


def _mt_bench() -> JudgeProtocol:
    both = [(f"{key}", *texts) for key, texts in judgement.TURNS.items()]
    turns = tuple(
        (f"{role} {key}", text) for key, *texts in both for role, text in zip(("system", "user"), texts, strict=True)
    )
    return RatingProtocol("mt-bench", turns, _read_rating, temperature=0.0, max_tokens=2048)


def _arena_hard() -> JudgeProtocol:
    turns = (("system", ARENA_SYSTEM), ("user", ARENA_TEMPLATE))
    return JudgeProtocol("arena-hard", turns, _read_arena_hard, temperature=0.0, max_tokens=4096, both_orders=True)


PROTOCOLS = {
    "alpacaeval-1": _alpacaeval_1,
    "alpacaeval-2": _alpacaeval_2,
    "arena-hard": _arena_hard,
    "distillm2": _distillm2,
    "mt-bench": _mt_bench,
}


def _turns(template: str) -> tuple[tuple[str, str], ...]:
    """The turns of a ChatML template that alpaca_eval ships, found without importing the package."""
    spec = importlib.util.find_spec("alpaca_eval")
    if spec is None or not spec.submodule_search_locations:
        raise RunFailed("this judge protocol needs the package alpaca-eval, which is not installed")
    path = Path(spec.submodule_search_locations[0]) / "evaluators_configs" / template
    pattern = r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>"
    turns = re.findall(pattern, path.read_text("utf-8"), re.DOTALL)
    return tuple((role, text.strip()) for role, text in turns)


def _read_ranking(reply: Reply) -> float | None:
    """alpaca_eval's ``ranking_parser``: a Python list that gives model_1 rank 1 or 2, after any thinking."""
    text = answer_of(reply.text)[:REPLY_LIMIT]
    return _share(_parsers().ranking_parser(text) if text else [math.nan])


def _read_logprobs(reply: Reply) -> float | None:
    """alpaca_eval's ``logprob_parser``: m is the response shown first, M the second.

    An invalid log-probability (not a number, or above 0 by more than rounding) is left out; of m or M it leaves no
    verdict. One below :data:`LEAST_LOGPROB`, of which servers have several names for minus infinity, counts as that.
    """
    if any(token in ("m", "M") and not logprob <= ROUNDED_ZERO for token, logprob in reply.first_token):
        return None
    sound = [(token, logprob) for token, logprob in reply.first_token if logprob <= ROUNDED_ZERO]
    top = [{"token": token, "logprob": max(logprob, LEAST_LOGPROB)} for token, logprob in sound]
    completion = {"logprobs": {"content": [{"top_logprobs": top}]}}
    return _share(_parsers().logprob_parser(completion, "m", ["m", "M"], is_binarize=False))


def _read_arena_hard(reply: Reply) -> float | None:
    """One of Arena-Hard's five verdicts, after any thinking; None from a reply that was cut."""
    return None if reply.cut else share_of_votes(answer_of(reply.text)[-REPLY_LIMIT:])


def _read_rating(reply: Reply) -> float | None:
    """The share of a reply's rating, after any thinking; None from a reply that has none from 1 to 10."""
    rating = judgement.rating(answer_of(reply.text)[-REPLY_LIMIT:])
    return None if rating is None else judgement.as_share(rating)


def _read_letter(reply: Reply) -> float | None:
    """The last verdict on its own line, [[A]], [[B]] or [[C]]; None from a reply that was cut.

    Emphasis and a short label may surround it (``**Verdict: [[A]]**``). Verdicts within a sentence, in quotes,
    quoted lines (``>``), code blocks and thinking only mention a verdict and do not count.
    """
    if reply.cut:
        return None
    letter, fence = None, None
    for line in answer_of(reply.text)[-REPLY_LIMIT:].splitlines():
        if mark := _FENCE.match(line):
            if fence is None:
                fence = mark[1]
            elif mark[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = None
        elif fence is None:
            letter = _letter_of(line) or letter
    return None if letter is None else {"A": 1.0, "B": 0.0, "C": 0.5}[letter]


_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})[^`]*$")
_LETTER = re.compile(r"\[\[\s*([ABC])\s*\]\]([\s*_`.!]*)")
_LABEL = re.compile(
    r"(?i:(?:[-+] )?(?:(?:my|the|so|thus|hence|therefore|final|overall|corrected)[ ,:]+)*"
    r"(?:(?:verdict|answer|judge?ment|decision|choice|correction|conclusion|winner)(?: is)?)? ?[:=–—-]?)"
)
LABEL_LIMIT = 200  # characters before a verdict that are read as its label


def _letter_of(line: str) -> str | None:
    """The verdict of a line that holds one, after a short label and emphasis, and nothing else."""
    line = END_MARKER.split(line)[0]
    before, opened, rest = line.partition("[[")
    match = _LETTER.fullmatch(opened + rest)
    # Emphasis counts as one space, so the pattern never tries several ways to read a run of it.
    label = " ".join(re.split(r"[\s*_#`]+", before)).strip() if match and len(before) <= LABEL_LIMIT else None
    return match[1] if match and label is not None and _LABEL.fullmatch(label) else None


def _share(preference: list[Any]) -> float | None:
    """The first response's share of a parser's answer, which runs from 1 (first) to 2 (second); None for any other."""
    value = preference[0] if len(preference) == 1 else None
    return 2.0 - float(value) if isinstance(value, int | float) and 1 <= value <= 2 else None


@cache
def _parsers() -> ModuleType:
    """alpaca_eval's parsers. Its import takes seconds, warns, and sets the root logger to INFO: undone here.

    The parsers report every reply that they cannot read to the root logger; here it becomes a judgement.
    """
    root = logging.getLogger()
    level = root.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from alpaca_eval import completion_parsers
    root.setLevel(level)
    silent = logging.getLogger("alpaca_eval.completion_parsers")
    silent.setLevel(logging.CRITICAL)
    completion_parsers.logging = silent
    return completion_parsers


# Arena-Hard's words to a judge and its five verdicts (lmarena/arena-hard-auto, Apache-2.0, config of v0.1).

ARENA_SYSTEM = """\
Please act as an impartial judge and evaluate the quality of the responses provided by two AI assistants to the \
user prompt displayed below. You will be given assistant A's answer and assistant B's answer. Your job is to \
evaluate which assistant's answer is better.

Begin your evaluation by generating your own answer to the prompt. You must provide your answers before judging \
any answers.

When evaluating the assistants' answers, compare both assistants' answers with your answer. You must identify and \
correct any mistakes or inaccurate information.

Then consider if the assistant's answers are helpful, relevant, and concise. Helpful means the answer correctly \
responds to the prompt or follows the instructions. Note when user prompt has any ambiguity or more than one \
interpretation, it is more helpful and appropriate to ask for clarifications or more information from the user \
than providing an answer based on assumptions. Relevant means all parts of the response closely connect or are \
appropriate to what is being asked. Concise means the response is clear and not verbose or excessive.

Then consider the creativity and novelty of the assistant's answers when needed. Finally, identify any missing \
important information in the assistants' answers that would be beneficial to include when responding to the user \
prompt.

After providing your explanation, you must output only one of the following choices as your final verdict with a \
label:

1. Assistant A is significantly better: [[A>>B]]
2. Assistant A is slightly better: [[A>B]]
3. Tie, relatively the same: [[A=B]]
4. Assistant B is slightly better: [[B>A]]
5. Assistant B is significantly better: [[B>>A]]

Example output: "My final verdict is tie: [[A=B]]"."""
ARENA_TEMPLATE = (
    "<|User Prompt|>\n{instruction}\n\n<|The Start of Assistant A's Answer|>\n{output_1}\n<|The End of Assistant A's "
    "Answer|>\n\n<|The Start of Assistant B's Answer|>\n{output_2}\n<|The End of Assistant B's Answer|>"
)
SLIGHTLY = 0.75  # the share for a slightly better response; a significantly better one gets 1
SLIGHT_WEIGHT = 3  # votes of a significant preference
_VERDICTS = {"A>>B": 1.0, "A>B": SLIGHTLY, "A=B": 0.5, "B>A": 1 - SLIGHTLY, "B>>A": 0.0}
_OTHERS = {"A<<B": "B>>A", "A<B": "B>A", "B=A": "A=B", "B<A": "A>B", "B<<A": "A>>B"}  # as some judges write it
_VOTE_PATTERNS = (re.compile(r"\[\[([AB<>=]+)\]\]"), re.compile(r"\[([AB<>=]+)\]"))


def share_of_votes(text: str) -> float | None:
    """The share of the response shown first: the last verdict in double brackets, else in single ones, as upstream."""
    for pattern in _VOTE_PATTERNS:
        if verdicts := pattern.findall(text.upper()):
            return _VERDICTS.get(_OTHERS.get(verdicts[-1], verdicts[-1]))
    return None


def votes(shares: list[float]) -> list[float]:
    """Upstream's votes for the candidate, 1, 0.5 or 0 each; a clear preference has :data:`SLIGHT_WEIGHT` of them."""
    values = []
    for value in shares:
        values += (
            [float(value)] * SLIGHT_WEIGHT if value in (0.0, 1.0) else [0.5 if value == 0.5 else float(value > 0.5)]
        )
    return values
