"""Text from a model held in this process: batched by length, finished rows retired, reproducible per row.

Every row draws its own uniform numbers from its own seed. A sampled text therefore does not depend on which
other prompts share its batch, on the order of the prompts, or on how often the work was interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from harness.errors import BadInput
from harness.models import guards
from harness.types import Decoding, Prompt


@dataclass(frozen=True)
class Generated:
    """A continuation. ``ids`` ends with the end-of-sequence token where ``finish`` is "stop" without a stop
    string; ``log_probs`` are under the model at temperature 1, one per id; ``text`` is decoded and cut."""

    text: str
    ids: tuple[int, ...]
    log_probs: tuple[float, ...]
    finish: str
    prompt_tokens: int

    @property
    def tokens(self) -> int:
        return len(self.ids)


class Generator:
    """Generates with one model. ``batch`` is the number of rows decoded together."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: int = 64):
        self.model, self.tokenizer, self.batch = model, tokenizer, batch
        self.limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self.end_ids = _end_ids(model, tokenizer)

    def render(self, prompt: Prompt) -> str:
        """The exact text whose tokens the model continues."""
        if not self.tokenizer.chat_template:
            return prompt.plain
        if not prompt.chat:  # encode() leaves the begin-of-sequence token to the template, which is not used here
            begins = self.tokenizer("a")["input_ids"][:1] == [self.tokenizer.bos_token_id]
            return (self.tokenizer.bos_token if begins else "") + prompt.plain
        turns = [{"role": "user", "content": prompt.user}]
        if prompt.system is not None:
            turns.insert(0, {"role": "system", "content": prompt.system})
        try:
            text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # jinja errors of the template's own raise_exception, e.g. "no system role"
            if prompt.system is None:
                raise BadInput(f"the model's chat template refuses a user turn: {error}") from None
            merged = Prompt(user=f"{prompt.system}\n\n{prompt.user}", plain=prompt.plain, prefill=prompt.prefill)
            return self.render(merged)
        return text + prompt.prefill

    def warnings(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str]:
        """What stands between these prompts and this model that a reader of the scores should know."""
        return guards.warnings(self, prompts, decoding)

    def encode(self, text: str) -> list[int]:
        """Token ids of a rendered prompt; a template already wrote its own begin-of-sequence token."""
        ids = self.tokenizer(text, add_special_tokens=not self.tokenizer.chat_template)["input_ids"]
        end = self.tokenizer.eos_token_id
        return ids[:-1] if ids and ids[-1] == end and not text.endswith(self.tokenizer.eos_token) else ids

    def response_ids(self, text: str, *, ended: bool) -> tuple[int, ...]:
        """Token ids of a response, with the end-of-sequence token where it ``ended``."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return (*ids, self.tokenizer.eos_token_id) if ended else tuple(ids)

    def generate(
        self,
        texts: Sequence[str],
        decoding: Decoding,
        seeds: Sequence[int],
        progress: Callable[[int], None] = lambda rows: None,
    ) -> list[Generated]:
        """One continuation of each rendered text, in order. ``progress`` hears of finished rows."""
        return self.continue_ids([self.encode(text) for text in texts], decoding, seeds, progress)

    def continue_ids(
        self,
        prompts: Sequence[Sequence[int]],
        decoding: Decoding,
        seeds: Sequence[int],
        progress: Callable[[int], None] = lambda rows: None,
    ) -> list[Generated]:
        """One continuation of each prompt given as token ids, in order."""
        results: list[Generated | None] = [None] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
        for start in range(0, len(order), self.batch):
            rows = order[start : start + self.batch]
            for row, generated in zip(
                rows,
                self._decode([prompts[i] for i in rows], decoding, [seeds[i] for i in rows]),
                strict=True,
            ):
                results[row] = generated
            progress(len(rows))
        return results  # type: ignore[return-value]

    @torch.inference_mode()
    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """For each (context, continuation): the continuation's log-probability in nats, and whether it is greedy.

        The continuation's tokens are those of the joint text beyond the context's, as lm-eval counts them. A
        text longer than the model's context loses its beginning.
        """
        found: list[tuple[float, bool]] = []
        for start in range(0, len(pairs), self.batch):
            whole, sizes = [], []
            for context, continuation in pairs[start : start + self.batch]:
                before = self.encode(context) or [self.tokenizer.eos_token_id]
                joint = self.encode(context + continuation)
                tail = joint[len(before) :] if joint[: len(before)] == before else None
                if tail is None:
                    tail = self.tokenizer(continuation, add_special_tokens=False)["input_ids"]
                ids = before + tail
                whole.append(ids[-self.limit :] if self.limit else ids)
                sizes.append(len(tail))
            ids, mask = _pad_left(whole, self.tokenizer.pad_token_id, self.model.device)
            position = (mask.cumsum(1) - 1).clamp_min(0)
            keep = max(sizes) + 1
            logits = self.model(
                input_ids=ids, attention_mask=mask, position_ids=position, use_cache=False, logits_to_keep=keep
            ).logits[:, -keep:, : len(self.tokenizer)]
            log_probs = logits.float().log_softmax(-1)
            for row, size in enumerate(sizes):
                target = ids[row, ids.shape[1] - size :]
                scores = log_probs[row, keep - 1 - size : keep - 1]
                value = scores.gather(-1, target[:, None]).sum()
                found.append((float(value), bool((scores.argmax(-1) == target).all())))
        return found

    @torch.inference_mode()
    def _decode(self, prompts: list[list[int]], decoding: Decoding, seeds: list[int]) -> list[Generated]:
        device, rows = self.model.device, len(prompts)
        limit = self.limit or float("inf")
        room = [int(min(decoding.max_new_tokens, limit - len(p))) for p in prompts]
        if min(room) <= 0:  # a prompt fills the context: it gets no answer, its neighbours are not shortened
            fits = [i for i in range(rows) if room[i] > 0]
            done = self._decode([prompts[i] for i in fits], decoding, [seeds[i] for i in fits]) if fits else []
            rest = iter(done)
            return [
                next(rest) if r > 0 else Generated("", (), (), "length", len(p))
                for r, p in zip(room, prompts, strict=True)
            ]
        ids, mask = _pad_left(prompts, self.tokenizer.pad_token_id, device)
        draws = _uniforms(seeds, max(room), device) if decoding.temperature > 0 else None
        stops = _Stops(self.tokenizer, decoding.stop)
        out: list[list[int]] = [[] for _ in range(rows)]
        log_probs: list[list[float]] = [[] for _ in range(rows)]
        finish = ["length"] * rows
        alive = torch.arange(rows, device=device)
        cache = DynamicCache(config=self.model.config)
        position = (mask.cumsum(1) - 1).clamp_min(0)
        for t in range(max(room)):
            logits = (
                self.model(
                    input_ids=ids,
                    attention_mask=mask,
                    position_ids=position,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
                .logits[:, -1, : len(self.tokenizer)]
                .float()
            )
            token, log_prob = _pick(logits, decoding, None if draws is None else draws[alive, t])
            going = []
            for k, (row, new, lp) in enumerate(zip(alive.tolist(), token.tolist(), log_prob.tolist(), strict=True)):
                out[row].append(new)
                log_probs[row].append(lp)
                if new in self.end_ids or stops.hit(out[row]):
                    finish[row] = "stop"
                elif len(out[row]) < room[row]:
                    going.append(k)
            if not going:
                break
            if len(going) < len(token):
                keep = torch.tensor(going, device=device)
                alive, token, mask, position = alive[keep], token[keep], mask[keep], position[keep]
                cache.batch_select_indices(keep)
            ids = token[:, None]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            position = position[:, -1:] + 1
        return [
            Generated(stops.cut(self._text(out[i])), tuple(out[i]), tuple(log_probs[i]), finish[i], len(prompts[i]))
            for i in range(rows)
        ]

    def _text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    declared = getattr(model.generation_config, "eos_token_id", None)
    declared = declared if isinstance(declared, list) else [declared]
    return {i for i in (*declared, tokenizer.eos_token_id) if i is not None}


def _pad_left(prompts: list[list[int]], pad: int, device) -> tuple[Tensor, Tensor]:
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad)
    mask = torch.zeros((len(prompts), width), dtype=torch.long)
    for i, prompt in enumerate(prompts):
        ids[i, width - len(prompt) :] = torch.tensor(prompt)
        mask[i, width - len(prompt) :] = 1
    return ids.to(device), mask.to(device)


def _uniforms(seeds: list[int], length: int, device) -> Tensor:
    """[rows, length] uniform numbers, each row from its own seed."""
    generator = torch.Generator()
    return torch.stack([torch.rand(length, generator=generator.manual_seed(s)) for s in seeds]).to(device)


def _pick(logits: Tensor, decoding: Decoding, draw: Tensor | None) -> tuple[Tensor, Tensor]:
    """Next token [rows] and its log-probability at temperature 1 [rows] from logits [rows, V]."""
    log_probs = logits.log_softmax(-1)
    if decoding.temperature <= 0:
        token = logits.argmax(-1)
    else:
        probs = (logits / decoding.temperature).softmax(-1)
        if decoding.top_p < 1:
            ordered, where = probs.sort(-1, descending=True)
            ordered[ordered.cumsum(-1) - ordered >= decoding.top_p] = 0
            probs = torch.zeros_like(probs).scatter_(-1, where, ordered)
        steps = probs.cumsum(-1)
        # The first token whose cumulative mass exceeds the draw: inverse transform sampling.
        token = torch.searchsorted(steps, (draw[:, None] * steps[:, -1:]), right=True)[:, 0]
        token = token.clamp_max(logits.shape[-1] - 1)
    return token, log_probs.gather(-1, token[:, None])[:, 0]


class _Stops:
    """Stop strings. A tail of the ids is decoded: a stop string may span tokens or sit inside one."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]):
        self.tokenizer, self.stop = tokenizer, tuple(stop)
        self.tail = max((len(s.encode()) for s in stop), default=0) + 4

    def hit(self, ids: list[int]) -> bool:
        if not self.stop:
            return False
        tail = self.tokenizer.decode(ids[-self.tail :], clean_up_tokenization_spaces=False)
        return any(s in tail for s in self.stop)

    def cut(self, text: str) -> str:
        ends = [text.find(s) for s in self.stop]
        return text[: min((e for e in ends if e >= 0), default=len(text))]
