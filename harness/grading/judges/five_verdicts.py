"""Arena-Hard's words to a judge and its five verdicts (lmarena/arena-hard-auto, Apache-2.0, config of v0.1)."""

from __future__ import annotations

import re

SYSTEM = """\
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
TEMPLATE = (
    "<|User Prompt|>\n{instruction}\n\n<|The Start of Assistant A's Answer|>\n{output_1}\n<|The End of Assistant A's "
    "Answer|>\n\n<|The Start of Assistant B's Answer|>\n{output_2}\n<|The End of Assistant B's Answer|>"
)
SLIGHTLY = 0.75  # the share that a response which is slightly better gets; one that is significantly better gets 1
WEIGHT = 3  # votes that a significant preference counts for
_VERDICTS = {"A>>B": 1.0, "A>B": SLIGHTLY, "A=B": 0.5, "B>A": 1 - SLIGHTLY, "B>>A": 0.0}
_OTHERS = {
    "A<<B": "B>>A",
    "A<B": "B>A",
    "B=A": "A=B",
    "B<A": "A>B",
    "B<<A": "A>>B",
}  # the same, as some judges write it
_PATTERNS = (re.compile(r"\[\[([AB<>=]+)\]\]"), re.compile(r"\[([AB<>=]+)\]"))


def share(text: str) -> float | None:
    """The share of the response shown first: the last verdict in double brackets, else in single ones, as upstream."""
    for pattern in _PATTERNS:
        if found := pattern.findall(text.upper()):
            return _VERDICTS.get(_OTHERS.get(found[-1], found[-1]))
    return None


def votes(shares: list[float]) -> list[float]:
    """Upstream's votes for the candidate, 1, 0.5 or 0 each: a significant preference has :data:`WEIGHT` of them."""
    values = []
    for value in shares:
        values += [float(value)] * WEIGHT if value in (0.0, 1.0) else [0.5 if value == 0.5 else float(value > 0.5)]
    return values
