"""Random two-layer models, a byte tokenizer and a few prompts: everything that training needs, in milliseconds."""

import collections
import contextlib
import copy
import gc
import io
import json
import os
import pickle
import sys
from pathlib import Path

import pytest

os.environ.setdefault("HARNESS_PLUGINS", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are tiny: a second thread only waits for the first


# The files that take longest, in seconds of CPU; `make test` begins with them, so that its workers end together.
LONG = (
    "invariance", "launch", "safety", "signals", "hostile_files", "architecture", "objectives", "wheel", "examples",
    "rerun", "bench", "resume", "faults", "traps", "pairs", "statistics", "reproduce",
)  # fmt: skip


def pytest_collection(session):
    """Collects no garbage while the tests are imported: all that they import stays."""
    gc.disable()


def pytest_collection_modifyitems(config, items):
    """Orders files for xdist's workers: those of LONG, then the others by their number of tests."""
    if not hasattr(config, "workerinput"):
        return
    rank = {f"test_{name}": number for number, name in enumerate(LONG)}
    tests = collections.Counter(item.path for item in items)
    items.sort(key=lambda item: (rank.get(item.path.stem, len(rank)), -tests[item.path], item.path))


def pytest_collection_finish(session):
    """Leaves what is imported by now to itself: garbage collection would walk through millions of objects each time."""
    gc.freeze()
    gc.enable()


def byte_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {c: i for i, c in enumerate([*alphabet, "<eos>", "<pad>"])}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<pad>")


def tiny_model(folder: Path, seed: int, hidden: int = 24, vocab: int = 264, tied: bool = False) -> Path:
    """A random Llama in ``folder``; its embedding is padded beyond the tokenizer, as real checkpoints are."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        tie_word_embeddings=tied,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def copies(model):
    """A function that returns deep copies of ``model``, several times as fast as :func:`copy.deepcopy`.

    The model without its tensors is pickled once; each copy reads it and clones the tensors.
    """
    import torch

    places, tensors, skeleton = {}, [], io.BytesIO()

    def place(part):
        """Of a tensor among the tensors; tied weights have one. Anything else is pickled."""
        if not isinstance(part, torch.Tensor):
            return None
        if id(part) not in places:
            places[id(part)] = len(tensors)
            tensors.append(part)
        return places[id(part)]

    pickler = pickle.Pickler(skeleton, protocol=5)
    pickler.persistent_id = place
    pickler.dump(model)

    def copied():
        fresh = [copy.deepcopy(tensor) for tensor in tensors]
        skeleton.seek(0)
        unpickler = pickle.Unpickler(skeleton)
        unpickler.persistent_load = fresh.__getitem__
        return unpickler.load()

    return copied


@contextlib.contextmanager
def disk_not_waited_for():
    """Tests kill processes, never the machine: what is written need not reach the disk, which takes 4 ms each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_files():
    """Without transformers among the imports of the chosen tests no weights are read, and it is not imported."""
    copied = reading_once() if "transformers" in sys.modules else contextlib.nullcontext()
    with disk_not_waited_for(), trying_once(), copied:
        yield


@contextlib.contextmanager
def trying_once():
    """A method of ours, which the harness tries before every run, is tried once for each of its settings."""
    from harness import method_probe

    found, plain = {}, method_probe.probe

    def probe(method, *sizes):
        kind = type(method)
        if not kind.__module__.startswith("harness.methods."):
            return plain(method, *sizes)
        key = (kind, repr(method.config), sizes)
        if key not in found:
            found[key] = list(plain(method, *sizes))
        return iter(found[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(method_probe, "probe", probe)
        yield


@contextlib.contextmanager
def reading_once():
    """A folder is read from disk once for each of its states; whoever loads its model or tokenizer gets a copy.

    transformers takes 70 ms to read two layers, and most of the trainings here start from the same few models.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    plain = {"dtype", "output_loading_info", "trust_remote_code", "weights_only"}

    def once(read, copying):
        known = {}

        def from_pretrained(folder, **kwargs):
            if not Path(folder).is_dir() or kwargs.keys() - plain:
                return read(folder, **kwargs)
            state = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(Path(folder).iterdir())]
            key = (str(folder), repr(sorted(kwargs.items(), key=str)), repr(state))
            if key not in known:
                known[key] = copying(read(folder, **kwargs))
            return known[key]()

        return from_pretrained

    with pytest.MonkeyPatch.context() as patch:
        for kind, copying in (
            (AutoModelForCausalLM, copies),
            (AutoTokenizer, lambda tokenizer: lambda: copy.deepcopy(tokenizer)),
        ):
            patch.setattr(kind, "from_pretrained", once(kind.from_pretrained, copying))
        yield


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> tuple[Path, Path]:
    """(student, teacher) folders of random models with one tokenizer and different widths."""
    root = tmp_path_factory.mktemp("models")
    return tiny_model(root / "student", 0, 16, 260), tiny_model(root / "teacher", 1, 24, 264)


@pytest.fixture(scope="session")
def prompts_file(tmp_path_factory) -> Path:
    """Twelve prompts with responses of unequal length."""
    return write_prompts(tmp_path_factory.mktemp("data") / "prompts.jsonl")


def write_prompts(path: Path) -> Path:
    rows = [{"prompt": f"{'ab' * (i % 4)} {i}:", "response": f"line {i}\n{'x' * (i % 5)}."} for i in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def tiny_world(models, prompts_file, tmp_path, monkeypatch):
    """Data of four items for the parity plugin, and ``recipe(rest)``: writes ``tiny.toml`` and returns its path.

    ``rest`` is TOML that goes on in the ``[data]`` table. The models and prompts are shared by the whole session
    unless others are given; the data and the recipe are the test's own and may be damaged.
    """
    (tmp_path / "data/parity").mkdir(parents=True)
    (tmp_path / "data/parity/test.jsonl").write_text("".join(f'{{"number": {i}}}\n' for i in range(4)))
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))

    def recipe(rest: str, models: tuple[Path, Path] = models, prompts: Path = prompts_file) -> Path:
        path = tmp_path / "tiny.toml"
        path.write_text(
            f"[models]\nstudent = '{models[0]}'\nteacher = '{models[1]}'\n"
            f"[data]\nprompts = '{prompts}'\nlabelled = '{prompts}'\n" + rest
        )
        return path

    return recipe


@pytest.fixture
def no_hub(monkeypatch):
    """A hub that gives nothing, and fails the test that asks it for weights."""

    def snapshot_download(repository, allow_patterns=None, local_files_only=False, **_):
        if local_files_only:
            raise OSError("not in the cache")
        assert allow_patterns and not any("safetensors" in p or "bin" in p for p in allow_patterns), repository
        raise OSError("no hub here")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr("harness.data.unreached", lambda url: "")
