"""Generates text with a model in this process: sorted by length, continuously batched, reproducible per row.

Every row draws its own uniform numbers from its own seed. A sampled text therefore does not depend on which
other prompts share its batch, on the order of the prompts, or on how often the work was interrupted.
Models of the Llama family decode in :mod:`harness.models.llama_decoder`, where waiting prompts take the rows of
finished ones; all others decode batch by batch through transformers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from harness.models import captured_decoder, chat_format, devices, llama_decoder, token_text
from harness.models.captured_decoder import CapturedDecoder
from harness.models.chat_format import TextCodec
from harness.models.llama_decoder import LlamaDecoder, containing
from harness.models.sampling import pick, read, uniforms
from harness.models.token_text import Stops, continuation
from harness.progress import UNWATCHED, Watch
from harness.types import Decoding, Prompt

PREFILL_TOKENS = {"cpu": 512, "cuda": 16384}  # prompt tokens prefilled together, including padding; bounds memory


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


@dataclass(frozen=True)
class Scored:
    """For every token of a continuation: its log-probability in nats, and whether it is the likeliest token."""

    log_probs: tuple[float, ...]
    greedy: tuple[bool, ...]


class Generator(TextCodec):
    """Generates with one model. ``batch`` rows are decoded together; ids from 0 to ``words`` may be sampled."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: int = 64, words: int | None = None
    ):
        super().__init__(tokenizer, words)
        self.model, self.batch = model, batch
        self.limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self.end_ids = _end_ids(model, tokenizer) | (set() if self.turn_end is None else {self.turn_end})
        self._agrees: bool | None = None  # whether LlamaDecoder reproduces the model; checked once
        self._captured: CapturedDecoder | None = None

    def warnings(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str]:
        """Warnings for readers of the scores about these prompts with this model."""
        if not prompts:
            return []
        rendered, penalties = chat_format.check_prompts(self, prompts), chat_format.check_penalties(self.model)
        return [*rendered, *penalties, *chat_format.check_room(self, prompts, decoding, self.limit)]

    def generate(
        self,
        texts: Sequence[str],
        decoding: Decoding,
        seeds: Sequence[int],
        watch: Watch = UNWATCHED,
    ) -> list[Generated]:
        """One continuation of each rendered text, in order. ``watch`` receives each as soon as it is complete."""
        return self.continue_ids([self.encode(text) for text in texts], decoding, seeds, watch)

    def continue_ids(
        self,
        prompts: Sequence[Sequence[int]],
        decoding: Decoding,
        seeds: Sequence[int],
        watch: Watch = UNWATCHED,
    ) -> list[Generated]:
        """One continuation of each prompt given as token ids, in order."""
        prompts = [list(prompt) or [self.tokenizer.eos_token_id] for prompt in prompts]
        work = _Work(self, prompts, decoding, seeds, watch)
        order = sorted((i for i in range(len(prompts)) if work.budgets[i] > 0), key=lambda i: (len(prompts[i]), i))
        if order and self._decoder_fits():
            # Sort prompts that are prefixes of one text next to each other, so that they are admitted together and
            # share its pass.
            holders = containing(prompts)
            order.sort(key=lambda i: (len(prompts[holders[i]]), holders[i], len(prompts[i]), i))
            self._through_decoder(work, order, holders)
        else:
            for start in range(0, len(order), self.batch):
                self._through_model(work, order[start : start + self.batch])
        return work.results()

    @torch.inference_mode()
    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """For each (context, continuation): the continuation's log-probability in nats, and whether it is greedy.

        The continuation's tokens are those of the joint text beyond the context's, as lm-eval counts them. A
        text longer than the model's context loses its beginning.
        """
        results: list[tuple[float, bool]] = []
        for start in range(0, len(pairs), self.batch):
            whole, sizes = [], []
            for context, answer in pairs[start : start + self.batch]:
                before = self.encode(context) or [self.tokenizer.eos_token_id]
                joint = self.encode(context + answer)
                # The tokenizer may merge characters across the border; then encode the continuation on its own.
                tail = joint[len(before) :] if joint[: len(before)] == before else None
                if tail is None:
                    tail = list(token_text.response_ids(self.tokenizer, before, answer))
                ids = before + tail
                whole.append(ids[-self.limit :] if self.limit else ids)
                sizes.append(len(tail))
            ids, mask = _pad_left(whole, self.tokenizer.pad_token_id, self.model.device)
            # Padding is on the left, so positions count from the first real token of each row.
            position = (mask.cumsum(1) - 1).clamp_min(0)
            keep = max(sizes) + 1
            logits = self.model(
                input_ids=ids, attention_mask=mask, position_ids=position, use_cache=False, logits_to_keep=keep
            ).logits[:, -keep:, : self.words]
            log_probs = logits.float().log_softmax(-1)
            # Left padding aligns the ends: a continuation of ``size`` tokens is the last ``size`` columns.
            for row, size in enumerate(sizes):
                target = ids[row, ids.shape[1] - size :]
                scores = log_probs[row, keep - 1 - size : keep - 1]
                value = scores.gather(-1, target[:, None]).sum()
                results.append((float(value), bool((scores.argmax(-1) == target).all())))
        return results

    @torch.inference_mode()
    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Scored]:
        """Scores every token of the continuation of each (context, continuation), both given as token ids."""
        pairs = [(tuple(context) or (self.tokenizer.eos_token_id,), tuple(ids)) for context, ids in pairs]
        contexts = [context for context, _ in pairs]
        # Continuations of one text at many places: one pass reads all of its contexts.
        alone = sum(len(contexts[i]) for i in set(containing(contexts)))
        # Worth it only if sharing saves half of the tokens, because the decoder goes token by token.
        if 2 * alone < sum(map(len, contexts)) and self._decoder_fits():
            return self._score_steps(pairs)
        results: dict[int, Scored] = {}
        # Batches of similar length need little padding.
        order = sorted(range(len(pairs)), key=lambda i: sum(map(len, pairs[i])))
        for start in range(0, len(order), self.batch):
            rows = order[start : start + self.batch]
            whole = [[*pairs[i][0], *pairs[i][1]] for i in rows]
            ids, mask = _pad_left(whole, self.tokenizer.pad_token_id, self.model.device)
            position = (mask.cumsum(1) - 1).clamp_min(0)
            keep = max(len(pairs[i][1]) for i in rows) + 1
            logits = self.model(
                input_ids=ids, attention_mask=mask, position_ids=position, use_cache=False, logits_to_keep=keep
            ).logits[:, -keep:, : len(self.tokenizer)]
            # The logits before a token predict it; the last logits predict nothing.
            logits = logits[:, :-1].float()
            target = ids[:, ids.shape[1] - keep + 1 :]
            values = logits.log_softmax(-1).gather(-1, target[..., None])[..., 0].tolist()
            likeliest = (logits[..., : self.words].argmax(-1) == target).tolist()
            for i, value, best in zip(rows, values, likeliest, strict=True):
                first = len(value) - len(pairs[i][1])
                results[i] = Scored(tuple(value[first:]), tuple(best[first:]))
        return [results[i] for i in range(len(pairs))]

    def _score_steps(self, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[Scored]:
        """:meth:`score` token by token in the decoder, where contexts share their pass."""
        values: list[list[float]] = [[] for _ in pairs]
        greedy: list[list[bool]] = [[] for _ in pairs]
        holders = containing([context for context, _ in pairs])
        order = sorted((i for i, (_, ids) in enumerate(pairs) if ids), key=lambda i: (holders[i], i))
        vocab = min(len(self.tokenizer), self.model.get_output_embeddings().weight.shape[0])
        for start in range(0, len(order), self.batch):
            rows = order[start : start + self.batch]
            decoder = LlamaDecoder(self.model, vocab, len(rows), max(len(pairs[i][1]) for i in rows))
            # Feed the given continuation token by token, as if it had been sampled.
            logits = decoder.add([pairs[i][0] for i in rows])
            while True:
                ids = [pairs[i][1][len(values[i])] for i in rows]
                at, logits = devices.moved(torch.tensor(ids), logits.device), logits.float()
                log_probs = logits.log_softmax(-1).gather(-1, at[:, None])[:, 0].tolist()
                for i, value, best in zip(
                    rows, log_probs, (logits[:, : self.words].argmax(-1) == at).tolist(), strict=True
                ):
                    values[i].append(value)
                    greedy[i].append(best)
                unfinished = [k for k, i in enumerate(rows) if len(values[i]) < len(pairs[i][1])]
                if not unfinished:
                    break
                if len(unfinished) < len(rows):
                    where = decoder.keep(unfinished)
                    rows, ids = [rows[k] for k in where], [ids[k] for k in where]
                logits = decoder.step(ids)
        return [Scored(tuple(v), tuple(g)) for v, g in zip(values, greedy, strict=True)]

    @torch.inference_mode()
    def _decoder_fits(self) -> bool:
        """Whether LlamaDecoder supports this model and reproduces its forward pass, which is checked on first use."""
        if not LlamaDecoder.fit(self.model):
            return False
        if self._agrees is None:
            vocab, decoder = self.words, LlamaDecoder(self.model, self.words, 2, llama_decoder.LONG)
            ids = (torch.arange(5) * 7) % vocab
            batched = [
                decoder.add([ids[:4].tolist(), ids[:2].tolist()])[0],
                decoder.step(ids[[4, 2]].tolist()),
            ]
            batched = torch.stack([batched[0], *batched[1]]).float()
            reference = self.model(input_ids=ids[None].to(decoder.device)).logits[0, [3, 4, 2], :vocab].float()
            # In half precision the order of additions changes the second digit, hence the wide tolerance.
            close = 1e-3 if self.model.dtype == torch.float32 else 5e-2
            self._agrees = bool((batched - reference).abs().max() <= close * (1 + reference.abs().max()))
        return self._agrees

    def _decoder(self, rows: int, tokens: int) -> LlamaDecoder:
        """A decoder for ``rows`` texts of up to ``tokens``. A capturing decoder is kept for later calls."""
        if not captured_decoder.usable(self.model):
            return LlamaDecoder(self.model, self.words, rows, tokens)
        if self._captured is None or not self._captured.serves(rows):
            self._captured = None  # free the old cache before allocating a new one
            self._captured = CapturedDecoder(self.model, self.words, rows)
        self._captured.keep([])
        return self._captured

    def release(self) -> None:
        """Frees what is kept for the next call, if that is far away."""
        self._captured = None

    @torch.inference_mode()
    def _through_decoder(self, work: _Work, order: list[int], holders: list[int]) -> None:
        """Continuous batching: admits waiting prompts in the given order whenever an eighth of the rows is free."""
        waiting, rows, newest = deque(order), [], []
        budget = PREFILL_TOKENS.get(self.model.device.type, 16384)
        decoder = self._decoder(min(self.batch, len(order)), max(work.budgets[i] for i in order))
        while waiting or rows:
            free = decoder.rows - len(rows)
            # Admit in groups: a prefill per freed row would stall all other rows each time.
            if waiting and (not rows or free * 8 >= decoder.rows):
                # Prefill as many prompts as fit the free rows and the token budget, but at least one.
                admitted: list[int] = []
                run: set[int] = set()  # the texts that hold the admitted prompts
                while waiting and len(admitted) < free:
                    held = holders[waiting[0]]
                    if admitted and len(run | {held}) * len(work.prompts[held]) > budget:
                        break
                    run.add(held)
                    admitted.append(waiting.popleft())
                logits = decoder.add([work.prompts[i] for i in admitted])
                rows += admitted
                newest += work.take(admitted, logits.float())
            else:
                newest = work.take(rows, decoder.step(newest).float())
            # Drop finished rows; ``keep`` says which old row each new row holds.
            unfinished = [k for k, row in enumerate(rows) if not work.ended[row]]
            if len(unfinished) < len(rows):
                where = decoder.keep(unfinished)
                rows, newest = [rows[k] for k in where], [newest[k] for k in where]

    @torch.inference_mode()
    def _through_model(self, work: _Work, rows: list[int]) -> None:
        """Decodes one batch until its last row ends; finished rows are removed from it."""
        ids, mask = _pad_left([work.prompts[i] for i in rows], self.tokenizer.pad_token_id, self.model.device)
        cache = DynamicCache(config=self.model.config)
        position = (mask.cumsum(1) - 1).clamp_min(0)
        while True:
            logits = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=position,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1, : self.words]
            token = torch.tensor(work.take(rows, logits.float()), device=ids.device)
            unfinished = [k for k, row in enumerate(rows) if not work.ended[row]]
            if not unfinished:
                return
            if len(unfinished) < len(rows):
                keep = torch.tensor(unfinished, device=ids.device)
                token, mask, position = token[keep], mask[keep], position[keep]
                rows = [rows[k] for k in unfinished]
                cache.batch_select_indices(keep)
            # From now on one column per step: the cache holds everything before.
            ids = token[:, None]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            position = position[:, -1:] + 1


