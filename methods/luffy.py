"""Mixed-policy GRPO with shaping (LUFFY, Yan et al. 2025, https://arxiv.org/abs/2504.14945, code ElliottYan/LUFFY).

    L = -(1/(T L_max)) sum over texts sum_t l_t - entropy mean_t H(q_t),      A = R - mean of the group
    l_t = min(r_t A, clip(r_t, 1 - e, 1 + e) A)     on the student's own texts,  r_t = q(y_t) / q_old(y_t)
    l_t = f(q(y_t)) A,   f(x) = x / (x + gamma)     on the teacher's trace

q student; a group are ``own`` texts of the student and ``traces`` of the teacher that answer one prompt, all scored by
the grader; T texts of the step, L_max the longest response. The teacher's probability is taken as 1, so that its trace
needs no signal. f' = gamma / (x + gamma)^2 favours the words that the student finds unlikely. As in Dr. GRPO nothing is
divided by a deviation or by the length of a text.

In the paper traces come from DeepSeek-R1, filtered to right ones; here the recipe's teacher writes them once
([teacher_text]), and a wrong one has a negative advantage. Batches of 128 prompts are two updates of 64 there, so the
ratio of the second leaves 1; here texts are sampled for every step.

The weight of the entropy is 0.01 in the paper's text, the default, and 0.001 in the released script (train.sh).

luffy@release   as the script runs it: no clip, entropy 0.001
"""

from dataclasses import dataclass

from harness.methods._rewards import credit, log_prob, surrogate

from harness.losses import cross_entropy
from harness.method import Method, Needs, Step, Tokens, WholeStep
from harness.options import option
from harness.types import Source

SCRIPT = "LUFFY, train.sh"


@dataclass(frozen=True)
class Config:
    own: int = option(7, "texts of the student per prompt", low=1, source=f"{SCRIPT}: 8 less 1")
    traces: int = option(1, "texts of the teacher per prompt", low=0, high=1, source=f"{SCRIPT}: n_prefix 1")
    gamma: float = option(0.1, "of the shaping; 0 makes f constant", low=1e-6, high=1e6, source=f"{SCRIPT}: 0.1")
    scale: str = option("none", "deviation that divides A", choices=("group", "step", "none"), source=SCRIPT)
    clip: float = option(0.2, "of the ratio on own texts; 0 does not clip", low=0, high=1, source="paper, equation 4")
    entropy: float = option(0.01, "weight of the student's entropy", low=0, high=10, source="paper: 0.01")

    def __post_init__(self):
        if self.own + self.traces < 2:
            from harness.errors import BadInput

            raise BadInput("luffy: a group of one has nothing to be compared with; set method.own to 2 or more")


class LUFFY(Method):
    """Rewards from the data's grader on own texts and a trace of the teacher, whose unlikely words count most."""

    name, paper, Config = "luffy", "https://arxiv.org/abs/2504.14945", Config
    variants = {"release": {"clip": 0.0, "entropy": 0.001}}

    @property
    def needs(self) -> Needs:
        return Needs(teacher="text" if self.config.traces else "none", rewards=True, step_features=True)

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source.STUDENT,) * self.config.own + (Source.TEACHER,) * self.config.traces

    def step_features(self, values, whole: WholeStep):
        return credit(whole, scale=self.config.scale, mean="constant")

    def objective(self, tokens: Tokens):
        c, (log_q, old) = self.config, log_prob(tokens)
        advantage, factor = tokens.step_features.to(log_q.dtype).unbind(1)
        bounds = (c.clip, c.clip) if c.clip else (1.0, float("inf"))
        own = surrogate(log_q, old, advantage, *bounds, tokens.metrics)
        q = log_q.exp()
        shaped = -advantage * q / (q + c.gamma)
        value = factor * shaped.where(tokens.from_source(Source.TEACHER), own)
        if c.entropy:
            spread = cross_entropy(tokens.logits, tokens.logits)
            tokens.metrics["entropy"] = spread.detach()
            value = value - c.entropy * spread
        return value

    def card(self):
        c = self.config
        return {
            "divergence": f"none: reward; on {c.traces} trace f(x) = x / (x + {c.gamma:g}); entropy x {c.entropy:g}",
            "advantage": f"{c.own} + {c.traces} texts a prompt, deviation: {c.scale}, mean: constant, clip {c.clip:g}",
        }
