"""Several teachers: mixed by weight, or each row's own; the formula, the texts, the identity and the refusals."""

import json
from pathlib import Path

import pytest
import torch
from conftest import tiny_model
from tiny_runs import quiet

from harness import plan, students
from harness.cli import main
from harness.errors import BadInput
from harness.models import files
from harness.plan import RunRequest
from harness.training import loop, several_teachers
from harness.training.batching import TrainingSequence, collate
from harness.training.mixed_signal import MixedSignal
from harness.training.signals import LiveTeacher
from harness.types import Source

PARITY = str(Path(__file__).parent / "plugin/parity_plugin.py")
SHORT = "[training]\nsteps = 3\nbatch = 6\nmax_tokens = 64\n"
SHORT += "[rollout]\nmax_new_tokens = 6\n[teacher_text]\nmax_new_tokens = 6\n"


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("second") / "second", 7, 32, 262)


@pytest.fixture
def rows(tmp_path):
    """Twelve rows, of which every third names the second teacher."""
    path = tmp_path / "rows.jsonl"
    made = [
        {"prompt": f"{'ab' * (i % 4)} {i}:", "response": f"line {i}.", "who": "second" if i % 3 == 0 else "teacher"}
        for i in range(12)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in made), "utf-8")
    return path


class _Live:
    def __init__(self, folder):
        self.live = LiveTeacher(files.load_model(files.locate(str(folder))), 258)

    def read(self, batch):
        return self.live.read(batch)

    def tokens(self, batch):
        return batch.tokens


def _batch():
    made = [
        TrainingSequence((1, 2, 3)[: 1 + i % 3], tuple(range(4 + i, 9 + 2 * i)), Source.DATA, i, place=i)
        for i in range(5)
    ]
    return collate(made, 257, None, "cpu")


def test_the_mixture_is_that_of_probabilities(models, second):
    """Token by token, whatever the slices, and also where a teacher of weight 0 reads nothing."""
    batch, logits = _batch(), torch.zeros(sum(5 + i for i in range(5)), 258)
    signals = [_Live(models[1]), _Live(second)]
    p, q = (s.read(batch).pair(logits, 0, len(logits))[1].softmax(-1) for s in signals)
    for weights in ([0.3, 0.7], [0.5, 0.5], [1.0, 0.0], [0.0, 1.0]):
        mixed = MixedSignal(signals, lambda batch, i, weights=weights: weights)
        read = mixed.read(batch)
        expected = weights[0] * p + weights[1] * q
        torch.testing.assert_close(read.pair(logits, 0, len(logits))[1].exp(), expected, rtol=1e-5, atol=1e-7)
        for a, b in ((0, 4), (4, 17), (17, len(logits))):
            part = read.over(a, b)
            middle = (a + b) // 2
            for c, d in ((a, middle), (middle, b)):
                found = part.pair(logits[c:d], c, d)[1]
                torch.testing.assert_close(found.exp(), expected[c:d], rtol=1e-5, atol=1e-7)
        assert mixed.tokens(batch) == batch.tokens * (2 if min(weights) else 1)


def test_each_sequence_may_have_weights_of_its_own(models, second):
    batch = _batch()
    logits = torch.zeros(len(batch.labels), 258)
    signals = [_Live(models[1]), _Live(second)]
    p, q = (s.read(batch).pair(logits, 0, len(logits))[1].log_softmax(-1) for s in signals)
    own = MixedSignal(signals, lambda batch, i: [1.0, 0.0] if batch.examples[i] % 2 else [0.0, 1.0])
    found = own.read(batch).pair(logits, 0, len(logits))[1]
    first = (batch.row % 2 == 1)[:, None]
    torch.testing.assert_close(found, torch.where(first, p, q), rtol=1e-5, atol=1e-6)
    assert own.tokens(batch) == batch.tokens
    picked = batch.only([1, 3])
    assert picked.examples == (1, 3) and picked.labels.tolist() == batch.labels[first[:, 0]].tolist()
    assert picked.row.unique().tolist() == [0, 1]


