"""Universal logit distillation (ULD, Boizard et al. 2024, https://arxiv.org/abs/2402.12030, equation 5).

    L = mean over sequences of  [ mean_t -log q(y_t)  +  lambda mean_g W(p_g, q_g) ],
    W(p, q) = sum_i |p_(i) - q_(i)|

for a teacher with another tokenizer: p_(i) is the i-th largest probability of the teacher over its own vocabulary,
q_(i) of the student over its own, and the shorter list is filled up with zeros. W is the Wasserstein distance of p and
q for a cost that is the same between any two words, up to a factor. The teacher reads the text in its own tokens,
after its own prompt, and g runs over the pairs: the paper compares the n-th token of one side with the n-th of the
other, as far as both go, ends of text included.

uld@spans   pairs are the shortest pieces of text that both tokenizers end at; of each the distribution of its last
            token, times the probability of the tokens before it, as in gold

The value sees ranks only: a student with the right probabilities on the wrong words has W = 0, which is what the
cross-entropy is for. The text is the teacher's, as in the paper.
"""

from dataclasses import dataclass

from harness.methods._pairs import hard, merged, per_text, sorted_gap

from harness.method import Method, Needs, Pairing, Step, Tokens
from harness.options import option
from harness.types import Source

RELEASE = "the authors' llm-distillation"


@dataclass(frozen=True)
class Config:
    weight: float = option(1.5, "lambda, of the distance", low=0, high=1000, source=f"{RELEASE}: distil_factor 1.5")
    hard: float = option(1.0, "of the cross-entropy", low=0, high=1000, source="ULD, equation 5")
    pairs: str = option("place", "what is compared", choices=("place", "text"), source="ULD, section 3.2")
    text: str = option("teacher", "fixed text to distil on", choices=("teacher", "data", "student"), source="ULD, 4.1")
    temperature: float = option(1.0, "of both distributions in W", low=0.05, high=100, source=f"{RELEASE}: 1")


class ULD(Method):
    """Distance of sorted probabilities to a teacher with any tokenizer, plus cross-entropy."""

    name, paper, Config = "uld", "https://arxiv.org/abs/2402.12030", Config
    variants = {"spans": {"pairs": "text"}}
    reduction = "sequence"

    @property
    def needs(self) -> Needs:
        return Needs(teacher="signal", exact=True, pairing=Pairing(by=self.config.pairs))

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source(self.config.text),)

    def objective(self, tokens: Tokens):
        c = self.config
        log_q, log_p = merged(tokens, c.temperature)
        return hard(tokens, c.hard) + c.weight * per_text(tokens, sorted_gap(log_q.exp(), log_p.exp()))

    def card(self):
        c = self.config
        return {
            "divergence": f"cross-entropy x {c.hard:g} + sum of gaps between sorted probabilities x {c.weight:g}",
            "loss_temperature": c.temperature,
            "pairs": f"of tokens by {c.pairs}",
        }
