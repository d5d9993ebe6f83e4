"""Direct preference knowledge distillation (DPKD, Li et al. 2024, https://arxiv.org/abs/2406.19774).

    L = mean over prompts of -log sigma(beta (g(y_T) - g(y_S))),      g(y) = log q(y) - log p(y)

p teacher, q student; y_T is the teacher's response, y_S the student's own. The loss prefers the teacher's text, by more
than the teacher itself does. It looks at two numbers of a text, not at distributions: where it compares texts that both
models find unlikely it can lower both. In published comparisons it collapses, which makes it a negative control.

The loop works on tokens, so the gradient of a pair is distributed to its tokens: with s = 1 - sigma(beta (g(y_T) -
g(y_S))) without gradient, that of L is -beta s (grad log q(y_T) - grad log q(y_S)); every token shows its pair's value
of L.

dpkd@distillm2   as a baseline in DistiLLM-2's released code: log q and log p are means over the text's tokens
"""

from dataclasses import dataclass

import torch

from harness.losses import cross_entropy
from harness.method import Method, Needs, Step, Tokens, WholeStep
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    beta: float = option(
        0.2, "sharpness of the preference", low=0, high=100, source="distillm-2, training_configs: 0.2"
    )
    per: str = option("sequence", "log q and log p are sums or means", choices=("sequence", "token"))


class DPKD(Method):
    """Preference for the teacher's text over the student's, scored by their log-ratios of student to teacher."""

    name, paper, Config = "dpkd", "https://arxiv.org/abs/2406.19774", Config
    needs = Needs(teacher="signal", exact=True, step_features=True)
    variants = {"distillm2": {"per": "token"}}
    reduction = "sequence"

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source.TEACHER, Source.STUDENT)

    def measure(self, tokens: Tokens):
        log_q, log_p = (-cross_entropy(z, tokens.labels) for z in (tokens.student, tokens.teacher))
        return (log_q - log_p)[:, None]

    def step_features(self, values, whole: WholeStep):
        """[M, 2] the factor of each token's grad log q in its text's mean, and the loss of its pair."""
        c = self.config
        each = (whole.total if c.per == "sequence" else whole.mean)(values[:, 0])
        gap = torch.zeros(1 + max(whole.prompt), dtype=torch.float64)  # of a pair; a missing text has g = 0
        sign = torch.tensor([1.0 if s is Source.TEACHER else -1.0 for s in whole.source], dtype=torch.float64)
        prompt = torch.tensor(whole.prompt)
        gap.index_add_(0, prompt, sign * each)
        pull = -c.beta * torch.sigmoid(-c.beta * gap)[prompt] * sign
        if c.per == "sequence":  # the loop takes the mean over a text's tokens
            pull = pull * whole.sequence.bincount(minlength=len(sign))
        loss = torch.nn.functional.softplus(-c.beta * gap)[prompt]
        return torch.stack([pull, loss], 1)[whole.sequence]

    def objective(self, tokens: Tokens):
        log_q = -cross_entropy(tokens.student, tokens.labels)
        pull, loss = tokens.step_features.to(log_q.dtype).unbind(1)
        # Twice the pull, because the loop takes the mean over both texts of every prompt.
        return loss + 2 * pull * (log_q - log_q.detach())

    def card(self):
        c = self.config
        return {"divergence": f"preference of teacher over student text, beta {c.beta:g}, per {c.per}"}
