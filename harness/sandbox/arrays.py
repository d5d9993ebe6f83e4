"""Encodes NumPy scalars and arrays as plain parts, and decodes them: dtype, shape (None for a scalar), content.

Numbers are encoded as the hex digits of their bytes, strings and objects as a list. As everywhere in
:mod:`harness.sandbox.values` only exact types are encoded; scalars of platform-dependent precision, dates and records
are refused. A decoded array never has more elements than its text has characters, so decoding takes bounded memory.
"""

from __future__ import annotations

import functools
import math
import re
import sys
from collections.abc import Iterator
from typing import Any

_NUMBERS = re.compile(r"\|b1|[|<][iu][1248]|<f[248]|<c(8|16)")
_LISTED = re.compile(r"\|O|<U\d{1,6}|\|S\d{1,6}")
_MOST_BYTES = 2**24
_MOST_AXES = 32


class Several:
    """Wraps an array of zero or several elements, whose comparison with ``==`` has no single truth value.

    ``==`` raises ValueError, as ``bool(array == other)`` does. The arrays themselves are never compared, because
    broadcasting two shapes may take any amount of memory.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, array: Any):
        self.array = array

    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth of an array is ambiguous")

    def __iter__(self) -> Iterator[Any]:
        return iter(self.array)

    def __repr__(self) -> str:
        return f"an array of shape {self.array.shape}"


def belongs(kind: type) -> bool:
    """Whether ``kind`` is exactly a NumPy type that :func:`take_apart` encodes."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and (kind is numpy.ndarray or kind in _scalar_types(numpy))


@functools.cache
def _scalar_types(numpy: Any) -> set[type]:
    known = set(numpy.sctypeDict.values())
    return {kind for kind in known if _is_known(numpy.dtype(kind).str) or kind in (numpy.str_, numpy.bytes_)}


def _is_known(dtype: str) -> bool:
    return bool(_NUMBERS.fullmatch(dtype) or _LISTED.fullmatch(dtype))


def size(value: Any) -> int:
    """The least number of characters that the encoded content of an array takes; 0 for a scalar."""
    if not value.shape:
        return 0
    return 2 * value.nbytes if _NUMBERS.fullmatch(value.dtype.str) else 4 * value.size


def take_apart(value: Any) -> tuple[str, list[int] | None, str | list[Any]]:
    """The parts ``(dtype, shape, content)`` of a scalar or array. Raises TypeError for an unsupported dtype."""
    numpy = sys.modules["numpy"]
    dtype = value.dtype.str
    if not _is_known(dtype):
        raise TypeError(f"{type(value).__name__} of {value.dtype}")
    shape = list(value.shape) if type(value) is numpy.ndarray else None
    if _NUMBERS.fullmatch(dtype):
        return dtype, shape, value.tobytes().hex()
    return dtype, shape, value.ravel().tolist() if shape is not None else [value.item()]


def build(dtype: str, shape: list[int] | None, content: str | list[Any]) -> Any:
    """The scalar or array with these parts. Raises ValueError or TypeError for parts that describe none."""
    import numpy

    if shape is not None and not _is_shape(shape):
        raise ValueError("not a shape")
    if isinstance(content, str):
        if not _NUMBERS.fullmatch(dtype):
            raise ValueError("not a dtype of numbers")
        data = bytes.fromhex(content)
        # A bool of another byte than 0 or 1 is undefined behaviour in NumPy.
        if dtype == "|b1" and data.strip(b"\0\1"):
            raise ValueError("not truth values")
        flat = numpy.frombuffer(data, dtype) if data else numpy.zeros(0, dtype)
    else:
        flat = _listed(dtype, content)
    if shape is None:
        if len(flat) != 1:
            raise ValueError("not one scalar")
        return flat[0]
    return flat.reshape(shape)


def _listed(dtype: str, content: list[Any]) -> Any:
    import numpy

    if not _LISTED.fullmatch(dtype) or len(content) * int(dtype[2:] or 8) * 4 > _MOST_BYTES:
        raise ValueError("not a dtype of texts or objects, or too large")
    kind = {"U": str, "S": bytes, "O": object}[dtype[1]]
    if not all(isinstance(item, kind) for item in content):
        raise ValueError("not of the dtype")
    # Item by item: numpy.array() would turn nested lists into further dimensions.
    flat = numpy.empty(len(content), dtype)
    for position, item in enumerate(content):
        flat[position] = item
    return flat


def _is_shape(shape: Any) -> bool:
    sizes = isinstance(shape, list) and all(type(length) is int and 0 <= length < 2**32 for length in shape)
    return sizes and len(shape) <= _MOST_AXES and math.prod(length or 1 for length in shape) < 2**40
