"""Self-distillation fine-tuning (SDFT 2026, https://arxiv.org/abs/2601.19897), as TRL 1.16 runs it.

    L = mean_y mean_t JSD_alpha(p_K,t || q_K,t),    y ~ q(. | x),   p_t = q'(. | x, d, y_<t)

q student, q' the student itself: before training (``initial``), as a moving average (``ema``) or as it is (``live``);
d a demonstration, which only the teacher reads. K are the student's ``k`` likeliest tokens; both distributions are
divided by their mass in K, or get a bucket for the rest. alpha is the teacher's weight in the mixture: 0 is forward, 1
reverse KL. In TRL the teacher is the initial model; the paper reports a moving average. TRL's clipped importance weight
is 1 here, for every text is used in the step that samples it.

sdft@paper   reverse KL over the whole vocabulary from a moving average of the student; every token counts alike,
             which is our choice: what the paper divides by was not available to us
sdft@live    the teacher is the student as it is
"""

from dataclasses import dataclass

from harness.methods._self_teaching import DEMONSTRATION, SelfTaught

from harness.losses import jsd, log_probs, with_rest
from harness.method import Tokens
from harness.options import option

TRL = "TRL 1.16 SDFTConfig"


@dataclass(frozen=True)
class Config:
    alpha: float = option(0.5, "teacher's weight in the mixture", low=0, high=1, source=f"{TRL}: 0.5")
    k: int = option(100, "of the student's likeliest tokens; 0 takes all", low=0, source=f"{TRL}: 100")
    rest: str = option(
        "renormalised", "what becomes of the other tokens' mass", choices=("renormalised", "bucket"), source=TRL
    )
    mean: str = option(
        "text", "over texts of their means, or over tokens", choices=("text", "token"), source=TRL, before="token"
    )
    model: str = option("initial", "who teaches", choices=("initial", "ema", "live", "teacher"), source=f"{TRL}: base")
    decay: float = option(0.95, "ema: of the moving average, per step", low=0, high=1, source=f"{TRL}: rate 0.05")
    template: str = option(DEMONSTRATION, "the teacher's prompt over the fields of a row", source=TRL)


class SDFT(SelfTaught):
    """The student with a demonstration in its prompt teaches the student, on the student's own text."""

    name, paper, Config = "sdft", "https://arxiv.org/abs/2601.19897", Config
    variants = {"paper": {"alpha": 1.0, "k": 0, "mean": "token", "model": "ema"}, "live": {"model": "live"}}

    @property
    def reduction(self) -> str:
        return {"text": "sequence", "token": "token"}[self.config.mean]

    def objective(self, tokens: Tokens):
        c = self.config
        if c.k == 0:
            return jsd(tokens.student, tokens.teacher, beta=c.alpha)
        log_q, log_p = log_probs(tokens.student, tokens.teacher)
        chosen = log_q.detach().topk(min(c.k, log_q.shape[-1]), -1).indices
        pair = [log.gather(-1, chosen) for log in (log_q, log_p)]
        # jsd normalises what it is given: the likeliest tokens alone are renormalised, with the bucket nothing changes.
        return jsd(*(with_rest(log) if c.rest == "bucket" else log for log in pair), beta=c.alpha)

    def card(self):
        c = self.config
        return {
            "divergence": "JSD" + (f" on the student's top {c.k}, {c.rest}" if c.k else ""),
            "mixture_weight_of_teacher": c.alpha,
            "teacher_prompt": f"own prompt, {c.model}",
        }
