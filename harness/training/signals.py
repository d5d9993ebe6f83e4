"""The teacher's logits for the tokens of a batch: live, from cached hidden states, or top-k.

A teacher signal (:mod:`harness.training.signal_contract`) reads a batch once and returns :class:`TeacherLogits`, which
give pairs (student, teacher) of logits over a common support, chunk by chunk. The same objective runs on all signals.
An exact signal has the shared vocabulary as its support [N, V]. A top-k signal has K + 1 events: the teacher's K
likeliest tokens and one bucket for the remaining mass. Both sides stay distributions, so every divergence is
non-negative, and by the data-processing inequality it is a lower bound of the exact one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from harness.errors import BadInput
from harness.losses import cross_entropy, with_rest
from harness.models import devices
from harness.models.generate import Scored
from harness.models.head import Head, cut, trunk
from harness.training import batching
from harness.training.batching import Batch
from harness.training.served_teacher import ServedTeacher
from harness.types import Source


class TeacherLogits(Protocol):
    """The teacher's logits for one batch of N response tokens."""

    def pair(self, logits: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        """Student and teacher logits [n, S] on the support for tokens start:stop; ``logits`` is [n, V]."""

    def over(self, start: int, stop: int) -> TeacherLogits:
        """Only the logits of tokens start:stop, projected once, so that slices of them are cheap to read."""


class NoTeacher:
    """For methods that do not use the teacher's distribution."""

    def pair(self, logits: Tensor, start: int, stop: int) -> tuple[Tensor, None]:
        return logits, None

    def over(self, start: int, stop: int) -> NoTeacher:
        return self


class LiveTeacher:
    """The teacher model itself: hidden states once per batch, its head applied to one chunk at a time.

    A teacher on another device sends hidden states [N, d] to a copy of its head, not logits [N, V].
    """

    def __init__(self, model: PreTrainedModel, vocab: int, device: torch.device | None = None):
        self.model, self.head = model, Head.of(model, vocab)
        if device is not None and device != model.device:
            self.head = self.head.to(device)
        self.last_read: dict[tuple[int, ...], Tensor] = {}  # last result of :meth:`score`: [n, d] by a sequence's ids

    def read(self, batch: Batch) -> HiddenStateLogits:
        return HiddenStateLogits(self.hidden(batch), self.head)

    def tokens(self, batch: Batch) -> int:
        return (batch.teacher_input or batch).tokens

    @torch.no_grad()
    def hidden(self, batch: Batch, rows: list[int] | None = None) -> Tensor:
        """[N, d] the hidden states that predict the response tokens, of all sequences or of ``rows``."""
        read = batch.teacher_input or batch  # after the teacher's own prompts, if it has some
        if self.last_read:
            every = range(len(batch.counts)) if rows is None else rows
            known = [self.last_read.get(tuple(read.ids[i, : read.sizes[i]].tolist())) for i in every]
            if known and all(states is not None for states in known):
                return torch.cat([states for states in known if states is not None]).to(batch.ids.device)
        if rows is None:
            return self._states(read.ids, read.mask)[batch.row, read.column]
        chosen = torch.tensor(rows, device=batch.ids.device)
        states = self._states(read.ids[chosen], read.mask[chosen])
        # Map rows of the batch to rows of this pass; -1 marks sequences that were left out.
        at = torch.full((len(read.ids),), -1, device=chosen.device)
        at[chosen] = torch.arange(len(rows), device=chosen.device)
        inside = at[batch.row] >= 0  # tokens of the chosen sequences
        return states[at[batch.row[inside]], read.column[inside]]

    @torch.no_grad()
    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], batch: int, words: int) -> list[Scored]:
        """As :meth:`harness.models.generate.Generator.score`, ``batch`` sequences at a time.

        The hidden states are kept until the next call, because the signal of the same sequences reuses them.
        """
        self.last_read = {}
        results: list[Scored] = []
        for start in range(0, len(pairs), batch):
            some = pairs[start : start + batch]
            whole = [torch.tensor([*context, *ids], device=self.model.device) for context, ids in some]
            ids = nn.utils.rnn.pad_sequence(whole, batch_first=True)
            mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in whole], batch_first=True)
            for (context, response), states, row in zip(some, self._states(ids, mask), whole, strict=True):
                # The state before a token predicts it. A copy, because a slice would keep its whole batch.
                hidden = states[len(context) - 1 : len(row) - 1].clone()
                self.last_read[*context, *response] = hidden
                hidden, labels = (t.to(self.head.weight.device) for t in (hidden, row[len(context) :]))
                log_probs: list[float] = []
                greedy: list[bool] = []
                for a, b in cut(range(len(hidden)), self.head.vocab):
                    logits = self.head.logits(hidden[a:b])
                    log_probs += (-cross_entropy(logits, labels[a:b])).tolist()
                    greedy += (logits[:, :words].argmax(-1) == labels[a:b]).tolist()
                results.append(Scored(tuple(log_probs), tuple(greedy)))
        return results

    @torch.no_grad()
    def log_prob(self, batch: Batch) -> Tensor:
        """[N] log-probability of the text's tokens after the student's own prompts, in nats."""
        hidden = self._states(batch.ids, batch.mask)[batch.row, batch.column]
        parts = [
            -cross_entropy(self.head.logits(hidden[a:b]), batch.labels[a:b])
            for a, b in cut(range(len(hidden)), self.head.vocab)
        ]
        return torch.cat(parts)

    def _states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """[B, L, d] on the device of ``ids``."""
        # Below the head only: its logits [N, V] are formed chunk by chunk, when the objective reads them.
        here = self.model.device
        padding = devices.padding_mask(mask.to(here))
        read = trunk(self.model)(input_ids=ids.to(here), attention_mask=padding, use_cache=False)
        return read.last_hidden_state.to(ids.device)

    def fields(self, batch: Batch, k: int | None, rows: list[int] | None = None) -> dict[str, Tensor]:
        """The values to cache for a batch's N response tokens: hidden states [N, d], or ``k`` likeliest tokens."""
        hidden = self.hidden(batch, rows)
        if k is None:
            return {"hidden": hidden}
        with torch.no_grad():
            # Project in chunks, so that the logits [N, V] never exist; only K of each row are kept.
            bounds = [*cut(range(len(hidden)), self.head.vocab)] or [(0, 0)]  # no rows, if the prompts fill the context
            parts = [TopKLogits.of(self.head.logits(hidden[a:b]), k) for a, b in bounds]
        return {"ids": torch.cat([p.ids for p in parts]), "log_probs": torch.cat([p.log_probs for p in parts])}


