"""A recipe: who teaches whom, on what data, with which budget. TOML in, frozen dataclasses out, no logic.

Precedence: defaults here < the recipe file < ``--set key=value``. Every key is checked; an unknown one is
refused with the nearest known ones. The resolved whole is written into every record.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from harness import safe_read
from harness.errors import BadInput, unknown
from harness.options import build, option

ENGINES = "in-process, vllm, vllm:NAME@URL or openai:NAME@URL, settings behind commas: docs/scale-out.md"
WORLDS = ("real", "micro", "derivations")  # where a bare task name leads: the benchmark, or generated problems


@dataclass(frozen=True)
class Models:
    student: str = option("micro:student", "hub id, folder, or micro:student")
    teacher: str = option("micro:teacher", "hub id, folder, or micro:teacher")
    trust_remote_code: bool = option(False, "run Python code that a model's folder brings (auto_map); recorded if so")
    template: str = option(
        "teacher",
        "the format in which student and teacher are asked: that of the teacher (where it has a chat template), of the "
        "student, none (plain text), or a file with a Jinja template",
    )
    thinking: bool | None = option(None, "sets enable_thinking of chat templates that read it, as Qwen3's does")


@dataclass(frozen=True)
class DataSources:
    """Prompts that only the teacher answers, and labelled examples with reference responses."""

    prompts: str = option(
        "micro:prompts",
        "micro:prompts or micro:FAMILY/prompts, a file (.jsonl, .json, .parquet, .csv, .tsv), a folder, data:PATH "
        "below HARNESS_DATA, or owner/name of the hub; behind commas config=, split=, revision= and first=N",
    )
    labelled: str = option("micro:labelled", "the same forms; every row needs a response")
    validation: str | None = option(None, "the same forms; held-out examples for the methods that validate")
    prompt_field: str | None = option(None, "the column of the prompt; by default prompt, question, instruction, …")
    response_field: str | None = option(None, "the column of the response; by default response, completion, answer, …")
    messages_field: str | None = option(None, "the column of conversations; by default messages or conversations")
    system_field: str | None = option(
        None, "the column of a row's system turn; by default system or system_prompt; empty: none is read"
    )
    teacher_field: str | None = option(None, "the column that names a row's teacher, where there are several")
    system: str | None = option(None, "system turn put before every prompt of a file that has none of its own")
    plain: str = option(
        "{prompt}\n",
        "how a prompt of a file is written for a model without a chat template; {prompt} stands for its text, and a "
        "system text goes in front",
    )
    empty: str = option(
        "refuse", "rows without a prompt or an answer: refuse, or skip and count", choices=("refuse", "skip")
    )
    contaminated: str = option(
        "refuse",
        "examples that hold a whole problem of a task that is measured: refuse, drop them, or keep them and record it",
        choices=("refuse", "drop", "keep"),
    )
    limit: int | None = option(None, "only the first n rows of prompts, of labelled and of validation data", low=1)
    grader: str | None = option(
        None, "a task whose format the rows of prompts have: its grader judges answers to them in training"
    )


@dataclass(frozen=True)
class Adapter:
    """What of the student is trained: all of its weights, or an adapter beside them, which stay as they are."""

    adapter: str = option("none", "none trains all weights; lora and dora need peft", choices=("none", "lora", "dora"))
    rank: int = option(16, "rank of the adapter's matrices", low=1, source="DistiLLM-2, app. C")
    alpha: float = option(32.0, "the update counts alpha / rank times", low=0)
    dropout: float = option(0.0, "of the adapter's input, in training passes only", low=0, high=0.99)
    targets: tuple[str, ...] = option(
        ("all-linear",), "modules that get an adapter, by the end of their names; all-linear: all but the output head"
    )


@dataclass(frozen=True)
class TeacherLoading:
    """How the teacher is loaded; what is not set is as the student's training has it."""

    dtype: str | None = option(
        None, "of its weights; default: training.precision", choices=("float32", "bfloat16", "float16")
    )
    device: str | None = option(None, "cpu, cuda:1, …: default: the device of the run")
    quantization: str | None = option(
        None,
        "weights quantised while they are loaded; a checkpoint that comes quantised (GPTQ, AWQ, …) needs no setting",
        choices=("bnb-4bit", "bnb-8bit", "torchao-int8", "torchao-int4"),
    )
    engine: str | None = option(
        None, f"where it lives if not in this process, which then reads none of its weights: {ENGINES}"
    )
    name: str = option("teacher", "of models.teacher among several teachers")
    weight: float = option(1.0, "of models.teacher in the mixture of several teachers", low=0)