class _Work:
    """The state of one call: the tokens sampled so far for each prompt, and which prompts are finished."""

    def __init__(
        self,
        generator: Generator,
        prompts: list[list[int]],
        decoding: Decoding,
        seeds: Sequence[int],
        watch: Watch,
    ):
        limit = generator.limit or float("inf")
        self.prompts, self.decoding, self.watch = prompts, decoding, watch
        # Per prompt: a prompt that fills the context gets no answer, and the others keep their length.
        self.budgets = [max(0, int(min(decoding.max_new_tokens, limit - len(p)))) for p in prompts]
        self.end_ids, self.stops = generator.end_ids, Stops(generator.tokenizer, decoding.stop)
        self.seeds, self.draws = seeds, {}
        self.out: list[list[int]] = [[] for _ in prompts]
        self.log_probs: list[list[float]] = [[] for _ in prompts]
        self.finish = ["length"] * len(prompts)
        self.ended = [budgets == 0 for budgets in self.budgets]
        self.tokenizer = generator.tokenizer
        self.generated: dict[int, Generated] = {}
        for row, budget in enumerate(self.budgets):
            if budget == 0:
                self._finish(row)

    def take(self, rows: Sequence[int], logits: Tensor) -> list[int]:
        """Samples the next token of prompts ``rows`` from logits [n, V] and marks those that end with it."""
        draw = None
        if self.decoding.temperature > 0:
            draw = devices.moved(torch.tensor([self._draw(row) for row in rows]), logits.device)
        tokens, log_probs = read(*pick(logits, self.decoding, draw))
        for row, new, lp in zip(rows, tokens, log_probs, strict=True):
            out = self.out[row]
            out.append(new)
            self.log_probs[row].append(lp)
            # The token that ends a text stays in its ids, so that training learns to end there.
            if new in self.end_ids or self.stops.hit(self.prompts[row], out):
                self.finish[row], self.ended[row] = "stop", True
            elif len(out) >= self.budgets[row]:
                self.ended[row] = True
            if self.ended[row]:
                self._finish(row)
        self.watch.wrote(len(tokens))
        return tokens

    def _draw(self, row: int) -> float:
        # All numbers of a row at once, from its own seed: neighbours and batches change nothing.
        if row not in self.draws:
            self.draws[row] = uniforms(self.seeds[row], self.budgets[row])
        return self.draws[row][len(self.out[row])]

    def _finish(self, row: int) -> None:
        """Decodes a row that ended and hands it to the watch."""
        prompt, ids = self.prompts[row], self.out[row]
        whole = continuation(self.tokenizer, prompt, ids)
        text = self.stops.cut(whole)
        finish = "stop" if len(text) < len(whole) else self.finish[row]
        self.generated[row] = Generated(text, tuple(ids), tuple(self.log_probs[row]), finish, len(prompt))
        self.watch.finished(row, self.generated[row])

    def results(self) -> list[Generated]:
        return [self.generated[row] for row in range(len(self.prompts))]


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
