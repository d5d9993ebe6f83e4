r"""Replaces mathematical Unicode characters by LaTeX: ``½``, ``x²``, ``√``, ``≤``, ``𝑖``, ``㎝``, full-width digits."""

from __future__ import annotations

import re
import unicodedata

SIGNS = {
    **dict.fromkeys("−–—‐‑", "-"),
    **dict.fromkeys("×✕", r"\times "),
    **dict.fromkeys("·⋅∙•∗", r"\cdot "),
    **dict.fromkeys("°º˚", r"^{\circ}"),
    **dict.fromkeys("′’", "'"),
    **dict.fromkeys("\u00a0\u2002\u2003\u2005\u2007\u2009\u200a\u202f\u3000\t\n\r", " "),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", ""),
    "√": r"\sqrt ",
    "∛": r"\sqrt[3] ",
    "∜": r"\sqrt[4] ",
    "π": r"\pi ",
    "θ": r"\theta ",
    "φ": r"\phi ",
    "∞": r"\infty ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∖": r"\setminus ",
    "∅": r"\emptyset ",
    "∈": r"\in ",
    "∉": r"\notin ",
    "≤": r"\le ",
    "⩽": r"\le ",
    "≥": r"\ge ",
    "⩾": r"\ge ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "±": r"\pm ",
    "∓": r"\mp ",
    "∨": r"\lor ",
    "∧": r"\land ",
    "÷": "/",
    "⁄": "/",
    "∶": ":",
    "ℝ": r"\mathbb{R}",
    "⟨": r"\langle ",
    "⟩": r"\rangle ",
    "⌊": r"\lfloor ",
    "⌋": r"\rfloor ",
    "⌈": r"\lceil ",
    "⌉": r"\rceil ",
    "…": r"\ldots ",
    "€": r"\text{euro}",
    "£": r"\text{pound}",
    "¥": r"\text{yen}",
    "₹": r"\text{rupee}",
}
RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿˣᵗʰˢᵈʳ", "0123456789+-()nxthsdr", strict=True))
LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋", "0123456789+-", strict=True))
FULL_WIDTH = {code: unicodedata.normalize("NFKC", chr(code)) for code in range(0xFF01, 0xFF5F)}
FRACTIONS = {
    char: "\\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", char).split("⁄")) for char in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒"
}
# Letters of the mathematical alphabets (𝑖, 𝐂), one-character units (㎝) and numbers in circles become plain ones.
ALPHABETS = {
    code: unicodedata.normalize("NFKC", chr(code))
    for code in (*range(0x1D400, 0x1D7FF), *range(0x3380, 0x33E0), *range(0x2460, 0x2474))
}
BAR = "\u0305"  # combining, over the character before it
OVERLINED = re.compile(f"(?:[0-9]{BAR})+")  # 0.3̅
SLASHED = re.compile("([⁰¹²³⁴⁵⁶⁷⁸⁹]+)[⁄/]([₀₁₂₃₄₅₆₇₈₉]+)")  # ⁷⁄₁₂
CHARACTERS = ALPHABETS | FULL_WIDTH | str.maketrans(SIGNS | FRACTIONS)


def plain(text: str) -> str:
    """``text`` with Unicode mathematics replaced by LaTeX in ASCII."""
    text = OVERLINED.sub(lambda m: f"\\overline{{{m.group().replace(BAR, '')}}}", text)
    text = SLASHED.sub(lambda m: _fraction(*m.groups()), text)
    text = re.sub(f"[{''.join(RAISED)}]+", lambda m: "^{" + "".join(map(RAISED.get, m.group())) + "}", text)
    text = re.sub(f"[{''.join(LOWERED)}]+", lambda m: "_{" + "".join(map(LOWERED.get, m.group())) + "}", text)
    return text.translate(CHARACTERS)


def _fraction(above: str, below: str) -> str:
    """A fraction written with raised and lowered digits."""
    return f"\\frac{{{''.join(map(RAISED.get, above))}}}{{{''.join(map(LOWERED.get, below))}}}"
