"""Engines: the same words mean the same in all of them, weights follow the student, and what cannot work is one line.

The servers are stand-ins that speak vLLM's protocol (tests/vllm_stub.py); the last test starts vLLM itself where
``make vllm`` made its environment.
"""

import functools
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import tiny_model
from tiny_runs import quiet
from vllm_stub import DIES, serving

from harness import measured, method_probe, plan, registry, students
from harness.cli import main
from harness.errors import BadInput, RunFailed
from harness.models import engine_choice, engines, files, vllm_server
from harness.models.engine_choice import PYTHON, EngineChoice, VllmOptions, chosen
from harness.models.generate import Generator
from harness.models.openai_client import OpenAIClient
from harness.models.remote_engine import RemoteEngine
from harness.models.vllm_server import RunningServer, VllmServer
from harness.plan import RunRequest
from harness.rerun import recipe_settings
from harness.training.student_engine import StudentEngine
from harness.types import Decoding

PARITY = str(Path(__file__).parent / "plugin/parity_plugin.py")
SHORT = "[training]\nsteps = 4\nbatch = 4\nmax_tokens = 64\n"
SHORT += "[rollout]\nmax_new_tokens = 6\ntemperature = 0\n[teacher_text]\nmax_new_tokens = 6\n"


def opened(server, folder, kind="vllm") -> RemoteEngine:
    client = OpenAIClient("m", server.url, chosen(f"{kind}:m@{server.url},retries=0", "x").server)
    generator = local(folder)
    return RemoteEngine(RunningServer(client, kind, 8), generator.tokenizer, generator.end_ids, generator.limit, 258)


def local(folder) -> Generator:
    found = files.locate(str(folder))
    return Generator(files.load_model(found), files.load_tokenizer(found), words=258)


def planned(tiny_world, tmp_path, *settings, methods=("gkd",), text=SHORT, seeds=(0,), **more):
    recipe = str(tiny_world(text))
    return plan.prepare(
        RunRequest(methods, [PARITY], recipe, settings=settings, seeds=seeds, results=tmp_path / "results", **more)
    )


def curve(made, label="gkd"):
    training = next(t for t in made.trainings if t.label == label)
    return students.train_run(made, training, quiet)


# -- one meaning in all engines


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    """A model with as many rows as its tokenizer has tokens."""
    return tiny_model(tmp_path_factory.mktemp("exact") / "exact", 3, 16, 258)


def test_texts_and_log_probabilities_agree_with_those_of_this_process(exact):
    """Greedy ids, ends, stop strings inside and across tokens, the limit of the context, and every log-probability."""
    prompts = ["ab", "a longer prompt: 12", "x" * 252, "y" * 300, ""]
    with serving(exact) as server:
        ours, theirs = local(exact), opened(server, exact)
        plain = ours.generate(prompts, Decoding(max_new_tokens=12), [0] * 5)
        middle = plain[0].text[3:5]
        for decoding in (
            Decoding(max_new_tokens=12),
            Decoding(max_new_tokens=12, stop=(middle, "never")),
            Decoding(max_new_tokens=1),
        ):
            for a, b in zip(
                ours.generate(prompts, decoding, [0] * 5), theirs.generate(prompts, decoding, [0] * 5), strict=True
            ):
                assert (a.text, a.ids, a.finish, a.prompt_tokens) == (b.text, b.ids, b.finish, b.prompt_tokens)
                assert a.log_probs == pytest.approx(b.log_probs, abs=1e-4)
        assert len(plain[2].ids) == 4 and plain[3].ids == ()  # four places are left in the context, and none
        # An ending token ends a text in both, and is its last id.
        for engine in (ours, theirs):
            engine.end_ids = {*engine.end_ids, plain[0].ids[2]}
        a, b = (engine.generate(prompts[:1], Decoding(max_new_tokens=12), [0])[0] for engine in (ours, theirs))
        assert a.ids == b.ids == plain[0].ids[:3] and a.finish == b.finish == "stop"
        pairs = [(list(b"one"), list(b"two")), ([], list(b"x"))]
        for a, b in zip(ours.score(pairs), theirs.score(pairs), strict=True):
            assert a.log_probs == pytest.approx(b.log_probs, abs=1e-4) and a.greedy == b.greedy
        # A seed decides a text, whatever it is asked together with.
        hot = Decoding(temperature=1.0, max_new_tokens=8)
        both = theirs.generate(prompts[:2], hot, [5, 6])
        assert theirs.generate(prompts[1:2], hot, [6]) == both[1:] and both != theirs.generate(prompts[:2], hot, [7, 8])