@dataclass(frozen=True)
class FurtherTeacher:
    """A teacher beside that of models.teacher; what is not set is as [teacher] has it."""

    model: str = option("", "hub id or folder")
    weight: float = option(1.0, "in the mixture of all teachers", low=0)
    dtype: str | None = option(None, "see teacher.dtype", choices=("float32", "bfloat16", "float16"))
    device: str | None = option(None, "see teacher.device")
    quantization: str | None = option(
        None, "see teacher.quantization", choices=("bnb-4bit", "bnb-8bit", "torchao-int8", "torchao-int4")
    )
    engine: str | None = option(None, "see teacher.engine")


@dataclass(frozen=True)
class Training:
    steps: int = option(300, "optimizer steps; replaces training.epochs", low=0)
    epochs: float | None = option(None, "passes over the examples, in place of training.steps", low=0)
    batch: int = option(32, "prompts per optimizer step, over all processes", low=1)
    micro_batch: int = option(32, "sequences per forward pass, at most", low=1)
    micro_tokens: int | None = option(
        None, "tokens per forward pass, padding included: sequences of like length share one", low=1, before=None
    )
    optimizer: str = option(
        "adamw",
        "adamw is fused on a GPU, adamw_fused everywhere; muon: for the matrices inside, AdamW for the rest",
        choices=("adamw", "adamw_fused", "sgd", "adafactor", "muon", "adamw8bit"),
        before="adamw",
    )
    momentum: float = option(0.9, "of sgd and muon", low=0, high=1)
    learning_rate: float = option(1e-3, "peak learning rate", low=0)
    warmup: float = option(0.05, "share of the steps with rising learning rate", low=0, high=1)
    schedule: str = option("cosine", "after warm-up; constant has none", choices=("cosine", "linear", "constant"))
    weight_decay: float = option(0.0, "weight decay; decoupled but for sgd", low=0)
    decay_norms: bool = option(True, "whether the decay also shrinks norm weights and biases; False spares them")
    clip: float = option(1.0, "largest gradient norm; 0 does not clip", low=0)
    precision: str = option("float32", "of the forward passes and of sampling", choices=("float32", "bfloat16"))
    master_weights: str = option(
        "model",
        "where the float32 weights are: in the model; in the optimizer, beside a bfloat16 model; none: bfloat16 alone",
        choices=("model", "optimizer", "none"),
        before="model",
    )
    signal: str = option(
        "live",
        "the teacher's distribution: live (its forward passes), hidden or top-k (on fixed text from a cache), or a "
        "signal of your own by name or file; harness list signals",
    )
    top_k: int = option(64, "tokens of a top-k signal; the rest of the mass is one bucket", low=1)
    max_tokens: int = option(2048, "longest prompt + response; longer responses are cut, counted, and warned of", low=2)
    gradient_checkpointing: bool = option(
        False, "computes a layer's activations again in the backward pass instead of keeping them: same gradients"
    )
    divergence_every: int | None = option(
        None,
        "optimizer steps between measurements of the forward KL from the teacher on data.validation, and once at the "
        "end (0: only there); none measures nothing",
        low=0,
    )
    checkpoint_every: int = option(100, "optimizer steps between checkpoints; 0 keeps none", low=0)
    threads: int = option(0, "CPU threads of torch; 0 leaves it to torch", low=0)


@dataclass(frozen=True)
class Sampling:
    """How training text is sampled. Never touches the loss: objectives have a temperature of their own."""

    temperature: float = option(1.0, "sampling temperature; 0 is greedy", low=0)
    top_p: float = option(1.0, "nucleus", low=0, high=1)
    max_new_tokens: int = option(512, "longest response", low=1)


