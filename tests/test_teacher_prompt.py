"""The teacher's own prompt and the student as its own teacher: alignment, limits, resume, and refusals before work."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from tiny_runs import make, pair, quiet, result

from harness.cli import main
from harness.errors import BadInput
from harness.method import Asking, Method, Needs
from harness.models.files import load_model
from harness.training import teacher_prompt
from harness.training.batching import TrainingSequence, collate
from harness.training.loop import train
from harness.training.rollouts import Rollouts
from harness.training.signals import LiveTeacher
from harness.types import Example, Prompt, Source

ROW = Example("7", Prompt(user="2 + 2?", plain="Q: 2 + 2?\n"), "4", columns={"hint": "count"})


@pytest.fixture(scope="module")
def place(prompts_file, tmp_path_factory):
    return pair(tmp_path_factory.mktemp("pair")), prompts_file, tmp_path_factory.mktemp("runs")


def test_a_template_is_filled_with_the_fields_of_the_row():
    asked = teacher_prompt.prompt_for(ROW, Asking("{prompt}|{response}|{hint}"))
    assert asked.user == "2 + 2?|4|count" and asked.plain == "Q: 2 + 2?\n|4|count"


@pytest.mark.parametrize(
    "template, message",
    [
        ("{solution}", r"names \{solution\}, which row of x 7 lacks; it has hint, prompt, response"),
        ("{", "malformed"),
        ("{0}", "name a field"),
        ("{prompt.user}", "name a field"),
        ("{}", "name a field"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(template, message):
    with pytest.raises(BadInput, match=message):
        teacher_prompt.check(Asking(template), [ROW], "row of x")


def sequences():
    rows = [((1, 2, 3), (9, 8, 7, 6), (5, 5, 5, 5, 5, 4)), ((4,), (6, 5), (2,))]
    return [TrainingSequence(a, r, Source.STUDENT, i, teacher_prompt=p) for i, (a, r, p) in enumerate(rows)]


def test_the_teachers_hidden_states_are_those_behind_its_own_prompt(place):
    """Token by token, whatever the lengths of the two prompts."""
    model = load_model_of(place[0][1])
    live = LiveTeacher(model, 258)
    batch = collate(sequences(), 257, None, "cpu")
    together = live.hidden(batch)
    alone = [
        live.hidden(collate([dataclasses.replace(s, prompt=s.teacher_prompt, teacher_prompt=None)], 257, None, "cpu"))
        for s in sequences()
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)
    only = live.hidden(batch, [1])
    torch.testing.assert_close(only, alone[1], rtol=1e-5, atol=1e-5)
    assert live.tokens(batch) == sum(len(s.teacher_prompt) + len(s.response) for s in sequences())


def load_model_of(folder):
    from harness.models.files import locate

    return load_model(locate(str(folder)))


def test_the_students_own_rows_do_not_change_where_the_teacher_is_asked_otherwise():
    plain = [dataclasses.replace(s, teacher_prompt=None) for s in sequences()]
    a, b = (collate(rows, 257, None, "cpu") for rows in (sequences(), plain))
    for name in ("ids", "mask", "row", "column", "labels", "position"):
        assert torch.equal(getattr(a, name), getattr(b, name))
    assert b.teacher_input is None and a.teacher_input is not None


def test_the_live_student_under_its_own_prompt_teaches_nothing(place):
    """p = q at every token: the loss and its gradient are zero."""
    models, prompts, folder = place
    job = make("sdft@live", models, prompts, folder, settings={"template": "{prompt}", "k": 0}, name="nothing")
    outcome = train(job, quiet)
    assert max(abs(row["loss"]) for row in outcome.curve) < 1e-6
    assert max(row["grad_norm"] for row in outcome.curve) < 1e-4


@pytest.mark.parametrize("decay, same_as", [(1.0, "initial"), (0.0, "live")])
def test_a_moving_average_has_the_initial_and_the_live_student_as_its_ends(place, decay, same_as):
    models, prompts, folder = place
    runs = [
        result(make("sdft", models, prompts, folder, settings=settings, name=f"{same_as}-{i}"))
        for i, settings in enumerate(({"model": "ema", "decay": decay}, {"model": same_as}))
    ]
    losses = [[row["loss"] for row in run.curve] for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("label", ["sdft@paper", "opsd", "gopd", "sdpo", "grpo"])
def test_a_run_resumed_in_its_middle_ends_the_same(place, label, monkeypatch):
    models, prompts, folder = place
    whole = result(make(label, models, prompts, folder, name=f"{label}-whole"))
    job = make(label, models, prompts, folder, name=f"{label}-cut", checkpoint_every=1)
    collect = Rollouts.collect

    def stop(self, step, *rest):
        if step.index == 2:
            raise KeyboardInterrupt
        return collect(self, step, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Rollouts, "collect", stop)
        train(job, quiet)
    resumed = result(make(label, models, prompts, folder, name=f"{label}-cut", checkpoint_every=1))
    assert [row["loss"] for row in resumed.curve] == [row["loss"] for row in whole.curve]


def test_scale_1_of_gopd_is_opd_on_the_sampled_token(place):
    models, prompts, folder = place
    runs = [
        result(make(label, models, prompts, folder, settings=settings, name=f"scale-{label}"))
        for label, settings in (("gopd", {"scale": 1.0}), ("opd", {"discount": 0.0, "coefficient": 1.0}))
    ]
    losses = [[row["loss"] for row in run.curve] for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize(
    "asked, message",
    [
        (Needs(teacher="none", asking=Asking()), 'add teacher="signal"'),
        (Needs(teacher="signal", asking=Asking(model="other")), "not teacher, initial, ema or live"),
        (Needs(teacher="signal", asking=Asking(decay=2.0)), "decay outside"),
        (Needs(teacher="signal", asking="{prompt}"), "give an Asking or None"),
        (Needs(teacher="signal", asking=Asking(model="live"), proposals=True), "teaches itself"),
    ],
)
def test_needs_that_contradict_themselves_are_refused(asked, message):
    from harness import method_contract

    class Odd(Method):
        name, needs = "odd", asked

        def objective(self, tokens):
            return tokens.student.sum(-1)

    with pytest.raises(BadInput, match=message):
        method_contract.needs(Odd())


def test_a_field_that_the_data_lacks_stops_a_run_before_any_work(tiny_world, tmp_path, capsys):
    recipe = tiny_world("[training]\nsteps = 2\nbatch = 2\nmax_tokens = 64\n[rollout]\nmax_new_tokens = 4\n")
    parity = str(Path(__file__).parent / "plugin/parity_plugin.py")
    words = ["run", "-m", "opsd", "-t", parity, "--recipe", str(recipe), "--results", str(tmp_path / "results")]
    assert main([*words, "--set", "method.template={prompt} {feedback}"]) == 2
    assert "names {feedback}, which row of data.labelled=" in capsys.readouterr().err
    assert main([*words, "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)["records"]
    assert record["teacher"] is None and record["spec"]["asking"]["model"] == "initial"
    assert record["convention"]["teacher_prompt"] == "own prompt, initial"
    assert record["cost"]["teacher_forward_tokens"] > record["cost"]["student_tokens"]


def test_a_student_that_teaches_itself_needs_no_pair(models, tiny_world, tmp_path):
    """The recipe's teacher has another tokenizer and is not asked: only methods that ask it are refused."""
    import families

    from harness.plan import RunRequest, prepare

    _, other = families.pair(tmp_path / "pair", "llama3")
    recipe = tiny_world(
        "[training]\nsteps = 2\nbatch = 2\nmax_tokens = 64\n[rollout]\nmax_new_tokens = 4\n", models=(models[0], other)
    )
    parity = str(Path(__file__).parent / "plugin/parity_plugin.py")

    def planned(method):
        return prepare(RunRequest([method], [parity], str(recipe), results=tmp_path / "results"))

    assert planned("opsd").pair.teacher is None
    with pytest.raises(BadInput, match="do not match"):
        planned("kd")