def test_a_server_of_texts_is_encoded_anew(models):
    with serving(models[0], ids=False) as server:
        theirs = opened(server, models[0], "openai")
        (made,) = theirs.generate(["ab"], Decoding(max_new_tokens=5), [0])
        (ours,) = local(models[0]).generate(["ab"], Decoding(max_new_tokens=5), [0])
    assert made.log_probs == () and (made.text, made.finish) == (ours.text, ours.finish)


# -- the student's rollouts


@pytest.mark.slow
def test_rollouts_of_an_engine_train_the_student_of_this_process(tiny_world, models, exact, tmp_path):
    """Greedy text is the same, so is every loss; the gap says how close the probabilities are."""
    shared, tiny_world = tmp_path / "shared", functools.partial(tiny_world, models=(exact, models[1]))
    with serving(exact) as server:
        word = f"rollout.engine=vllm:m@{server.url},weights={shared}"
        alone = curve(planned(tiny_world, tmp_path))
        made = planned(tiny_world, tmp_path, word)
        result = curve(made)
        assert [r["loss"] for r in result.curve] == pytest.approx([r["loss"] for r in alone.curve], rel=1e-4)
        assert all(r["engine_gap_max"] < 1e-4 for r in result.curve) and "engine_gap_max" not in alone.curve[0]
        assert result.engine["copies"] == 4 and result.engine["gap_max"] < 1e-4 and not alone.engine
        # Weights of every second step: every other text is one step old, and the gap holds what was learnt since.
        stale = curve(planned(tiny_world, tmp_path, word, "rollout.sync_every=2", "training.learning_rate=0.05"))
        assert [r["buffer_age"] for r in stale.curve] == [0, 1, 0, 1] and stale.engine["copies"] == 2
        assert stale.curve[1]["engine_gap_mean"] > 100 * stale.curve[0]["engine_gap_mean"]
        # Importance weights of 1 change nothing, capped ones do.
        weighed = curve(planned(tiny_world, tmp_path, word, "rollout.importance_cap=2"))
        halved = curve(planned(tiny_world, tmp_path, word, "rollout.importance_cap=0.5"))
        assert weighed.curve[0]["loss"] == pytest.approx(alone.curve[0]["loss"], rel=1e-4)
        assert halved.curve[0]["loss"] == pytest.approx(alone.curve[0]["loss"] / 2, rel=1e-4)
    spec = made.trainings[0].spec
    assert spec["rollout"]["engine"] == "vllm:m" and server.url not in json.dumps(spec)
    card = measured.convention_card(made, made.trainings[0], {"curve": result.curve})
    assert card["rollout_engine"] == "vllm:m, weights of every 1. step, no importance weights"
    assert "rollout.engine=vllm:m" in recipe_settings.of_training(spec, planned(tiny_world, tmp_path).recipe)


@pytest.mark.slow
def test_an_adapter_reaches_the_engine_merged(tiny_world, models, exact, tmp_path):
    pytest.importorskip("peft")
    lora = ("student.adapter=lora", "student.rank=2", "training.learning_rate=0.05")
    tiny_world = functools.partial(tiny_world, models=(exact, models[1]))
    with serving(exact) as server:
        word = f"rollout.engine=vllm:m@{server.url},weights={tmp_path / 'shared'}"
        result = curve(planned(tiny_world, tmp_path, word, *lora))
    assert all(r["engine_gap_max"] < 1e-3 for r in result.curve)


# -- the teacher behind a server


def test_a_served_teacher_writes_and_tells_its_likeliest_tokens(tiny_world, models, exact, tmp_path):
    """gkd on a top-k signal, kept and of text just sampled, and the texts of seqkd: as with the teacher here."""
    tiny_world = functools.partial(tiny_world, models=(models[0], exact))
    signal = ("training.signal=top-k", "training.top_k=9", "teacher_text.temperature=0")
    labels = ("gkd", "seqkd")
    alone = {label: curve(planned(tiny_world, tmp_path, *signal, methods=[label]), label).curve for label in labels}
    with serving(exact) as server:
        word = f"teacher.engine=vllm:m@{server.url}"
        for label in labels:
            made = planned(tiny_world, tmp_path, *signal, word, methods=[label])
            found = curve(made, label).curve
            assert [r["loss"] for r in found] == pytest.approx([r["loss"] for r in alone[label]], rel=1e-4)
        asked = len(server.seen)
        curve(planned(tiny_world, tmp_path, *signal, word, methods=["seqkd"]), "seqkd")
        assert not [path for path, _ in server.seen[asked:] if path == "/v1/completions"]  # every text is kept
    assert made.trainings[0].spec["teacher_loading"] == {"engine": "vllm:m"}


