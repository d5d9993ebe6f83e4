"""Encodes plain values as text; nothing else passes between the sandbox and the trusted side.

int, float, str, bool, None and list are JSON values; any other value is a JSON object with one tag. Types are compared
by identity, so an instance of a subclass, which may define its own ``__eq__``, is never encoded as its base. Decoding
builds builtin and a few standard-library types from data alone and calls no constructor chosen by the program. A value
too large to send is replaced by its digest.

For untrusted text the caller limits how many members sets and dicts may have. Building a hash table of keys whose
hashes collide takes quadratic time, which a program could otherwise make the trusted side spend.
"""

from __future__ import annotations

import hashlib
import json
import marshal
import math
import re
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from harness.sandbox import arrays

TEXT_ROOM = 2**18  # characters, roughly; a larger value is sent as a digest
LINE_LIMIT = 2**22  # bytes; no text made by dumps is longer
# Larger ints are written in hex: CPython limits decimal int <-> str conversion to 4,300 digits.
_DECIMAL_LIMIT = 2**64
_ITERATOR_LIMIT = 100_000
_SAME_HASH = 64  # members of one set with equal hashes; by accident few collide (-1 and -2 do)


class NotPlain(TypeError):
    """The value, or a part of it, is not of an exactly known type. The message names the type."""


class Digest(str):
    """Stands for a large value. Equal digests mean that ``==`` holds between the values."""


class Match:
    """Stands for an ``re.Match``, of which only the presence is sent."""


class Crowd:
    """Stands for a set or dict with more members than the limit; equal only to itself."""

    def __init__(self, tag: str, members: int):
        self.tag, self.members = tag, members

    def __repr__(self) -> str:
        return f"a {self.tag} of {self.members} members"


class Iterated:
    """The items of an iterator or a view. It can be iterated, and is equal only to itself."""

    def __init__(self, items: list[Any]):
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


def dumps(value: Any, room: int = TEXT_ROOM) -> str:
    """``value`` as one line of ASCII text, or the text of its digest if it takes more than ``room`` characters.

    Raises NotPlain for a type that is not supported and RecursionError for a value nested too deeply.
    """
    try:
        tagged = _Tagger(room).tag(value)
    except _NoRoom:
        tagged = {"digest": digest(value)}
    return json.dumps(tagged, allow_nan=False, separators=(",", ":"))


def loads(text: str | bytes, most: int | None = None) -> Any:
    """The value of a text made by :func:`dumps`. Raises ValueError for any other text.

    ``most`` must be given for untrusted text: the total number of members of its sets and dicts. A set or dict beyond
    it becomes a :class:`Crowd`, and an array without a single truth value an :class:`arrays.Several`.
    """
    return _read(text, _untag if most is None else _BoundedBuilder(most).untag)


def can_be_sent(text: str) -> bool:
    """Whether untrusted ``text`` is one value that may be passed on to another program. Builds no value."""

    def look(item: dict[str, Any]) -> None:
        (tag,) = item
        if tag not in _BUILD or tag in ("digest", "match", "iterated"):
            raise ValueError(tag)

    try:
        _read(text, look)
    except ValueError:
        return False
    return True


