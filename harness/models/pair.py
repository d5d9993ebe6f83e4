"""A student and its teacher in one training: one vocabulary, one format, and every ending of a text known.

For a token-level divergence only the mapping of text to ids must agree. Everything else is a choice, stated on the
convention card: by default both models use the teacher's format, so that the teacher is prompted as it was
trained, and the student learns to end its texts as the teacher does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import safe_read
from harness.errors import BadInput
from harness.models import chat_format, chat_template, files
from harness.models.chat_format import ChatFormat
from harness.models.files import PROBE, ModelFiles, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROWS = "vocab_size"  # rows of the embedding: more than the tokenizer has if padded, and sometimes fewer
TEMPLATES = ("teacher", "student", "none")


@dataclass(frozen=True)
class Pair:
    """The two models in the formats in which they are trained and prompted.

    ``words`` is the number of token ids that they share, from 0.

    ``card`` has lines for the convention card; ``notes`` describe the choice in words, ``warnings`` are for readers of
    the scores.
    """

    student: ModelFiles
    teacher: ModelFiles | None
    words: int | None = None
    card: tuple[tuple[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def of(self, student: ModelFiles, teacher: ModelFiles | None) -> Pair:
        """The same pair with these files, which include the weights."""
        in_format = teacher and replace(teacher, format=None if self.teacher is None else self.teacher.format)
        return replace(self, student=replace(student, format=self.student.format), teacher=in_format)


def agree(
    student: ModelFiles,
    teacher: ModelFiles | None,
    *,
    template: str = "teacher",
    thinking: bool | None = None,
    same_ids: bool = True,
    elsewhere: Callable[[], Sequence[str]] | None = None,
) -> Pair:
    """The pair in one format. ``same_ids`` requires that both map text to the same ids, as token-level signals do.

    ``template`` is teacher, student, none, or a file with a Jinja template. Models of different tokenizers exchange
    texts; each then keeps its own format. Raises BadInput naming the difference or the setting, and the methods
    in ``elsewhere``, which need no shared ids.
    """
    if student.url is not None:
        return Pair(student, teacher)
    # What the tokenizers share, and the format that both get; a template may write a token that one side lacks.
    ours = load_tokenizer(student)
    theirs = load_tokenizer(teacher) if teacher is not None and teacher.url is None else None
    words, difference = (len(ours), None) if theirs is None else shared_ids(ours, theirs)
    chosen = _chosen(ours, theirs if difference is None else None, template, thinking)
    if theirs is not None and teacher is not None:
        words = min([words, *files.declared(student, ROWS), *files.declared(teacher, ROWS)])
    if difference is None and (token := _unknown_token(chosen, ours, words, theirs)):
        difference = (
            f"the chat template ({chosen.origin}) writes {token!r}, which they do not share "
            "(models.template=none, or a file, asks both without it)"
        )
        chosen = _chosen(ours, None, template, thinking)
    if difference and same_ids:
        others = f" ({', '.join(elsewhere())})" if elsewhere is not None else ""
        raise BadInput(
            f"the tokenizers of student {student.id} and teacher {_name(teacher)} do not match: {difference}; pick a "
            f"pair of one family, or a method that needs no common ids{others}"
        )
    # Models with different tokenizers exchange texts, and each reads them in its own tokens and format.
    both = theirs if difference is None else None
    if token := _unknown_token(chosen, ours, len(ours)):
        raise BadInput(f"the chat template ({chosen.origin}) writes {token!r}, which {student.id} lacks")
    sides = [(student, ours)] + ([(teacher, both)] if both is not None and teacher is not None else [])
    chosen = replace(chosen, stops=_stops(chosen, sides, len(ours) if difference else words))
    trained, scoring = _in(chosen, student, ours), teacher
    # A student keeps its own format only if a program that loads it would stop at the token that it learns.
    if trained.format is None and (ours.eos_token != chosen.end or chosen.stops[0] not in _ends(student, ours)):
        trained = replace(student, format=chosen)
    if both is not None and teacher is not None:
        scoring = _in(chosen, teacher, both)
    # What a reader of the run should know: notes, warnings, and the lines of the convention card.
    notes, warnings = [], []
    if both is not None and (len(ours), len(both)) != (words, words):
        notes.append(f"the vocabularies have {len(ours):,} and {len(both):,} ids; the first {words:,} are compared")
    if both is not None and (names := renamed(ours, both)):
        notes.append(
            f"{len(names)} special tokens have one id and two names, the first {names[0][0]} and {names[0][1]}"
        )
    if difference:
        notes.append("the tokenizers differ: each model uses its own format and reads texts in its own tokens")
    if scoring is not None and scoring.format is not None and both is not None:
        warnings.append(
            f"the teacher {scoring.id} scores texts in a format that is not its own (models.template={chosen.origin}: "
            f"{_words(chosen)}; its own: {_words(chat_format.own(both, 'teacher'))})"
        )
    if trained.format is not None or warnings:
        notes.append(f"student and teacher use one format ({chosen.origin}): {_words(chosen)}")
    card = _card(chosen, trained, ours)
    if both is not None and (len(ours), len(both)) != (words, words):
        card["vocabulary"] = f"cut to the {words} ids that both models have, renormalised"
    return Pair(
        trained,
        scoring,
        None if difference else words,
        tuple(card.items()),
        tuple(notes),
        tuple(warnings),
    )


def _chosen(
    ours: PreTrainedTokenizerBase, theirs: PreTrainedTokenizerBase | None, template: str, thinking: bool | None
) -> ChatFormat:
    """The format that ``template`` names; ``theirs`` is None if the teacher's cannot be used."""
    if template == "none":
        return chat_format.with_template(ours, "none", None, thinking)
    if template not in TEMPLATES:
        return chat_format.with_template(ours, Path(template).name, _read(template), thinking)
    # If neither has a template, plain text still ends as the teacher ends it.
    templates = [None if t is None else chat_format.template_of(t) for t in (ours, theirs)]
    if template == "teacher" and theirs is not None and (templates[1] is not None or templates[0] is None):
        return chat_format.own(theirs, "teacher", thinking)
    return chat_format.own(ours, "student", thinking)