def test_every_row_has_a_served_teacher_of_its_own(tiny_world, models, exact, tmp_path, tmp_path_factory):
    second = tiny_model(tmp_path_factory.mktemp("second") / "second", 7, 32, 258)
    rows = tmp_path / "rows.jsonl"
    made = [{"prompt": f"{i}:", "response": "r", "who": "second" if i % 2 else "teacher"} for i in range(8)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in made))
    text = f"teacher_field = 'who'\n{SHORT}[teachers.second]\nmodel = '{second}'\n"

    def losses(*settings, further=""):
        path = tiny_world(text + further, models=(models[0], exact), prompts=rows)
        settings = ("training.signal=top-k", "training.steps=2", *settings)
        found = plan.prepare(RunRequest(["gkd"], [PARITY], str(path), settings=settings, results=tmp_path / "results"))
        return [r["loss"] for r in curve(found).curve]

    with serving(exact) as first, serving(second, name="n") as other:
        served = losses(f"teacher.engine=vllm:m@{first.url}", further=f"engine = 'vllm:n@{other.url}'\n")
    assert served == pytest.approx(losses(), rel=1e-4)


def test_a_served_teacher_is_measured_where_it_lives(tiny_world, exact, models, tmp_path, capsys):
    """The engine stands in protocol and record, the command shows it, and no weights are read for the answers."""
    recipe = str(tiny_world(SHORT, models=(models[0], exact)))
    with serving(exact) as server:
        words = ["run", "--method", "teacher", "--task", PARITY, "--recipe", recipe, "--results", str(tmp_path / "r")]
        assert main([*words, "--set", f"teacher.engine=vllm:m@{server.url}", "--json"]) == 0
        (record,) = json.loads(capsys.readouterr().out)["records"]
        assert len([path for path, _ in server.seen if path == "/v1/completions"]) == record["counts"]["total"]
    assert record["protocol"]["engine"] == "vllm:m" and record["engine"] == {"evaluation": {"engine": "vllm:m"}}
    assert record["spec"]["teacher_loading"] == {"engine": "vllm:m"} and "127.0.0.1" not in json.dumps(record)


