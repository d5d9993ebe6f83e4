"""The judge of generated instructions: it parses the request, solves it, and compares two answers.

A pure function of the three texts; order and length do not matter.
"""

from __future__ import annotations

from typing import Any

from harness.errors import BadInput
from harness.grading.judges.judgement import Judge
from harness.micro import instruction as family

RIGHT, WRONG, ABSENT = 2, 1, 0


class ProgrammaticJudge(Judge):
    """The rules of the micro world, for its own instructions.

    It prefers a right answer to a wrong one, and a wrong one to none; equals tie.
    """

    name = "micro"

    def identity(self) -> dict[str, Any]:
        """The identity of the judge; part of the protocol."""
        return {"kind": "programmatic", "name": "micro", "version": "1"}

    def prefer(self, instruction: str, reference: str, candidate: str) -> tuple[float, str]:
        """The candidate's score against the reference (1 win, 0.5 tie, 0 loss) and the reason.

        Raises BadInput for an instruction that the micro world did not write.
        """
        request = family.read(instruction)
        if request is None:
            raise BadInput(
                f"the programmatic judge understands only generated instructions, not {instruction[:60]!r}; "
                "choose another judge for real ones"
            )
        ours, theirs = _quality(request, candidate), _quality(request, reference)
        score = 0.5 if ours == theirs else float(ours > theirs)
        return score, f"candidate {_NAMES[ours]}, reference {_NAMES[theirs]}"


_NAMES = {RIGHT: "right", WRONG: "wrong", ABSENT: "without an answer"}


def _quality(request: family.TextRequest, text: str) -> int:
    answer = family.final_answer(text)
    if answer is None:
        return ABSENT
    return RIGHT if answer == request.answer else WRONG
