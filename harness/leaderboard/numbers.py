"""Formats percentages, amounts and scores for tables, pages and sentences. A rounded zero has no minus sign."""

from __future__ import annotations

from harness.metrics import PERCENT, Scale

PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


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


def spread(score: float, low: float, high: float, scale: Scale = PERCENT) -> str:
    """A score with half of its interval: ``45.7 ±7.0``.

    Where the half width would leave the range of the scale, both ends are written: ``100.0 (97.5–100.0)``.
    """
    half = (high - low) / 2
    if score + half > scale.high or score - half < scale.low:
        return f"{scale.text(score)} ({scale.text(max(low, scale.low))}–{scale.text(min(high, scale.high))})"
    return f"{scale.text(score)} ±{scale.text(half)}"