def _unknown_token(
    chosen: ChatFormat, tokenizer: PreTrainedTokenizerBase, words: int, theirs: PreTrainedTokenizerBase | None = None
) -> str | None:
    """A token of the format that is not among the first ``words`` ids of a tokenizer, or differs for ``theirs``.

    None where there is none.
    """
    ids = {} if chosen.end in tokenizer.get_vocab() else {chosen.end: None}
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    before, tokenizer.chat_template = tokenizer.chat_template, chosen.template
    try:
        text = "" if chosen.template is None else chat_template.render(tokenizer, turns)
    except Exception:  # jinja errors of the template's own raise_exception: it renders questions only
        text = ""
    finally:
        tokenizer.chat_template = before
    for i in (*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.convert_tokens_to_ids(chosen.end)):
        ids[str(tokenizer.convert_ids_to_tokens(i)) if i is not None else chosen.end] = i
    for token, i in ids.items():
        if i is None or i >= words:
            return token
        # The end of sequence matches on both sides, whatever its name.
        ends = theirs is not None and token == chosen.end and i == theirs.eos_token_id
        if theirs is not None and not ends and str(theirs.convert_ids_to_tokens(i)) != token:
            return token
    return None


def _in(chosen: ChatFormat, model: ModelFiles, tokenizer: PreTrainedTokenizerBase) -> ModelFiles:
    """The model with a format; a model that already renders and ends texts this way does not change."""
    return model if chosen.same_as(tokenizer) else replace(model, format=chosen)


