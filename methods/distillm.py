"""DistiLLM: skew KL on data, with student text as soon as the student stops improving (https://arxiv.org/abs/2402.03898).

    L = (1/N) sum_t KL(p_t || alpha p_t + (1 - alpha) q_t)
    a step at share s = step / steps of the run, u uniform:
      u < phi (1 - s)   text that the student samples now; it enters a first-in-first-out buffer
      else u < phi      text from the buffer
      else              reference responses of the data
    phi <- min(1, phi + rise)   whenever the validation loss is at least epsilon above the previous one

p teacher, q student, phi the adaptive threshold (state ``threshold``). While the buffer is empty, the student samples
instead. The LM loss on pre-training text of the released code is left out, because the harness has no such text. The
released code validates before the first epoch and after each; here a validation is due every ``validate_every`` steps.

distillm@release     as the released code: phi rises with the loss since its last rise, not since the last validation,
                     and nothing is replayed before the buffer is full
distillm@srkl        skew reverse KL(q_t || (1 - alpha) p_t + alpha q_t), as type adaptive-srkl
distillm@openllama   the released OpenLLaMA settings: the threshold starts at 0.2, epsilon is 0.2
"""

from dataclasses import dataclass

from harness.losses import skew_kl, skew_reverse_kl
from harness.method import Method, Needs, Step, Tokens
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    divergence: str = option(
        "skl", "skew KL or skew reverse KL", choices=("skl", "srkl"), source="distillm, GPT-2: adaptive-sfkl"
    )
    alpha: float = option(0.1, "skew, the weight of the KL's first argument", low=0, high=1, source="distillm: 0.1")
    threshold: float = option(0.0, "phi at the start", low=0, high=1, source="distillm, GPT-2: 0")
    epsilon: float = option(0.1, "rise of the validation loss that raises phi", low=0, high=100, source="distillm: 0.1")
    rise: float = option(0.1, "what phi is raised by", low=0, high=1, source="distillm: 0.1")
    capacity: int = option(1000, "responses in the buffer", low=1, high=10**7, source="distillm: 1000")
    validate_every: int = option(20, "optimizer steps between validations", low=1, source="assumed; distillm: an epoch")
    since: str = option(
        "validation", "epsilon counts from the last one of", choices=("validation", "rise"), source="paper, algorithm 1"
    )
    full: bool = option(False, "replay from a full buffer only", source="paper, algorithm 1; True in the code")
    temperature: float = option(1.0, "tau, of both distributions", low=0.05, high=100, source="distillm: 1")


class DistiLLM(Method):
    """Skew KL with an adaptive share of student text, replayed from a buffer."""

    name, paper, Config = "distillm", "https://arxiv.org/abs/2402.03898", Config
    variants = {
        "release": {"since": "rise", "full": True},
        "srkl": {"divergence": "srkl"},
        "openllama": {"threshold": 0.2, "epsilon": 0.2},
    }

    @property
    def needs(self) -> Needs:
        c = self.config
        return Needs(teacher="signal", replay=c.capacity, full=c.full, validate_every=c.validate_every)

    @property
    def threshold(self) -> float:
        return self.state.get("threshold", self.config.threshold)

    def sources(self, step: Step) -> tuple[Source, ...]:
        # ``step.draw`` is u, one uniform draw for the whole step.
        if step.draw < self.threshold * (1 - step.index / step.total):
            return (Source.STUDENT,)
        return (Source.REPLAY,) if step.draw < self.threshold else (Source.DATA,)

    def objective(self, tokens: Tokens):
        c = self.config
        divergence = skew_kl if c.divergence == "skl" else skew_reverse_kl
        return divergence(tokens.student, tokens.teacher, alpha=c.alpha, temperature=c.temperature)

    def after_step(self, step: Step, report):
        now = report.get("validation_loss")
        if now is None:
            return
        before = self.state.get("validation_loss")
        rises = before is not None and now >= before + self.config.epsilon
        if rises:
            self.state["threshold"] = min(1.0, self.threshold + self.config.rise)
        if rises or before is None or self.config.since == "validation":
            self.state["validation_loss"] = now

    def card(self):
        c = self.config
        return {
            "divergence": {"skl": "skew KL", "srkl": "skew reverse KL"}[c.divergence],
            "mixture_weight_of_teacher": c.alpha if c.divergence == "skl" else 1 - c.alpha,
            "loss_temperature": c.temperature,
            "replay": f"{c.capacity} responses, threshold from {c.threshold:g}",
        }
