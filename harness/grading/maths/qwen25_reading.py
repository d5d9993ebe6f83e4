r"""Extracts and normalises an answer by the rules of Qwen2.5-Math's grader; see :mod:`.qwen25`.

Apart from the comparison, because extraction runs in the main process, without sympy.
"""

from __future__ import annotations

import re

CHOICES = ("A", "B", "C", "D", "E")
NUMBER = re.compile(r"-?\d*\.?\d+")
# The grader's names of units, most of them from MathQA, in its order, which matters where names overlap. They are
# regular expressions: "a ." is a and any character.
NAMES_OF_UNITS = (  # noqa: SIM905
    "east|degree|mph|kmph|ft|m sqaure| m east|sq m|deg|mile|q .|monkey|prime|ratio|profit of rs|rd|o|gm|p . m|lb|"
    "tile|per|dm|lt|gain|ab|way|west|a .|b .|c .|d .|e .|f .|g .|h .|t|a|h|no change|men|soldier|pie|bc|excess|"
    "st|inches|noon|percent|by|gal|kmh|c|acre|rise|a . m|th|π r 2|sq|mark|l|toy|coin|sq . m|gallon|° f|profit|"
    "minw|yr|women|feet|am|pm|hr|cu cm|square|v â € ™|are|rupee|rounds|cubic|cc|mtr|s|ohm|number|kmph|day|hour|"
    "minute|min|second|man|woman|sec|cube|mt|sq inch|mp|∏ cm ³|hectare|more|sec|unit|cu . m|cm 2|rs .|rs|kg|g|"
    "month|km|m|cm|mm|apple|liter|loss|yard|pure|year|increase|decrease|d|less|Surface|litre|pi sq m|s .|metre|"
    "meter|inch"
).split("|")
UNITS = [*NAMES_OF_UNITS, *(f"{name}s" for name in NAMES_OF_UNITS)]
UNIT = [re.compile(rf"(^|\W){name}($|\W)") for name in UNITS]
WORDS_OF_NUMBERS = (  # noqa: SIM905
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()  # noqa: SIM905
WORDS = {word: str(value) for value, word in enumerate(WORDS_OF_NUMBERS)}
WORDS |= {word: str(10 * value) for value, word in enumerate(TENS, 2)}
LONGEST = 2000  # characters of an answer, as in harness.grading.maths.task
MOST_DIGITS = 4000  # Python refuses to convert longer integers
NAMES = ("x=", "y=", "z=", *(f"{name}\\{sign}" for name in "xyz" for sign in ("in", "to")))


def extract(text: str, units: bool = True) -> str | None:
    """The normalised answer of a text, which may be empty; None if there is none. ``units`` are removed from it."""
    text = text.replace("\u043a\u0438", "")  # two letters that the grader's models let slip
    if "final answer is $" in text and "$. I hope" in text:  # Minerva's prompt
        answer = text.split("final answer is $", 1)[1].split("$. I hope", 1)[0].strip()
    elif "boxed" in text:
        answer = _boxed(text.rpartition("boxed")[2])
    elif "he answer is" in text:
        answer = text.rpartition("he answer is")[2].strip()
    elif "final answer is" in text:
        answer = text.rpartition("final answer is")[2].strip()
    elif "答案是" in text:
        answer = text.split("答案是")[1].strip().split("\n\n")[0].strip()
    else:
        answer = ""
        for number in NUMBER.finditer(text.replace(",", "")):
            answer = number.group()
    answer = re.sub(r"\n\s*", "", answer).removeprefix(":").removesuffix(".").removesuffix("/")
    if len(answer) > LONGEST:
        return answer  # too long for an answer; normalising it takes more than linear time
    return stripped(stripped(answer, units), units) if answer else None


def _boxed(rest: str) -> str:
    """The content of the braces at the start of ``rest``, or all of it if unclosed; without braces up to a ``$``."""
    if not rest.startswith("{"):
        return rest.split("$")[0].strip()
    depth = 0
    for brace in re.finditer(r"[{}]", rest):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return rest[1 : brace.start()]
    return rest[1:]


def choice(text: str) -> str:
    """The last single letter A to E, else the text."""
    text = text.strip("\n").rstrip(".").rstrip("/").strip(" ").lstrip(":")
    letters = re.findall(r"\b[ABCDE]\b", text.upper())
    return (letters[-1] if letters else text.strip().strip(".")).rstrip(".").rstrip("/")


def stripped(text: str, units: bool = True) -> str:
    """``text`` without units (if ``units``), typesetting and signs, removed in the grader's order."""
    text = text.strip().replace("\n", "").rstrip(".").replace("\\!", "")
    text = re.sub(r"\\begin\{array\}\{.*?\}", r"\\begin{pmatrix}", text).replace("\\end{array}", "\\end{pmatrix}")
    for old, new in (
        ("bmatrix", "pmatrix"),
        ("tfrac", "frac"),
        ("dfrac", "frac"),
        ("\\neq", "\\ne"),
        ("\\leq", "\\le"),
        ("\\geq", "\\ge"),
        ("\\left", ""),
        ("\\right", ""),
        ("\\{", "{"),
        ("\\}", "}"),
    ):
        text = text.replace(old, new)
    text = re.sub(r"\\text{.*?}$", "", text).strip() or text
    for _ in range(2 if units else 0):
        for unit in UNIT:
            text = unit.sub(r"\1\2", text) or text
    for sign in ("^{\\circ}", "^\\circ", "\\$", "$", "\\(", "\\)"):
        text = text.replace(sign, "")
    text = re.sub(r"\\text\{(.*?)\}", r"\1", _number_in_words(text))
    for name in NAMES:
        text = text.replace(name, "")
    text = text.replace("\\emptyset", "{}").replace("(-\\infty,\\infty)", "\\mathbb{R}")
    text = re.sub(r"\\?%", "", text).replace(" .", " 0.").replace("{.", "{0.")
    text = text.replace("infinity", "\\infty")
    text = text if "\\infty" in text else text.replace("inf", "\\infty")
    text = re.sub(r"\\mbox\{.*?\}", "", text.replace("and", "").replace("\\mathbf", ""))
    text = text.replace("j", "i") if "i" not in text else text
    text = re.sub(r"(\d+)\.0*($|[^\d])", r"\1\2", text)
    return _short_name_dropped("0" + text if text.startswith(".") else text) if text else text


def _number_in_words(text: str) -> str:
    """``twenty`` as 20, and ``033`` as 33, as the grader's parser of number words does."""
    bare = text.strip().lower()
    return str(int(bare)) if bare.isdecimal() and len(bare) <= MOST_DIGITS else WORDS.get(bare, text)


def _short_name_dropped(text: str) -> str:
    """Drops a short name (``k=5`` becomes ``5``) and adds braces to ``\\sqrt2``, ``\\frac12`` and ``1/2``."""
    sides = text.split("=")
    if len(sides) == 2 and len(sides[0]) <= 2:
        text = sides[1]
    text = re.sub(r"\\sqrt(\w+)", r"\\sqrt{\1}", text).replace(" ", "")
    text = re.sub(r"\\frac([^{])(\{|[^{])", _braced, text)
    quotient = re.fullmatch(r"(-?\d+|[^/]*sqrt[^/]*)/(-?\d+|[^/]*sqrt[^/]*)", text)
    return f"\\frac{{{quotient[1]}}}{{{quotient[2]}}}" if quotient else text


def _braced(arguments: re.Match) -> str:
    second = arguments[2] if arguments[2] == "{" else f"{{{arguments[2]}}}"
    return f"\\frac{{{arguments[1]}}}{second}"