# -- a server of the harness' own: it starts, dies, comes back, and ends


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """A stand-in for vLLM's interpreter; returns the folder whose files kill servers."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("vllm_stub.py")} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv(PYTHON, str(script))
    (tmp_path / "dies").mkdir()
    monkeypatch.setenv(DIES, str(tmp_path / "dies"))
    monkeypatch.setattr("harness.models.vllm_server.LOOK_S", 0.05)
    monkeypatch.setattr(vllm_server, "fitted_form", lambda folder, *_: folder)
    engine_choice.version.cache_clear()
    yield tmp_path / "dies"
    engine_choice.version.cache_clear()


def test_a_server_that_died_comes_back_with_its_weights(stub, models, tmp_path):
    server = VllmServer(models[0], EngineChoice("vllm"), "cpu", tmp_path / "log")
    found = local(models[0])
    engine = RemoteEngine(server, found.tokenizer, found.end_ids, found.limit)
    try:
        asked = (["a", "b"], Decoding(max_new_tokens=40), [0, 0])

        def said() -> set[bytes]:
            return {bytes(made.ids[:-1]) for made in engine.generate(*asked)}

        assert said() == {b"1student"}
        server.load(models[1])
        assert said() == {b"2teacher"}
        (stub / "now").touch()
        assert said() == {b"1teacher"} and server.restarts == 1
        os.killpg(server.process.pid, signal.SIGKILL)  # between two requests, before it gets new weights
        server.load(models[0])
        assert said() == {b"1student"} and server.restarts == 2
        (stub / "now").touch()
        with pytest.raises(RunFailed, match=r"vLLM died 3 times, .* goes on from the last checkpoint"):
            engine.generate(*asked)
    finally:
        server.stop()
    broken = tmp_path / "broken"
    with pytest.raises(RunFailed, match="vLLM did not start: RuntimeError: this model cannot be served; its log is"):
        VllmServer(broken, EngineChoice("vllm"), "cpu", tmp_path / "log").start()


def test_a_server_that_takes_connections_and_says_nothing_is_given_up_in_time(stub, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.models.vllm_server.HEALTH_S", 0.3)
    impatient = EngineChoice("vllm", vllm=VllmOptions(start_s=2))
    with pytest.raises(RunFailed, match=r"within start_s=2 seconds: .*; give it longer \(vllm,start_s=…\), its log is"):
        VllmServer(tmp_path / "silent", impatient, "cpu", tmp_path / "log").start()


def test_a_run_starts_and_ends_its_own_server(stub, tiny_world, tmp_path, monkeypatch):
    """Its engine gets the student without the rows of a padded vocabulary, 260 of which 258 are tokens."""
    written, write = [], StudentEngine._write

    def noted(engine):
        folder = write(engine)
        written.append(files.load_model(files.locate(str(folder))).get_output_embeddings().weight.shape[0])
        return folder

    monkeypatch.setattr(StudentEngine, "_write", noted)
    made = planned(tiny_world, tmp_path, "rollout.engine=vllm,dtype=float32", "rollout.sync_every=3")
    result = curve(made)
    assert result.engine | {"copy_seconds": 0} == {
        "engine": "vllm,dtype=float32 0.0.stub", "sync_every": 3, "copies": 2, "copy_seconds": 0, "restarts": 0,
        "gap_mean": result.engine["gap_mean"], "gap_max": result.engine["gap_max"],
    }  # fmt: skip
    assert math.isfinite(result.engine["gap_max"]) and written == [258, 258]
    log = made.work / "training" / made.trainings[0].training_id / "engine"
    assert not log.exists()


# -- in one line, before any work


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["rollout.engine=vlm"], "rollout.engine: unknown engine 'vlm'"),
        (["rollout.engine=vllm,memory=2"], "memory=2.0 is outside"),
        (["rollout.engine=vllm,sleep=yes"], "sleep of vllm is for a GPU, and the run is on cpu"),
        (["rollout.engine=openai:m@http://127.0.0.1:9/v1"], "cannot be given the student's new weights"),
        (["rollout.engine=vllm:m@http://127.0.0.1:9/v1"], ",weights=FOLDER"),
        (["rollout.engine=vllm:m"], "is not a server address; write vllm:NAME@http://host:port/v1"),
        (["rollout.engine=vllm:m@http://127.0.0.1:9/v1,weights=w,retries=0"], "the server of m does not answer"),
        (["rollout.sync_every=2"], "rollout.sync_every=2 belongs to an engine"),
        (["rollout.engine=vllm"], "vLLM is not installed"),
        (["evaluation.engine=openai:m@http://127.0.0.1:9/v1"], "a running server cannot be given the trained student"),
        (["teacher.engine=vllm"], "set training.signal=top-k"),
        (["teacher.engine=vllm", "teacher.quantization=bnb-4bit"], "a checkpoint that comes quantised"),
    ],
)
def test_engines_that_cannot_work_are_refused(tiny_world, tmp_path, monkeypatch, settings, said):
    monkeypatch.setattr(engine_choice, "interpreter", lambda: None)
    engine_choice.version.cache_clear()
    with pytest.raises(BadInput) as error:
        planned(tiny_world, tmp_path, *settings)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("method", "said"),
    [("minillm", "samples student and teacher together"), ("skd", "samples student and teacher together")],
)
def test_joint_sampling_stays_in_this_process(tiny_world, tmp_path, method, said):
    with pytest.raises(BadInput, match=said):
        planned(tiny_world, tmp_path, "rollout.engine=vllm", methods=[method])


@pytest.mark.parametrize(("name", "own"), [("opd", True), ("minillm", True), ("sdpo", True), ("gkd", False)])
def test_a_method_that_weighs_by_its_sampler_is_known(name, own):
    """minillm reads the sampler in its sequence features, gkd not at all."""
    found = registry.find(registry.METHODS, name)
    assert method_probe.weighs_by_sampler(found(found.Config())) == own


def test_an_importance_cap_beside_the_ratio_of_a_method_is_refused(tiny_world, tmp_path):
    with pytest.raises(BadInput) as error:
        planned(tiny_world, tmp_path, "rollout.engine=vllm", "rollout.importance_cap=2", methods=["gkd", "opd"])
    assert "importance_cap=2 weights a token" in str(error.value) and "method opd does itself" in str(error.value)


def test_a_server_that_is_not_what_was_asked_for_is_refused(tiny_world, models, tmp_path):
    with serving(models[1], context=40, top=5) as server:
        base = f"@{server.url},weights={tmp_path},retries=0"

        def refused(*settings):
            with pytest.raises(BadInput) as error:
                planned(tiny_world, tmp_path, *settings)
            return str(error.value)

        assert "the server has m, not other; name that" in refused(f"rollout.engine=vllm:other{base}")
        assert "reads 40 tokens and the run needs 64" in refused(f"rollout.engine=vllm:m{base}")
        server.context, tokenize = 256, server.tokenize
        server.tokenize = lambda text: tokenize(text)[1:]
        assert "has another tokenizer" in refused(f"rollout.engine=vllm:m{base}")
        server.tokenize = tokenize
        signal = ("training.signal=top-k", f"teacher.engine=vllm:m@{server.url},retries=0")
        assert "the 15 likeliest tokens that training.top_k=9 needs" in refused(*signal, "training.top_k=9")


def test_the_command_line_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(engine_choice, "interpreter", lambda: None)
    engine_choice.version.cache_clear()
    words = ["run", "--method", "gkd", "--task", "amc23@micro", "--set", "rollout.engine=vllm", "--dry-run"]
    assert main([*words, "--results", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "make vllm" in said and PYTHON in said and said.count("\n") == 1


def test_a_server_on_busy_cores_is_given_time_and_one_out_of_memory_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("VLLM_ENGINE_READY_TIMEOUT_S", "7")  # what somebody chose stays
    server = VllmServer(tmp_path, chosen("vllm", "x"), "cpu", tmp_path / "log")
    given = server._environment()
    assert (given["VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS"], given["VLLM_ENGINE_READY_TIMEOUT_S"]) == ("3600", "7")
    assert (given["TORCH_COMPILE_DISABLE"], given["VLLM_ENABLE_V1_MULTIPROCESSING"]) == ("1", "0")
    assert "TORCH_COMPILE_DISABLE" not in VllmServer(tmp_path, chosen("vllm", "x"), "cuda", server.log)._environment()
    assert server._reason() == "it left no log"
    server.process = subprocess.Popen(["sleep", "60"])
    server.process.kill()
    server.process.wait()
    assert server._reason() == "signal 9, which the system sends if memory runs out"


# -- vLLM itself


@pytest.mark.slow
def test_vllm_itself_agrees(exact, tmp_path):
    if engine_choice.interpreter() is None:
        pytest.skip("no environment with vLLM; make vllm makes one")
    choice = engine_choice.with_dtype(EngineChoice("vllm"), "float32")
    found = files.locate(str(exact))
    ours, theirs = local(exact), engines.remote(found, choice, "cpu", tmp_path / "log", words=258)
    theirs.end_ids = ours.end_ids
    try:
        prompts, decoding = ["ab", "a longer prompt: 12"], Decoding(max_new_tokens=12)
        for a, b in zip(
            ours.generate(prompts, decoding, [0, 0]), theirs.generate(prompts, decoding, [0, 0]), strict=True
        ):
            assert a.ids == b.ids and a.log_probs == pytest.approx(b.log_probs, abs=1e-3)
    finally:
        theirs.server.stop()


def test_the_form_for_cpus_is_the_same_model(tmp_path):
    """vLLM's CPU attention knows heads of 32 numbers and more (these have 8), and packs a tied head only once."""
    tied = tiny_model(tmp_path / "tied", 3, 16, 258, tied=True)
    made = vllm_server.fitted_form(tied, tmp_path, reloaded=True)
    before, after = (files.load_model(files.locate(str(folder))) for folder in (tied, made))
    assert (before.config.head_dim, after.config.head_dim) == (8, 32)
    ids = torch.arange(60)[None] % 258
    torch.testing.assert_close(before(ids).logits, after(ids).logits, rtol=1e-4, atol=1e-4)
    ends = after.get_input_embeddings().weight, after.get_output_embeddings().weight
    assert ends[0] is not ends[1] and torch.equal(*ends)
    assert vllm_server.fitted_form(made, tmp_path, reloaded=True) == made
