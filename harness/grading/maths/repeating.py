"""Repeating decimals as fractions: ``0.1\\overline{6}``, ``0.\\dot{1}4285\\dot{7}``."""

from __future__ import annotations

import re

LONGEST_PERIOD = 60  # digits of a repeating decimal; the fraction has twice as many


def repeating(number: re.Match) -> str:
    """The fraction of a repeating decimal, ``0.1\\overline{6}``."""
    whole, fixed, period = number[1] or "0", number[2], number[3]
    if len(period) + len(fixed) > LONGEST_PERIOD or not int(period):
        return number.group()
    scale = 10 ** len(fixed)
    numerator = int(whole + fixed) * (10 ** len(period) - 1) + int(period)
    return f"\\frac{{{numerator}}}{{{scale * (10 ** len(period) - 1)}}}"


def repeating_between(number: re.Match) -> str:
    """The fraction of ``0.\\dot{1}4285\\dot{7}``, whose period runs from one dot to the other."""
    whole = f"{number[1] or 0}.{number[2]}\\overline{{{number[3]}{number[4]}{number[5]}}}"
    return repeating(re.fullmatch(r"(\d+)?\.(\d*)\\overline\{(\d+)\}", whole))
