"""How tables, pages and sentences write a number: no minus before a zero, no unit behind nothing."""

from __future__ import annotations

PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def signed(share: float, digits: int = 1) -> str:
    """A difference of shares in percent points with its sign: 0.013 is ``+1.3``; what rounds to zero has no sign."""
    text = f"{100 * share:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def percent(share: float, digits: int = 0) -> str:
    """A share in percent: 0.25 is ``25 %``; what rounds to zero has no sign."""
    text = f"{100 * share:.{digits}f}"
    return f"{text.removeprefix('-') if float(text) == 0 else text} %"


def amount(value: float, unit: str = "") -> str:
    """A count in at most four characters, a prefix and its unit: ``950``, ``12.3 k``, ``4.56 MB``, ``30 s``."""
    for size, prefix in PREFIXES:
        # 999.9 k rounds to 1000: that is 1 M.
        if float(f"{value:.3g}") >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def spread(score: float, low: float, high: float) -> str:
    """A score with half of its interval, in percent: ``45.7 ±7.0``.

    Where the half width would leave 0 to 100, both ends are written: ``100.0 (97.5–100.0)``.
    """
    half = (high - low) / 2
    if score + half > 1 or score - half < 0:
        return f"{100 * score:.1f} ({100 * max(low, 0.0):.1f}–{100 * min(high, 1.0):.1f})"
    return f"{100 * score:.1f} ±{100 * half:.1f}"