def _read(text: str | bytes, build: Callable[[dict[str, Any]], Any]) -> Any:
    try:
        return json.loads(text, object_hook=build, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(f"not a tagged value ({str(error)[:80]})") from None


def digest(value: Any) -> str:
    """A digest that agrees for equal values (1, 1.0 and True are equal). Raises NotPlain."""
    state = hashlib.blake2b(digest_size=24)
    if type(value) is list:  # in chunks, because memory may not hold a second copy
        for start in range(0, len(value), 4096):
            state.update(_dump(value[start : start + 4096]))
        return f"list of {len(value)} {state.hexdigest()}"
    state.update(_dump(value))
    return f"{type(value).__name__} {state.hexdigest()}"


class _NoRoom(Exception):
    """The text would exceed the limit."""


class _Tagger:
    """Turns a value into JSON values within a budget of ``room`` characters; raises _NoRoom beyond it."""

    def __init__(self, room: int):
        self.room = room

    def spend(self, characters: int) -> None:
        self.room -= characters
        if self.room < 0:
            raise _NoRoom

    def tag(self, value: Any) -> Any:
        kind = type(value)
        if kind is str:
            self.spend(len(value))
            return value
        self.spend(4)
        if kind is bool or value is None:
            return value
        if kind is int:
            if -_DECIMAL_LIMIT < value < _DECIMAL_LIMIT:
                return value
            self.spend(value.bit_length() // 4)
            return {"int": hex(value)}
        if kind is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if kind is list:
            return self.tags(value)
        if kind in _SEQUENCES:
            return {_SEQUENCES[kind]: self.tags(value)}
        if kind in _MAPPINGS:
            return {_MAPPINGS[kind]: [[self.tag(key), self.tag(item)] for key, item in value.items()]}
        if kind is complex:
            return {"complex": [self.tag(value.real), self.tag(value.imag)]}
        if kind is bytes or kind is bytearray:
            self.spend(2 * len(value))
            return {kind.__name__: value.hex()}
        if kind is re.Match:
            return {"match": None}
        if kind in _ITERATORS:
            return {"iterated": [self.tag(item) for _, item in zip(range(_ITERATOR_LIMIT), value, strict=False)]}
        if arrays.belongs(kind):
            return {"numpy": self.array(value)}
        raise NotPlain(_describe(kind))

    def array(self, value: Any) -> list[Any]:
        if arrays.size(value) > self.room:
            raise _NoRoom
        try:
            dtype, shape, content = arrays.take_apart(value)
        except TypeError as error:
            raise NotPlain(f"an object of type {error}") from None
        if shape is not None:
            self.spend(len(content))
        return [dtype, shape, content if isinstance(content, str) else [self.tag(item) for item in content]]

    def tags(self, items: Any) -> list[Any]:
        if 4 * len(items) > self.room:
            raise _NoRoom
        # Most large lists hold small ints: check them at C speed.
        kinds = set(map(type, items))
        if kinds == {int} and min(items) > -_DECIMAL_LIMIT and max(items) < _DECIMAL_LIMIT:
            self.spend(4 * len(items))
            return list(items)
        return [self.tag(item) for item in items]


def _dump(value: Any) -> bytes:
    """Bytes for the digest. ``marshal`` in format 2 writes exact types only, and no references."""
    return marshal.dumps(_normal(value), 2)


def _normal(value: Any) -> Any:
    """``value`` in a normal form: equal numbers become the same, unordered collections are sorted."""
    kind = type(value)
    if kind is list or kind is tuple:
        kinds = set(map(type, value))
        if kinds <= {list, tuple}:  # one level deeper, at C speed: large values are lists of lists
            kinds = set(map(type, chain.from_iterable(value)))
        if kinds in ({str}, {int}):
            return value
        return kind(map(_normal, value))
    if kind is float:
        return int(value) if value.is_integer() else value
    if kind is bool:
        return int(value)
    if kind is set or kind is frozenset:
        return "set", sorted(map(_dump, value))
    if kind in _MAPPINGS:
        return "dict", sorted((_dump(key), _dump(item)) for key, item in value.items())
    if kind is deque:
        return "deque", list(map(_normal, value))
    if kind is bytearray:
        return bytes(value)
    if kind in (int, str, bytes, complex, type(None)):
        return value
    if arrays.belongs(kind):
        if not value.shape:
            return _normal(value.item())
        return "array", value.shape, _normal(value.tolist())
    raise NotPlain(_describe(kind))


def _describe(kind: type) -> str:
    base = next((base for base in _BASES if issubclass(kind, base)), None)
    return f"a subclass of {base.__name__}" if base else f"an object of type {kind.__name__}"


def _untag(item: dict[str, Any]) -> Any:
    if len(item) != 1:
        raise ValueError("an object must have one tag")
    ((tag, content),) = item.items()
    return _BUILD[tag](content)


class _BoundedBuilder:
    """Builds the values of one untrusted text, with at most ``most`` members in its sets and dicts."""

    def __init__(self, most: int):
        self.left = most

    def untag(self, item: dict[str, Any]) -> Any:
        # Count the members before anything is hashed.
        if len(item) == 1:
            ((tag, content),) = item.items()
            if tag in _HASHED:
                if type(content) is not list:  # for example another tagged value, whose members were never counted
                    raise ValueError(f"no list of members in a {tag}")
                self.left -= len(content)
                keys = [key for key, _ in content] if tag in _HASHED_PAIRS else content
                if self.left < 0 or _share_a_hash(keys):
                    return Crowd(tag, len(content))
            if tag == "numpy":
                array = _untag(item)
                return array if array.size == 1 else arrays.Several(array)
        return _untag(item)


def _share_a_hash(keys: list[Any]) -> bool:
    hashes = sorted(map(hash, keys))
    return any(one == other for one, other in zip(hashes, hashes[_SAME_HASH:], strict=False))


def _refuse(constant: str) -> Any:
    raise ValueError(f"bare {constant}")


_SEQUENCES = {tuple: "tuple", set: "set", frozenset: "frozenset", deque: "deque"}
_MAPPINGS = {dict: "dict", defaultdict: "dict", Counter: "Counter", OrderedDict: "OrderedDict"}
_ITERATORS = {
    *(type(view) for view in ({}.keys(), {}.values(), {}.items())),
    *(type(iter(empty)) for empty in ([], (), {}, set(), "", range(0))),
    *(map, filter, zip, enumerate, reversed, range, type(_ for _ in ())),
}
_BASES = (bool, int, float, str, list, tuple, set, frozenset, dict, complex, bytes)
_BUILD = {
    "int": lambda text: int(text, 16),
    "float": {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}.__getitem__,
    "complex": lambda parts: complex(*parts),
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "match": lambda _: Match(),
    "iterated": Iterated,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": deque,
    "dict": dict,
    "Counter": lambda pairs: Counter(dict(pairs)),
    "OrderedDict": OrderedDict,
    "digest": Digest,
    "numpy": lambda parts: arrays.build(*parts),
}
_HASHED_PAIRS = ("dict", "Counter", "OrderedDict")
_HASHED = ("set", "frozenset", *_HASHED_PAIRS)