def several(second, **more):
    settings = "".join(f"{key} = {value!r}\n" for key, value in more.items())
    return f"[teachers.second]\nmodel = '{second}'\n{settings}"


def planned(tiny_world, tmp_path, text, *settings, prompts=None, methods=("kd", "seqkd", "sft")):
    path = tiny_world(text, prompts=prompts) if prompts else tiny_world(text)
    return plan.prepare(RunRequest(methods, [PARITY], str(path), settings=settings, results=tmp_path / "results"))


def losses(made, label):
    training = next(t for t in made.trainings if t.label == label)
    return [row["loss"] for row in students.train_run(made, training, quiet).curve]


@pytest.mark.slow
@pytest.mark.parametrize("signal", ["live", "hidden"])
def test_a_mixture_with_all_weight_on_one_is_that_teacher_alone(tiny_world, models, second, tmp_path, signal):
    text = SHORT.replace("[training]\n", f"[training]\nsignal = '{signal}'\n")
    alone = planned(tiny_world, tmp_path, text, methods=("gkd", "kd"))
    both = planned(tiny_world, tmp_path, text + several(second, weight=0.0), methods=("gkd", "kd"))
    other = planned(tiny_world, tmp_path, text + several(second, weight=1.0), methods=("gkd", "kd"))
    for label in ("gkd", "kd"):
        assert losses(alone, label) == pytest.approx(losses(both, label), rel=1e-5)
        assert losses(alone, label) != pytest.approx(losses(other, label), rel=1e-3)


@pytest.mark.slow
def test_every_row_has_the_teacher_that_it_names(tiny_world, second, rows, tmp_path):
    made = planned(tiny_world, tmp_path, f"teacher_field = 'who'\n{SHORT}{several(second)}", prompts=rows)
    writers = [several_teachers.writer_of(made.teachers, e) for e in made.data.prompts]
    assert writers == [1 if i % 3 == 0 else 0 for i in range(12)]
    kept = {}
    set_up = loop.set_up

    def noted(job, rollouts, *rest):
        found = set_up(job, rollouts, *rest)
        kept.update(rollouts.teacher_texts)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "set_up", noted)
        assert all(torch.tensor(losses(made, "seqkd")).isfinite())
    # The texts of each teacher are those that it writes alone.
    alone = [
        planned(tiny_world, tmp_path, SHORT, f"models.teacher={t}", prompts=rows) for t in (made.teacher.path, second)
    ]
    texts = []
    for one in alone:
        kept_alone = {}

        def noted_alone(job, rollouts, *rest, kept_alone=kept_alone):
            found = set_up(job, rollouts, *rest)
            kept_alone.update(rollouts.teacher_texts)
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "set_up", noted_alone)
            losses(one, "seqkd")
        texts.append(kept_alone)
    assert kept == {i: texts[writers[i]][i] for i in kept} and texts[0] != texts[1]
    assert all(torch.tensor(losses(made, "kd")).isfinite())


def test_prompts_are_dealt_out_by_weight(tiny_world, second, tmp_path):
    made = planned(tiny_world, tmp_path, f"[teacher]\nweight = 3.0\n{SHORT}{several(second, weight=1.0)}")
    example = made.data.prompts[0]
    assert several_teachers.weights_of(made.teachers, example) == [0.75, 0.25]
    from dataclasses import replace

    drawn = [several_teachers.writer_of(made.teachers, replace(example, id=str(i))) for i in range(2000)]
    assert 0.2 < sum(drawn) / 2000 < 0.3


