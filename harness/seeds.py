"""Seeds from words and numbers: equal on every machine, apart for every purpose."""

import hashlib


def stable_seed(*parts: object) -> int:
    """A 63-bit seed that depends on ``parts`` alone."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8", "backslashreplace")).digest()
    return int.from_bytes(digest[:8], "big") >> 1
