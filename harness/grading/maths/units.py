"""Units of an answer: taken off its end, and converted where both sides name one."""

from __future__ import annotations

import re

# name -> (dimension, size). A unit that is not listed here is compared by its name.
SIZES = {
    "second": ("time", 1),
    "minute": ("time", 60),
    "hour": ("time", 3600),
    "day": ("time", 86400),
    "mm": ("length", 1),
    "cm": ("length", 10),
    "m": ("length", 1000),
    "km": ("length", 1_000_000),
    "cm^2": ("area", 1),
    "m^2": ("area", 10_000),
    "cent": ("money", 1),
    "dollar": ("money", 100),
}
SPELLINGS = {
    "sec": "second",
    "min": "minute",
    "mins": "minute",
    "hr": "hour",
    "hrs": "hour",
    "millimeter": "mm",
    "centimeter": "cm",
    "meter": "m",
    "kilometer": "km",
    "kilometer per hour": "km/h",
    "kmh": "km/h",
    "km/hr": "km/h",
    "km/hour": "km/h",
    "kph": "km/h",
    "inches": "inch",
    "in": "inch",
    "feet": "foot",
    "ft": "foot",
    "deg": "degree",
    "degrees": "degree",
    "percent": "%",
    "percentage": "%",
}
# Outside \text{} a word is a unit only when it is one of these: 6m is a product.
PLAIN = {*SIZES, *SPELLINGS.values(), "mile", "unit"} - {"m"}
WRITTEN = re.compile(r"(.*?)\\text\s*\{([^{}]*)\}\s*(?:\^\s*\{?\s*(\d)\s*\}?)?", re.DOTALL)
WORDS = re.compile(r"(.*[\d})])\s*([A-Za-z][A-Za-z/ ]*)\.?\s*(?:\^\s*\{?\s*(\d)\s*\}?)?", re.DOTALL)
# A number with its unit in one \text{}. Ordinals are words; so is what other words make more than a quantity.
IN_TEXT = re.compile(
    r"\\text\s*\{\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:/\d+)?)\s*"
    r"(?![^{}]*\b(?:and|or|to|not|is|plus|minus|times|over)\b)(?!(?:st|nd|rd|th)\b)([A-Za-z\\%][A-Za-z\\%/. ]*)\}(.*)",
    re.DOTALL | re.IGNORECASE,
)
DEGREES = re.compile(r"(.*?)\s*\^\s*(?:\\circ|\{\s*\\circ\s*\})", re.DOTALL)
PERCENT = re.compile(r"(.*?)\s*\\?%", re.DOTALL)


def out_of_text(text: str) -> str:
    """``10\\text{cm}`` for ``\\text{10 cm}``, else ``text`` as it is."""
    return IN_TEXT.sub(r"\1\\text{\2}\3", text) if IN_TEXT.fullmatch(text) else text


def take_unit(text: str) -> tuple[str, str]:
    """``(value, unit)`` of a cleaned text; the unit is "" where there is none, the value never is."""
    text = text.strip()
    for pattern, unit in ((DEGREES, "degree"), (PERCENT, "%")):
        found = pattern.fullmatch(text)
        if found and found[1]:
            return found[1].strip(), unit
    for pattern in (WRITTEN, WORDS):
        found = pattern.fullmatch(text)
        if found and found[1].strip():
            unit = named(found[2] + (f"^{found[3]}" if found[3] else ""))
            if pattern is WRITTEN or unit.partition("^")[0] in PLAIN:
                return found[1].strip(), unit
    return text, ""


def named(unit: str) -> str:
    """One spelling of a unit: ``" Minutes."`` is ``minute``, ``square centimeters`` is ``cm^2``."""
    unit = re.sub(r"[\\${}]|\s+(?=\^)", "", unit).strip().rstrip(".").lower()
    if unit.removeprefix("^") == "circ":
        return "degree"
    unit, _, power = unit.partition("^")
    if unit.startswith(("square ", "sq ")):
        unit, power = unit.split(" ", 1)[1], "2"
    if unit.startswith("cubic "):
        unit, power = unit.removeprefix("cubic "), "3"
    unit = re.sub(r"(?<=[a-z]{2})metre", "meter", unit)
    singular = re.sub(r"(?<=[a-z]{2})s\b", "", unit)
    unit = SPELLINGS.get(unit) or SPELLINGS.get(singular) or singular
    return f"{unit}^{power}" if power else unit


def conversion(unit: str, target: str) -> tuple[int, int] | None:
    """The fraction (numerator, denominator) that turns ``unit`` into ``target``; None if nothing does.

    An answer or a gold that names no unit is taken in the other's.
    """
    if not unit or not target or unit == target:
        return 1, 1
    (dimension, size), (wanted, target_size) = SIZES.get(unit, (unit, 1)), SIZES.get(target, (target, 1))
    return (size, target_size) if dimension == wanted else None
