"""Sequence-level f-divergences (f-distill, Wen et al. 2023, https://arxiv.org/abs/2307.15190), word by word.

    kl    KL(p || q) on teacher text             js    (1 - b) KL(p || m) on teacher text + b KL(q || m) on student text
    rkl   KL(q || p) on student text             tvd   TV(p, q) / 2 on teacher text + TV(p, q) / 2 on student text

p teacher, q student, m = (1 - b) p + b q. A divergence between texts is a sum over prefixes, each drawn from the model
whose expectation it belongs to; jsd and tvd of this package take both halves on one text instead. As in the released
code each text's half is the mean over its tokens. The released code samples the teacher's text once for js and tvd, and
again at every step for kl; here it is sampled once.

fdistill@kl, fdistill@rkl, fdistill@tvd   the other three
"""

from dataclasses import dataclass

from harness.losses import forward_kl, reverse_kl, skew_kl, skew_reverse_kl, total_variation
from harness.method import Method, Needs, Step, Tokens
from harness.options import option
from harness.types import Source

TEXTS = {"kl": (Source.TEACHER,), "rkl": (Source.STUDENT,)}
BOTH = (Source.TEACHER, Source.STUDENT)


@dataclass(frozen=True)
class Config:
    divergence: str = option("js", "which f-divergence", choices=("kl", "rkl", "js", "tvd"), source="paper")
    share: float = option(0.5, "b, the student's half of js", low=0, high=1, source="released code: beta 0.5")


class FDistill(Method):
    """An f-divergence between whole texts, each half on the text of its own model."""

    name, paper, Config = "fdistill", "https://arxiv.org/abs/2307.15190", Config
    needs = Needs(teacher="signal")
    variants = {"kl": {"divergence": "kl"}, "rkl": {"divergence": "rkl"}, "tvd": {"divergence": "tvd"}}
    reduction = "source"

    def sources(self, step: Step) -> tuple[Source, ...]:
        return TEXTS.get(self.config.divergence, BOTH)

    def objective(self, tokens: Tokens):
        q, p, b, kind = tokens.student, tokens.teacher, self.config.share, self.config.divergence
        if kind in TEXTS:
            return forward_kl(q, p) if kind == "kl" else reverse_kl(q, p)
        # Twice, because the loop takes the mean over both texts and L adds their halves up.
        if kind == "tvd":
            return 2 * 0.5 * total_variation(q, p)
        own = tokens.from_source(Source.STUDENT)
        halves = ((1 - b) * skew_kl(q, p, alpha=1 - b), b * skew_reverse_kl(q, p, alpha=b))
        return 2 * halves[1].where(own, halves[0])

    def card(self):
        c = self.config
        return {
            "divergence": f"{c.divergence} of texts",
            "mixture_weight_of_teacher": 1 - c.share if c.divergence == "js" else None,
        }
