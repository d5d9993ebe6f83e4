"""On-policy self-distillation (OPSD 2026, https://github.com/siyan-zhao/OPSD).

    L = (1/N) sum_t JSD_beta(p_t || q_t),      y ~ q(. | x),   p_t = q_0(. | x, s, y_<t)

q student, q_0 the student before training, frozen; x the prompt, s the reference solution, which only the teacher
reads. The student answers the labelled prompts and learns from what it would have said had it known the solution. Both
distributions at temperature 1.1; the paper trains a LoRA of rank 64 (recipe: [student] adapter = "lora").

opsd@release    what the released scripts run: forward KL, each entry of the vocabulary clipped at 0.05 before the sum
opsd@live       the teacher is the student as it is at the step; the paper keeps it fixed

The wording of the teacher's prompt is ours (``template``): {prompt} and {response} are the row's.
"""

from dataclasses import dataclass

from harness.methods._self_teaching import SOLUTION, SelfTaught, clipped_forward_kl

from harness.losses import jsd
from harness.method import Tokens
from harness.options import option


@dataclass(frozen=True)
class Config:
    divergence: str = option("jsd", "jsd, or forward KL clipped per entry", choices=("jsd", "clipped"), source="paper")
    beta: float = option(0.5, "jsd: teacher's weight in the mixture", low=0, high=1, source="paper")
    clip: float = option(0.05, "clipped: largest entry of the KL, nats", low=0, high=1e6, source="scripts")
    temperature: float = option(1.1, "of both distributions", low=0.05, high=100, source="scripts: 1.1")
    model: str = option(
        "initial",
        "who teaches: the student before training, or as it is",
        choices=("initial", "live", "ema", "teacher"),
    )
    decay: float = option(0.999, "ema: of the moving average, per step", low=0, high=1)
    template: str = option(SOLUTION, "the teacher's prompt over the fields of a row", source="wording ours")


class OPSD(SelfTaught):
    """The initial student with the solution in its prompt teaches the student, on the student's own text."""

    name, paper, Config = "opsd", "https://github.com/siyan-zhao/OPSD", Config
    variants = {"release": {"divergence": "clipped"}, "live": {"model": "live"}}

    def objective(self, tokens: Tokens):
        c = self.config
        if c.divergence == "clipped":
            return clipped_forward_kl(tokens.student, tokens.teacher, clip=c.clip, temperature=c.temperature)
        return jsd(tokens.student, tokens.teacher, beta=c.beta, temperature=c.temperature)

    def card(self):
        c = self.config
        jensen = c.divergence == "jsd"
        return {
            "divergence": "JSD" if jensen else f"forward KL, at most {c.clip:g} an entry",
            "mixture_weight_of_teacher": c.beta if jensen else None,
            "loss_temperature": c.temperature,
            "teacher_prompt": f"own prompt, {c.model}",
        }
