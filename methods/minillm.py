"""MiniLLM: reverse KL by policy gradient (Gu et al. 2024, https://arxiv.org/abs/2306.08543, equations 2 to 8).

    L = mean_t [ w_t KL(q_t || p_t) - w_t R_{t+1} ] on text y  +  lm mean_t [ CE + lm_kd (CE(p, q) - CE) ] on data
    r_t = log p(y_t) - log q(y_t)                  R_t = sum_{t' >= t} discount^(t' - t) r_t' / (tokens from t on)
    w_t = q(y_t) / s(y_t)                          s = mixture p + (1 - mixture) q_old, the sampler of y

p teacher, q student, q_old the student that sampled. The first term is exact for the current token, the second
estimates its effect on all later tokens. R has no gradient, and neither has w in the first term. CE is the
cross-entropy with the data's token, CE(p, q) that with the teacher's distribution. Every text gives one update, so
q = q_old up to rounding and PPO's clipping has no effect; the released code makes four passes over its samples. It also
whitens R over each micro-batch, which makes the result depend on the split; this is left out. The paper's last term
uses pre-training text; here it uses the reference responses of the labelled data.

minillm@paper   the defaults, by name
minillm@trl     TRL's MiniLLMTrainer: the student's samples only, no LM term, R includes the current token's reward
                and is divided by sum_{t' >= t} discount^(t' - t); its discount is 0, so R_t = r_t. There R also has a
                gradient, which adds a multiple of grad log q(y_t), of mean 0 over texts of q; it is left out here
"""

from dataclasses import dataclass

import torch

from harness.losses import cross_entropy, reverse_kl
from harness.method import Method, Mixture, Needs, Sequences, Step, Tokens
from harness.options import option
from harness.types import Source

SCRIPT = "LMOps, train_base_xl.sh"


@dataclass(frozen=True)
class Config:
    mixture: float = option(0.2, "teacher's share in the sampler", low=0, high=1, source=f"{SCRIPT}: 0.2")
    discount: float = option(0.95, "of later rewards", low=0, high=1, source=f"{SCRIPT}: gamma 0.95")
    own_reward: bool = option(False, "R starts at the token itself, not after it", source="paper, equation 6")
    per: str = option(
        "token", "what R is divided by: tokens, or tokens as discounted", choices=("token", "discount"), source=SCRIPT
    )
    lm: float = option(1.0, "weight of the language-modelling term", low=0, high=1000, source=f"{SCRIPT}: 1")
    lm_kd: float = option(0.5, "teacher's share in that term", low=0, high=1, source=f"{SCRIPT}: kd_ratio 0.5")


class MiniLLM(Method):
    """Reverse KL over whole responses by policy gradient, sampled from a mixture with the teacher."""

    name, paper, Config = "minillm", "https://arxiv.org/abs/2306.08543", Config
    variants = {
        "paper": {"mixture": 0.2, "discount": 0.95, "own_reward": False, "per": "token", "lm": 1.0},
        "trl": {"mixture": 0.0, "discount": 0.0, "own_reward": True, "per": "discount", "lm": 0.0},
    }
    reduction = "source"

    @property
    def needs(self) -> Needs:
        joint = Mixture(self.config.mixture) if self.config.mixture else None
        return Needs(teacher="signal", sequence_features=True, joint=joint)

    def sources(self, step: Step) -> tuple[Source, ...]:
        sampled = Source.MIXED if self.config.mixture else Source.STUDENT
        return (sampled, Source.DATA) if self.config.lm else (sampled,)

    def sequence_features(self, sequences: Sequences):
        """[N, 2] return R and the sampler's log-probability of each token."""
        returns = sequences.discounted(sequences.log_p - sequences.log_q, self.config.discount)
        left = sequences.length - sequences.position
        if self.config.per == "discount":
            left = sequences.discounted(torch.ones_like(returns), self.config.discount)
        returns = returns / left
        # Shift by one token, so that R starts after the current token; it is 0 at the last one.
        if not self.config.own_reward:
            later = sequences.table(returns).roll(-1, 1)
            later[:, -1] = 0
            returns = sequences.flat(later).where(sequences.position + 1 < sequences.length, 0)
        return torch.stack([returns, sequences.sampler()], 1)

    def objective(self, tokens: Tokens):
        c = self.config
        returns, sampler = tokens.sequence_features.unbind(1)
        p, q = tokens.teacher, tokens.student
        entropy = cross_entropy(q, tokens.labels)
        ratio = (-entropy - sampler).exp()
        own = ratio.detach() * reverse_kl(q, p) - ratio * returns
        tokens.metrics.update(ratio=ratio.detach(), returns=returns)
        if not c.lm:
            return own
        data = tokens.from_source(Source.DATA)
        language = c.lm * ((1 - c.lm_kd) * entropy + c.lm_kd * cross_entropy(q, p))
        # The loop takes the mean over both sources, L is the sum of their means: hence the factor 2.
        return 2 * language.where(data, own)

    def card(self):
        c = self.config
        return {
            "divergence": f"reverse KL, exact for the token, by returns with discount {c.discount:g} beyond it"
            + (f"; language modelling x {c.lm:g}" if c.lm else ""),
            "joint_text": f"mixture with {c.mixture:g} teacher" if c.mixture else None,
        }