def test_what_teaches_is_part_of_the_identity(tiny_world, second, rows, tmp_path):
    def ids(text, *settings):
        return [t.training_id for t in planned(tiny_world, tmp_path, text, *settings, prompts=rows).trainings]

    one = ids(SHORT)
    mixed, other, quantised = (
        ids(SHORT + several(second, **more)) for more in ({}, {"weight": 0.2}, {"dtype": "bfloat16"})
    )
    named = ids(f"teacher_field = 'who'\n{SHORT}{several(second)}")
    assert len({run[0] for run in (one, mixed, other, quantised, named)}) == 5
    assert len({run[2] for run in (one, mixed, other, quantised, named)}) == 1  # sft has no teacher
    # Weights are relative; a mixture of the same shares is the same training.
    assert ids(f"{SHORT}{several(second, weight=2.0)}", "teacher.weight=2") == mixed


@pytest.mark.slow
def test_a_run_with_two_teachers_says_so(tiny_world, second, tmp_path, capsys):
    path = tiny_world(SHORT + several(second, weight=3.0))
    words = ["--method", "kd", "--task", PARITY, "--recipe", str(path), "--results", str(tmp_path / "results")]
    assert main(["run", *words, "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)["records"]
    assert record["convention"]["teachers"] == "mixture of probabilities: 0.25 teacher + 0.75 second"
    assert [m["name"] for m in record["spec"]["teachers"]["members"]] == ["teacher", "second"]


@pytest.mark.parametrize(
    ("text", "methods", "said"),
    [
        ("{short}[teachers.teacher]\nmodel = '{second}'\n", ["kd"], "set teacher.name"),
        ("{short}[teachers.other]\nweight = 1.0\n", ["kd"], "has no model"),
        ("{short}[teachers]\nother = 3\n", ["kd"], r"write \[teachers.NAME\] above 'other'"),
        ("{short}[teachers.other]\nmodle = 'x'\n", ["kd"], "modle"),
        ("{short}[teachers.other]\nmodel = '{second}'\nweight = -1.0\n", ["kd"], "is outside"),
        ("{short}[teachers.other]\nmodel = '/nowhere'\n", ["kd"], "no model folder"),
        ("{short}[teachers.other]\nmodel = '{second}'\ndevice = 'cuda:9'\n", ["kd"], "no CUDA device"),
        ("[teacher]\nweight = 0.0\n{short}[teachers.other]\nmodel = '{second}'\nweight = 0.0\n", ["kd"], "are all 0"),
        ("teacher_field = 'who'\n{short}", ["kd"], r"add the others as \[teachers.NAME\]"),
        ("teacher_field = 'whose'\n{short}[teachers.second]\nmodel = '{second}'\n", ["kd"], "no column 'whose'"),
        (
            "teacher_field = 'who'\n{short}[teachers.third]\nmodel = '{second}'\n",
            ["kd"],
            "row 1 under 'who': unknown teacher",
        ),
        ("{short}[teachers.second]\nmodel = '{second}'\n", ["teacher"], "evaluate each with --teacher"),
        ("{short}[teachers.second]\nmodel = '{second}'\n", ["skd"], "supports only one"),
    ],
)
def test_teachers_that_do_not_fit_are_one_line(tiny_world, second, rows, tmp_path, text, methods, said):
    filled = text.format(short=SHORT, second=second)
    with pytest.raises(BadInput, match=said) as refusal:
        planned(tiny_world, tmp_path, filled, prompts=rows, methods=methods)
    assert "\n" not in str(refusal.value)


def test_a_top_k_signal_has_no_mixture(tiny_world, second, tmp_path):
    with pytest.raises(BadInput, match=r"their mixture is not defined; set training.signal=hidden"):
        planned(tiny_world, tmp_path, SHORT + several(second), "training.signal=top-k", "training.top_k=8")


def test_memory_counts_every_teacher(tiny_world, models, second, tmp_path):
    from harness.estimate import memory_check

    def weights(text):
        made = planned(tiny_world, tmp_path, text, methods=("kd",))
        return memory_check.estimates(made)["kd"].memory["teacher weights"]

    other = sum(p.numel() for p in files.load_model(files.locate(str(second))).parameters())
    assert weights(SHORT + several(second)) - weights(SHORT) == 4 * other
    assert weights(SHORT + several(second, dtype="bfloat16")) - weights(SHORT) == 2 * other
