"""From the words of ``--judge`` to a judge; each kind is imported only when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.grading.judges.judgement import FORMS, Longest


def open_judge(spec: str, protocol: str = "alpacaeval-1", keep: Path | None = None) -> Any:
    """The judge that ``spec`` names.

    ============================  ======================================================================
    ``openai:MODEL[@URL]``        any OpenAI-compatible server; URL defaults to ``OPENAI_BASE_URL``
    ``hf:DIR_OR_ID``              a local Hugging Face model, run by transformers
    ``replay:FILE``               recorded judgements in alpaca_eval's annotation format
    ``longest``                   the longer response wins (plumbing only)
    ============================  ======================================================================

    The first two take settings after commas, ``openai:m@https://host/v1,key_env=HOST_KEY,max_tokens=4096``: the
    fields of :class:`harness.grading.judges.server.ServerOptions` and
    :class:`harness.grading.judges.local.LocalOptions`. ``protocol`` names how they are asked (see
    ``judge_protocols``) unless the settings do; ``keep`` is the folder of their answers.
    Raises BadInput for any other form.
    """
    kind, _, rest = spec.partition(":")
    if spec == "longest":
        return Longest()
    if not rest:
        raise BadInput(f"--judge {spec!r} is not a judge; the forms are {FORMS}")
    if kind == "replay":
        from harness.grading.judges.replay import Replay

        return Replay(Path(rest))
    if kind in ("openai", "hf"):
        from harness.grading.judges.models import open_model_judge

        return open_model_judge(kind, rest, protocol, keep)
    raise BadInput(f"--judge {spec!r}: unknown kind {kind!r}; the forms are {FORMS}")
