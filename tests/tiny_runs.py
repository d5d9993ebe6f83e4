"""Training runs of a few steps on the random models of conftest, for every method and variant that is registered."""

import dataclasses
import functools
from pathlib import Path

import torch
from accelerate.state import AcceleratorState
from conftest import tiny_model
from transformers import GenerationConfig

from harness import plan, recipe, registry
from harness.method import ReferencePoint
from harness.models import files
from harness.options import build
from harness.training.job import TrainingData, TrainingJob, TrainingRun
from harness.training.loop import train
from harness.training.verdicts import TextGrade
from harness.training_data.examples import load

STEPS, BATCH = 3, 6
TAU = 4.6  # nats: about half of the random teacher's distributions are flatter
# DistiLLM starts on data alone: from this threshold on, four steps see data, samples and replays.
SETTINGS = {
    "distillm": {"threshold": 0.9, "validate_every": 2, "capacity": 10},
    "eopd": {"tau": TAU},
    "selectkd": {"k": 100},  # of 258: the teacher accepts some proposals
    "grpo": {"group": 3, "redraw": "epoch"},
    "kdrl": {"group": 3},
    "luffy": {"own": 2},
    "sdpo": {"group": 3, "k": 20},
}
SEED = 96  # its three steps draw 0.05, 0.84, 0.99: every method with a choice of text makes each of its choices


def found_labels() -> list[str]:
    """``name`` and ``name@variant`` of all that is built in, the shuffled controls included."""
    labels = []
    for entry in registry.entries(registry.METHODS):
        found = registry.find(registry.METHODS, entry.name)
        if not issubclass(found, ReferencePoint):
            labels += [entry.name, *(f"{entry.name}@{variant}" for variant in plan.variants_of(found))]
    return labels


LABELS = found_labels()


class Thirds:
    """Grades a text by its number of characters: right, half right, or wrong with a reason."""

    name = "thirds"

    def verdicts(self, asked, texts):
        found = [(len(text) + sum(map(ord, example.id))) % 3 / 2 for example, text in zip(asked, texts, strict=True)]
        return [
            TextGrade(score, "right" if score == 1 else f"{len(t)}!") for score, t in zip(found, texts, strict=True)
        ]


def pair(folder: Path) -> tuple[Path, Path]:
    """(student, teacher): random models that end a text at any of 40 tokens, so that its length varies."""
    models = tiny_model(folder / "student", 0, 16, 260), tiny_model(folder / "teacher", 1, 24, 264)
    for model in models:
        GenerationConfig(eos_token_id=[*range(40), 256]).save_pretrained(model)
    return models


def distinct() -> list[str]:
    """LABELS without those that name the defaults, as distillm2@paper does: the same run."""
    seen, labels = set(), []
    for label in LABELS:
        key = (label.partition("@")[0], method(label).config)
        labels += [] if key in seen else [label]
        seen.add(key)
    return labels


@functools.cache
def _class(name: str):
    return registry.find(registry.METHODS, name)


def method(label: str, settings=None, plain=False):
    """The method behind a label; ``plain`` leaves the SETTINGS of these tests out."""
    name, _, variant = label.partition("@")
    found = _class(name)
    values = dict(plan.variants_of(found)[variant]) if variant else {}
    values |= {} if plain else SETTINGS.get(name, {})
    return found(build(found.Config, values | (settings or {}), label))


def make(
    label, models, prompts: Path, folder: Path, *, settings=None, seed=SEED, name="run", sections=None, **training
) -> TrainingJob:
    """A job of STEPS steps. Texts and signals are shared by all jobs of a folder; ``name`` tells them apart.

    ``sections`` are more tables of the recipe, by name.
    """
    table = {
        "training": {
            "steps": STEPS,
            "batch": BATCH,
            "micro_batch": 64,
            "learning_rate": 1e-3,
            "threads": 1,
            "max_tokens": 64,
            "checkpoint_every": 0,
        }
        | training,
        "rollout": {"max_new_tokens": 8},
        "teacher_text": {"max_new_tokens": 10, "temperature": 1.0},
    } | (sections or {})
    chosen = recipe.from_table("test", table, "test")
    student, teacher = (files.locate(str(m)) for m in models)
    asked, labelled = (load(str(prompts), chosen.data, labelled=flag) for flag in (False, True))
    trained = label if not isinstance(label, str) else method(label, settings)
    if trained.needs.asking is not None and trained.needs.asking.template:
        asked = labelled  # the teacher's own prompt is made from the row's answer
    # Methods that pair two tokenizers' tokens read the very same ids of one tokenizer: then every token is a pair.
    words = None if trained.needs.pairing is None else 258
    own = folder / name
    own.mkdir(parents=True, exist_ok=True)
    return TrainingJob(
        TrainingRun(trained, None, "test", seed, {}, f"{label}-{seed}"),
        chosen,
        student,
        teacher,
        TrainingData(asked, labelled, labelled[:5], grader=Thirds()),
        folder=own,
        cache=folder,
        words=words,
    )


def quiet(*_):
    return None


@dataclasses.dataclass
class Result:
    """What a run comes to, in plain types: comparable, and portable between processes."""

    curve: list[dict]
    weights: torch.Tensor
    state: dict
    cost: dict
    warnings: list[str]

    @property
    def losses(self) -> list[float]:
        return [row["loss"] for row in self.curve]


def result(job: TrainingJob, progress=quiet) -> Result:
    AcceleratorState._reset_state()  # which keeps a process to its first precision
    return of(job, train(job, progress))


def of(job: TrainingJob, outcome) -> Result:
    """Time and memory left out; the learnt rows of the shared vocabulary only."""
    vocab = len(outcome.tokenizer)
    flat = [(p[:vocab] if "embed" in n or "head" in n else p).detach().flatten() for n, p in _named(outcome.model)]
    cost = {
        k: v for k, v in outcome.cost.as_dict().items() if k not in {"seconds", "peak_memory_bytes", "grading_seconds"}
    }
    curve = [{k: v for k, v in row.items() if k != "seconds"} for row in outcome.curve]
    return Result(curve, torch.cat(flat), dict(job.method.state), cost, outcome.warnings)


def _named(model):
    return sorted(model.named_parameters())


def close(a: Result, b: Result, weights: float = 1e-4) -> None:
    """Raises AssertionError unless two results are one but for rounding."""
    assert a.cost == b.cost and a.warnings == b.warnings
    assert len(a.curve) == len(b.curve)
    for mine, other in zip(a.curve, b.curve, strict=True):
        near(mine, other)
    near(a.state, b.state)
    torch.testing.assert_close(a.weights, b.weights, rtol=1e-4, atol=weights)


def near(a, b, tolerance: float = 1e-5) -> None:
    """Numbers within ``tolerance``, absolute below 1 and relative above, through dictionaries and lists."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), f"{a.keys()} against {b.keys()}"
        for key in a:
            # The norm of a gradient adds the rounding of all its entries.
            near(a[key], b[key], 1e-3 if key == "grad_norm" else tolerance)
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            near(x, y, tolerance)
    elif isinstance(a, float):
        assert abs(a - b) <= tolerance * max(1.0, abs(a)), f"{a} against {b}"
    else:
        assert a == b
