"""A recipe: student, teacher, data and budget. TOML in, frozen dataclasses out, no logic.

Precedence: defaults here < the recipe file < ``--set key=value``. Every key is checked; an unknown one is
refused with the nearest known ones. The resolved recipe is written into every record.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from harness import safe_read
from harness.errors import BadInput, unknown
from harness.options import build, option

ENGINES = "in-process, vllm, vllm:NAME@URL or openai:NAME@URL, settings after commas: docs/scale-out.md"
WORLDS = ("real", "micro", "derivations")  # what a bare task name means: the benchmark, or generated problems


@dataclass(frozen=True)
class Models:
    student: str = option("micro:student", "hub id, folder, or micro:student")
    teacher: str = option("micro:teacher", "hub id, folder, or micro:teacher")
    trust_remote_code: bool = option(False, "run Python code from a model's folder (auto_map); the record says so")
    template: str = option(
        "teacher",
        "the format in which student and teacher are asked: that of the teacher (where it has a chat template), of the "
        "student, none (plain text), or a file with a Jinja template",
    )
    thinking: bool | None = option(None, "sets enable_thinking for chat templates that use it, such as Qwen3's")


@dataclass(frozen=True)
class DataSources:
    """Prompts that only the teacher answers, and labelled examples with reference responses."""

    prompts: str = option(
        "micro:prompts",
        "micro:prompts or micro:FAMILY/prompts, a file (.jsonl, .json, .parquet, .csv, .tsv), a folder, data:PATH "
        "below HARNESS_DATA, or owner/name of the hub; after commas config=, split=, revision= and first=N",
    )
    labelled: str = option("micro:labelled", "the same forms; every row needs a response")
    validation: str | None = option(None, "the same forms; held-out examples for the methods that validate")
    prompt_field: str | None = option(None, "the column of the prompt; by default prompt, question, instruction, …")
    response_field: str | None = option(None, "the column of the response; by default response, completion, answer, …")
    messages_field: str | None = option(None, "the column of conversations; by default messages or conversations")
    system_field: str | None = option(
        None, "the column of a row's system turn; by default system or system_prompt; empty: none"
    )
    teacher_field: str | None = option(None, "the column that names a row's teacher, if there are several")
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
        "examples that contain a whole problem of a task to evaluate: refuse, drop them, or keep them and record it",
        choices=("refuse", "drop", "keep"),
    )
    limit: int | None = option(None, "only the first n rows of prompts, labelled and validation data", low=1)
    grader: str | None = option(
        None, "a task with the row format of the prompts: its grader scores answers to them in training"
    )


@dataclass(frozen=True)
class Adapter:
    """What to train of the student: all of its weights, or an adapter on frozen weights."""

    adapter: str = option("none", "none trains all weights; lora and dora need peft", choices=("none", "lora", "dora"))
    rank: int = option(16, "rank of the adapter's matrices", low=1, source="DistiLLM-2, app. C")
    alpha: float = option(32.0, "scales the update by alpha / rank", low=0)
    dropout: float = option(0.0, "of the adapter's input, in training passes only", low=0, high=0.99)
    targets: tuple[str, ...] = option(
        ("all-linear",),
        "modules that get an adapter, by the suffix of their names; all-linear: all but the output head",
    )


@dataclass(frozen=True)
class TeacherLoading:
    """How to load the teacher; unset values follow the student's training."""

    dtype: str | None = option(
        None, "of its weights; default: training.precision", choices=("float32", "bfloat16", "float16")
    )
    device: str | None = option(None, "cpu, cuda:1, …: default: the device of the run")
    quantization: str | None = option(
        None,
        "quantise the weights on loading; an already quantised checkpoint (GPTQ, AWQ, …) needs no setting",
        choices=("bnb-4bit", "bnb-8bit", "torchao-int8", "torchao-int4"),
    )
    engine: str | None = option(
        None, f"where it runs if not in this process, which then reads none of its weights: {ENGINES}"
    )
    name: str = option("teacher", "of models.teacher among several teachers")
    weight: float = option(1.0, "of models.teacher in the mixture of several teachers", low=0)


