"""Makes a judge from the value of ``--judge``; imports only the module of that judge."""

from __future__ import annotations

import json
from pathlib import Path

from harness import error_location, registry, user_code
from harness.errors import BadInput
from harness.grading.judges.judgement import FORMS, Judge


def open_judge(spec: str, protocol: str = "alpacaeval-1", keep: Path | None = None) -> Judge:
    """The judge of ``NAME[:ARGUMENT]`` or ``FILE.py[:ARGUMENT]``.

    ============================  ======================================================================
    ``openai:MODEL[@URL]``        any OpenAI-compatible server; URL defaults to ``OPENAI_BASE_URL``
    ``hf:DIR_OR_ID``              a local Hugging Face model, run by transformers
    ``replay:FILE``               recorded judgements in alpaca_eval's annotation format
    ``longest``                   the longer response wins (plumbing only)
    ``micro``                     the rules of the micro world, for its own instructions
    ============================  ======================================================================

    The first two take settings after commas, ``openai:m@https://host/v1,key_env=HOST_KEY,max_tokens=4096``: the
    fields of :class:`harness.grading.judges.answering.ServerOptions` and
    :class:`harness.grading.judges.answering.LocalOptions`. ``protocol`` names how they are asked (see
    ``judge_protocols``) unless the settings do; ``keep`` is the folder of their answers.
    Raises BadInput for an unknown name, or an argument that the judge cannot use.
    """
    name, argument = split(spec)
    try:
        judge_class = registry.find(registry.JUDGES, name)
    except BadInput as error:
        raise BadInput(f"--judge {spec!r} is not a judge: {error}; the forms are {FORMS}") from None
    with error_location.faults_as(BadInput, called=judge_class):
        judge = judge_class.open(argument, protocol, keep)
        if (code := user_code.identity(judge_class)) != user_code.OURS:
            judge.code = code  # the protocol covers it, see Task.grader_identity
            check_identity(judge)
    return judge


def check_identity(judge: Judge) -> str:
    """The identity as JSON. Raises BadInput for one that is empty or no JSON."""
    where = error_location.of(type(judge))
    identity = judge.identity()
    try:
        as_text = json.dumps(identity, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{where}: identity is not JSON ({error}); return a dict of texts and numbers") from None
    if not isinstance(identity, dict) or not identity:
        raise BadInput(f"{where}: identity is empty; return everything that determines the judge's verdicts, as a dict")
    return as_text


def split(spec: str) -> tuple[str, str]:
    """The name or file of a judge, and its argument."""
    path, suffix, rest = spec.partition(".py:")
    if suffix and ":" not in path:
        return f"{path}.py", rest
    return (spec, "") if spec.endswith(".py") and ":" not in spec else (spec.partition(":")[0], spec.partition(":")[2])
