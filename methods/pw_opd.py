"""Position-weighted on-policy distillation, after PW-OPSD (2026, https://arxiv.org/abs/2605.21606).

    L = sum_t w_t min(KL(p_t || q_t), cap) / sum_t w_t,      w_t = 1 + rise (t - 1) / (|y| - 1)

p teacher, q student, t = 1..|y| the position in the student's own response. Public is a clipped forward KL with a
weight that rises with the position (iw_opd weights early tokens). Shape, slope and clipping are assumed: the weight
rises linearly from 1 to 2, and the value of a token is clipped, which then has no gradient. The teacher of the paper is
the model itself with more context; here it is the recipe's teacher.
"""

from dataclasses import dataclass

from harness.losses import forward_kl
from harness.method import Method, Needs, Step, Tokens
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    rise: float = option(1.0, "extra weight of the last token", low=0, high=100)
    cap: float = option(10.0, "largest divergence of a token, nats", low=0, high=1e6)
    temperature: float = option(1.0, "of both distributions", low=0.05, high=100)
    shuffle: bool = option(False, "control: the same weights on shuffled tokens of the optimizer step")


class PWOPD(Method):
    """Clipped forward KL on the student's samples, with larger weights on late tokens."""

    name, paper, Config = "pw_opd", "https://arxiv.org/abs/2605.21606", Config
    needs = Needs(teacher="signal")
    reconstruction = True
    note = "reconstruction: shape of the weight and of the clip are assumed"

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source.STUDENT,)

    def objective(self, tokens: Tokens):
        c = self.config
        return forward_kl(tokens.student, tokens.teacher, temperature=c.temperature).clamp(max=c.cap)

    def weight(self, tokens: Tokens):
        place = tokens.position / (tokens.length - 1).clamp_min(1)
        tokens.metrics["weight"] = 1 + self.config.rise * place
        return tokens.metrics["weight"]

    def card(self):
        c = self.config
        return {
            "divergence": f"forward KL, at most {c.cap:g}",
            "loss_temperature": c.temperature,
            "token_weights": f"rising with position, rise {c.rise:g}" + ("/shuffled" if c.shuffle else ""),
        }
