"""Prompts for a model without a chat template, in the plain form that a recipe gives, and whether a task asks alike.

Rows hold questions, not texts to go on with. Written one behind the other, question and answer run into each other; and
a student trained on one form and asked in another is measured on a text that it has never seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.errors import BadInput
from harness.types import Example, Prompt

if TYPE_CHECKING:
    from harness.models.chat_format import TextCodec

PLACE = "{prompt}"  # where the prompt stands in a form
MARK = "harness-mark"
SHOWN = 120  # characters of a form in a message


def written(examples: Sequence[Example], form: str) -> list[Example]:
    """The examples with their plain text in a form, the system text in front.

    A conversation of several turns has a form of its own, with the roles written out. Raises BadInput for a form in
    which the prompt stands nowhere, or twice.
    """
    if form.count(PLACE) != 1:
        raise BadInput(f"data.plain={form!r} must hold {PLACE} once: the place where the prompt stands")
    return [replace(example, prompt=_in_form(example.prompt, form)) for example in examples]


def _in_form(prompt: Prompt, form: str) -> Prompt:
    plain = prompt.plain if prompt.history else form.replace(PLACE, prompt.user)
    return replace(prompt, plain=f"{prompt.system}\n\n{plain}" if prompt.system else plain)


def differences(trained: Prompt, asked: Prompt, codec: TextCodec) -> Iterator[str]:
    """How a training prompt and a task's prompt reach the model differently, and the fix, as one line."""
    if codec.tokenizer.chat_template is None:
        yield from _plain_forms(trained, asked)
    elif not asked.chat:
        yield "trained in the turns of a chat and asked as plain text, which is how the task's protocol asks"
    else:
        ours, theirs = (codec.render(Prompt(user=MARK, plain="", system=p.system)) for p in (trained, asked))
        if ours != theirs:
            yield (
                f"trained with {_system(trained)} and asked with {_system(asked)}; "
                + (f"set data.system={asked.system!r}" if asked.system else "leave data.system out")
                + " to train on what is asked"
            )


def _plain_forms(trained: Prompt, asked: Prompt) -> Iterator[str]:
    ours, theirs = (_form(prompt) for prompt in (trained, asked))
    message = f"trained on the form {_short(ours or trained.plain)} and asked"
    if theirs is None:
        yield f"{message} to go on with a text in the task's own form, {_short(asked.plain)}"
    elif ours != theirs:
        yield f"{message} in the form {_short(theirs)}; set data.plain to it to train on what is asked"


def _form(prompt: Prompt) -> str | None:
    """The plain text with the place of the prompt in it; None where the prompt does not stand there as it is."""
    if prompt.history or prompt.user not in prompt.plain:
        return None
    return prompt.plain.replace(prompt.user, PLACE, 1)


def _system(prompt: Prompt) -> str:
    return f"the system turn {_short(prompt.system)}" if prompt.system else "no system turn"


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…")
