"""Self-distillation policy optimisation (SDPO, Hubotter et al. 2026, https://arxiv.org/abs/2601.20802, lasgroup/SDPO).

    L = (1/N) sum_t min(q(y_t) / q_old(y_t), c) JSD_alpha(p_K,t || q_K,t),      p_t = q'(. | x, s, f, y_<t)

q student on its own text y, one of ``group`` that answer x; q' its moving average, which reads y in hindsight: s is
another of these texts that the grader found right, f what the grader said of y where none was. The sum is over the
texts for which there is s or f, N their tokens. K are the student's ``k`` likeliest tokens and a bucket for the rest.
alpha is the teacher's weight in the mixture: 0 forward, 1 reverse KL; the importance weight has no gradient. The score
itself enters nothing: it only selects what the teacher's prompt says. The wording of the teacher's prompt is ours.

In the release a text is a solution from score 0.5 on (``least``); runs with rich feedback there take alpha = 1.

sdpo@trl   TRL 1.16: -log q(y_t) weighted by log q - log p of the sampled token, solutions alone, from score 1 on; the
           mean over all texts of their means over tokens, 0 for a text without hindsight
"""

from dataclasses import dataclass

import torch
from harness.methods._rewards import log_prob

from harness.losses import cross_entropy, jsd, log_probs, with_rest
from harness.method import Asking, Hindsight, Method, Needs, Step, Tokens, WholeStep
from harness.options import option
from harness.types import Source

RELEASE = "SDPO, actor.yaml"
TEMPLATE = "{prompt}{solution}{feedback}\n\nNow solve the problem above correctly.\n"
SOLUTION = "\n\nThis is a right solution:\n\n{text}"
FEEDBACK = "\n\nAn earlier attempt of yours failed, and this was said of it:\n\n{text}"


@dataclass(frozen=True)
class Config:
    alpha: float = option(0.5, "teacher's weight in the mixture", low=0, high=1, source=f"{RELEASE}: 0.5")
    k: int = option(100, "of the student's likeliest tokens; 0 takes all", low=0, source=f"{RELEASE}: 100")
    rest: str = option("bucket", "the other tokens' mass", choices=("bucket", "renormalised"), source=RELEASE)
    loss: str = option("jsd", "of distributions, or of the sampled token", choices=("jsd", "sampled"), source=RELEASE)
    ratio: float = option(2.0, "c, the largest importance weight", low=0, high=1e6, source=f"{RELEASE}: is_clip 2")
    mean: str = option(
        "token", "over tokens of informed texts, or over all texts of their means", choices=("token", "text"),
        source=f"{RELEASE}: token-mean", before="token",
    )  # fmt: skip
    model: str = option("ema", "who teaches", choices=("initial", "ema", "live", "teacher"), source=RELEASE)
    decay: float = option(0.95, "of the moving average, per step", low=0, high=1, source=f"{RELEASE}: rate 0.05")
    group: int = option(8, "texts per prompt", low=2, source="SDPO, run_sdpo.sh: 8")
    least: float = option(0.5, "score of a solution", low=0, high=1, source=f"{RELEASE}: 0.5")
    told: str = option("alone", "when f is told", choices=("alone", "always", "never"), source=f"{RELEASE}: alone")
    template: str = option(TEMPLATE, "over prompt, solution and feedback", source="wording ours")
    solution: str = option(SOLUTION, "over text", source="wording ours")
    feedback: str = option(FEEDBACK, "over text", source="wording ours")
    shuffle: bool = option(False, "control: what is left out falls on shuffled tokens of the optimizer step")


class SDPO(Method):
    """The student with a right solution or feedback in its prompt teaches the student, on the student's own text."""

    name, paper, Config = "sdpo", "https://arxiv.org/abs/2601.20802", Config
    variants = {"trl": {"loss": "sampled", "alpha": 1.0, "mean": "text", "told": "never", "least": 1.0}}

    @property
    def needs(self) -> Needs:
        c = self.config
        hindsight = Hindsight(c.template, c.solution, c.feedback, c.least, told=c.told)
        asking = Asking(model=c.model, decay=c.decay)
        over_texts = c.mean == "text"
        return Needs(
            teacher="signal", exact=True, asking=asking, rewards=True, hindsight=hindsight, step_features=over_texts
        )

    @property
    def reduction(self) -> str:
        return {"token": "token", "text": "sequence"}[self.config.mean]

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source.STUDENT,) * self.config.group

    def weight(self, tokens: Tokens):
        """A text without a hindsight prompt is left out."""
        tokens.metrics["informed"] = tokens.informed.float()
        return tokens.informed.float()

    def step_features(self, values, whole: WholeStep):
        """[M, 1] share of informed texts: the reduction's mean is over these alone, TRL's over all texts."""
        return torch.full((len(whole.sequence), 1), sum(whole.informed) / len(whole.informed))

    def objective(self, tokens: Tokens):
        c, (taken, old) = self.config, log_prob(tokens)
        ratio = (taken.detach() - old).exp().clamp(max=c.ratio)
        if tokens.step_features is not None:
            ratio = ratio * tokens.step_features[:, 0]
        if c.loss == "sampled":
            gap = taken + cross_entropy(tokens.teacher, tokens.labels)
            return ratio * gap.detach() * taken
        if c.k == 0:
            return ratio * jsd(tokens.student, tokens.teacher, beta=c.alpha)
        log_q, log_p = log_probs(tokens.student, tokens.teacher)
        chosen = log_q.detach().topk(min(c.k, log_q.shape[-1]), -1).indices
        pair = [log.gather(-1, chosen) for log in (log_q, log_p)]
        # jsd normalises what it is given: without the bucket the likeliest tokens alone are.
        return ratio * jsd(*(with_rest(log) if c.rest == "bucket" else log for log in pair), beta=c.alpha)

    def card(self):
        c, jensen = self.config, self.config.loss == "jsd"
        support = f" on the student's top {c.k}, {c.rest}" if c.k else ""
        return {
            "divergence": f"JSD{support}" if jensen else "reverse KL, one sample",
            "mixture_weight_of_teacher": c.alpha if jensen else None,
            "token_weights": "texts that hindsight tells something of" + ("/shuffled" if c.shuffle else ""),
            "teacher_prompt": f"in hindsight of {c.group} texts, {c.model}; feedback: {c.told}",
        }
