"""How a teacher is loaded: what it computes then, what it is called, and what is refused before any work."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import tiny_model
from tiny_runs import LABELS, make, result

from harness import plan
from harness.cli import main
from harness.errors import BadInput
from harness.estimate import shapes
from harness.estimate.resources import memory_of
from harness.models import files, loading
from harness.models.files import load_model, load_tokenizer, locate
from harness.models.generate import Generator
from harness.plan import RunRequest
from harness.recipe import Recipe, TeacherLoading
from harness.rerun.command import Replacements, find
from harness.training.batching import TrainingSequence, collate
from harness.training.signals import LiveTeacher
from harness.types import Source

PARITY = str(Path(__file__).parent / "plugin/parity_plugin.py")
TRAINING = "[training]\nsteps = 2\nbatch = 6\nmax_tokens = 64\n"
KINDS = ["bnb-4bit", "bnb-8bit", "torchao-int8"]


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """(student, teacher): wide enough that quantised weights come in whole groups."""
    root = tmp_path_factory.mktemp("wide")
    return tiny_model(root / "student", 0, 16, 260), tiny_model(root / "teacher", 1, 64, 264)


def loaded(folder, **settings):
    found = files.locate(str(folder))
    chosen = TeacherLoading(**settings)
    loading.check(found, Recipe("test", teacher=chosen), "cpu")
    return loading.load(found, chosen, "float32", "cpu")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_type_of_the_weights(wide, dtype):
    model = loaded(wide[1], dtype=dtype)
    assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_teacher_is_smaller_and_near_the_whole_one(wide, kind):
    whole, small, ids = loaded(wide[1]), loaded(wide[1], quantization=kind), torch.arange(40)[None]
    layers = [m.model.layers.state_dict() for m in (whole, small)]
    assert any(t.dtype in (torch.int8, torch.uint8) or hasattr(t, "qdata") for t in layers[1].values())
    assert torch.equal(whole.lm_head.weight, small.lm_head.weight)  # the head is applied by the harness itself
    with torch.no_grad():
        a, b = (m(ids).logits.log_softmax(-1) for m in (whole, small))
    shift = (a.exp() * (a - b)).sum(-1).mean()
    assert 0 < shift < (2.0 if kind == "bnb-4bit" else 0.2)
    # The harness' own reading of hidden states and head is that of the quantised model itself.
    head = LiveTeacher(small, 258).head
    with torch.no_grad():
        ours = head.logits(small.model(ids).last_hidden_state[0])
        torch.testing.assert_close(ours, small(ids).logits[0, :, :258], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_teacher_teaches_and_writes(wide, prompts_file, tmp_path, kind):
    """Live, cached and as a writer of texts; none of it is taken from the caches of the whole teacher."""
    table = {"teacher": {"quantization": kind}}
    for label, more in (("kd", {"signal": "hidden"}), ("gkd", {}), ("seqkd", {})):
        whole = result(make(label, wide, prompts_file, tmp_path, name=f"{label}-whole", **more))
        small = result(make(label, wide, prompts_file, tmp_path, name=f"{label}-{kind}", sections=table, **more))
        assert all(torch.tensor(small.losses).isfinite()) and small.losses != whole.losses


@pytest.mark.slow
def test_a_checkpoint_that_comes_quantised_needs_no_setting(wide, prompts_file, tmp_path):
    folder = tmp_path / "packed"
    model = loaded(wide[1], quantization="bnb-8bit", dtype="bfloat16")
    model.save_pretrained(folder)
    files.load_tokenizer(files.locate(str(wide[1]))).save_pretrained(folder)
    found = files.locate(str(folder))
    assert loading.quantization_of(found) == "bitsandbytes"
    again, ids = loaded(folder), torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits.float(), model(ids).logits.float(), rtol=0.05, atol=0.3)
    with pytest.raises(BadInput, match=r"quantised already \(bitsandbytes\); leave it out"):
        loaded(folder, quantization="bnb-4bit")
    with pytest.raises(BadInput, match="cannot be trained here"):
        loading.refuse_quantized(found)
    # Several weights in one number are not one parameter.
    assert shapes.parameters(found) == pytest.approx(shapes.parameters(files.locate(str(wide[1]))), rel=0.01)
    assert 0.9 < shapes.bytes_per_weight(found) < 1.5
    assert all(torch.tensor(result(make("kd", (wide[0], folder), prompts_file, tmp_path, name="packed")).losses) > 0)


@pytest.mark.slow
def test_every_method_takes_a_teacher_in_another_type(wide, prompts_file, tmp_path):
    """The student stays in float32; only the rounding of what the teacher says may change."""
    table = {"teacher": {"dtype": "bfloat16"}}
    for label in [one for one in LABELS if "@" not in one]:
        try:
            found = result(make(label, wide, prompts_file, tmp_path, name=label, sections=table))
        except Exception as error:
            raise AssertionError(f"{label}: {error}") from error
        assert all(torch.tensor(found.losses).isfinite()), label


def planned(tiny_world, tmp_path, *settings, methods=("kd", "seqkd", "sft")):
    path = tiny_world("[training]\nsteps = 2\nbatch = 6\n")
    return plan.prepare(RunRequest(methods, [PARITY], str(path), settings=settings, results=tmp_path / "results"))


def test_type_and_quantisation_are_another_training_and_the_device_is_not(tiny_world, tmp_path):
    ids = {
        words: [t.training_id for t in planned(tiny_world, tmp_path, *words).trainings]
        for words in (
            (),
            ("teacher.device=cpu",),
            ("teacher.dtype=bfloat16",),
            ("teacher.quantization=bnb-8bit",),
            ("teacher.quantization=bnb-4bit", "teacher.dtype=bfloat16"),
        )
    }
    plain, moved, *others = ids.values()
    assert plain == moved
    for one in others:
        assert one[0] != plain[0] and one[1] != plain[1] and one[2] == plain[2]  # sft has no teacher
    assert len({one[0] for one in ids.values()}) == 4
    assert all("teacher_loading" not in t.spec for t in planned(tiny_world, tmp_path).trainings)


@pytest.mark.slow
def test_a_loaded_teacher_stands_on_the_card_and_leads_back_to_its_command(tiny_world, models, tmp_path, capsys):
    path = tiny_world(f"[teacher]\ndtype = 'bfloat16'\ndevice = 'cpu'\n{TRAINING}")
    results = str(tmp_path / "results")
    words = ["--method", "kd", "--method", "teacher", "--method", "sft", "--task", PARITY, "--recipe", str(path)]
    assert main(["run", *words, "--results", results, "--json"]) == 0
    records = {r["method"]["name"]: r for r in json.loads(capsys.readouterr().out)["records"]}
    assert records["kd"]["convention"]["teacher_loaded"] == "bfloat16, on cpu"
    assert "teacher_loaded" not in records["sft"]["convention"]
    assert (
        records["kd"]["spec"]["teacher_loading"]
        == {"dtype": "bfloat16"}
        == records["teacher"]["spec"]["teacher_loading"]
    )
    tiny_world(TRAINING)
    given = Replacements(task=PARITY, recipe=str(path), student=str(models[0]), teacher=str(models[1]))
    for name in ("kd", "teacher"):
        back = find(records[name], tmp_path / "results", given)
        assert back.exact and "teacher.dtype=bfloat16" in back.request.settings


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("teacher.device=cuda:1", "teacher.device cuda:1: no CUDA device is visible here; use teacher.device cpu"),
        ("teacher.device=gpu", "teacher.device 'gpu' is not cpu, cuda, cuda:N or mps"),
        ("teacher.device=cpu:1", "is not cpu, cuda"),
        ("teacher.device=cuda:x", "is not cpu, cuda"),
        ("teacher.dtype=int8", "teacher.dtype='int8' is not one of float32, bfloat16, float16"),
        ("teacher.quantization=gptq", "is not one of bnb-4bit, bnb-8bit, torchao-int8, torchao-int4"),
        ("teacher.quantization=torchao-int4", "runs on CUDA devices only"),
    ],
)
def test_a_teacher_that_cannot_be_loaded_is_one_line(tiny_world, tmp_path, capsys, setting, said):
    path = tiny_world("[training]\nsteps = 2\n")
    asked = ["--method", "kd", "--task", PARITY, "--recipe", str(path), "--set", setting]
    assert main(["run", *asked, "--results", str(tmp_path / "results")]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and "\n" not in error and not (tmp_path / "results").exists()


@pytest.mark.parametrize(("kind", "package"), [("bnb-4bit", "bitsandbytes"), ("torchao-int8", "torchao")])
def test_a_missing_package_is_named_with_its_extra(wide, monkeypatch, kind, package):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=rf"needs {package}, which is not installed: pip install .*\[quantization\]"):
        loaded(wide[1], quantization=kind)


@pytest.mark.parametrize(("method", "words"), [("gptq", "optimum"), ("awq", "gptqmodel")])
def test_a_quantised_checkpoint_that_cannot_be_read_here_says_why(wide, tmp_path, method, words):
    """As such checkpoints come: their configuration names the way, and transformers what it takes."""
    folder = tmp_path / method
    folder.mkdir()
    for file in wide[1].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, "bits": 4, "group_size": 32}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match=rf"quantised \({method}\) and cannot be read here: .*{words}"):
        loaded(folder)


@pytest.mark.parametrize("made", ["gguf", "adapter"])
def test_what_is_rewritten_while_it_is_loaded_is_not_quantised(wide, made):
    found = replace(files.locate(str(wide[1])), **{made: wide[1]})
    with pytest.raises(BadInput, match=r"teacher\.quantization=bnb-8bit: teacher is an? (GGUF file|adapter), which is"):
        loading.check(found, Recipe("test", teacher=TeacherLoading(quantization="bnb-8bit")), "cpu")


def test_a_device_beyond_the_last_is_named(monkeypatch):
    from harness.models import devices

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert devices.check("cuda:1", "teacher.device") == "cuda:1"
    with pytest.raises(BadInput, match="--device cuda:2: 2 CUDA devices are visible here, up to cuda:1"):
        devices.check("cuda:2", "--device")


def test_memory_counts_the_teacher_as_it_is_loaded():
    from test_estimate import PAPER

    ends = PAPER.teacher.vocab * PAPER.teacher.hidden * 2
    layers = PAPER.teacher.parameters - ends
    weights = {
        name: memory_of(replace(PAPER, **change))["teacher weights"]
        for name, change in {
            "bfloat16": {},
            "float32": {"teacher_type": "float32"},
            "4 bits": {"teacher_weight": loading.bytes_of("bnb-4bit")},
            "apart": {"teacher_apart": True},
        }.items()
    }
    assert weights == {
        "bfloat16": 2 * PAPER.teacher.parameters,
        "float32": 4 * PAPER.teacher.parameters,
        "4 bits": round(2 * ends + 0.5625 * layers),
        "apart": 0,
    }


def test_what_the_teacher_read_to_score_texts_is_their_signal(models, monkeypatch):
    """Scores are a generator's; the signal of those texts takes no pass, and that of others is not touched."""
    files = locate(str(models[1]))
    model, tokenizer = load_model(files), load_tokenizer(files)
    live, vocab = LiveTeacher(model, 258), len(tokenizer)
    texts = [((1, 2, 3), (9, 8, 7, 6)), ((4,), (6, 5)), ((4, 6), (5, 250, 3, 3, 9))]
    rows = [TrainingSequence(prompt, response, Source.STUDENT, i) for i, (prompt, response) in enumerate(texts)]
    fresh = live.hidden(collate(rows, 257, None, "cpu"))
    theirs = Generator(model, tokenizer).score(texts)
    for batch in (1, 2, 8):
        ours = live.score(texts, batch, vocab)
        assert [s.greedy for s in ours] == [s.greedy for s in theirs]
        for a, b in zip(ours, theirs, strict=True):
            assert a.log_probs == pytest.approx(b.log_probs, abs=1e-4)
    passes = []
    states = LiveTeacher._states
    monkeypatch.setattr(LiveTeacher, "_states", lambda self, *a: passes.append(1) or states(self, *a))
    again = collate([rows[2], rows[0]], 257, None, "cpu")
    kept = live.hidden(again)
    torch.testing.assert_close(kept, torch.cat([fresh[6:], fresh[:4]]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(live.hidden(again, [1]), fresh[:4], rtol=1e-5, atol=1e-5)
    assert not passes
    other = TrainingSequence((4,), (6, 5, 5), Source.STUDENT, 3)
    assert len(live.hidden(collate([rows[1], other], 257, None, "cpu"))) == 5 and passes == [1]
