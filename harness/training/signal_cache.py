"""The teacher's signal on disk: computed once, read by every method that trains on the same fixed text.

The folder name is a hash of everything its content depends on (teacher, tokenizer, kind of signal, token ids of all
texts). Shards of a few sequences are written and then renamed into place, so an interrupted run continues after the
last shard. Each shard carries a checksum and the facts of the cache; both are checked before a value is used.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from harness.errors import BadInput
from harness.training import batching

FORMAT = "1"
SHARD = 128  # sequences
FIX = "delete it; the same command makes it again"
NARROW = 2**15  # token ids below this are kept in 16 bits

Read = Callable[[Sequence["batching.TrainingSequence"]], dict[str, Tensor]]


class SignalCache:
    """The signal of the fixed sequences ``numbers`` below ``folder``. ``facts`` name its inputs and its kind.

    ``text`` returns a sequence by its number; only token ids count.
    """

    def __init__(
        self,
        folder: Path,
        facts: Mapping[str, str],
        numbers: Sequence[int],
        text: Callable[[int], batching.TrainingSequence],
    ):
        # Texts are hashed as they are read, so that no list of all token ids is held.
        digest = hashlib.sha256(json.dumps([FORMAT, dict(facts)], sort_keys=True).encode())
        self.lengths, self.read_tokens = [], 0
        for number in numbers:
            sequence = text(number)
            # Absent where the whole response is learnt, which keeps the keys of earlier caches.
            learnt = [] if sequence.learnt is None else [sequence.learnt]
            digest.update(json.dumps([sequence.prompt, sequence.response, *learnt]).encode())
            self.lengths.append(len(sequence.places))
            self.read_tokens += len(sequence.prompt) + len(sequence.response)
        self.key, self.text, self.numbers = digest.hexdigest(), text, numbers
        self._places = {number: place for place, number in enumerate(numbers)}
        self.folder, self.facts = folder / self.key[:24], {"format": FORMAT, "key": self.key, **facts}
        self._open: dict[int, dict[str, Tensor]] = {}

    @property
    def bytes_per_token(self) -> float:
        """Bytes on disk for every response token."""
        return sum(p.stat().st_size for p in self.folder.glob("*.safetensors")) / max(sum(self.lengths), 1)

    def fill(self, read: Read, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Writes the shards that are missing. ``read`` gives the fields [N, …] of the N response tokens."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # Two runs that need the same signal: the second waits, then finds the shards.
        with FileLock(self.folder / "lock"):
            for shard, start in enumerate(range(0, len(self.numbers), SHARD)):
                progress(start, len(self.numbers))
                path = self._path(shard)
                if path.is_dir():
                    raise BadInput(f"teacher signal {path} is a folder; {FIX}")
                if not path.is_file():
                    fields = read([self.text(number) for number in self.numbers[start : start + SHARD]])
                    _write(path, {name: _narrow(name, t) for name, t in fields.items()}, self.facts)
        progress(len(self.numbers), len(self.numbers))

    def rows(self, number: int) -> dict[str, Tensor]:
        """The fields [n, …] of the n response tokens of a sequence. Raises BadInput for a damaged shard."""
        i = self._places[number]
        shard, place = divmod(i, SHARD)
        # Open shards stay mapped: the system pages them in and out, and a training comes back to each in every epoch.
        if shard not in self._open:
            self._open[shard] = self._load(shard)
        start = sum(self.lengths[shard * SHARD : shard * SHARD + place])
        return {name: t[start : start + self.lengths[i]] for name, t in self._open[shard].items()}

    def verify(self, fields: Collection[str] | None = None) -> None:
        """Reads every shard once, each with these ``fields``.

        Raises BadInput naming the file that is damaged or belongs to something else.
        """
        for shard in range(-(-len(self.numbers) // SHARD)):
            found = self._load(shard)
            if fields is not None and found.keys() != set(fields):
                held, wanted = (", ".join(sorted(names)) for names in (found, fields))
                raise BadInput(f"teacher signal {self._path(shard)} holds {held}, not {wanted}; {FIX}")

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
            raise BadInput(f"teacher signal {path} cannot be read ({error}); {FIX}") from None
        for name, fact in self.facts.items():
            if metadata.get(name) != fact:
                raise BadInput(
                    f"teacher signal {path} was made with {name} {metadata.get(name)!r}, not {fact!r}; {FIX}"
                )
        rows = sum(self.lengths[shard * SHARD : (shard + 1) * SHARD])
        if metadata.get("sha256") != _checksum(fields) or any(len(t) != rows for t in fields.values()):
            raise BadInput(f"teacher signal {path} is damaged (its checksum differs); {FIX}")
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
