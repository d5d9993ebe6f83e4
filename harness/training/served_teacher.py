"""A teacher on a server: it writes texts, and returns the likeliest tokens after every token of a given text.

It replaces :class:`harness.training.signals.LiveTeacher` in a ``top-k`` signal, so its answers go through
the same caches: by content, in shards that an interrupted run continues. None of its weights are read here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.errors import RunFailed
from harness.models.remote_engine import RemoteEngine
from harness.training.batching import Batch


class ServedTeacher:
    """The teacher of ``engine``; ``vocab`` token ids are shared with the student, ``spare`` more are requested."""

    def __init__(self, engine: RemoteEngine, vocab: int, spare: int):
        self.engine, self.vocab, self.spare = engine, vocab, spare

    def tokens(self, batch: Batch) -> int:
        return (batch.teacher_input or batch).tokens

    def fields(self, batch: Batch, k: int | None, rows: list[int] | None = None) -> dict[str, Tensor]:
        """The ``k`` likeliest tokens after every response token's prefix and their log-probabilities, both [N, k].

        Of all sequences or of ``rows``. Tokens that the student does not have are left out: their mass joins the
        bucket of the rest. Raises RunFailed if too few remain.
        """
        assert k is not None, "a served teacher has no hidden states"
        read = batch.teacher_input or batch  # after the teacher's own prompts, if it has some
        chosen = range(len(batch.sources)) if rows is None else rows
        texts = [read.ids[i][read.mask[i].bool()].tolist() for i in chosen]
        scored = dict(zip(chosen, self.engine.scored(texts, k + self.spare), strict=True))
        ids, log_probs = [], []
        for row, column in zip(batch.rows, read.column.tolist(), strict=True):
            if row not in scored:
                continue
            # The entry of a token lists the likely tokens in its place.
            entries = scored[row][column + 1].items()
            ranked = sorted((rank, token, value) for token, (value, rank) in entries if token < self.vocab)[:k]
            if len(ranked) < k:
                raise RunFailed(
                    f"the teacher's server gave {len(ranked)} tokens of the student's vocabulary where training.top_k="
                    f"{k} are wanted; lower it"
                )
            ids.append([token for _, token, _ in ranked])
            log_probs.append([value for *_, value in ranked])
        device = batch.ids.device
        return {
            "ids": torch.tensor(ids, dtype=torch.long, device=device).reshape(-1, k),
            "log_probs": torch.tensor(log_probs, dtype=torch.float32, device=device).reshape(-1, k),
        }
