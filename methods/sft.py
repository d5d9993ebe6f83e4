"""Supervised fine-tuning on reference responses.

    L = (1/N) sum_t -log q(y_t | x, y_<t)        y from the labelled data

q student, y the reference response, N response tokens of the optimizer step. It uses no teacher and only the labelled
examples. Source: the maximum-likelihood baseline of distillation papers.
"""

from harness.losses import cross_entropy
from harness.method import Method, Tokens


class SFT(Method):
    """Cross-entropy on the reference responses of the labelled examples."""

    name, paper = "sft", "maximum likelihood; the baseline of all distillation papers"
    baseline = True

    def objective(self, tokens: Tokens):
        return cross_entropy(tokens.logits, tokens.labels)
