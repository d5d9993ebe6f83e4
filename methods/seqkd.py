"""Sequence-level knowledge distillation (Kim and Rush 2016, https://arxiv.org/abs/1606.07947, section 3.2).

    L = (1/N) sum_t -log q(y_t | x, y_<t)        y sampled from the teacher

q student, y the teacher's response to an unlabelled prompt, N response tokens of the optimizer step. The paper takes
the mode of the teacher (beam search); here the recipe's [teacher_text] sets how the teacher samples.
"""

from harness.losses import cross_entropy
from harness.method import Method, Needs, Step, Tokens
from harness.types import Source


class SeqKD(Method):
    """Cross-entropy on responses written by the teacher."""

    name, paper = "seqkd", "https://arxiv.org/abs/1606.07947"
    needs = Needs(teacher="text")

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source.TEACHER,)

    def objective(self, tokens: Tokens):
        return cross_entropy(tokens.logits, tokens.labels)
