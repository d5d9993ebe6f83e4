"""Text sampled jointly from student and teacher, token by token: from their mixture, or speculatively.

Both models read the same prefix at every position, each with its own key-value cache. The random numbers of a row come
from its own seed, as in :mod:`harness.models.generate`, so a text does not depend on the rest of its batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from harness.method import Mixture, Speculation
from harness.models.generate import Generated, Generator
from harness.models.sampling import invert, nucleus, read
from harness.models.token_text import continuation
from harness.types import Decoding


class JointGenerator:
    """Samples from a student and a teacher that share a tokenizer, whose ids the student's generator decodes."""

    def __init__(self, student: Generator, teacher: Generator):
        self.student, self.teacher = student, teacher

    def continue_ids(
        self, prompts: Sequence[Sequence[int]], how: Mixture | Speculation, decoding: Decoding, seeds: Sequence[int]
    ) -> list[Generated]:
        """One continuation of each prompt, in order; ``log_probs`` are those of the joint sampler.

        A mixture uses temperature, nucleus and length of ``decoding``; speculation uses its length only.
        """
        order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
        by_index: dict[int, Generated] = {}
        for start in range(0, len(order), self.student.batch):
            rows = order[start : start + self.student.batch]
            generated = self._decode([list(prompts[i]) for i in rows], how, decoding, [seeds[i] for i in rows])
            by_index |= dict(zip(rows, generated, strict=True))
        return [by_index[i] for i in range(len(prompts))]

    @torch.inference_mode()
    def _decode(
        self, prompts: list[list[int]], how: Mixture | Speculation, decoding: Decoding, seeds: list[int]
    ) -> list[Generated]:
        limits = [g.limit or float("inf") for g in (self.student, self.teacher)]
        budgets = [int(min(decoding.max_new_tokens, *(limit - len(p) for limit in limits))) for p in prompts]
        out: list[list[int]] = [[] for _ in prompts]
        log_probs: list[list[float]] = [[] for _ in prompts]
        finish = ["length"] * len(prompts)
        unfinished = [i for i, r in enumerate(budgets) if r > 0]
        pad, vocab = self.student.pad_id, self.student.words
        lanes = [_Lane(g.model, [prompts[i] for i in unfinished], pad, vocab) for g in (self.student, self.teacher)]
        dice = {i: torch.Generator().manual_seed(seeds[i]) for i in unfinished}
        while unfinished:
            q, p = (lane.logits().to(self.student.model.device) for lane in lanes)
            chances = torch.stack([torch.rand(2, generator=dice[i]) for i in unfinished]).to(q.device)
            token, log_prob = _sample(how, decoding, q, p, chances)
            going = []
            for k, (i, new, lp) in enumerate(zip(unfinished, *read(token, log_prob), strict=True)):
                out[i].append(new)
                log_probs[i].append(lp)
                if new in self.student.end_ids:
                    finish[i] = "stop"
                elif len(out[i]) < budgets[i]:
                    going.append(k)
            unfinished = [unfinished[k] for k in going]
            for lane in lanes:
                lane.keep(going, token)
        return [
            Generated(
                continuation(self.student.tokenizer, prompts[i], out[i]),
                tuple(out[i]),
                tuple(log_probs[i]),
                finish[i],
                len(prompts[i]),
            )
            for i in range(len(prompts))
        ]


class _Lane:
    """One model with its key-value cache and its unread tokens."""

    def __init__(self, model: PreTrainedModel, prompts: list[list[int]], pad: int, vocab: int):
        self.model, self.vocab = model, vocab
        self.cache = DynamicCache(config=model.config)
        width = max(map(len, prompts), default=0)
        rows = [[pad] * (width - len(p)) + p for p in prompts]
        mask = [[0] * (width - len(p)) + [1] * len(p) for p in prompts]
        self.ids, self.mask = torch.tensor(rows, device=model.device), torch.tensor(mask, device=model.device)
        self.position = (self.mask.cumsum(-1) - 1).clamp_min(0)

    def logits(self) -> Tensor:
        """[rows, vocab] of the next token, in fp32."""
        out = self.model(
            input_ids=self.ids,
            attention_mask=self.mask,
            position_ids=self.position,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1, : self.vocab].float()

    def keep(self, going: list[int], token: Tensor) -> None:
        """Drops the rows that ended and appends the new token of each other row."""
        token = token.to(self.model.device)
        rows = torch.tensor(going, dtype=torch.long, device=token.device)
        if len(going) < len(token):
            self.cache.batch_select_indices(rows)
        mask = self.mask[rows]
        self.ids = token[rows][:, None]
        self.mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)
        self.position = self.position[rows][:, -1:] + 1


def _sample(
    how: Mixture | Speculation, decoding: Decoding, q: Tensor, p: Tensor, chances: Tensor
) -> tuple[Tensor, Tensor]:
    """Tokens [rows] and their log-probability [rows] under the joint sampler; ``chances`` [rows, 2] are uniform."""
    if isinstance(how, Mixture):
        student, teacher = (_probs(z, decoding.temperature, decoding.top_p) for z in (q, p))
        mixed = how.teacher_share * teacher + (1 - how.teacher_share) * student
        token = invert(mixed, chances[:, 0])
    else:
        student = _probs(q, how.student.temperature, how.student.top_p)
        teacher = _probs(p, how.teacher.temperature, how.teacher.top_p)
        accepted = torch.zeros_like(p, dtype=torch.bool).scatter_(-1, p.topk(min(how.top_k, p.shape[-1])).indices, True)
        proposed = invert(student, chances[:, 0])
        good = accepted.gather(-1, proposed[:, None])[:, 0]
        token = torch.where(good, proposed, invert(teacher, chances[:, 1]))
        # The sampler's distribution: the accepted part of q, and p wherever a proposal was refused.
        accepted_mass = student * accepted
        mixed = accepted_mass + (1 - accepted_mass.sum(-1, keepdim=True)) * teacher
    return token, mixed.gather(-1, token[:, None])[:, 0].log()


def _probs(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    """[rows, V] the distribution that is sampled from; temperature 0 is greedy."""
    if temperature <= 0:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
    masses = nucleus(logits, temperature, top_p)
    return masses / masses.sum(-1, keepdim=True)
