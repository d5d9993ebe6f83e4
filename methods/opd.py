"""On-policy distillation: single-sample reverse KL as a per-token advantage (tinker-cookbook, distillation).

    A_t = -c (log q_old(y_t) - log p(y_t)) + discount A_{t+1},      L = -(1/N) sum_t r_t sg(A_t),   r = q / q_old

p teacher, q student, q_old the student that sampled y, sg stop-gradient, r the importance ratio. In expectation over y
the gradient at r = 1 is c times that of the reverse KL of the token (discount = 0) or of the rest of the text
(discount = 1). Each batch of samples gives one update, so r = 1 up to rounding and is not clipped. Of the
teacher's distribution only the probability of the sampled token is used. q_old is at temperature 1, whatever the
sampling temperature.
"""

from dataclasses import dataclass

from harness.losses import cross_entropy
from harness.method import Method, Needs, Sequences, Step, Tokens, recorded_or
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    coefficient: float = option(1.0, "c, of the log-ratio", low=0, high=1000, source="tinker-cookbook: 1.0")
    discount: float = option(0.0, "of later tokens' advantages", low=0, high=1, source="tinker-cookbook: 0")


class OPD(Method):
    """Policy gradient on the student's samples, with a one-sample estimate of the reverse KL as advantage."""

    name, paper, Config = "opd", "tinker-cookbook, tinker_cookbook/distillation", Config

    @property
    def needs(self) -> Needs:
        return Needs(teacher="signal", exact=True, sequence_features=self.config.discount > 0)

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source.STUDENT,)

    def sequence_features(self, sequences: Sequences):
        """[N] discounted advantage of each token."""
        return sequences.discounted(sequences.log_p - sequences.sampler(), self.config.discount)

    def objective(self, tokens: Tokens):
        log_q = -cross_entropy(tokens.student, tokens.labels)
        old = recorded_or(tokens.sampler_log_prob, log_q)
        gap = (
            -cross_entropy(tokens.teacher, tokens.labels) - old
            if tokens.sequence_features is None
            else tokens.sequence_features
        )
        tokens.metrics["advantage"] = gap
        return -(log_q - old).exp() * self.config.coefficient * gap

    def card(self):
        return {"divergence": f"reverse KL, one sample, discount {self.config.discount:g}"}
