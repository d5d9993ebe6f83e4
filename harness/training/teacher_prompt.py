"""The teacher's own prompt, see :class:`harness.method.Asking`: a template over the fields of an example.

The teacher reads the same response after another prompt. Responses are equal token by token, so the two sides
stay aligned whatever the prompts are.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import replace

from harness.errors import BadInput
from harness.method import Asking
from harness.types import Example, Prompt


def fields_of(example: Example) -> dict[str, str]:
    """The fields for a template: the prompt, the reference response, and the other columns of the row."""
    known = {**example.columns, "prompt": example.prompt.user}
    return known if example.response is None else known | {"response": example.response}


def names_in(template: str) -> list[str]:
    """The fields that a template names. Raises BadInput for a malformed one, or one that names anything but fields."""
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise BadInput(f"the template of the teacher's prompt is malformed ({error}); write {{{{ for a brace") from None
    for name in names:
        if not name.isidentifier():
            raise BadInput(f"the template of the teacher's prompt names {{{name}}}; name a field, such as {{prompt}}")
    return names


def check(asking: Asking, examples: Sequence[Example], what: str) -> None:
    """Raises BadInput for a template field that an example lacks, before any work."""
    names = names_in(asking.template)
    for example in examples:
        known = fields_of(example)
        if lacking := [name for name in names if name not in known]:
            raise BadInput(
                f"the template of the teacher's prompt names {{{lacking[0]}}}, which {what} {example.id} lacks; it has "
                f"{', '.join(sorted(known))}"
            )


def prompt_for(example: Example, asking: Asking) -> Prompt:
    """The prompt under which the teacher reads the response to an example."""
    fields = fields_of(example)
    plain = asking.template.format_map(fields | {"prompt": example.prompt.plain})
    return replace(example.prompt, user=asking.template.format_map(fields), plain=plain)