def _ends(model: ModelFiles, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The ids at which a model stops: its end of sequence, and those that its configuration of generation lists."""
    return {tokenizer.eos_token_id, *files.declared(model, "eos_token_id")}


def _stops(
    chosen: ChatFormat, sides: Sequence[tuple[ModelFiles, PreTrainedTokenizerBase]], words: int
) -> tuple[int, ...]:
    """The ids that end a text: that of the format, then all others of the models, below ``words``."""
    end = sides[0][1].convert_tokens_to_ids(chosen.end)
    turns = {t.convert_tokens_to_ids(chat_format.ending(t)) for _, t in sides}
    known = turns.union(*(_ends(model, tokenizer) for model, tokenizer in sides))
    return (end, *sorted(i for i in known - {end} if i < words))


def _card(chosen: ChatFormat, trained: ModelFiles, ours: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Lines of the convention card; none for plain text with the student's own end."""
    if chosen.template is None and trained.format is None:
        return {}
    return {
        "chat_template": "none" if chosen.template is None else chosen.origin,
        "ends": " ".join(str(ours.convert_ids_to_tokens(i)) for i in chosen.stops),
        "system_turn": chat_format.system_turn(load_tokenizer(trained)),
        "thinking": chosen.thinking,
    }


def _name(model: ModelFiles | None) -> str:
    return "none" if model is None else model.id


def _words(chosen: ChatFormat) -> str:
    return f"{'no template' if chosen.template is None else 'a chat template'}, ends with {chosen.end}"


def _read(name: str) -> str:
    """The Jinja source of a template file."""
    try:
        return safe_read.content(Path(name), safe_read.TABLE).decode("utf-8")
    except (BadInput, UnicodeDecodeError) as error:
        raise BadInput(f"models.template={name}: {error}; give teacher, student, none, or a Jinja file") from None


def shared_ids(ours: PreTrainedTokenizerBase, theirs: PreTrainedTokenizerBase) -> tuple[int, str | None]:
    """The number of ids, from 0, that mean the same token on both sides, and how the mapping differs otherwise.

    Vocabularies of one family may end differently: tokens that one side added after the shared ones, or that only pad
    its vocabulary up to a round size, are cut off. Added tokens may have other names at the same ids.
    """
    ours_ids, theirs_ids = ours.get_vocab(), theirs.get_vocab()
    words = min(len(ours), len(theirs))
    other_names = {name for names in renamed(ours, theirs) for name in names}
    every = (ours_ids.keys() | theirs_ids.keys()) - other_names
    if differing := sorted(t for t in every if ours_ids.get(t) != theirs_ids.get(t)):
        first = min(ids[t] for t in differing for ids in (ours_ids, theirs_ids) if t in ids)
        added = {str(t) for tokenizer in (ours, theirs) for t in tokenizer.added_tokens_decoder.values()}
        behind = sum(i < first for i in ours_ids.values()) == sum(i < first for i in theirs_ids.values()) == first
        moved = any(token in ours_ids and token in theirs_ids for token in differing)
        written = (t for t in differing if t not in added and _is_written(t, ours if t in ours_ids else theirs))
        if moved or not behind or any(written):
            token = differing[0]
            return words, (
                f"{len(differing)} tokens differ ({len(ours_ids)} against {len(theirs_ids)} in all), e.g. {token!r} "
                f"has id {ours_ids.get(token, 'none')} for the student and {theirs_ids.get(token, 'none')} for the "
                "teacher"
            )
        words = first
    a, b = (tokenizer(PROBE, add_special_tokens=False)["input_ids"] for tokenizer in (ours, theirs))
    if a != b:
        return words, "the vocabularies are equal, but the same text is split into different tokens"
    return words, None


def renamed(ours: PreTrainedTokenizerBase, theirs: PreTrainedTokenizerBase) -> list[tuple[str, str]]:
    """Added tokens with one id and two names, neither of which is a token of the other side."""
    sides = [{i: str(token) for i, token in t.added_tokens_decoder.items()} for t in (ours, theirs)]
    both = [(sides[0][i], sides[1][i]) for i in sorted(sides[0].keys() & sides[1].keys())]
    known = [t.get_vocab() for t in (ours, theirs)]
    return [(a, b) for a, b in both if a != b and a not in known[1] and b not in known[0]]


def _is_written(token: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether some text contains this token: padding tokens of a vocabulary have a name, but no text."""
    i = tokenizer.convert_tokens_to_ids(token)
    return tokenizer(tokenizer.decode([i]), add_special_tokens=False)["input_ids"] == [i]
