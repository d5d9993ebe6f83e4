r"""Normalises the notation of an answer: Unicode, typed mathematics and typesetting become LaTeX for the parser.

Nothing here decides whether an answer is right. Each rule rewrites a notation as another one with the same meaning; a
text with two possible meanings is left unchanged. The work is bounded: an answer has at most
:data:`harness.grading.maths.task.LONGEST_ANSWER` characters, and no rule takes more than quadratic time.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from harness.grading.maths.brackets import closing, split
from harness.grading.maths.characters import plain
from harness.grading.maths.repeating import repeating, repeating_between
from harness.grading.maths.units import CODES, KNOWN
from harness.grading.maths.words import NUMBER_WORDS, number_of

THOUSANDS = re.compile(r"(?<![\d.])[1-9]\d{0,2}(?:,\d{3})+(?!\d)", re.ASCII)
NO_FUNCTION = r"(?!\\(?:arc)?(?:sin|cos|tan|cot|sec|csc|log|ln|exp)h?(?![a-zA-Z]))"
NAME = re.compile(
    NO_FUNCTION + r"(\\?[A-Za-z]+)(?:\s*_\s*(?:\w|\{(?:[^{}]|\{[^{}]*\})*\}))?\s*(?:\(\s*([A-Za-z])\s*\))?"
    r"|\\angle[A-Za-z_{}\d ]+"
)
NAMED = re.compile(rf"{NAME.pattern}|\\text\s*\{{[^{{}}]*\}}")
TEXT = re.compile(r"(\\text\s*\{[^{}]*\})")
MATHEMATICS = re.compile(r"[=+*<>\\]|\d\s*-|^\s*[-\d]*[abcknpqrtxyz]\^|^\s*[-\d.,/() ]+\s*$|^\s*[eiknxyz]\s*$")
MOST_LAYERS = 8  # nested layers of decoration

FUNCTIONS = (
    "sqrt|sinh|cosh|tanh|arcsin|arccos|arctan|sin|cos|tan|cot|csc|exp|ln|log|gcd|lcm|binom|frac|pi|infty"
    r"|(?:max|min|sec)(?=\s*[\\({])"  # otherwise units of time, or words
)

# Commands whose argument is the answer, and commands without a meaning.
SHOWN = r"(?:fcolorbox\s*\{[^{}]*\}|textcolor|colorbox|color)\s*(?:\[[^\[\]]*\])?"
WRAPPING = (
    "underline|underbrace|smash|ensuremath|boldsymbol|bm|pmb|mathnormal|math(?:ord|op|bin|rel|open|close|punct|inner)"
    r"|boxed|fbox|hbox|mathsf|mathtt|overset\{\}|bbox\s*(?:\[[^\[\]]*\])?"
)
LETTERS = "mathrm|mathbf|mathit|mbox|textbf|textit|textrm|textnormal|textsf|texttt|textsc|textup|emph|operatorname"
LEAD = (  # names the value that follows
    r"(?:(?:so|thus|hence|therefore),?\s+)?(?:(?:the|my|our)\s+)?(?:(?:final|correct|required)\s+)?"
    r"(?:(?:answer|result|solution|value)s?\s*(?:is|are|equals|:|=)?|(?:sum|product|total|probability|area|volume|line"
    r"|perimeter|equation|angle|length|distance|number|ratio|remainder|minimum|maximum|domain)\s*(?:is|equals|:|=))\s*:?"
)


def clean(text: str) -> str:
    """``text`` in normal form: without typesetting, decoration and dollar signs that delimit mathematics."""
    text = _dollars(plain(text))
    # Decoration may be nested: repeat until nothing changes.
    for _ in range(MOST_LAYERS):
        before = text
        for pattern, replacement in DECORATION:
            text = pattern.sub(replacement, text)
        text = _bare(text)
        if text == before:
            break
    # Words stay in \text{}; everything outside of it is mathematics.
    text = TEXT.sub(_letters_or_mathematics, text)
    text = "".join(piece if TEXT.fullmatch(piece) else _typed(piece) for piece in TEXT.split(text))
    text = _arguments(text)
    for pattern, replacement in SPELLING:
        text = pattern.sub(replacement, text)
    return _shown_value(_bare(text))


def for_value(gold: str, text: str) -> str:
    """``text`` where the reference ``gold`` is a value: ``C(5,2)`` is a number, and ``j`` the ``i`` of ``gold``."""
    for pattern, replacement in COMBINATIONS:
        text = pattern.sub(replacement, text)
    letters = [[bool(re.search(LETTER % letter, side)) for letter in "ij"] for side in (gold, text)]
    return re.sub(LETTER % "j", "i", text) if letters == [[True, False], [False, True]] else text


def for_matrix(text: str) -> str:
    """``[[1,2],[3,4]]`` as a matrix, where the reference is one."""
    if not re.fullmatch(r"\s*\[\s*\[[^\[\]]*\](?:\s*,\s*\[[^\[\]]*\])*\s*\]\s*", text):
        return text
    rows = [row.replace(",", " & ") for row in re.findall(r"\[([^\[\]]*)\]", text.strip()[1:-1])]
    return "\\begin{pmatrix}" + " \\\\ ".join(rows) + "\\end{pmatrix}"


def _dollars(text: str) -> str:
    """Removes dollar signs that delimit mathematics; one before a number is a currency."""
    text = re.sub(r"\\text\s*\{\s*(\\\$\s*[\d.,]*)\s*\}", r"\1", text.replace("\\textdollar", "\\$"))
    text = re.sub(r"\\\$|(?<!\$)\$(?=\s*\d[^$]*\Z)", r"\\text{dollar}", text)
    return re.sub(r"(?<!\\)\\[()\[\]]|\$", "", text)


def _letters_or_mathematics(group: re.Match) -> str:
    r"""Removes ``\text{…}`` around mathematics, as in ``\mathbf{x^3+1}`` or ``\mathrm{i}``; keeps it around words."""
    content = group.group().partition("{")[2][:-1]
    bare = re.sub(r"\\cdot(?![a-z])", " ", content)
    if all(word in KNOWN for word in re.findall(r"[A-Za-z]+", bare)) and not re.search(r"[=+<>*\\]", bare):
        return content if re.fullmatch(r"\s*[eik]\s*|[-\d.,/() ]+", content) else f"\\text{{{bare}}}"
    formula = MATHEMATICS.search(content) and not re.search(r"[A-Za-z]{3}|^\s*[\d.,/]+\s*(?:[A-Za-z]|\\?%)", content)
    return content if formula else group.group()


def _typed(text: str) -> str:
    """Rewrites mathematics typed as plain text: ``2*pi``, ``x**3``, ``sqrt(7)``, ``exp(9)``, ``x^(n+1)``."""
    for pattern, replacement in TYPED:
        text = pattern.sub(replacement, text)
    return text


def _arguments(text: str) -> str:
    r"""Puts braces around every argument: ``\frac13``, ``\sqrt 17``, ``\sqrt(7)``, ``x^10``, ``\log_2 3``.

    The argument of a root is the number, letter or bracket that follows; those of a fraction are one character each,
    as in TeX.
    """
    # From the end, so that earlier positions stay valid.
    for match in reversed(list(re.finditer(r"\\(sqrt|frac|binom)(?![a-zA-Z])\s*(\[[^\[\]]*\])?", text))):
        rest, arguments = text[match.end() :], ""
        for _ in range(1 if match[1] == "sqrt" else 2):
            argument, rest = _argument(rest.lstrip(), whole=match[1] == "sqrt")
            arguments += argument
        text = text[: match.start()] + f"\\{match[1]}{match[2] or ''}{arguments}" + rest
    # x^\frac13 as x^{\frac{1}{3}}.
    for match in reversed(list(re.finditer(r"\^\s*(?=\\frac\{)", text))):
        exponent, rest = _argument(text[match.end() :], whole=False)
        text = f"{text[: match.start()]}^{exponent}{rest}"
    # x^(n+1) as x^{n+1}.
    for match in reversed(list(re.finditer(r"\^\s*\(", text))):
        end = closing(text, match.end() - 1)
        if end is not None:
            text = f"{text[: match.start()]}^{{{text[match.end() : end]}}}{text[end + 1 :]}"
    return text


def _argument(text: str, whole: bool) -> tuple[str, str]:
    """The first argument of ``text`` in braces, and the rest; ("", text) if there is none."""
    if text.startswith("{") or (whole and text.startswith("(")):
        end = closing(text, 0)
        return ("{" + text[1:end] + "}", text[end + 1 :]) if end is not None else ("", text)
    if text.startswith((r"\frac{", r"\sqrt{", r"\sqrt[")):
        end = 5
        while end < len(text) and text[end] in "{[":
            end = (closing(text, end) or len(text)) + 1
        return "{" + text[:end] + "}", text[end:]
    match = re.match(r"\d+(?:\.\d+)?|\\[a-zA-Z]+|[A-Za-z]" if whole else r"\d|\\[a-zA-Z]+|[A-Za-z]", text)
    return ("{" + match.group() + "}", text[match.end() :]) if match else ("", text)


def _bare(text: str) -> str:
    """``text`` without enclosing braces, a leading equals sign and a trailing full stop."""
    for _ in range(4):
        text = re.sub(r"^\s*=\s*|(?<!\.)[.,;:]?\s*\Z|(?<!\\)\\\s*\Z", "", text).strip()
        if not (text.startswith("{") and closing(text, 0) == len(text) - 1):
            break
        text = text[1:-1]
    return text


def _shown_value(text: str) -> str:
    r"""The exact side ``a`` of ``a \approx b``; ``b`` if ``a`` is empty or a name."""
    text = split(text, r"\\(?:Rightarrow|Longrightarrow|implies|therefore)(?![a-zA-Z])")[-1]
    sides = split(text, r"\\approx(?![a-zA-Z])")
    exact = (side for side in sides[:-1] if side and (side == "\\pi" or not NAMED.fullmatch(side)))
    return next(exact, sides[-1])


def _remainder(match: re.Match) -> str:
    """The value of ``7 \\bmod 4``."""
    return str(int(match[1]) % int(match[2])) if int(match[2]) else match.group()


def digits(number: re.Match) -> str:
    """The digits of a match, without their separators."""
    return re.sub(r"[^\d]", "", number.group())


def _rules(*rules: tuple[str, str | Callable[[re.Match], str]]) -> list[tuple[re.Pattern, str | Callable]]:
    return [(re.compile(pattern), replacement) for pattern, replacement in rules]


def _without(match: re.Match) -> str:
    """A set without the values that follow the word ``except``."""
    values = re.sub(r"(?i)\\text\s*\{\s*,?\s*(?:and|or)\s*\}|\b(?:and|or)\b", ",", match[2])
    values = re.sub(r"(?<![\\A-Za-z])[A-Za-z]\s*=", "", values.replace("\\{", "").replace("\\}", ""))
    kept = match[1] + "}" * (match[1].count("{") - match[1].count("}"))
    kept = f"\\{{{kept}\\}}" if re.search(r"[<>]|\\[lg]e", kept) else kept
    return f"{kept}\\setminus \\{{{values}\\}}"


EXCEPT = r"except(?:\s+for)?|excluding|other\s+than"
DECORATION = _rules(
    (r"^\s*\*\*(.*)\*\*\s*$", r"\1"),
    (r"^\s*`([^`]*)`\s*$", r"\1"),
    (r"""^\s*(?:``|["“”])([^"“”`']*)(?:''|["“”])\s*$""", r"\1"),
    (
        r"^\s*(\d+)\s*(?:\\text\s*\{\s*out of\s*\}|\\text\s*\{\s*out of (?=\d+\s*\})|out of)\s*(\d+)\s*\}?\s*$",
        r"\\frac{\1}{\2}",
    ),
    (r"(?<![\d.])[1-9]\d{0,2}(?:'\d{3})+(?!\d)", lambda m: digits(m)),  # 1'000'000, as the Swiss write it
    (r"(?i)^\s*\\text\s*\{\s*(?:negative|minus)\s*\}\s*(?=\d|\\frac|\\sqrt)", "-"),
    (rf"\\{SHOWN}\s*\{{[^{{}}]*\}}", ""),
    (r"\\(?:bf|it|rm|sf|tt|em|bfseries)(?![a-zA-Z])", ""),
    (r"^\s*\\(?:therefore|Rightarrow|implies|Longrightarrow|rightarrow|to)(?![a-zA-Z])", ""),
    (r"\{([^{}]*)\\over(?![a-zA-Z])([^{}]*)\}", r"\\frac{\1}{\2}"),
    (r"\{([^{}]*)\\choose(?![a-zA-Z])([^{}]*)\}", r"\\binom{\1}{\2}"),
    (r"\\(?:begin|end)\s*\{(?:p?smallmatrix)\}", lambda m: m.group().replace("p", "").replace("small", "p")),
    (r"\\begin\s*\{(cases|aligned|align\*?|gathered)\}([^&]*)\\end\s*\{\1\}", lambda m: m[2].replace("\\\\", ",")),
    (r"\\\\\s*\[[\d.]+\s*[a-z]{2}\]|\\cr(?![a-zA-Z])", r"\\\\ "),  # ends of rows, with their distance
    (r"&\s*=", "="),
    (r"\\text(?:superscript)\s*\{(\w+)\}", r"^{\1}"),
    (r"\\textdegree(?![a-zA-Z])|\^\s*\{\s*\\text\s*\{\s*o\s*\}\s*\}", r"^{\\circ}"),
    (r"\\(?:imath|jmath)(?![a-zA-Z])", lambda m: m.group()[1]),
    (r"\\lbrack(?![a-zA-Z])", "["),
    (r"\\rbrack(?![a-zA-Z])", "]"),
    (r"\\big(cup|cap)(?![a-zA-Z])", r"\\\1 "),
    (r"\\(?:tag\*?|label|h?phantom|vphantom|hspace\*?|vspace\*?)\s*\{[^{}]*\}", ""),
    (rf"\\(?:{WRAPPING})(?![a-zA-Z])", ""),
    (r"\\(?:displaystyle|textstyle|large|Large|LARGE|huge|Huge|limits|qquad|quad|thinspace|enspace)(?![a-zA-Z])", " "),
    (r"\\(?:left|right)(?![a-zA-Z])\s*\.?|\\[bB]igg?[lr]?(?![a-zA-Z])", ""),
    (rf"\\(?:{LETTERS})\s*(?=\{{\s*-?\s*\d*\s*\\[dtc]?(?:frac|sqrt)(?![a-zA-Z]))", ""),  # \mathbf{\frac13}
    (rf"\\(?:{LETTERS})\s*\{{", r"\\text{"),
    (r"\\text\s*\{\s*\{([^{}]*)\}\s*\}", r"\\text{\1}"),
    (r"\\mathrm\s*([A-Za-z])(?![A-Za-z])", r"\\text{\1}"),
    (r"\\math(?:rm|bf|it)\s*(?=\d|[A-QS-Za-z](?![A-Za-z]))", ""),  # \mathbf 9; R is left to the set of real numbers
    # Ends of a proof, ticks, and the letter of a multiple choice after a number.
    (r"(?<=\d)\s*\^\s*\{?\s*o\s*\}?(?![A-Za-z])|\\text\s*\{\s*\^\{\\circ\}\s*\}", r"^{\\circ}"),
    (
        r"^\s*(-?)0[xX]([0-9A-Fa-f]+)\s*$",
        lambda m: f"{m[1]}{m[2].upper()}_{{16}}",
    ),  # as programs write numbers in a base
    (r"^\s*(-?)0([bB][01]+|[oO][0-7]+)\s*$", lambda m: f"{m[1]}{m[2][1:]}_{{{2 if m[2][0] in 'bB' else 8}}}"),
    (r"(?<=\S)\s*(?:\\(?:checkmark|blacksquare|square|Box|qed)(?![a-zA-Z])|[✓✔■□∎])\s*$", ""),
    (r"(?<=[\d}])\s+(?:\\text\s*\{\s*)?\([A-E]\)\s*\}?\s*$", ""),
    (r"^\s*[A-E]\)\s*(?=[\d.$]|-\d|\\(?:frac|sqrt|pi)\b)", ""),
    (NUMBER_WORDS, lambda m: str(number_of(m))),
    (r"(?i)^\s*(?:\\text\s*\{\s*)?(?:no (?:real )?solutions?|none|(?:the )?empty set)\s*\}?\s*\.?\s*$", r"\\emptyset "),
    (rf"\\text\s*\{{\s*({FUNCTIONS})\s*\}}", r"\\operatorname{\1}"),
    (r"\\text\s*\{\s*(max|min|sec)\s*\}(?=\s*[\\({])", r"\\operatorname{\1}"),
    (r"\\text\s*\{\s*:\s*\}|\{\s*:\s*\}|\\colon(?![a-zA-Z])", ":"),
    (r"(?i)\\text\s*\{\s*(?:\\emptyset|(?:the )?empty set)\s*\}", r"\\emptyset "),
    (r"(\\text\s*\{[^{}]*)\^\{(-?\d+)\}", r"\1^\2"),
    (r"(\\text\s*\{[^{}]*)\^\{(-?\d+)\}", r"\1^\2"),  # a second power in the same group
    (r"(\\text\s*\{[^{}]*)\}\\text\s*\{", r"\1"),
    (r"(?<![\d.])[1-9]\d{0,2}(?:(?:\{,\}|,\\!|(?<!\\)\\[!, ]|~| )\s*\d{3})+(?!\d)", digits),  # 1{,}000 and 10,\!080
    (r"(?<!\\)\\[!,;:> ]|~", " "),
    (r"\\(pound|euro|yen)s?(?![a-zA-Z])", r"\\text{\1}"),
    (
        r"^(\s*-?\s*)(?:\\text\s*\{\s*[A-Z]{1,2}\s*dollar\}|[A-Z]{1,2}\s*\\text\{dollar\})",
        r"\1\\text{dollar}",
    ),  # US$, C$
    (
        rf"(?i)^\s*(?:\\text\s*\{{\s*)?({'|'.join(CODES)})\.?\s*\}}?\s*(?=\d)",
        lambda m: f"\\text{{{CODES[m[1].lower()]}}}",
    ),
    (rf"(?i)^\s*\\text\s*\{{\s*{LEAD}\s*\}}\s*:?", ""),
    (rf"(?i)^\s*{LEAD}(?=\s*[\d\\$({{\[+*-]|\s*[a-z]\s*(?:=|\\in))", ""),
    (
        r"(?i)^\s*(?:the\s+)?(?:final\s+)?answer\s*(?:is|:)\s*(?!(?:not|never|no|none|wrong|unknown|un\w+|im\w+|in\w+)\b)",
        "",
    ),
    (r"^\s*(?:\\text\s*\{\s*the\s*\}|the)\s*(?=\d)", ""),
    (r"^\s*\\text\s*\{\s*the\s+(?=\d)", r"\\text{"),
    (r"\\(min|max)\s*\\\{([^{}]*)\\\}", r"\\\1(\2)"),
    (r"\\lg(?![a-zA-Z])", r"\\log_{10} "),
    (r"(?<=\d)\s*\\text\s*\{\s*degrees?\s*\}\s*(?=\))", r"^{\\circ}"),
    # Sets in words: all real numbers except 4, and (0,9) excluding 3.
    (
        rf"(?is)^(.*?)\s*(?:\\text\s*\{{\s*)?,?\s*\b(?:{EXCEPT})\s*\}}?\s*([^\[\]()]+?)\s*\}}?\s*$",
        lambda m: _without(m),
    ),
    (
        r"(?i)^\s*(?:\\text\s*\{\s*)?(?:[a-z]\s+is\s+)?(?:all|any)(?:\s+the)?\s+(?:reals|real\s+numbers)(?:\s+[a-z])?"
        r"\s*\}?(?=\s*(?:\\setminus|$))",
        r"\\mathbb{R}",
    ),
    (r"\\text\s*\{\s*!\s*\}", "!"),
    (r"(?i)\\text\s*\{\s*infinity\s*\}", r"\\infty "),
    (r"\\surd(?![a-zA-Z])", r"\\sqrt "),
    (r"(?i)^\s*(?:negative|minus)\s+(?=\d|\\frac|\\sqrt)", "-"),
    (r"(?<![\^_])\{\s*-\s*\}(?=\s*[\d\\])", "-"),
    (r"(?i)\bper cent\b", "percent"),
    (
        r"(?i)^\s*(?:\\text\s*\{\s*)?(\d{1,2}:\d{2})\s*(?:\\text\s*\{\s*)?in the (morning|afternoon|evening)\s*\}?\s*$",
        lambda m: f"{m[1]} {'a' if m[2].lower() == 'morning' else 'p'}.m.",
    ),
    (r"(?<=[)\]])\s*U\s*(?=[(\[])", r" \\cup "),
    # The conjugate of a number.
    (
        r"\\overline\s*\{\s*(-?[\d.]*)\s*([+-])\s*([\d.]*)\s*i\s*\}",
        lambda m: f"({m[1]}{'-' if m[2] == '+' else '+'}{m[3]}i)",
    ),
)
# C(5,2) and similar notations, where a value is expected: elsewhere they are points or names.
NUMBER = r"\{?\s*(\d{1,4})\s*\}?"
CHOOSE = r"(?:C|\\text\s*\{\s*C\s*\})"
COMBINATIONS = _rules(
    (rf"^\s*(?:n?Cr|{CHOOSE})\s*\(\s*(\d{{1,4}})\s*,\s*(\d{{1,4}})\s*\)\s*$", r"\\binom{\1}{\2}"),
    (rf"^\s*(?:\{{\s*\}})?\s*[_^]\s*{NUMBER}\s*{CHOOSE}\s*_\s*{NUMBER}\s*$", r"\\binom{\1}{\2}"),
    (rf"^\s*{CHOOSE}\s*_\s*{NUMBER}\s*\^\s*{NUMBER}\s*$", r"\\binom{\1}{\2}"),
    (
        rf"^\s*(?:\{{\s*\}})?\s*[_^]\s*{NUMBER}\s*(?:P|\\text\s*\{{\s*P\s*\}})\s*_\s*{NUMBER}\s*$",
        r"\\frac{\1!}{(\1-\2)!}",
    ),
)
LETTER = r"(?<![A-Za-z\\])%s(?![A-Za-z])"  # on its own
TYPED = _rules(
    (r"\\operatorname\s*\{(\w+)\}", r"\\\1 "),
    (r"\*\*", "^"),
    (r"\*", r"\\cdot "),
    (r"(?i)(?<![\\A-Za-z])(?:\+?\s*infinity|infty|inf|oo)(?![A-Za-z])", r"\\infty "),
    (r"(?<![\\A-Za-z])abs\(([^()]*)\)", r"|\1|"),
    (rf"(?<![\\A-Za-z])({FUNCTIONS})(?![A-Za-z])", r"\\\1 "),
    (r"(?<![\\A-Za-z])(?:and)(?![A-Za-z])", r"\\land "),
    (r"(?<![\\A-Za-z])(?:or)(?![A-Za-z])", r"\\lor "),
    (r"^\s*([A-Za-z])\s*!=", r"\1\\ne "),
    (r"=/=|<>", r"\\ne "),
    (r"(?<![\\A-Za-z])cbrt\s*\(", r"\\sqrt[3]("),
    (r"(?<![\\A-Za-z])a(sin|cos|tan)(?=\s*\()", r"\\arc\1"),
    (r"^\s*(?:\$\s*)?\+\s*/?\s*-(?=\s*[\d\\a-z])|\+/-", r"\\pm "),
    (r":\s*=", "="),
    (r"^\s*([A-Za-z])\s*:\s*([A-Za-z])\s*\\(?:mapsto|to)(?![a-zA-Z])", r"\1(\2)="),
    (r"^\s*[A-Za-z]\s*\\mapsto(?![a-zA-Z])", ""),
    (r"\\log\s*_\s*\{?\s*e(?![a-zA-Z])\s*\}?", r"\\ln "),
    (r"\\(ln|log)(\s*_\s*\{?\d+\}?)?\s*(\d+|[A-Za-z])\s*/\s*(?=\\(?:ln|log))", r"\\\1\2(\3)/"),
    (r"<=", r"\\le "),
    (r">=", r"\\ge "),
    (r"^(\s*-?\s*)\[([^\[\],;]*)\](?=\s*[(\[\d])", r"\1(\2)"),  # [26](1000)
    (r"(?<=[)\d])\s*\[([^\[\],;]+)\]\s*$", r"\\cdot (\1)"),
    (r"\^\s*(?!\{)([-+]?\d+(?:\.\d+)?|[A-Za-z])", r"^{\1}"),
    (r"(?<=\\log)\s*_\s*(\d)", r"_{\1}"),
    (r"_\s*(\d+)", r"_{\1}"),
    (r"\\[dtcs]frac(?![a-zA-Z])|\\nicefrac(?![a-zA-Z])", r"\\frac"),
)
SPELLING = _rules(
    (r"\\(?:leqslant|leq)(?![a-zA-Z])", r"\\le "),
    (r"\\(?:geqslant|geq)(?![a-zA-Z])", r"\\ge "),
    (r"\\(?:lt)(?![a-zA-Z])", "<"),
    (r"\\(?:gt)(?![a-zA-Z])", ">"),
    (r"\\(?:neq|not\s*=)(?![a-zA-Z])", r"\\ne "),
    (r"\\(?:not\s*>|ngtr(?![a-zA-Z]))", r"\\le "),
    (r"\\(?:not\s*<|nless(?![a-zA-Z]))", r"\\ge "),
    (r"\\(?:backslash|smallsetminus)(?![a-zA-Z])", r"\\setminus "),
    (r"\\(?:varnothing)(?![a-zA-Z])", r"\\emptyset "),
    (r"\\(?:mathbb|mathbf|Bbb|text)\s*(?:R(?![a-zA-Z])|\{\s*R\s*\})|\\(?:R|Reals|reals)(?![a-zA-Z])", r"\\mathbb{R}"),
    (r"\\not\s*\\in(?![a-zA-Z])", r"\\notin "),
    (r"\\(?:simeq|thickapprox|doteq)(?![a-zA-Z])|^\s*\\sim(?=\s*\d)", r"\\approx "),
    (r"\\(?:long)?rightarrow(?![a-zA-Z])", r"\\to "),
    (r"\\(?:vee)(?![a-zA-Z])", r"\\lor "),
    (r"\\(?:wedge)(?![a-zA-Z])", r"\\land "),
    (r"\\text\s*\{\s*,?\s*and\s*\}", r"\\land "),
    (r"\\text\s*\{\s*,?\s*or\s*\}", r"\\lor "),
    (r",\s*(?=\\l(?:and|or)\b)", ""),
    # A condition after a set or another condition: 0<x<9 (x \ne 3).
    (r"\s*\(\s*([A-Za-z]\s*\\(?:ne|notin)(?![a-z])[^()]*)\)\s*$", r", \1"),
    (r"\s*\\text\s*\{\s*,?\s*(?:with|where|but)\s*\}(?=\s*[A-Za-z]\s*\\(?:ne|notin)(?![a-z]))", ", "),
    (r"\\lbrace(?![a-zA-Z])", r"\\{"),
    (r"\\rbrace(?![a-zA-Z])", r"\\}"),
    (r"\\langle(?![a-zA-Z])", "("),
    (r"\\rangle(?![a-zA-Z])", ")"),
    (r"\{\s*([.=<>])\s*\}", r"\1"),
    (r"(?<=\\in)\s*\{(.*)\}\s*$", r" \\{\1\\}"),
    (
        r"(?:^|(?<=\\cup)|(?<=\\in)|(?<=,))\s*\]([^\[\](){}]*[,;][^\[\]]*)([\[\]])",
        lambda m: f"({m[1]}{')' if m[2] == '[' else ']'}",
    ),
    (r"\[([^\[\]]*[,;][^\[\]]*)\[", r"[\1)"),
    (r"\^\s*(?:\{\s*\\(?:circ|degree)\s*\}|\\(?:circ|degree)(?![a-zA-Z]))|\\degree(?![a-zA-Z])", r"^{\\circ}"),
    (r"(?:(?<=[(\[,;<>=])|(?<=\\le)|(?<=\\in)|^)\s*\+\s*(?=\\infty)", " "),
    (r"(\d+)?\.(\d*)\\dot\s*\{?(\d)\}?(\d*)\\dot\s*\{?(\d)\}?(?!\d)", repeating_between),
    (r"(\d+)?\.(\d*)\\(?:overline|bar|dot)\s*\{?(\d+)\}?(?!\s*\d)", repeating),
    (r"(?<!\d)(\d+)\.()\((\d+)\)", repeating),
    # A digit three times or more before dots repeats: 0.1666...
    (r"(?<![\d.])(\d*)\.(\d*?)(\d)\3{2,}\s*(?:\.{3}|\\(?:ldots|dots|cdots)(?![a-zA-Z]))\s*$", repeating),
    (r"\.{3}|\\c?dots[cmbio]?(?![a-zA-Z])", r"\\ldots "),
    (r"^\s*(\d{1,15})\s*\\(?:bmod|mod)(?![a-zA-Z])\s*\{?(\d{1,15})\}?\s*$", lambda m: _remainder(m)),
    # The letter of a multiple choice before its value.
    (r"^\s*\\text\{\s*\(?[A-E]\)?\s*[.:]?\s*\}(?=.*\w)", ""),
    (r"^\s*\((?:[A-E]|\\text\s*\{\s*[A-E]\s*\})\)\s*:?\s*(?=[\d.$]|-\d|\\(?:frac|sqrt|pi)\b)", ""),
    (r"^\s*\\text\{\s*\([A-E]\)\s*(-?\d[\d.,/]*)\s*\}$", r"\1"),
    (r"(?<=\d)[eE]([-+]?\d+)(?![\dA-Za-z]*_)", r"\\times 10^{\1}"),
    (r"(?<!\d)(\d+) (\d+)/(\d+)", r"\1\\frac{\2}{\3}"),
    (
        r"(?<=\d)\s*\((?!\s*[A-Za-z]?\s*\)|\s*(?:in\s+)?(?:base|binary|octal)\b)",
        r"\\cdot (",
    ),  # a number before a bracket multiplies it
    (r"\)\s*(?=[\d(]|\\frac)", r")\\cdot "),
    (r"(?<=[)\]}])\s*-\s*(?=\\\{)|(?<=\\mathbb\{R\})\s*-\s*(?=[(\[])", r"\\setminus "),
    (r"(?<=\\mathbb\{R\})\s*(?=\\\{)", r"\\setminus "),  # R\{0}, whose backslash was taken for the brace's
    (r"(?<=\\text\{dollar\})(\s*)(\d+(?:\.\d+)?)\s*[kK]\s*$", r"\1\2\\cdot 1000"),
    (r"\\\{\s*\\\}", r"\\emptyset "),
    (r"\s+", " "),
)