class CachedTeacher:
    """Fixed texts are read from caches, one per source; the student's own text goes through the teacher.

    ``k`` is None for cached hidden states, which are exact, else the number of tokens of a top-k signal: the
    student's own text is then reduced to k likeliest tokens too, so that an objective means the same on all text.
    """

    def __init__(self, caches: Mapping[Source, SignalCache], live: LiveTeacher | ServedTeacher, k: int | None):
        self.caches, self.live, self.k = caches, live, k

    def tokens(self, batch: Batch) -> int:
        sizes = (batch.teacher_input or batch).sizes
        return sum(sizes[i] for i in self._uncached(batch))

    def read(self, batch: Batch) -> TeacherLogits:
        fresh = self._uncached(batch)
        new: Iterator[dict[str, Tensor]] = iter(())
        # Run the teacher once over the uncached sequences and split the result by sequence.
        if fresh:
            sizes = [batch.counts[i] for i in fresh]
            fields = self.live.fields(batch, self.k, fresh)
            pieces = zip(*(t.split(sizes) for t in fields.values()), strict=True)
            new = iter([dict(zip(fields, piece, strict=True)) for piece in pieces])
        # Cached and fresh rows are joined in the order of the batch.
        parts = []
        for i, (source, example) in enumerate(zip(batch.sources, batch.examples, strict=True)):
            parts.append(next(new) if i in fresh else self.caches[source].rows(example))
        # Shards are memory-mapped on the CPU; only the rows of this batch move to the device.
        device = batch.ids.device
        joined = {name: torch.cat([p[name].to(device) for p in parts]) for name in parts[0]}
        # Hidden states still need the teacher's head; a top-k signal no longer needs the teacher.
        if self.k is None:
            assert isinstance(self.live, LiveTeacher), "a served teacher has no hidden states"
            return HiddenStateLogits(joined["hidden"], self.live.head)
        return TopKLogits(joined["ids"].long(), joined["log_probs"])

    def _uncached(self, batch: Batch) -> list[int]:
        return [i for i, source in enumerate(batch.sources) if source not in self.caches]


