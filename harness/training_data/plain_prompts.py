"""Prompts for a model without a chat template, in the plain form of a recipe, and a comparison with a task's form.

Rows contain questions, not texts to continue. Concatenated, question and answer run into each other; and a
student trained on one form and evaluated on another reads texts that it has never seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.errors import BadInput
from harness.types import Example, Prompt

if TYPE_CHECKING:
    from harness.models.chat_format import TextCodec

PLACE = "{prompt}"  # the place of the prompt in a form
MARK = "harness-mark"
SHOWN = 120  # characters of a form in a message


def written(examples: Sequence[Example], form: str) -> list[Example]:
    """The examples with their plain text in a form, the system text in front.

    A conversation of several turns has its own form, with the roles written out. Raises BadInput for a form in
    which the prompt appears nowhere, or twice.
    """
    if form.count(PLACE) != 1:
        raise BadInput(f"data.plain={form!r} must contain {PLACE} once, the place of the prompt")
    return [replace(example, prompt=_in_form(example.prompt, form)) for example in examples]


def _in_form(prompt: Prompt, form: str) -> Prompt:
    plain = prompt.plain if prompt.history else form.replace(PLACE, prompt.user)
    return replace(prompt, plain=f"{prompt.system}\n\n{plain}" if prompt.system else plain)


def differences(trained: Prompt, task_prompt: Prompt, codec: TextCodec) -> Iterator[str]:
    """One line on how the form of a training prompt differs from a task's prompt, and the fix."""
    if codec.tokenizer.chat_template is None:
        yield from _plain_forms(trained, task_prompt)
    elif not task_prompt.chat:
        yield "trained on chat turns but evaluated on plain text, as the task's protocol requires"
    else:
        ours, theirs = (codec.render(Prompt(user=MARK, plain="", system=p.system)) for p in (trained, task_prompt))
        if ours != theirs:
            yield (
                f"trained with {_system(trained)} but evaluated with {_system(task_prompt)}; "
                + (f"set data.system={task_prompt.system!r}" if task_prompt.system else "remove data.system")
                + " to train as evaluated"
            )


def _plain_forms(trained: Prompt, task_prompt: Prompt) -> Iterator[str]:
    ours, theirs = (_form(prompt) for prompt in (trained, task_prompt))
    message = f"trained on the form {_short(ours or trained.plain)} but evaluated"
    if theirs is None:
        yield f"{message} on the task's own form of text, {_short(task_prompt.plain)}"
    elif ours != theirs:
        yield f"{message} on the form {_short(theirs)}; set data.plain to it to train as evaluated"


def _form(prompt: Prompt) -> str | None:
    """The plain text with the place of the prompt in it; None if it does not contain the prompt unchanged."""
    if prompt.history or prompt.user not in prompt.plain:
        return None
    return prompt.plain.replace(prompt.user, PLACE, 1)


def _system(prompt: Prompt) -> str:
    return f"the system turn {_short(prompt.system)}" if prompt.system else "no system turn"


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…")
