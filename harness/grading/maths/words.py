"""Answers in words: numbers spelt out, and words in a statement (``It is Tuesday``, ``Option B is correct``)."""

from __future__ import annotations

import re

SMALL = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
# A whole answer that names a number below one hundred.
NUMBER_WORDS = (
    rf"(?i)^\s*(?:\\text\s*\{{\s*)?(?:({'|'.join(SMALL)})|({'|'.join(TENS)})(?:[\s-]+({'|'.join(SMALL[1:10])}))?)"
    r"\s*\.?\s*\}?\s*\.?\s*$"
)
# Words before a word or a choice that state it, and words after it that call it the answer. What is left must be the
# reference alone, so a denial (not Tuesday) or a second answer stays.
STATED = (
    r"it|this|that|(?:the|my|our)\s+(?:(?:final|correct|right)\s+)?(?:answer|result|solution|choice|option|letter|word"
    r"|name|day(?:\s+of\s+the\s+week)?|weekday|month|season|colou?r|person|student|number|function|graph|shape"
    r"|statement)"
)
BEFORE_WORD = re.compile(
    rf"(?i)^[\s{{(]*(?:(?:{STATED})\s*(?:is|was|will\s+be|falls(?=\s+on)|'s|:)\s*)?(?:an?\s+(?=\w{{3}})|the\s+(?=\w{{3}}))?"
    r"(?:(?:choice|option|answer|letter)\s*:?\s+(?=\(?[A-J]\)?(?:[\s.})]|$))"
    r"|on\s+(?:an?\s+)?(?=(?:mon|tues|wednes|thurs|fri|satur|sun)day[\s.})]*$))?"
)
BEHIND_WORD = re.compile(
    r"(?i)\s+is\s+(?:(?:the\s+)?(?:correct|right)(?:\s+(?:answer|choice|option))?|the\s+(?:final\s+)?answer)[\s.})]*$"
)
LETTER_CHOICE = re.compile(r"\(?\s*[A-J]\s*\)?")


def number_of(words: re.Match) -> int:
    """The number that a match of :data:`NUMBER_WORDS` names."""
    small, tens, ones = (word and word.lower() for word in words.groups())
    if small:
        return SMALL.index(small)
    return 10 * (TENS.index(tens) + 2) + (SMALL.index(ones) if ones else 0)


def same_words(gold: str, answer: str) -> bool:
    """Whether an answer is the words ``gold``, alone or in a statement. Case, spaces and punctuation are free."""
    gold_letters, plain = _letters(gold), answer.replace("\\text", "")
    if not gold_letters:
        return False
    return gold_letters in {_letters(plain), _letters(BEHIND_WORD.sub("", BEFORE_WORD.sub("", plain)))}


def _letters(text: str) -> str | None:
    """The letters and digits of a word, which are compared; None for a formula."""
    return None if re.search(r"[+*/=^<>]", text) else re.sub(r"[^a-z0-9]", "", text.lower())