@dataclass(frozen=True)
class FurtherTeacher:
    """A teacher besides models.teacher; unset values follow [teacher]."""

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
    epochs: float | None = option(None, "passes over the examples; replaces training.steps", low=0)
    batch: int = option(32, "prompts per optimizer step, over all processes", low=1)
    micro_batch: int = option(32, "sequences per forward pass, at most", low=1)
    micro_tokens: int | None = option(
        None, "tokens per forward pass, including padding: sequences of similar length share one", low=1, before=None
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
    weight_decay: float = option(0.0, "weight decay; decoupled except for sgd", low=0)
    decay_norms: bool = option(True, "whether weight decay includes norm weights and biases")
    clip: float = option(1.0, "largest gradient norm; 0 does not clip", low=0)
    precision: str = option("float32", "of the forward passes and of sampling", choices=("float32", "bfloat16"))
    master_weights: str = option(
        "model",
        "where the float32 weights are: in the model; in the optimizer, with a bfloat16 model; none: only bfloat16",
        choices=("model", "optimizer", "none"),
        before="model",
    )
    signal: str = option(
        "live",
        "the teacher's distribution: live (its forward passes), hidden or top-k (on fixed text from a cache), or a "
        "signal of your own by name or file; harness list signals",
    )
    top_k: int = option(64, "tokens of a top-k signal; one bucket holds the remaining mass", low=1)
    max_tokens: int = option(2048, "longest prompt + response; longer responses are cut, counted, and warned of", low=2)
    gradient_checkpointing: bool = option(
        False, "recompute a layer's activations in the backward pass instead of keeping them: same gradients"
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
    """How to sample training text. Independent of the loss: objectives have their own temperature."""

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
    engine: str = option("in-process", f"the engine that samples the student: {ENGINES}", before="in-process")
    sync_every: int = option(
        1, "optimizer steps between updates of the engine's weights; its texts are up to this old", low=1, before=1
    )
    importance_cap: float | None = option(
        None,
        "weights a token's objective by q / the engine's probability of it, at most this; none: engines differ by "
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
        None, f"the engine that writes the teacher's texts, if not the teacher's own: {ENGINES}", before=None
    )


@dataclass(frozen=True)
class Evaluation:
    """Overrides of the tasks' own decoding. Unset values follow the task's protocol."""

    samples: int | None = option(None, "completions per problem", low=1)
    temperature: float | None = option(None, "sampling temperature", low=0)
    top_p: float | None = option(None, "nucleus", low=0, high=1)
    max_new_tokens: int | None = option(None, "longest completion", low=1)
    limit: int | None = option(None, "only the first n problems; part of the protocol", low=1)
    dtype: str = option(
        "float32",
        "type of the weights that answer; part of the protocol unless float32",
        choices=("float32", "bfloat16", "float16"),
    )
    batch: int = option(64, "completions decoded together; not part of the protocol", low=1)
    engine: str = option("in-process", f"the engine that answers, part of the protocol: {ENGINES}")
    protocol: str | None = option(None, "a published protocol, for the tasks that have it; see harness show task NAME")
    judge: str | None = option(None, "judge of the instruction tasks, see harness run --help")


@dataclass(frozen=True)
class Before:
    """A first stage: the methods of the recipe start from its student (:mod:`harness.specification`)."""

    method: str | None = option(None, "method of the first stage, with its @variant; none: no first stage")
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
IN_SPEC = (
    "training",
    "rollout",
    "teacher_text",
)  # sections that are part of the specification of a training


@dataclass(frozen=True)
class Recipe:
    """``world`` is what a bare task name means: ``micro`` generated problems, ``real`` the benchmark."""

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
    teachers: Mapping[str, FurtherTeacher] = field(default_factory=dict)  # those besides models.teacher, by name


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
    return from_table(name, safe_read.toml(content, name_or_file), name_or_file)


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
            changed = _one_length(section, values, "--set")
            checked = build(SECTIONS[section], changed, f"--set {section}")
            chosen = {key: getattr(checked, key) for key in changed}
            recipe = dataclasses.replace(recipe, **{section: dataclasses.replace(getattr(recipe, section), **chosen)})
    return recipe, changes.get("method", {})


def _one_length(section: str, values: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """``values`` of one layer; a length of training replaces that of an earlier layer.

    Raises BadInput if they give it twice, as steps and as epochs.
    """
    if section != "training" or "steps" not in values:
        return values
    if str(values.get("epochs", "none")).lower() not in ("none", "null"):
        raise BadInput(
            f"{where}: training.steps={values['steps']} and training.epochs={values['epochs']} both say how long to "
            "train; give one of them"
        )
    return {**values, "epochs": None}
