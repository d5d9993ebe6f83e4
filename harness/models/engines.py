"""Opens a generator for a model: in this process from its files, behind an engine, or a served model by its name."""

from __future__ import annotations

import atexit
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.models import engine_choice, loading
from harness.models.engine_choice import EngineChoice
from harness.models.files import SERVED, ModelFiles, content_hash, declared, load_tokenizer, template_hash
from harness.models.generate import Generator
from harness.models.generation_cache import CachedGenerator
from harness.models.openai_client import OpenAIClient
from harness.models.remote_engine import RemoteEngine, Server, Waiting
from harness.models.server_generator import ServerGenerator
from harness.models.vllm_server import KEY, REPLY_BYTES, RunningServer, VllmServer, client_at, started
from harness.recipe import TeacherLoading

DTYPE = "float32"
AS_IT_COMES = TeacherLoading()


def open_generator(
    files: ModelFiles,
    device: str,
    batch: int,
    keep: Path,
    *,
    again: bool = False,
    loaded: TeacherLoading = AS_IT_COMES,
    engine: EngineChoice | None = None,
    waiting: Waiting = lambda came, total: None,
) -> CachedGenerator:
    """The generator of a model with its cache in ``keep``; ``batch`` completions are generated together.

    A model in this process generates each text once. A server's model may change behind its name, so ``again`` asks
    the server again. An ``engine`` is started at the first text that is not cached. Raises BadInput for
    files that cannot be loaded.
    """
    if files.url is not None:
        generator = ServerGenerator(files.id.removeprefix(SERVED), files.url, batch, files.client)
        return CachedGenerator(generator, keep, {"served": files.id}, seeded=True, fresh=again)
    identity = {
        "weights": content_hash(files),
        "template": template_hash(files),
        "arithmetic": [
            loading.dtype_of(loaded, DTYPE),
            (loaded.device or device).partition(":")[0],
            *([loaded.quantization] if loaded.quantization else []),
        ],
    }
    if engine is not None:
        engine = engine_choice.with_dtype(engine, loading.dtype_of(loaded, DTYPE))
        identity |= {"engine": engine_choice.described(engine, "evaluation.engine")}
        own = remote(files, engine, loaded.device or device, keep.parent / "engines" / "vllm.log", waiting=waiting)
        if not engine.managed and engine.takes_weights:
            own.server = GivenServer(engine, files.path)
        return CachedGenerator(own, keep, identity, fresh=again and not engine.managed)
    model = loading.load(files, loaded, DTYPE, device)
    return CachedGenerator(Generator(model, load_tokenizer(files), batch), keep, identity)


def remote(
    files: ModelFiles,
    choice: EngineChoice,
    device: str,
    log: Path,
    *,
    words: int | None = None,
    top: int = 20,
    gather: Callable[[list[Any]], list[Any]] | None = None,
    leads: bool = True,
    waiting: Waiting = lambda came, total: None,
) -> RemoteEngine:
    """A model behind an engine; only its configuration and tokenizer are read here.

    For a server that the harness starts, ``top`` is the maximum number of log-probabilities per token, and ``gather``
    makes one server for all processes of a launch, started at once. Without it the server starts at the first request.
    """
    tokenizer = load_tokenizer(files)
    limit = loading.context_of(files)
    ends = {*declared(files, "eos_token_id")}

    def announce(what: str) -> None:
        waiting(0, 0)

    server: Server
    if gather is not None:
        server = shared(
            choice, files.path if leads else None, device, log, gather, limit=limit, top=top, waiting=announce
        )
    elif choice.managed:
        server = VllmServer(files.path, choice, device, log, limit, top, announce)
    else:
        server = running(choice)
    return RemoteEngine(server, tokenizer, ends, limit, words, waiting)


def running(choice: EngineChoice) -> RunningServer:
    """The server of a choice that names one."""
    return RunningServer(_client(choice), choice.kind, choice.server.requests)


class GivenServer(RunningServer):
    """A running server, which gets the weights of the model in ``path`` before its first request."""

    def __init__(self, choice: EngineChoice, path: Path):
        super().__init__(_client(choice), choice.kind, choice.server.requests)
        self.path, self.folder, self.loaded = path, Path(choice.server.weights or "") / "measured", False

    def ready(self) -> None:
        if not self.loaded:
            shutil.rmtree(self.folder, ignore_errors=True)
            shutil.copytree(self.path, self.folder)
            self.load(self.folder)
            shutil.rmtree(self.folder, ignore_errors=True)
            self.loaded = True


def _client(choice: EngineChoice) -> OpenAIClient:
    assert choice.url is not None, "a server that runs already has an address"
    return OpenAIClient(choice.name, choice.url, choice.server, choice.word, REPLY_BYTES)


def shared(
    choice: EngineChoice,
    model: Path | None,
    device: str,
    log: Path,
    gather: Callable[[list[Any]], list[Any]],
    *,
    limit: int | None,
    top: int = 20,
    waiting: Callable[[str], None] = lambda what: None,
    reloaded: bool = False,
) -> Server:
    """One server for all processes of a launch. A collective: the process that has a ``model`` starts it."""
    if not choice.managed:
        return running(choice)
    own = None
    if model is not None:
        own = VllmServer(model, choice, device, log, limit, top, waiting, reloaded)
        own.start()
    own_address = (f"http://127.0.0.1:{own.port}/v1", os.environ[KEY]) if own is not None else None
    url, key = next(address for address in gather([own_address]) if address is not None)
    if own is not None:
        return own
    os.environ[KEY] = key
    return RunningServer(client_at(url), engine_choice.VLLM, choice.vllm.requests, returns=True)


def stop_servers() -> None:
    """Ends every server that this process started, also at its exit."""
    for server in list(started):
        server.stop()


atexit.register(stop_servers)
