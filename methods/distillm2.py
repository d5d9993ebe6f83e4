"""DistiLLM-2: contrastive skew KL on both models' text (Ko et al. 2025, https://arxiv.org/abs/2503.07067, "CALD").

    L = mean_y_T mean_t (2 - beta) KL(p || a p + (1 - a) q)  +  mean_y_S mean_t beta KL(q || (1 - a) p + a q)

p teacher, q student; every prompt appears twice, with the teacher's response y_T and with the student's own y_S. All
sequences have equal weight. The skew a is set per sequence and the second term grows:

    a = clip(1 - (1 - alpha) D0 / (D + 1e-5), 0.01, alpha)     D = exp(mean log p) - exp(mean log q), reversed on y_S
    beta = 1 + growth min(1, 2 step / steps)

D0 is the mean of D at the first step, separately for y_T and y_S (state ``first_gaps``); at that step a = alpha. The
paper samples y_S once per epoch; here the current student samples it at every step.

distillm2@paper     the defaults by name
distillm2@release   what the released trainer runs: a = 0.1 and beta = 1 throughout, the student in the reverse KL's
                    mixture without gradient
"""

from dataclasses import dataclass

import torch

from harness.losses import skew_kl, skew_reverse_kl
from harness.method import Method, Needs, Sequences, Step, Tokens
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    alpha: float = option(0.1, "largest skew, and the first", low=0.01, high=1, source="released code: 0.1")
    adaptive: bool = option(True, "set the skew per sequence", source="paper, section 3.3; off in the released code")
    growth: float = option(0.5, "what beta grows by over the first half", low=0, high=1, source="paper; 0 as released")
    detach_mixture: bool = option(False, "no gradient through the reverse mixture", source="paper; True as released")
    temperature: float = option(1.0, "tau, of both distributions", low=0.05, high=100, source="released code: 1")


class DistiLLM2(Method):
    """Skew KL on teacher text and skew reverse KL on student text, with skews that adapt per sequence."""

    name, paper, Config = "distillm2", "https://arxiv.org/abs/2503.07067", Config
    variants = {
        "paper": {"adaptive": True, "growth": 0.5, "detach_mixture": False},
        "release": {"adaptive": False, "growth": 0.0, "detach_mixture": True},
    }
    reduction = "sequence"

    @property
    def needs(self) -> Needs:
        return Needs(teacher="signal", sequence_features=self.config.adaptive)

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source.TEACHER, Source.STUDENT)

    def sequence_features(self, sequences: Sequences):
        """[N, 2] skew and gap D of each token's sequence."""
        gap = sequences.mean(sequences.log_p).exp() - sequences.mean(sequences.log_q).exp()
        own = sequences.from_source(Source.STUDENT)
        gap = gap.where(~own, -gap)
        # Column 0 of ``first_gaps`` is for teacher text, column 1 for student text.
        first = self.state.get("first_gaps")
        if first is None:
            skew = gap.new_full(gap.shape, self.config.alpha)
        else:
            anchor = gap.new_tensor(first)[own.long()]
            skew = (1 - (1 - self.config.alpha) * anchor / (gap + 1e-5)).clamp(0.01, self.config.alpha)
        return torch.stack([skew, gap], 1)

    def objective(self, tokens: Tokens):
        c = self.config
        beta = 1 + c.growth * min(1.0, 2 * tokens.step.index / tokens.step.total)
        own = tokens.from_source(Source.STUDENT)
        alpha = c.alpha
        if tokens.sequence_features is not None:
            alpha, gap = tokens.sequence_features.unbind(1)
            # Each gap is averaged over all sequences, half of which are of its side: hence the factor 2.
            tokens.metrics.update(skew=alpha, gap_teacher=2 * gap * ~own, gap_student=2 * gap * own)
        p, q = tokens.teacher, tokens.student
        forward = skew_kl(q, p, alpha=alpha, temperature=c.temperature)
        reverse = skew_reverse_kl(q, p, alpha=alpha, detach_mixture=c.detach_mixture, temperature=c.temperature)
        # The loop takes the mean over the sequences of both sides, L is the sum of two means: hence the factor 2.
        return 2 * ((2 - beta) * forward).where(~own, beta * reverse)

    def after_step(self, step: Step, report):
        if self.config.adaptive:
            self.state.setdefault("first_gaps", [report["gap_teacher"], report["gap_student"]])

    def card(self):
        c = self.config
        return {
            "divergence": "skew KL on teacher text, skew reverse KL on student text"
            + (", mixture detached" if c.detach_mixture else ""),
            "mixture_weight_of_teacher": f"{'at most ' if c.adaptive else ''}{c.alpha:g} and its rest",
            "loss_temperature": c.temperature,
        }
