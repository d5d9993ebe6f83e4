"""DistiLLM-2: contrastive skew KL on both models' text (Ko et al. 2025, https://arxiv.org/abs/2503.07067, "CALD").

    L = mean_y_T mean_t u KL(p || a p + (1 - a) q)  +  mean_y_S mean_t w KL(q || (1 - a) p + a q)
    a = clip(1 - (1 - alpha) D0 / (D + 1e-5), 0.01, alpha)     D = exp(mean log p) - exp(mean log q), reversed on y_S

p teacher, q student; every prompt appears twice, with the teacher's response y_T and with the student's own y_S. Every
sequence counts equally. D0 is the mean of D at the first step, for each side its own (state ``first_gaps``).

distillm2@release-curriculum   the defaults by name, a branch of the released code that is switched off there: a for
    each sequence; u = 2 - b, w = b, b = 1 + growth min(1, 2 step / steps). Records up to 0.2 call it distillm2@paper.
distillm2@release              as released: a = 0.1, u = w = 1, no gradient through the student in the reverse mixture
distillm2@paper                equation 2 and algorithm 1: u = (1 - b) / 2, w = b / 2, b = clip((e + x) / E, 1/2, 1) in
    epoch e = 1..E of which the share x is done; D and a of the step's texts of a side together, a = alpha in the first
    epoch; y_S is sampled when an epoch begins. The paper leaves one choice open: it prints clip(e/E + tau/T, 1/2, 1),
    which reaches 1 within the first epoch and falls back when the second begins (``algorithm`` = printed). We take
    tau/T as a share of the run, x/E: b never falls, and in the last epoch the teacher's text has no weight. D0 stands
    for the anchor m, which the algorithm does not define. y_T is sampled once a run, not once an epoch.
"""

import math
from dataclasses import dataclass

import torch

from harness.losses import skew_kl, skew_reverse_kl
from harness.method import Method, Needs, Sequences, Step, Tokens, WholeStep
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    alpha: float = option(0.1, "largest skew, and the first", low=0.01, high=1, source="released code: 0.1")
    adaptive: bool = option(True, "set the skew by D", source="paper, section 3.3; off in the released code")
    growth: float = option(0.5, "what beta grows by over the first half", low=0, high=1, source="release: 0.5, then 0")
    detach_mixture: bool = option(False, "no gradient through the reverse mixture", source="paper; True as released")
    temperature: float = option(1.0, "tau, of both distributions", low=0.05, high=100, source="released code: 1")
    algorithm: str = option(
        "release", "schedule and texts", choices=("release", "paper", "printed"), source="see above", before="release"
    )


class DistiLLM2(Method):
    """Skew KL on teacher text and skew reverse KL on student text, with adaptive skews."""

    name, paper, Config = "distillm2", "https://arxiv.org/abs/2503.07067", Config
    variants = {
        "release-curriculum": {"algorithm": "release"},
        "release": {"adaptive": False, "growth": 0.0, "detach_mixture": True},
        "paper": {"algorithm": "paper"},
    }
    reduction = "sequence"

    @property
    def needs(self) -> Needs:
        adaptive, published = self.config.adaptive, self.config.algorithm != "release"
        whole, redraw = adaptive and published, "epoch" if published else "step"
        return Needs(teacher="signal", sequence_features=adaptive, step_features=whole, redraw=redraw)

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source.TEACHER, Source.STUDENT)

    def sequence_features(self, sequences: Sequences):
        """[N, 2] skew and gap D of each token's sequence."""
        gap = sequences.mean(sequences.log_p).exp() - sequences.mean(sequences.log_q).exp()
        own = sequences.from_source(Source.STUDENT)
        gap = gap.where(~own, -gap)
        return torch.stack([self._skew(gap, own), gap], 1)

    def measure(self, tokens: Tokens):
        return tokens.sequence_features[:, 1:]

    def step_features(self, values, whole: WholeStep):
        """[M, 2] skew and gap D of all texts of each side together."""
        gap, own = whole.mean(values[:, 0]), torch.tensor([s is Source.STUDENT for s in whole.source])
        gap = torch.stack([gap[own == side].mean() for side in (False, True)]).nan_to_num()[own.long()]
        skew = torch.full_like(gap, self.config.alpha) if whole.step.epoch < 1 else self._skew(gap, own)
        return torch.stack([skew, gap], 1)[whole.sequence]

    def _skew(self, gap, own):
        first = self.state.get("first_gaps")
        if first is None:
            return gap.new_full(gap.shape, self.config.alpha)
        anchor = gap.new_tensor(first)[own.long()]
        return (1 - (1 - self.config.alpha) * anchor / (gap + 1e-5)).clamp(0.01, self.config.alpha)

    def _factors(self, step: Step) -> tuple[float, float]:
        """u and w."""
        if self.config.algorithm == "release":
            beta = 1 + self.config.growth * min(1.0, 2 * step.index / step.total)
            return 2 - beta, beta
        done, epochs = math.floor(step.epoch), math.ceil(step.epochs)
        share = (step.epoch - done) / (epochs if self.config.algorithm == "paper" else 1)
        b = min(max((done + 1) / epochs + share, 0.5), 1.0)
        return (1 - b) / 2, b / 2

    def objective(self, tokens: Tokens):
        c, own, alpha = self.config, tokens.from_source(Source.STUDENT), self.config.alpha
        on_teacher, on_student = self._factors(tokens.step)
        features = tokens.sequence_features if tokens.step_features is None else tokens.step_features
        if features is not None:
            alpha, gap = features.unbind(1)
            tokens.metrics.update(skew=alpha, gap_teacher=2 * gap * ~own, gap_student=2 * gap * own)
        p, q = tokens.teacher, tokens.student
        forward = skew_kl(q, p, alpha=alpha, temperature=c.temperature)
        reverse = skew_reverse_kl(q, p, alpha=alpha, detach_mixture=c.detach_mixture, temperature=c.temperature)
        # Twice, because the loop takes the mean over the sequences of both sides, and L is the sum of two means.
        return 2 * (on_teacher * forward).where(~own, on_student * reverse)

    def after_step(self, step: Step, report):
        if self.config.adaptive:
            self.state.setdefault("first_gaps", [report["gap_teacher"], report["gap_student"]])

    def card(self):
        c, detached = self.config, ", mixture detached" if self.config.detach_mixture else ""
        return {
            "divergence": f"skew KL on teacher text, skew reverse KL on student text{detached}",
            "mixture_weight_of_teacher": f"{'at most ' if c.adaptive else ''}{c.alpha:g} and its rest",
            "loss_temperature": c.temperature,
        }
