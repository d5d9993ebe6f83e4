"""Shared by methods whose teacher is the student with a longer prompt: the teacher's prompt, and the clipped KL."""

import torch

from harness.losses import log_probs
from harness.method import Asking, Method, Needs, Step
from harness.types import Source

# The papers' own wording is in their code; this one is ours and says the same.
SOLUTION = (
    "{prompt}\n\nHere is a reference solution to this problem:\n{response}\n\n"
    "After reading the reference solution, solve the problem in your own words."
)
DEMONSTRATION = "{prompt}\n\n{response}"  # TRL's teacher_prompt_template


class SelfTaught(Method):
    """The student answers labelled prompts; a teacher under the Config's prompt ``template`` scores the answers."""

    @property
    def needs(self) -> Needs:
        c = self.config
        # A clip per entry, a temperature or a support mean something else where one entry is a bucket of many.
        return Needs(teacher="signal", exact=True, asking=Asking(c.template, c.model, c.decay))

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source.STUDENT,)


def clipped_forward_kl(student, teacher, *, clip: float, temperature: float):
    """[N] sum_v min(p(v) log(p(v) / q(v)), clip): each entry of the vocabulary is clipped before the sum, in nats."""
    log_q, log_p = log_probs(student, teacher, temperature=temperature)
    p = log_p.exp()
    return (p * (log_p - log_q)).masked_fill(p == 0, 0).clamp(max=clip).sum(-1)


def late_weight(tokens, *, least: float, center: float, slope: float):
    """[N] w_min + (1 - w_min) sigmoid((f - center) / slope), f = (t - 1/2) / |y| the share of the text before t."""
    share = (tokens.position.double() + 0.5) / tokens.length
    return least + (1 - least) * torch.sigmoid((share - center) / slope)