@dataclass(frozen=True)
class Rollout(Sampling):
    dtype: str | None = option(
        None,
        "of the weights that sample from the student; default: training.precision",
        choices=("float32", "bfloat16", "float16"),
        before=None,
    )
    engine: str = option("in-process", f"what samples the student: {ENGINES}", before="in-process")
    sync_every: int = option(
        1, "optimizer steps after which the engine gets the student's weights; its texts are as old", low=1, before=1
    )
    importance_cap: float | None = option(
        None,
        "weighs a token's objective by q / the engine's probability of it, at most this; none: engines differ by "
        "rounding alone",
        low=0,
        source="truncated importance sampling",
        before=None,
    )
    steps_together: int = option(
        1,
        "optimizer steps whose prompts are sampled together, with the weights of the first of them: more rows decode "
        "at once, and texts are up to so many steps old, less one (buffer_age on the card)",
        low=1,
        before=1,
    )


@dataclass(frozen=True)
class TeacherText(Sampling):
    engine: str | None = option(
        None, f"what writes the teacher's texts, if it is not where the teacher lives: {ENGINES}", before=None
    )


@dataclass(frozen=True)
class Evaluation:
    """Overrides of the tasks' own decoding. What is not set stays as the task's protocol says."""

    samples: int | None = option(None, "completions per problem", low=1)
    temperature: float | None = option(None, "sampling temperature", low=0)
    top_p: float | None = option(None, "nucleus", low=0, high=1)
    max_new_tokens: int | None = option(None, "longest completion", low=1)
    limit: int | None = option(None, "only the first n problems; enters the protocol", low=1)
    dtype: str = option(
        "float32",
        "of the weights that answer; another than float32 enters the protocol",
        choices=("float32", "bfloat16", "float16"),
    )
    batch: int = option(64, "completions decoded together; does not enter the protocol", low=1)
    engine: str = option("in-process", f"what answers, which enters the protocol: {ENGINES}")
    protocol: str | None = option(None, "a published protocol, for the tasks that have it; see harness show task NAME")
    judge: str | None = option(None, "judge of the instruction tasks, see harness run --help")


@dataclass(frozen=True)
class Before:
    """A training that comes first: the methods of the recipe start from its student (:mod:`harness.specification`)."""

    method: str | None = option(None, "method of the training that comes first, with its @variant; none: there is none")
    steps: int | None = option(None, "optimizer steps of it; default: training.steps", low=0)
    learning_rate: float | None = option(None, "of it; default: training.learning_rate", low=0)
    batch: int | None = option(None, "prompts per optimizer step of it; default: training.batch", low=1)


SECTIONS: dict[str, type] = {
    "models": Models,
    "student": Adapter,
    "teacher": TeacherLoading,
    "data": DataSources,
    "training": Training,
    "before": Before,
    "rollout": Rollout,
    "teacher_text": TeacherText,
    "evaluation": Evaluation,
}


@dataclass(frozen=True)
class Recipe:
    """``world`` says where a bare task name leads: ``micro`` to generated problems, ``real`` to the benchmark."""

    name: str
    world: str = "real"
    summary: str = ""
    models: Models = field(default_factory=Models)
    student: Adapter = field(default_factory=Adapter)
    teacher: TeacherLoading = field(default_factory=TeacherLoading)
    data: DataSources = field(default_factory=DataSources)
    training: Training = field(default_factory=Training)
    before: Before = field(default_factory=Before)
    rollout: Rollout = field(default_factory=Rollout)
    teacher_text: TeacherText = field(default_factory=TeacherText)
    evaluation: Evaluation = field(default_factory=Evaluation)
    method: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # settings per method name
    teachers: Mapping[str, FurtherTeacher] = field(default_factory=dict)  # beside models.teacher, by name


def names() -> list[str]:
    """The recipes that ship with the harness."""
    folder = resources.files("harness.recipes")
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))


