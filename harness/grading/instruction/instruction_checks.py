"""IFEval's checkers, which are lm-eval's own, and answers that keep its instructions.

The checkers load a sentence model of NLTK (``punkt_tab``) when they are imported, and download it where it is missing.
Language detection draws random numbers, and so do checkers whose settings do not fit; both seeds are fixed here, so
that a text always gets the same verdict.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

from harness.errors import NotHere

FILLER = "A small grey cat walks slowly along a quiet river and looks at an old bridge."
PLAINLY_ENGLISH = "The people of this town have lived here with their children for many years and they like it."
SENTENCES = "punkt_tab"
CHECKERS = "lm_eval.tasks.ifeval.utils"


@dataclass(frozen=True)
class Instructions:
    """The instructions of a prompt: their kinds and, for each, the arguments of its checker."""

    key: int
    prompt: str
    kinds: tuple[str, ...]
    settings: tuple[Mapping[str, Any], ...]


@cache
def checkers() -> ModuleType:
    """lm-eval's module of checkers. Raises NotHere when a package or the sentence model is missing."""
    try:
        import langdetect
        import nltk
    except ImportError as error:
        raise NotHere(f"IFEval's checkers need {error.name}: pip install {error.name} immutabledict") from None
    try:
        nltk.data.find(f"tokenizers/{SENTENCES}")
    except LookupError:
        if not nltk.download(SENTENCES, quiet=True):
            raise NotHere(
                f"IFEval's checkers need NLTK's {SENTENCES}, which could not be downloaded: "
                f"python -m nltk.downloader {SENTENCES}, or name a folder that has it in NLTK_DATA"
            ) from None
    langdetect.DetectorFactory.seed = 0
    return import_module(CHECKERS)


def known_kinds() -> set[str]:
    """The kinds of instructions that the checkers know."""
    return set(checkers().instructions_registry.INSTRUCTION_DICT)


def followed(instructions: Instructions, text: str) -> tuple[list[bool], list[bool]]:
    """Whether ``text`` follows each instruction, strictly and loosely (without first or last line, or asterisks).

    Two published prompts ask for the frequency of a character that is not a letter; the checkers draw a letter instead,
    which is always the same here.
    """
    strict_and_loose = []
    for check in (checkers().test_instruction_following_strict, checkers().test_instruction_following_loose):
        made = checkers().InputExample(
            instructions.key, list(instructions.kinds), instructions.prompt, [dict(s) for s in instructions.settings]
        )
        state = random.getstate()
        random.seed(instructions.key)
        try:
            strict_and_loose.append(check(made, text).follow_instruction_list)
        finally:
            random.setstate(state)
    return strict_and_loose[0], strict_and_loose[1]


def versions() -> dict[str, str]:
    """The versions of the packages that decide a verdict."""
    versions_by_name = {}
    for name in ("lm-eval", "nltk", "langdetect"):
        try:
            versions_by_name[name] = version(name)
        except PackageNotFoundError:
            versions_by_name[name] = "missing"
    return versions_by_name


def answer(instructions: Instructions) -> str | None:
    """A text that follows all instructions, written without the checkers; None where none is written here."""
    settings = dict(zip(instructions.kinds, instructions.settings, strict=True))
    if len(instructions.kinds) == 1 and instructions.kinds[0] in _WHOLE:
        return _WHOLE[instructions.kinds[0]]
    if not settings.keys() <= {*_PARTS, *_SHAPES} or len(settings) < len(instructions.kinds):
        return None
    if "change_case:english_capital" in settings and settings.keys() & _NOT_IN_CAPITALS:
        return None
    parts = [FILLER]
    for kind in _PARTS:  # in the order of the table: what begins a text, then what ends it
        if kind in settings:
            parts = _PARTS[kind](parts, settings[kind])
    text = "\n\n".join(parts)
    for kind in _SHAPES:
        if kind in settings:
            text = _SHAPES[kind](text)
    return text


def _words(parts: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    """The requested number of words; only the filler if few are allowed."""
    if settings["relation"] == "less than":
        return list(parts)
    return [*parts, " ".join([FILLER] * (settings["num_words"] // len(FILLER.split()) + 1))]


def _often(parts: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    if settings["relation"] == "less than":
        return list(parts)
    return [*parts, " ".join([settings["keyword"]] * settings["frequency"])]


def _lines(first: str, key: str) -> Callable[[Sequence[str], Mapping[str, Any]], list[str]]:
    """Parts with as many lines as the setting ``key`` says; ``first`` has the number of the line as {}."""
    return lambda parts, settings: [*parts, "\n".join(first.format(i + 1) for i in range(settings[key]))]


# The addition to a text for each kind, by the settings of its checker.
_PARTS: dict[str, Callable[[Sequence[str], Mapping[str, Any]], list[str]]] = {
    "detectable_format:title": lambda parts, _: ["<<A cat>>", *parts],
    "keywords:existence": lambda parts, settings: [*parts, " and ".join(settings["keywords"])],
    "keywords:forbidden_words": lambda parts, _: list(parts),
    "keywords:frequency": _often,
    "length_constraints:number_words": _words,
    "detectable_format:number_highlighted_sections": _lines("Here is *part {}*.", "num_highlights"),
    "detectable_content:number_placeholders": _lines("Here stands [placeholder {}] for now.", "num_placeholders"),
    "detectable_format:number_bullet_lists": _lines("* point {} of the list", "num_bullets"),
    "detectable_content:postscript": lambda parts, settings: [
        *parts,
        f"{settings['postscript_marker']} The cat is well.",
    ],
    "startend:end_checker": lambda parts, settings: [*parts, settings["end_phrase"]],
}
_SHAPES: dict[str, Callable[[str], str]] = {
    "punctuation:no_comma": lambda text: text.replace(",", ""),
    "change_case:english_lowercase": str.lower,
    "change_case:english_capital": lambda text: f"{PLAINLY_ENGLISH}\n\n{text}".upper(),
    "startend:quotation": lambda text: f'"{text}"',
}
_NOT_IN_CAPITALS = {"change_case:english_lowercase", "length_constraints:number_words"}
_WHOLE = {
    "combination:two_responses": f"{FILLER}\n******\nAnother answer: the cat sleeps.",
    "detectable_format:json_format": '```json\n{"cat": "grey", "river": "quiet"}\n```',
    "detectable_format:constrained_response": "My answer is maybe.",
}
