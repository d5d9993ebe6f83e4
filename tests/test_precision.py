"""The type of number in which the student samples and is evaluated: what it reaches, and what it leaves alone."""

from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from tiny_runs import make, quiet

from harness import plan
from harness.errors import BadInput
from harness.evaluation import measurement
from harness.models.generate import Generator
from harness.plan import RunRequest
from harness.records.record import Record
from harness.rerun.command import Given, find
from harness.training import distributed
from harness.training.loop import train

PARITY = str(Path(__file__).parent / "plugin/parity_plugin.py")


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.fixture
def sampled(monkeypatch):
    """What every rollout samples with, and whether that is the student of the moment, rounded."""
    seen, students = [], []
    made, spoken = distributed.Replicated.__init__, Generator.continue_ids

    def keep(self, student):
        made(self, student)
        students.append(student.model)

    def look(self, *given):
        own = weights(self.model)
        seen.append((self.model.dtype, torch.equal(own, weights(students[-1]).to(own.dtype)), own.float().sum().item()))
        return spoken(self, *given)

    monkeypatch.setattr(distributed.Replicated, "__init__", keep)
    monkeypatch.setattr(Generator, "continue_ids", look)
    return seen


@pytest.mark.parametrize(
    ("settings", "sections", "dtype"),
    [
        ({}, {}, torch.float32),
        ({"precision": "bfloat16"}, {}, torch.bfloat16),
        ({"precision": "bfloat16"}, {"student": {"adapter": "lora", "rank": 2}}, torch.bfloat16),
        ({"precision": "bfloat16"}, {"rollout": {"max_new_tokens": 4, "dtype": "float32"}}, torch.float32),
    ],
)
def test_the_student_samples_in_the_type_of_training_as_it_is_at_every_step(
    models, prompts_file, tmp_path, sampled, settings, sections, dtype
):
    job = make("opd", models, prompts_file, tmp_path, sections=sections, learning_rate=1e-2, **settings)
    AcceleratorState._reset_state(True)
    found = train(job, quiet)
    assert [kind for kind, *_ in sampled] == [dtype] * 3
    assert all(current for _, current, _ in sampled)
    assert len({total for *_, total in sampled}) == 3  # the student moves from step to step
    assert found.model.dtype == torch.float32


def test_sampled_log_probabilities_are_near_those_of_the_float32_student(models, prompts_file):
    from harness.models.files import load_model, load_tokenizer, locate
    from harness.types import Decoding

    files = locate(str(models[0]))
    exact, half = (Generator(load_model(files, kind), load_tokenizer(files)) for kind in ("float32", "bfloat16"))
    prompt = exact.encode("Tell me of the sea.")
    (made,) = half.continue_ids([prompt], Decoding(1.0, 1.0, 24), [3])
    (again,) = exact.score([(prompt, made.ids)])
    assert max(abs(a - b) for a, b in zip(made.log_probs, again.log_probs, strict=True)) < 0.1


def planned(tiny_world, tmp_path, *settings, methods=("opd", "kd")):
    path = tiny_world("[training]\nsteps = 2\nbatch = 6\n")
    return plan.prepare(RunRequest(methods, [PARITY], str(path), settings=settings, results=tmp_path / "results"))


def test_only_a_student_that_samples_in_another_type_than_it_trains_in_is_another_training(
    tiny_world, models, tmp_path
):
    def ids(*settings):
        return [t.training_id for t in planned(tiny_world, tmp_path, *settings).trainings]

    half = "training.precision=bfloat16"
    assert ids() == ids("rollout.dtype=float32") != ids("rollout.dtype=bfloat16")
    assert ids(half) == ids(half, "rollout.dtype=bfloat16")
    # As it was before there was a copy: float32 weights sampled, whatever the passes computed in.
    before = planned(tiny_world, tmp_path, half, "rollout.dtype=float32")
    assert "sampled_in" not in before.trainings[0].spec and "dtype" not in before.trainings[0].spec["rollout"]
    assert ids(half)[0] != before.trainings[0].training_id and ids(half)[1] == before.trainings[1].training_id
    # Either is found again from its specification.
    for own in (before, planned(tiny_world, tmp_path, half, "evaluation.dtype=bfloat16")):
        training, task = own.trainings[0], own.tasks[0]
        record = recorded(training, task, measurement.of(own, training, task).protocol)
        back = find(
            record,
            tmp_path / "results",
            Given(task=PARITY, recipe=own.request.recipe, student=str(models[0]), teacher=str(models[1])),
        )
        assert back.exact, back.differs


def recorded(training, task, protocol) -> Record:
    method = {"name": training.method.name, "variant": None}
    spec = {
        **training.spec,
        "method": {**training.spec["method"], "settings": dict(training.spec["method"]["settings"])},
    }
    return {
        "run_id": "r",
        "method": method,
        "task": task.title,
        "spec": spec,
        "protocol": protocol,
        "seed": training.seed,
        "student": training.spec["student"]["id"],
        "teacher": training.spec["teacher"]["id"],
        "training_id": training.training_id,
        "provenance": {"device": "cpu"},
        "request": {},
    }


def test_the_type_of_evaluation_enters_the_protocol_unless_it_is_float32(tiny_world, tmp_path):
    def protocol(*settings):
        own = planned(tiny_world, tmp_path, *settings)
        return measurement.of(own, own.trainings[0], own.tasks[0]).protocol

    plain, half = protocol(), protocol("evaluation.dtype=bfloat16")
    assert plain == protocol("evaluation.dtype=float32") and "dtype" not in plain
    assert half["hash"] != plain["hash"] and half["card"] == plain["card"]
    assert {k: v for k, v in half.items() if k not in ("hash", "dtype")} == {
        k: v for k, v in plain.items() if k != "hash"
    }
    assert half["dtype"] == "bfloat16"


def test_an_evaluation_in_bfloat16_loads_the_model_so(models, tmp_path):
    from harness.models.files import locate
    from harness.recipe import Evaluation
    from harness.students import UNTRAINED, EvaluationModel

    student = EvaluationModel(locate(str(models[0])), UNTRAINED, trained=False)
    for dtype in ("float32", "bfloat16"):
        opened = student.generator("cpu", Evaluation(dtype=dtype), tmp_path, again=False)
        assert opened.model.dtype == getattr(torch, dtype)


def test_types_that_cannot_be_are_refused_in_one_line(tiny_world, tmp_path, monkeypatch):
    with pytest.raises(BadInput, match=r"evaluation.dtype=bfloat16: the server of openai:m decides"):
        path = tiny_world("[training]\nsteps = 2\nbatch = 6\n")
        request = RunRequest(
            ["untouched"],
            [PARITY],
            str(path),
            settings=["evaluation.dtype=bfloat16"],
            student="openai:m@http://localhost:9/v1",
            results=tmp_path,
        )
        plan.prepare(request)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda name: "Tesla T4")
    with pytest.raises(BadInput, match=r"rollout.dtype=bfloat16: Tesla T4 has no bfloat16; set rollout.dtype=float32"):
        plan.devices.check_type("bfloat16", "cuda:0", "rollout.dtype")