def test_a_column_called_teacher_is_no_choice_of_a_teacher(tmp_path):
    from harness.recipe import DataSources
    from harness.training.several_teachers import FIELD
    from harness.training_data.examples import load

    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "response": "b", "teacher": "Ms Frizzle"}\n')
    (example,) = load(str(path), DataSources(), labelled=True)
    assert FIELD not in example.meta and teacher_prompt.fields_of(example)["teacher"] == "Ms Frizzle"
    (chosen,) = load(str(path), DataSources(teacher_field="teacher"), labelled=True)
    assert chosen.meta[FIELD] == "Ms Frizzle"


def test_the_reference_is_counted_beside_the_teacher(tiny_world, tmp_path):
    from harness.estimate.memory_check import work_of
    from harness.plan import RunRequest, prepare

    recipe = tiny_world("[training]\nsteps = 2\nbatch = 2\nmax_tokens = 64\n")
    parity = str(Path(__file__).parent / "plugin/parity_plugin.py")
    plan = prepare(RunRequest(["gopd", "opd"], [parity], str(recipe), results=tmp_path / "results"))
    gopd, opd = (work_of(plan, training.method) for training in plan.trainings)
    assert gopd.teacher == opd.teacher != gopd.student
    assert gopd.further_teachers > 0 == opd.further_teachers
