"""The benchmarks: chunked and naive are one computation for every method, and tables say what was measured."""

import subprocess
import sys
from argparse import Namespace

import pytest
import torch

from harness.errors import BadInput, RunFailed
from harness.models.head import Head
from harness.training.objective import Student
from harness.training.signals import HiddenStateLogits
from results.scripts.bench import loss, loss_sides, measure, scaling
from results.scripts.bench.__main__ import main
from results.scripts.grading import agreement

pytestmark = pytest.mark.slow

VOCAB = 997


@pytest.fixture(scope="module", params=["sequences longer than chunks", "sequences inside chunks"])
def heads(request):
    """Student and teacher, and the number of tokens."""
    student, teacher = (loss_sides.bare_head(VOCAB, 16, seed) for seed in (1, 2))
    loss_sides.resemble(teacher, student)
    rows, tokens = {"sequences longer than chunks": (7, 48), "sequences inside chunks": (300, 512)}[request.param]
    return Student(student, VOCAB, elements=VOCAB * rows), teacher, tokens


def both(heads, name, **settings):
    """(value, gradients, weight) of the chunked and of the naive computation."""
    student, teacher, tokens = heads
    chosen = loss_sides.method(name, **settings)
    batch = loss_sides.batch_of(chosen, tokens)
    loss_sides.read_apart(batch, chosen, VOCAB)
    reading = loss_sides.reading_of(teacher, VOCAB, batch, chosen)
    loss_sides.see_whole_step(student, batch, chosen, reading)
    weights = None
    if settings.get("shuffle"):
        own = student.token_weights(batch, chosen, reading, loss_sides.STEP)
        weights = own[torch.randperm(len(own), generator=torch.Generator().manual_seed(0))]
    found = []
    for compute in (
        lambda: student(batch, chosen, reading, loss_sides.STEP, weights),
        lambda: loss_sides.naive(student, batch, chosen, reading, weights),
    ):
        student.zero_grad(set_to_none=True)
        value, sums = compute()
        value.backward()
        named = student.model.named_parameters()
        found.append((value.detach(), {n: p.grad for n, p in named if p.grad is not None}, sums.weight))
    return found


def shuffled():
    return [n for n in loss.trainable() if hasattr(loss_sides.method(n).config, "shuffle")]


@pytest.mark.parametrize(
    ("name", "settings"), [(n, {}) for n in loss.trainable()] + [(n, {"shuffle": True}) for n in shuffled()]
)
def test_chunks_equal_the_naive_computation_of_every_method(heads, name, settings):
    (value, ours, weight), (expected, theirs, total) = both(heads, name, **settings)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weight, total, rtol=1e-5, atol=0)
    assert ours.keys() == theirs.keys() and "lm_head.weight" in ours
    assert theirs["lm_head.weight"].norm() > 0  # two gradients of 0 would be equal whatever was computed
    for key in ours:
        assert (ours[key] - theirs[key]).norm() <= 1e-5 * theirs[key].norm(), key


@pytest.mark.parametrize("name", ["kd", "minillm", "distillm2", "iw_opd"])
def test_each_head_is_applied_once_where_sequences_fit_into_chunks(heads, name, monkeypatch):
    student, teacher, tokens = heads
    chosen = loss_sides.method(name)
    batch = loss_sides.batch_of(chosen, tokens)
    with torch.no_grad():
        reading = HiddenStateLogits(Student(teacher, VOCAB)._hidden(batch), Head.of(teacher, VOCAB))
    rows, raw = [], Head.raw
    monkeypatch.setattr(Head, "raw", lambda head, hidden: (rows.append(len(hidden)), raw(head, hidden))[1])
    student(batch, chosen, reading, loss_sides.STEP, None)
    twice = chosen.needs.sequence_features and tokens == 48
    assert sum(rows) == len(batch.labels) * (4 if twice else 2)
    assert max(rows) <= student.elements // VOCAB


def test_a_sketch_tells_gradients_apart():
    torch.manual_seed(0)
    one = torch.randn(300, 11)
    near, far = one * (1 + 1e-3), one + torch.randn(300, 11)
    assert loss._apart(loss.sketch(one), loss.sketch(one)) == 0
    assert loss._apart(loss.sketch(near), loss.sketch(one)) < 0.01 < loss._apart(loss.sketch(far), loss.sketch(one))


def test_ratios_keep_their_spread():
    found = measure.ratio([(2.0, 1.0), (9.0, 3.0), (8.0, 2.0)])
    assert found == {"median": 3.0, "min": 2.0, "max": 4.0, "rounds": 3}
    assert measure.spread(found) == "3.00 (2.00–4.00)"
    assert measure.spread(measure.ratio([(1.0, 2.0)])) == "0.50 (one round)"


def test_sides_take_turns_in_both_orders():
    heard = []
    said = measure.in_turns([lambda: heard.append("a") or {"who": "a"}, lambda: heard.append("b") or {"who": "b"}], 3)
    assert heard == list("abbaab")
    assert said == [[{"who": "a"}, {"who": "b"}]] * 3


def test_a_side_that_dies_says_why():
    with measure.Side("results.scripts.bench.nowhere", {}) as side, pytest.raises(RunFailed, match="No module named"):
        side.turn()


def test_a_report_says_of_which_machine_it_is_and_of_nobody_s_paths(tmp_path):
    chosen = Namespace(rounds=1, threads=1, size="small", only=["samples"], out=tmp_path, hidden=None, tokens=None)
    report = scaling.run(chosen)
    report.write(tmp_path)
    text = (tmp_path / "scaling.md").read_text("utf-8") + (tmp_path / "scaling.json").read_text("utf-8")
    assert torch.__version__ in text and "cores" in text and str(measure.ROOT) not in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scaling.json", "scaling.md"]


def test_an_unknown_benchmark_is_one_line(capsys):
    assert main(["nothing"]) == 2
    assert "no benchmark is called 'nothing'; there are loss," in capsys.readouterr().err


def test_nothing_of_trl_is_imported_before_it_is_asked_for():
    code = (
        "import sys\nfrom results.scripts.bench import generate, loss, peers, train\n"
        "sys.exit(bool({'trl', 'liger_kernel'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_scripts_read_the_checkout_that_holds_them(monkeypatch, tmp_path):
    assert (measure.ROOT / "pyproject.toml").is_file() and (measure.ROOT / "results/micro/records").is_dir()
    assert any(agreement.OUTPUTS.glob("*-amc23@micro-*.jsonl*"))
    monkeypatch.setattr(agreement, "OUTPUTS", tmp_path)
    with pytest.raises(BadInput, match="no completions below"):
        next(agreement.report())


def test_synthetic_records_are_made_of_the_published_ones(tmp_path):
    assert scaling._table(3, tmp_path)()["seconds"] > 0
