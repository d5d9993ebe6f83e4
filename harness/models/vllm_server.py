"""Servers of engines: vLLM's, which the harness starts, gives weights, restarts and stops; and running ones.

The harness uses vLLM's OpenAI-compatible server, so that one client works for local and remote servers, several
processes of a launch can share it, and vLLM's pinned packages stay out of the harness' environment. New weights are a
folder in the transformers format: the server is asked over ``/collective_rpc`` to load them in place
(``reload_weights``, of vLLM's workers, on CPUs and GPUs alike). That costs one write and one read of the weights and no
code inside vLLM.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import math
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import safe_read
from harness.errors import BadInput, RunFailed
from harness.models import engine_choice
from harness.models.engine_choice import EngineChoice
from harness.models.openai_client import PATIENT_S, ClientOptions, OpenAIClient, Unanswered

NAME = "model"  # the model name that it serves
LAUNCH = Path(__file__).with_name("vllm_launch.py")
LOOK_S = 1.0  # between two checks whether it answers
GRACE_S = 15.0  # until a server whose engine died stops by itself
HEALTH_S = 60.0  # for the health check, enough for busy cores
RETURN_S = 600.0  # for another process to restart its server
KEY = "HARNESS_VLLM_KEY"  # environment variable with the key of this process' servers
REPLY_BYTES = 400_000_000  # bytes of one answer: the likeliest tokens for every token of a long text
LAUNCHERS = re.compile(r"(\w+_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)|(TORCHELASTIC|ACCELERATE|FSDP)_.*")
ERROR = re.compile(r"\b(?:[A-Za-z]*Error|[A-Za-z]*Exception): .+")


started: set[VllmServer] = set()  # started by this process and not stopped yet; harness.models.engines stops them


class VllmServer:
    """The server of one model. ``limit`` is its context in tokens, ``top`` the maximum of log-probabilities per token.

    ``reloaded``: it gets new weights while it runs.
    """

    kind = engine_choice.VLLM

    def __init__(
        self,
        model: Path,
        choice: EngineChoice,
        device: str,
        log: Path,
        limit: int | None = None,
        top: int = 20,
        waiting: Callable[[str], None] = lambda what: None,
        reloaded: bool = False,
    ):
        self.reloaded = reloaded
        self.options, self.device, self.log = choice.vllm, device, log
        self.model = model
        self.limit, self.top, self.waiting, self.requests = limit, top, waiting, choice.vllm.requests
        self.restarts = 0
        self.process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]  # fixed across restarts, so that other processes find it again
        os.environ.setdefault(KEY, secrets.token_hex(16))
        self.client = client_at(f"http://127.0.0.1:{self.port}/v1")
        self.asleep = False

    def context(self) -> int | None:
        return self.limit

    def ready(self) -> None:
        if self.process is None:
            self.start()
        self.wake()

    def start(self) -> None:
        """Starts the server and returns when it answers. Raises RunFailed with the reason from its log."""
        self.model = self._fitted(self.model)
        self.asleep = False
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab" if self.restarts else "wb") as log:
            self.process = subprocess.Popen(
                [str(engine_choice.interpreter()), str(LAUNCH), *self._arguments()],
                stdin=subprocess.PIPE,  # closes when this process ends, which stops the server
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                start_new_session=True,
            )
        started.add(self)
        began = time.monotonic()
        while not answers(self.client):
            if self.process.poll() is not None:
                raise RunFailed(f"vLLM did not start: {self._reason()}; its log is {self.log}")
            if time.monotonic() - began > self.options.start_s:
                self.stop()
                raise RunFailed(
                    f"vLLM did not answer within start_s={self.options.start_s:g} seconds: {self._reason()}; give it "
                    f"longer (vllm,start_s=…), its log is {self.log}"
                )
            self.waiting("starting vLLM")
            time.sleep(LOOK_S)

    def stop(self) -> None:
        """Ends the server with all its processes."""
        started.discard(self)
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        self.process = None

    def load(self, folder: Path) -> None:
        """Gives it the weights of ``folder``, in the transformers format. Raises RunFailed if it refuses them."""
        self.ready()
        self.model = self._fitted(folder)
        try:
            load_weights(self.client, self.model)
        except RunFailed as trouble:
            if not self.revive(str(trouble)):  # a restarted server has them
                raise

    def sleep(self) -> None:
        """Frees its GPU memory: its cache, and its weights, which :meth:`load` restores."""
        alive = self.process is not None and self.process.poll() is None
        if self.options.sleep and alive and not self.asleep:
            call(self.client, "/sleep?level=1")
            self.asleep = True

    def wake(self) -> None:
        if self.asleep:
            call(self.client, "/wake_up")
            self.asleep = False

    def revive(self, trouble: str) -> bool:
        """Restarts a dead server with its last weights. False for one that is alive and only failed."""
        began = time.monotonic()
        while self.process is not None and self.process.poll() is None and time.monotonic() - began < GRACE_S:
            if answers(self.client):
                return False
            time.sleep(LOOK_S)
        reason = self._reason()
        self.stop()
        if self.restarts >= self.options.restarts:
            raise RunFailed(
                f"vLLM died {self.restarts + 1} times, at last of {reason}; its log is {self.log}; the same command "
                "goes on from the last checkpoint"
            )
        self.restarts += 1
        self.waiting("starting vLLM again")
        self.start()
        return True

    def _fitted(self, folder: Path) -> Path:
        return fitted_form(folder, self.log.parent, self.reloaded) if self.device == "cpu" else folder

    def _arguments(self) -> list[str]:
        own = self.options
        words = ["--model", str(self.model), "--served-model-name", NAME, "--host", "127.0.0.1"]
        words += ["--port", str(self.port)]
        # Ignore the model's own generation_config: the harness says how every text is sampled. Keep no
        # prefixes of prompts: they would come from old weights.
        words += ["--generation-config", "vllm", "--no-enable-prefix-caching", "--max-logprobs", str(self.top)]
        words += ["--dtype", own.dtype or "auto", "--max-num-seqs", str(own.requests), "--seed", "0"]
        words += ["--max-model-len", str(self.limit)] if self.limit else []
        words += ["--enforce-eager"] if own.eager or self.device == "cpu" else []
        if self.device != "cpu":
            words += ["--gpu-memory-utilization", str(own.memory)]
            words += ["--enable-sleep-mode"] if own.sleep else []
        for name in ("tensor_parallel", "data_parallel"):
            if (size := getattr(own, name)) > 1:
                words += [f"--{name.replace('_', '-')}-size", str(size)]
        return words

    def _environment(self) -> dict[str, str]:
        """The environment without the variables of a multi-process launcher, which vLLM would take for its own."""
        environment = {key: value for key, value in os.environ.items() if not LAUNCHERS.fullmatch(key)}
        environment |= {"VLLM_SERVER_DEV_MODE": "1", "VLLM_API_KEY": os.environ[KEY], "VLLM_NO_USAGE_STATS": "1"}
        environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        if self.options.gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self.options.gpus.replace("+", ",")
        if self.device == "cpu":
            # vLLM aborts a forward pass after 300 seconds and a start after 600. On busy cores, a
            # prefill of many prompts takes longer, and a working server would die.
            patient = {"VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": f"{PATIENT_S:.0f}"}
            patient["VLLM_ENGINE_READY_TIMEOUT_S"] = f"{self.options.start_s:.0f}"
            # g++ would compile its sampler at the first text, eager or not: minutes on such cores. Its worker
            # would be a separate process, which imports everything again and is waited for in a busy loop.
            lean = {"TORCH_COMPILE_DISABLE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
            if self.options.tensor_parallel == self.options.data_parallel == 1:
                lean["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
            environment = {**lean, **patient} | environment
        return environment

    def _reason(self) -> str:
        """The last error in its log, on one line, or the signal that killed it."""
        code = None if self.process is None else self.process.poll()
        if code == -signal.SIGKILL:
            return "signal 9, which the system sends if memory runs out"
        try:
            text = self.log.read_bytes()[-200_000:].decode("utf-8", "replace")
        except OSError:
            return "it left no log"
        errors = [m.group(0) for line in text.splitlines() if (m := ERROR.search(line))]
        # The engine's own error comes first; later lines only repeat that the engine failed.
        own = [one for one in errors if not re.search(r"Engine core|EngineDead|See root cause", one)]
        last = (own or errors or text.splitlines()[-1:] or ["it said nothing"])[-1]
        return "".join(c if c.isprintable() else " " for c in last)[:200]


class RunningServer:
    """A server started elsewhere. ``returns``: a process of this launch restarts it if it dies."""

    def __init__(self, client: OpenAIClient, kind: str, requests: int, returns: bool = False):
        self.client, self.kind, self.requests, self.returns, self.restarts = client, kind, requests, returns, 0

    def context(self) -> int | None:
        try:
            served = self.client.request("/models", None, lambda reply: json.loads(reply)["data"])
            room = next(one.get("max_model_len") for one in served if one["id"] == self.client.model)
        except (Unanswered, ValueError, LookupError, TypeError, AttributeError, StopIteration):
            return None
        return room if isinstance(room, int) else None

    def ready(self) -> None: ...

    def revive(self, trouble: str) -> bool:
        began = time.monotonic()
        while self.returns and time.monotonic() - began < RETURN_S:
            time.sleep(LOOK_S)
            if answers(self.client):
                return True
        return False

    def load(self, folder: Path) -> None:
        load_weights(self.client, folder)

    def sleep(self) -> None: ...

    def stop(self) -> None: ...


def client_at(url: str) -> OpenAIClient:
    """The client of a server that the harness started."""
    options = ClientOptions(key_env=KEY, timeout_s=PATIENT_S, retries=1, backoff_s=0.2)
    return OpenAIClient(NAME, url, options, engine_choice.VLLM, REPLY_BYTES)


def answers(client: OpenAIClient) -> bool:
    """Whether a vLLM server is up. The check is short, because callers have their own time limit."""
    client = copy.copy(client)
    client.options = dataclasses.replace(client.options, timeout_s=HEALTH_S, retries=0)
    try:
        return client.request("/health", None, lambda reply: True, below_base=False)
    except Unanswered:
        return False


def load_weights(client: OpenAIClient, folder: Path) -> None:
    """Makes a vLLM server load the weights of ``folder`` in place. Raises RunFailed if it does not."""
    body = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
    try:
        client.request("/collective_rpc", body, lambda reply: None, below_base=False)
    except Unanswered as trouble:
        hint = "; start it with VLLM_SERVER_DEV_MODE=1" if "404" in str(trouble) else ""
        raise RunFailed(f"the engine {client.model} did not take the new weights: {trouble}{hint}") from None


def call(client: OpenAIClient, path: str) -> None:
    """POSTs an empty body to ``path``. Raises RunFailed if the server refuses it."""
    try:
        client.request(path, {}, lambda reply: None, below_base=False)
    except Unanswered as trouble:
        raise RunFailed(f"the engine {client.model} refused {path}: {trouble}") from None


# The equivalent model that vLLM's CPU backend can serve: wider attention heads, and a separate output head.
#
# Its attention supports heads of 32 numbers and more. A head of d numbers becomes one of D = r d. Number i of each
# rotary half moves to r i of the new half, where the rotation has the same frequency: theta^(-2i/d) = theta^(-2ri/D).
# All other numbers are 0. Queries grow by sqrt(r), since the kernel divides by sqrt(D).
#
# Its matrix products keep packed copies of their weights. New weights are packed again (``reload_weights``), but not
# for an output head that is tied to the embedding: it would keep the initial weights. A model that gets new weights is
# therefore untied. Its results are the same up to rounding; GPUs need none of this.

FORM_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)  # of vLLM 0.32's attention on CPUs
FORM_KIND = "llama"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
FORM_PARTS = ("q_proj", "k_proj", "v_proj")


def check_form(folder: Path, name: str, where: str) -> None:
    """Raises BadInput for a model whose heads vLLM does not support on a CPU, and that cannot get wider ones."""
    config = _config(folder)
    size = _size(config)
    if size not in FORM_SIZES and (config.get("model_type") != FORM_KIND or _wider(size) is None):
        raise BadInput(
            f"{where}: on a CPU vLLM knows attention heads of {', '.join(map(str, FORM_SIZES))} numbers, and {name} "
            f"has heads of {size}; leave the engine out, or use a GPU"
        )


def fitted_form(folder: Path, scratch: Path, reloaded: bool) -> Path:
    """``folder``, or a copy of it below ``scratch`` that vLLM serves on a CPU. ``reloaded``: it gets new weights."""
    config = _config(folder)
    size = _size(config)
    wide = size if size in FORM_SIZES else _wider(size) or size
    tied = reloaded and config.get("tie_word_embeddings", True)
    if wide == size and not tied:
        return folder
    from safetensors.torch import load_file, save_file

    served = scratch / f"{folder.name}-served"
    shutil.rmtree(served, ignore_errors=True)
    served.mkdir(parents=True)
    for file in folder.iterdir():
        if file.is_file() and file.suffix != ".safetensors" and not file.name.endswith(".index.json"):
            shutil.copyfile(file, served / file.name)
    weights: dict[str, Any] = {}
    for file in sorted(folder.glob("*.safetensors")):
        weights |= load_file(file)
    if wide != size:
        weights = {name: _widened(name, tensor, size, wide) for name, tensor in weights.items()}
        config["head_dim"] = wide
    if tied and EMBEDDING in weights:
        weights.setdefault(HEAD, weights[EMBEDDING].clone())
        config["tie_word_embeddings"] = False
    save_file(weights, served / "model.safetensors", {"format": "pt"})
    (served / "config.json").write_text(json.dumps(config), "utf-8")
    return served


def _widened(name: str, tensor: Any, size: int, wide: int) -> Any:
    """A weight or bias of the projections with the numbers of every head at their new places; any other unchanged."""
    part, half, ratio = name.split(".")[-2], size // 2, wide // size
    places = [ratio * i + (0 if i < half else wide // 2 - ratio * half) for i in range(size)]
    if part in FORM_PARTS:
        heads = tensor.unflatten(0, (-1, size))
        grown = heads.new_zeros(heads.shape[0], wide, *heads.shape[2:])
        grown[:, places] = heads * (math.sqrt(ratio) if part == "q_proj" else 1.0)
        return grown.flatten(0, 1)
    if part == "o_proj" and tensor.dim() == 2:
        heads = tensor.unflatten(1, (-1, size))
        grown = heads.new_zeros(heads.shape[0], heads.shape[1], wide)
        grown[:, :, places] = heads
        return grown.flatten(1, 2).contiguous()
    return tensor


def _wider(size: int) -> int | None:
    """The smallest size that vLLM supports and that is a multiple of ``size``."""
    return next((known for known in FORM_SIZES if known % size == 0), None) if size % 2 == 0 else None


def _size(config: dict[str, Any]) -> int:
    config = config.get("text_config") or config
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def _config(folder: Path) -> dict[str, Any]:
    return safe_read.value(safe_read.content(folder / "config.json", safe_read.RECORD), finite=False)