def load(name_or_file: str) -> Recipe:
    """A shipped recipe by name, or any TOML file. Raises BadInput with file and line for a malformed one."""
    path = Path(name_or_file)
    if name_or_file.endswith(".toml") or path.is_file():
        if not path.is_file():
            raise BadInput(f"no recipe file at {name_or_file}")
        name = path.stem
        content = _bytes(path)
    elif name_or_file in names():
        name = name_or_file
        content = (resources.files("harness.recipes") / f"{name}.toml").read_bytes()
    else:
        raise unknown("recipe", name_or_file, names())
    try:
        if safe_read.depth(content) > safe_read.NESTING:
            raise ValueError(f"brackets nested more than {safe_read.NESTING} deep")
        table = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # of TOML, UTF-8, dates, and numbers of thousands of digits
        raise BadInput(f"{name_or_file}: not TOML: {error}") from None
    return from_table(name, table, name_or_file)


def _bytes(path: Path) -> bytes:
    try:
        return safe_read.content(path, safe_read.TABLE)
    except BadInput as error:
        raise BadInput(f"recipe {path}: {error}") from None


def from_table(name: str, table: Mapping[str, Any], where: str) -> Recipe:
    """A recipe from a parsed file. Raises BadInput for an unknown section, key, type or range."""
    values: dict[str, Any] = {"name": name}
    for section, content in table.items():
        if section in {"world", "summary"}:
            if not isinstance(content, str) or (section == "world" and content not in WORLDS):
                raise BadInput(
                    f"{where}: {section}={content!r} must be {' or '.join(WORLDS) if section == 'world' else 'text'}"
                )
            values[section] = content
        elif section == "method" and isinstance(content, dict):
            bad = [key for key, settings in content.items() if not isinstance(settings, dict)]
            if bad:
                raise BadInput(f"{where}: [method] needs one table per method; write [method.NAME] above {bad[0]!r}")
            values[section] = content
        elif section == "teachers" and isinstance(content, dict):
            bad = [key for key, settings in content.items() if not isinstance(settings, dict)]
            if bad:
                raise BadInput(f"{where}: [teachers] needs a table per teacher; write [teachers.NAME] above {bad[0]!r}")
            values[section] = {
                key: build(FurtherTeacher, settings, f"{where}: teachers.{key}") for key, settings in content.items()
            }
        elif section in SECTIONS and isinstance(content, dict):
            values[section] = build(SECTIONS[section], _one_length(section, content, where), f"{where}: {section}")
        else:
            raise BadInput(
                f"{where}: {unknown('section', section, [*SECTIONS, 'method', 'teachers', 'world', 'summary'])}"
            )
    return Recipe(**values)


def override(recipe: Recipe, settings: Iterable[str]) -> tuple[Recipe, dict[str, str]]:
    """``--set`` applied: the recipe with its sections changed, and the ``method.*`` settings left to methods.

    Keys are ``section.key`` (``training.steps=50``) or ``method.key`` (``method.beta=0.3``).
    """
    changes: dict[str, dict[str, str]] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        section, dot, name = key.strip().partition(".")
        if not equals or not dot or not name:
            raise BadInput(
                f"--set {setting!r} is not key=value with a dotted key such as training.steps=50 or method.beta=0.3"
            )
        if section not in SECTIONS and section != "method":
            raise BadInput(f"--set {setting}: {unknown('section', section, [*SECTIONS, 'method'])}")
        changes.setdefault(section, {})[name] = value.strip()
    for section, values in changes.items():
        if section != "method":
            given = _one_length(section, values, "--set")
            checked = build(SECTIONS[section], given, f"--set {section}")
            chosen = {key: getattr(checked, key) for key in given}
            recipe = dataclasses.replace(recipe, **{section: dataclasses.replace(getattr(recipe, section), **chosen)})
    return recipe, changes.get("method", {})


def _one_length(section: str, values: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """``values`` of one layer; where they say the length of training, they replace what an earlier layer said.

    Raises BadInput where they say it twice, as steps and as epochs.
    """
    if section != "training" or "steps" not in values:
        return values
    if str(values.get("epochs", "none")).lower() not in ("none", "null"):
        raise BadInput(
            f"{where}: training.steps={values['steps']} and training.epochs={values['epochs']} both say how long to "
            "train; give one of them"
        )
    return {**values, "epochs": None}