def fields_of(k: int | None) -> tuple[str, ...]:
    """The names of the cached fields of a signal: hidden states, or the ``k`` likeliest tokens."""
    return ("hidden",) if k is None else ("ids", "log_probs")


class HiddenStateLogits:
    """Hidden states [N, d] and the head that turns them into exact logits."""

    def __init__(self, hidden: Tensor, head: Head):
        self.hidden, self.head = hidden, head

    @torch.no_grad()
    def pair(self, logits: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        return logits, self.head.logits(self.hidden[start:stop])

    @torch.no_grad()
    def over(self, start: int, stop: int) -> ProjectedLogits:
        return ProjectedLogits(self.head.raw(self.hidden[start:stop]), self.head, start)


class ProjectedLogits:
    """Raw logits [n, V] of the tokens from ``first`` on; scale and soft cap are applied per slice."""

    def __init__(self, raw: Tensor, head: Head, first: int):
        self.raw, self.head, self.first = raw, head, first

    @torch.no_grad()
    def pair(self, logits: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        return logits, self.head.finish(self.raw[start - self.first : stop - self.first])

    def over(self, start: int, stop: int) -> ProjectedLogits:
        return ProjectedLogits(self.raw[start - self.first : stop - self.first], self.head, start)


class TopKLogits:
    """K tokens per position with their log-probabilities, both [N, K]; the bucket holds all remaining mass."""

    def __init__(self, ids: Tensor, log_probs: Tensor):
        self.ids, self.log_probs = ids, log_probs

    @classmethod
    def of(cls, logits: Tensor, k: int) -> TopKLogits:
        """The k likeliest tokens of exact logits [N, V]."""
        log_probs, ids = logits.float().log_softmax(-1).topk(min(k, logits.shape[-1]), -1)
        return cls(ids, log_probs)

    def pair(self, logits: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        # Normalise over the vocabulary before the selection, so that K tokens and bucket stay a distribution.
        student = logits.float().log_softmax(-1).gather(-1, self.ids[start:stop])
        return with_rest(student), with_rest(self.log_probs[start:stop])

    def over(self, start: int, stop: int) -> TopKLogits:
        return self


# The teacher's signal on disk: computed once, read by every method that trains on the same fixed text.
#
# The folder name is a hash of everything that its content depends on (teacher, tokenizer, kind of signal, token ids of
# all texts). Shards of a few sequences are written and then renamed into place, so an interrupted run continues after
# the last shard. Each shard carries a checksum and the facts of the cache; both are checked before a value is used.

CACHE_FORMAT = "1"
SHARD_SEQUENCES = 128  # sequences
CACHE_FIX = "delete it; the same command makes it again"
NARROW = 2**15  # token ids below this are kept in 16 bits

Read = Callable[[Sequence["batching.TrainingSequence"]], dict[str, Tensor]]


class SignalCache:
    """The signal of the fixed sequences ``numbers`` below ``folder``. ``facts`` name its inputs and its kind.

    ``text`` returns a sequence by its number; only token ids matter.
    """

    def __init__(
        self,
        folder: Path,
        facts: Mapping[str, str],
        numbers: Sequence[int],
        text: Callable[[int], batching.TrainingSequence],
    ):
        # Hash texts one by one, so that no list of all token ids is needed.
        digest = hashlib.sha256(json.dumps([CACHE_FORMAT, dict(facts)], sort_keys=True).encode())
        self.lengths, self.read_tokens = [], 0
        for number in numbers:
            sequence = text(number)
            # Absent if the whole response is learnt, which keeps the keys of earlier caches.
            learnt = [] if sequence.learnt is None else [sequence.learnt]
            digest.update(json.dumps([sequence.prompt, sequence.response, *learnt]).encode())
            self.lengths.append(len(sequence.places))
            self.read_tokens += len(sequence.prompt) + len(sequence.response)
        self.key, self.text, self.numbers = digest.hexdigest(), text, numbers
        self._places = {number: place for place, number in enumerate(numbers)}
        self.folder, self.facts = folder / self.key[:24], {"format": CACHE_FORMAT, "key": self.key, **facts}
        self._open: dict[int, dict[str, Tensor]] = {}

    @property
    def bytes_per_token(self) -> float:
        """Bytes on disk for every response token."""
        return sum(p.stat().st_size for p in self.folder.glob("*.safetensors")) / max(sum(self.lengths), 1)

    def fill(self, read: Read, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Writes the missing shards. ``read`` gives the fields [N, …] of the N response tokens."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # Two runs that need the same signal: the second waits, then finds the shards.
        with FileLock(self.folder / "lock"):
            for shard, start in enumerate(range(0, len(self.numbers), SHARD_SEQUENCES)):
                progress(start, len(self.numbers))
                path = self._path(shard)
                if path.is_dir():
                    raise BadInput(f"teacher signal {path} is a folder; {CACHE_FIX}")
                if not path.is_file():
                    fields = read([self.text(number) for number in self.numbers[start : start + SHARD_SEQUENCES]])
                    _write(path, {name: _narrow(name, t) for name, t in fields.items()}, self.facts)
        progress(len(self.numbers), len(self.numbers))

    def rows(self, number: int) -> dict[str, Tensor]:
        """The fields [n, …] of the n response tokens of a sequence. Raises BadInput for a damaged shard."""
        i = self._places[number]
        shard, place = divmod(i, SHARD_SEQUENCES)
        # Keep open shards mapped: the system pages them in and out, and a training returns to each in every epoch.
        if shard not in self._open:
            self._open[shard] = self._load(shard)
        start = sum(self.lengths[shard * SHARD_SEQUENCES : shard * SHARD_SEQUENCES + place])
        return {name: t[start : start + self.lengths[i]] for name, t in self._open[shard].items()}

    def verify(self, fields: Collection[str] | None = None) -> None:
        """Reads every shard once, each with these ``fields``.

        Raises BadInput naming the file that is damaged or belongs to something else.
        """
        for shard in range(-(-len(self.numbers) // SHARD_SEQUENCES)):
            tensors = self._load(shard)
            if fields is not None and tensors.keys() != set(fields):
                held, wanted = (", ".join(sorted(names)) for names in (tensors, fields))
                raise BadInput(f"teacher signal {self._path(shard)} holds {held}, not {wanted}; {CACHE_FIX}")

    def _path(self, shard: int) -> Path:
        return self.folder / f"{shard:05d}.safetensors"

    def _load(self, shard: int) -> dict[str, Tensor]:
        """The tensors of a shard, memory-mapped, after checking its facts and its checksum."""
        path = self._path(shard)
        try:
            with safe_open(path, framework="pt") as stream:
                metadata = stream.metadata() or {}
                fields = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (not a mapping)
        except (OSError, SafetensorError) as error:
            raise BadInput(f"teacher signal {path} cannot be read ({error}); {CACHE_FIX}") from None
        for name, fact in self.facts.items():
            if metadata.get(name) != fact:
                raise BadInput(
                    f"teacher signal {path} was made with {name} {metadata.get(name)!r}, not {fact!r}; {CACHE_FIX}"
                )
        rows = sum(self.lengths[shard * SHARD_SEQUENCES : (shard + 1) * SHARD_SEQUENCES])
        if metadata.get("sha256") != _checksum(fields) or any(len(t) != rows for t in fields.values()):
            raise BadInput(f"teacher signal {path} is damaged (its checksum differs); {CACHE_FIX}")
        return fields


def _write(path: Path, fields: dict[str, Tensor], facts: Mapping[str, str]) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.writing")
    save_file(fields, temporary, {**facts, "sha256": _checksum(fields)})
    # On disk before the rename: after a power cut a shard is whole or absent.
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def _narrow(name: str, values: Tensor) -> Tensor:
    values = values.cpu().contiguous()
    if name != "ids":
        return values
    return values.to(torch.int16 if not values.numel() or int(values.max()) < NARROW else torch.int32)


def _checksum(fields: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(fields):
        digest.update(f"{name} {fields[name].dtype} {list(fields[name].shape)}".encode())
        digest.update(fields[name].contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
