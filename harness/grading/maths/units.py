r"""Separates the unit from the end of an answer, and converts between units.

A unit is a mapping from names to powers, ``{"km": 1, "hour": -1}``. Words that cannot be a unit (``is not a
solution``) are distinguished from words that can (``apples``); number words (``million``) belong to the value.
"""

from __future__ import annotations

import re
from fractions import Fraction

from harness.grading.maths.brackets import closing

Unit = dict[str, int]
# name -> (dimensions, size in the base unit of the dimension). Units that are not listed are compared by name.
SIZES: dict[str, tuple[Unit, Fraction]] = {
    name: (dimensions, Fraction(size))
    for dimensions, sizes in (
        ({"time": 1}, {"ms": "1/1000", "second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}),
        ({"length": 1}, {"mm": 1, "cm": 10, "dm": 100, "m": 1000, "km": 1_000_000}),
        ({"imperial length": 1}, {"inch": 1, "foot": 12, "yard": 36, "mile": 63360}),
        ({"length": 3}, {"ml": 1000, "cl": 10_000, "liter": 1_000_000}),
        ({"mass": 1}, {"mg": "1/1000", "g": 1, "kg": 1000, "tonne": 1_000_000}),
        ({"money": 1}, {"cent": 1, "dollar": 100}),
    )
    for name, size in sizes.items()
}
SPELLINGS = {
    "s": "second",
    "sec": "second",
    "min": "minute",
    "h": "hour",
    "hr": "hour",
    "millimeter": "mm",
    "centimeter": "cm",
    "decimeter": "dm",
    "meter": "m",
    "kilometer": "km",
    "milliliter": "ml",
    "litre": "liter",
    "l": "liter",
    "gram": "g",
    "kilogram": "kg",
    "kgs": "kg",
    "kmh": "km/h",
    "kph": "km/h",
    "km/hr": "km/h",
    "mph": "mile/h",
    "inches": "inch",
    "in": "inch",
    "feet": "foot",
    "ft": "foot",
    "deg": "degree",
    "percentage": "%",
    "percent": "%",
    "usd": "dollar",
    "us dollar": "dollar",
    "buck": "dollar",
    "¢": "cent",
    "eur": "euro",
    "gbp": "pound",
    "sq": "square",
}
SCALES = {
    "hundred": 100,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "dozen": 12,
    "lakh": 10**5,
    "crore": 10**7,
}
# Parts of a unit, of which there are several: 3 tenths. A quarter is a coin as well.
PARTS = dict.fromkeys(("halves",), Fraction(1, 2)) | {
    f"{name}s": Fraction(1, size)
    for size, name in enumerate(("third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"), 3)
}
PARTS |= {"hundredths": Fraction(1, 100), "thousandths": Fraction(1, 1000)}
CODES = {"us": "dollar", "usd": "dollar", "eur": "euro", "gbp": "pound", "jpy": "yen", "cny": "yuan", "inr": "rupee"}
CODES |= {"rs": "rupee", "chf": "franc"}
CURRENCIES = "dollar|euro|pound|yen|yuan|rupee|franc"
# Words that make a statement of the quantity before them.
NO_UNIT = frozenset(
    (  # noqa: SIM905
        "a an and are at be but can cannot cubed does doesn't except excluded excluding extraneous factorial "
        "fail fails false few half holds if impossible incorrect invalid is isn't least less little low many "
        "minus mod modulo more most much never no none nor not only or over plus quarter rejected satisfies "
        "short solution solutions squared than third times to too true undefined unknown unless was were "
        "where whether which without works wrong yes"
    ).split()
)
MOST_WORDS = 6
# Outside \text{} only these words are units; 6m is a product.
KNOWN = {*SIZES, *SPELLINGS, *SCALES, "mile", "unit", "degree", "inch", "foot", "euro", "pound", "yen", "rupee"}
PLAIN = KNOWN - {*"mshlg", "in"} | PARTS.keys()
POWER = r"(?:\s*\^\s*\{?\s*(-?\d+)\s*\}?)?"
# Unit symbols typed after a number: 9.8 m/s^2, 60 km h^{-1}.
SYMBOL = r"(?:{})(?![A-Za-z])(?:\s*\^\s*(?:\{{\s*-?\d\s*\}}|-?\d))?".format(
    "|".join(sorted((name for name in KNOWN if re.fullmatch(r"[a-z]{1,4}", name)), key=len, reverse=True))
)
SYMBOLS = re.compile(rf"(.*[\d)}}])\s*(?<![A-Za-z\\])({SYMBOL}(?:\s*(?:/|\\cdot|\s)\s*{SYMBOL})+)\s*", re.DOTALL)
NOUN = re.compile(r"(-?[\d.,]*\d)\s+([A-Za-z]{3,}(?:\s+[A-Za-z]+){0,4})\.?")
FACTOR = re.compile(r"\\text\s*\{([^{}]*)\}" + POWER + r"\s*$")
JOINED = re.compile(r"(?:/|\\cdot|\\times)\s*$")
RAISED = r"\s*\\text\s*\{[^{}]*\}(?:\s*\^\s*\{?\s*-?\d+\s*\}?)?\s*"
QUOTIENT = re.compile(rf"\\frac\s*\{{({RAISED})\}}\s*\{{({RAISED})\}}\s*$")
QUANTITIES = re.compile(rf"\\frac\s*\{{([^{{}}]*[^{{}}\s])({RAISED})\}}\s*\{{([^{{}}]*[^{{}}\s])({RAISED})\}}\s*$")
# 5 feet 6 inches, 18 dollars and 90 cents
MIXED = re.compile(
    r"(\d+(?:\.\d+)?)\s*(?:\\text\s*\{)?\s*([A-Za-z]+)\s*,?\s*(?:and|\\land)?\s*\}?\s*(?:\\land)?\s*"
    r"(\d+(?:\.\d+)?)\s*(?:\\text\s*\{)?\s*([A-Za-z]+)\s*\}?"
)
WORDS = re.compile(r"(.*[\d})])\s*(?<![A-Za-z\\])([A-Za-z][A-Za-z/. ]*)\.?\s*" + POWER, re.DOTALL)
# A number with its unit in one \text{}, but no ordinal, and no statement made of further words.
IN_TEXT = re.compile(
    r"\\text\s*\{\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:/\d+)?)\s*"
    r"(?![^{}]*\b(?:and|or|to|not|is|plus|minus|times|over)\b)(?!(?:st|nd|rd|th)\b)([A-Za-z\\%][A-Za-z\\%/. ]*)\}(.*)",
    re.DOTALL | re.IGNORECASE,
)
ORDINAL = re.compile(
    r"(-?\d+)\s*(?:-|\^\s*\{?\s*)?(?:\\text\s*\{\s*)?(st|nd|rd|th)(?![A-Za-z])\s*\}?\s*\}?(\s*\\text\s*\{[^{}]*\}|\s+[A-Za-z]+)?"
    r"|\\text\s*\{\s*(\d+)\s*(st|nd|rd|th)\b([^{}]*)\}",
    re.IGNORECASE,
)
DEGREE = r"\^\{\\circ\}"
FUNCTION = re.compile(r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc|pi)(?![a-zA-Z])|\\pi(?![a-zA-Z])")
ANGLE = re.compile(r"(\d+(?:\.\d+)?|\\[a-z]+|[A-Za-z]|\)|\})\s*" + DEGREE)
PERCENT = re.compile(r"(.*?)\s*\\?%", re.DOTALL)


def out_of_text(text: str) -> str:
    """``10\\text{cm}`` for ``\\text{10 cm}``, else ``text`` unchanged."""
    return IN_TEXT.sub(r"\1\\text{\2}\3", text) if IN_TEXT.fullmatch(text) else text


def ordinal(text: str) -> str | None:
    """The number of an ordinal with the correct ending (``12th``, ``3^{\\text{rd}}``), else None."""
    match = ORDINAL.fullmatch(text)
    if not match:
        return None
    number, ending = match[1] or match[4], (match[2] or match[5]).lower()
    teens = number[-2:] in {"11", "12", "13"}
    right = "th" if teens else {"1": "st", "2": "nd", "3": "rd"}.get(number[-1], "th")
    return number if ending == right else None


def take_unit(text: str) -> tuple[str, Unit | None]:
    """``(value, unit)`` of a cleaned text. The unit is {} if there is none, None if the words cannot be one."""
    text = text.strip()
    # A currency before the number moves after it: $5 is 5 dollars.
    money = re.match(rf"(-?)\s*\\text\s*\{{({CURRENCIES})\}}\s*(?=[-\d.(\\])", text)
    if money:
        text = f"{money[1]}{text[money.end() :]}\\text{{{money[2]}}}"
    if re.search(DEGREE, text):
        return _angle(text)
    if value_and_unit := mixed(text):
        return value_and_unit
    percent = PERCENT.fullmatch(text)
    if percent and percent[1]:
        return percent[1].strip(), {"%": 1}
    return _factors(text)


def _angle(text: str) -> tuple[str, Unit | None]:
    r"""Reads degrees as the unit of the whole text or, in a formula with functions or pi, as a factor ``\pi/180``."""
    # Degrees Celsius and Fahrenheit are units of their own.
    scale = re.search(DEGREE + r"\s*\\?(?:text\s*\{\s*)?([CF])\s*\}?$", text)
    if scale:
        return text[: scale.start()].strip(), {"celsius" if scale[1] == "C" else "fahrenheit": 1}
    # Without functions or pi, a degree sign is the unit of the whole answer.
    if not FUNCTION.search(text):
        bare = re.sub(r"\s*" + DEGREE, "", text).strip()
        return (bare, {"degree": 1}) if bare else (text, {})
    while match := ANGLE.search(text):
        start = match.start(1)
        if match[1] in ")}":
            start = next((i for i in range(start) if text[i] in "({" and closing(text, i) == start), start)
        angle = text[start : match.end(1)]
        text = f"{text[:start]}(\\frac{{{angle}\\pi}}{{180}}){text[match.end() :]}"
    return text, {}


def _factors(text: str) -> tuple[str, Unit | None]:
    """The value, and the product of the units at the end of ``text``."""
    # Rewrite fractions of units, then collect the factors from the end of the text.
    rest = QUOTIENT.sub(r"\1 / \2", QUANTITIES.sub(r"\\frac{\1}{\3}\2 / \4", text))
    symbols = SYMBOLS.fullmatch(rest)
    if symbols and re.search(r"/|-|[a-z]{2}", symbols[2]):
        rest = symbols[1] + _as_text(symbols[2])
    unit, scale, taken = {}, 1, False
    while match := FACTOR.search(rest):
        before = rest[: match.start()].rstrip()
        joint = JOINED.search(before)
        if not before and not taken:
            return text, {}  # a word without a number is not a quantity
        number, one = unit_of(match[1], int(match[2] or 1))
        if one is None:
            return text, None
        if joint and joint.group().startswith("/"):
            one = {name: -power for name, power in one.items()}
        unit, scale, taken = _product(unit, one), scale * number, True
        rest = before[: joint.start()].rstrip() if joint else before
    # No \text{} at the end: try plain words after a number.
    if not taken:
        plain = WORDS.fullmatch(text)
        if not plain or not _plain(plain[2]):
            noun = NOUN.fullmatch(text)
            return (noun[1], unit_of(noun[2])[1]) if noun and unit_of(noun[2])[0] == 1 else (text, {})
        rest, (scale, unit) = plain[1].strip(), unit_of(plain[2], int(plain[3] or 1))
        if unit is None:
            return text, None
    return (f"({rest})\\cdot {scale}" if scale != 1 else rest), unit


def _as_text(symbols: str) -> str:
    """Typed symbols as one ``\\text{…}``, their powers without braces."""
    return "\\text{" + re.sub(r"[{}]", "", symbols.replace("\\cdot", " ")) + "}"


def mixed(text: str) -> tuple[str, Unit] | None:
    """``5 feet 6 inches`` in inches, ``12 dollars and 50 cents`` in dollars; None unless a quantity in two units.

    Both units have one dimension and the second is smaller. Money is converted to its larger unit.
    """
    match = MIXED.fullmatch(text.strip())
    if not match:
        return None
    number, name, rest, smaller = match.groups()
    (_, unit), (_, other) = unit_of(name), unit_of(smaller)
    ratio = conversion(unit, other) if unit and other else None
    if ratio is None or unit == other or ratio[0] <= ratio[1]:
        return None
    if unit == {"dollar": 1}:
        return f"{number}+\\frac{{{rest}\\cdot {ratio[1]}}}{{{ratio[0]}}}", unit
    return f"{number}\\cdot\\frac{{{ratio[0]}}}{{{ratio[1]}}}+{rest}", other


def _plain(words: str) -> bool:
    first = re.split(r"[\s/.]", words.strip().lower())[0].replace("metre", "meter")
    return first in {*PLAIN, "square", "cubic"} or first.removesuffix("s") in PLAIN


def _product(one: Unit, other: Unit) -> Unit:
    powers = {name: one.get(name, 0) + other.get(name, 0) for name in {*one, *other}}
    return {name: power for name, power in powers.items() if power}


def unit_of(words: str, power: int = 1) -> tuple[Fraction | int, Unit | None]:
    """``(scale, unit)`` of words such as ``million dollars per day``; the unit is None if they cannot be one."""
    words = re.sub(r"[\\${}~]", " ", words).strip().strip(".,;:()").lower().strip()
    if words and not re.search(r"[a-z%¢'\"′″°]", words):  # a question mark, a tick, a sum
        return 1, None
    # A degree sign that was taken for a word.
    if words.lstrip("^ ") in {"circ", "circ c"}:
        return 1, {"degree": 1}
    tokens, scale = words.split(), 1
    # "squared" ends a unit, as in meters per second squared; elsewhere it makes the words no unit.
    tokens = tokens[1:] if len(tokens) > 1 and tokens[0] in {"more", "less"} else tokens  # 3 more days
    raised = len(tokens) > 1 and tokens[-1] in {"squared", "cubed"}  # meters per second squared
    if len(tokens) > MOST_WORDS or NO_UNIT & set(tokens[:-1] if raised else tokens):
        return 1, None
    # Number words belong to the value: million dollars.
    while tokens and (size := PARTS.get(tokens[0]) or SCALES.get(tokens[0].removesuffix("s"))):
        scale *= size
        tokens.pop(0)
    unit: Unit = {}
    # Each "/" or "per" begins a piece in the denominator.
    text = " ".join(tokens)
    pieces = [piece.strip() for piece in re.split(r"/|\bper\b", text)]
    for place, piece in enumerate(pieces):
        sign = -1 if place else 1
        factors = _symbols(piece) if piece else []
        for number, factor in enumerate(factors):
            last = place == len(pieces) - 1 and number == len(factors) - 1
            times = sign * (power if last else 1)  # m/s squared is a metre per second squared
            unit = _product(unit, {name: times * count for name, count in _named(factor).items()})
    return scale, unit


def _symbols(words: str) -> list[str]:
    """The factors of ``km h^-1``; words that are not all unit symbols are one factor."""
    factors = words.split()
    known = all(word.partition("^")[0] in KNOWN - {"square", "sq", "cubic"} for word in factors)
    return factors if known else [words]


def _named(words: str) -> Unit:
    """One factor under its usual name: ``minute`` for ``Minutes``, ``cm`` squared for ``square centimeters``."""
    words, _, raised = words.strip().rstrip(".").partition("^")
    power = int(raised.strip(" ()")) if re.fullmatch(r"[\s(]*-?\d{1,2}[\s)]*", raised) else 1
    for pattern, size in ((r"^(?:square|sq\.?)\s+|\s+squared$", 2), (r"^(?:cubic|cu\.?)\s+|\s+cubed$", 3)):
        shorter = re.sub(pattern, "", words.strip())
        if shorter != words.strip():
            words, power = shorter, size
    words = re.sub(r"(?i)metre", "meter", words.strip())
    singular = re.sub(r"(?<=[a-z]{2})s\b", "", words)
    name = SPELLINGS.get(words) or SPELLINGS.get(singular) or singular
    if "/" in name:
        above, below = name.split("/")
        return {SPELLINGS.get(above, above): power, SPELLINGS.get(below, below): -power}
    return {name: power}


def conversion(unit: Unit | None, target: Unit | None) -> tuple[int, int] | None:
    """The factor (numerator, denominator) that converts ``unit`` to ``target``; None if their dimensions differ.

    A side without a unit is assumed to be in the unit of the other side.
    """
    if unit is None or target is None:
        return None
    if not unit or not target or unit == target:
        return 1, 1
    (dimensions, size), (target_dimensions, target_size) = _measured(unit), _measured(target)
    if dimensions != target_dimensions:
        return None
    ratio = size / target_size
    return ratio.numerator, ratio.denominator


def _measured(unit: Unit) -> tuple[Unit, Fraction]:
    """The dimensions of a unit and its size in their base units."""
    dimensions, size = Unit(), Fraction(1)
    for name, power in unit.items():
        own, one = SIZES.get(name, ({name: 1}, Fraction(1)))
        dimensions = _product(dimensions, {dimension: count * power for dimension, count in own.items()})
        if abs(power) <= 9:
            size *= one**power
    return dimensions, size
