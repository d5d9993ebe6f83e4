"""An engine answers for one model: the one that is measured or teaches. What it cannot be is refused in one line."""

import json
from pathlib import Path

import pytest
from conftest import tiny_model
from vllm_stub import serving

import harness
from harness.cli import main
from harness.models import engine_choice

PARITY = str(Path(__file__).parent / "plugin/parity_plugin.py")
SHORT = "[training]\nsteps = 3\nbatch = 4\nmax_tokens = 64\nlearning_rate = 0.05\n"
SHORT += "[rollout]\nmax_new_tokens = 6\ntemperature = 0\n[evaluation]\nmax_new_tokens = 6\n"


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    """Models with as many rows as their tokenizer has tokens."""
    folder = tmp_path_factory.mktemp("exact")
    return tiny_model(folder / "student", 3, 16, 258), tiny_model(folder / "teacher", 7, 32, 258)


@pytest.fixture
def command(tiny_world, exact, tmp_path, capsys):
    """Runs a command; returns its exit code, its records and what it said last."""
    path = str(tiny_world(SHORT, models=exact))

    def run(methods, *settings, student=None, recipe=path):
        words = ["run", "--task", PARITY, "--recipe", str(recipe), "--results", str(tmp_path / "results"), "--json"]
        words += [word for method in methods for word in ("--method", method)]
        words += [word for setting in settings for word in ("--set", setting)]
        code = main(words + (["--student", student] if student else []))
        out, error = capsys.readouterr()
        return code, json.loads(out)["records"] if code == 0 else [], error.strip().splitlines()[-1]

    return run


@pytest.fixture(scope="module")
def server(exact):
    with serving(exact[0], context=250) as found:
        yield found


def texts(record, results):
    return harness.completions(record["run_id"], results=results)["text"].tolist()


@pytest.mark.slow
def test_a_running_server_is_given_the_weights_of_every_model_that_is_measured(command, exact, tmp_path):
    """The trained student, the untrained one, one after the other: texts are those of this process."""
    methods, shared, results = ("gkd", "untouched"), tmp_path / "shared", tmp_path / "results"
    _, here, _ = command(methods)
    with serving(exact[0]) as server:
        code, there, said = command(methods, f"evaluation.engine=vllm:m@{server.url},weights={shared}")
        assert code == 0, said
        assert [path for path, _ in server.seen].count("/collective_rpc") == 2 and not list(shared.iterdir())
    found = [[texts(record, results) for record in records] for records in (here, there)]
    assert found[0] == found[1] and found[0][0] != found[0][1]
    assert [a["training_id"] for a in here] == [b["training_id"] for b in there]


TOP = ("training.signal=top-k", "training.top_k=4")


@pytest.mark.parametrize(
    ("methods", "settings", "said"),
    [
        (
            ["untouched", "teacher"],
            ["evaluation.engine=vllm:m@URL"],
            "one running server; evaluate them in separate commands",
        ),
        (
            ["gkd"],
            [*TOP, "teacher.engine=vllm:m@URL", "rollout.engine=vllm:m@URL/,weights=W"],
            "the student (rollout.engine) and the teacher would share one running server; give the teacher a server",
        ),
        (
            ["gkd"],
            [*TOP, "teacher.engine=vllm:m@URL", "evaluation.engine=vllm:m@URL,weights=W"],
            "the teacher (teacher.engine) and the student would share one running server",
        ),
        (["untouched"], ["evaluation.engine=vllm:m@URL", "evaluation.dtype=bfloat16"], "decides the type of its weigh"),
        (["gkd"], [*TOP, "teacher.engine=vllm:m@URL", "teacher.dtype=bfloat16"], "decides the type of its weights"),
        (["gkd"], [*TOP, "teacher.engine=vllm:m@URL,weights=W"], "a teacher's server keeps its own weights"),
        (["untouched"], ["evaluation.engine=vllm:m@URL", "evaluation.max_new_tokens=240"], "reads 250 tokens and the"),
    ],
)
def test_an_engine_that_would_answer_for_another_model_is_refused(command, server, methods, settings, said):
    code, _, line = command(methods, *(setting.replace("URL", server.url) for setting in settings))
    assert code == 2 and said in line, line


def test_a_served_student_has_no_second_engine(command, server):
    for engine in ("vllm", f"vllm:m@{server.url}"):
        code, _, line = command(["untouched"], f"evaluation.engine={engine}", student=f"openai:m@{server.url}")
        assert code == 2 and "openai:m already runs on a server" in line, line


def test_an_adapter_is_not_served_as_its_base_model(command, exact, tmp_path, monkeypatch):
    monkeypatch.setattr(engine_choice, "version", lambda where: "0")
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(exact[0])}))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    code, _, line = command(["untouched"], "evaluation.engine=vllm", student=str(folder))
    assert code == 2 and "vLLM needs whole models, and adapter is an adapter" in line, line


@pytest.mark.parametrize(
    ("engine", "signal", "said"),
    [
        ("vllm:q@OTHER", "top-k", "teachers.second.engine: the server has n, not q; name that"),
        ("vllm:n@OTHER", "top-k", "teachers.second.engine=vllm:n does not give the 9 likeliest tokens"),
        ("vllm:n@OTHER", "hidden", "teachers.second.engine=vllm:n gives only likeliest tokens"),
        (
            "vllm:m@URL",
            "top-k",
            "and the teacher second would share one running server; give the teacher second a server",
        ),
        ("openai:n@OTHER", "top-k", "only vLLM returns log-probabilities"),
    ],
)
def test_every_teachers_server_is_looked_at_before_any_work(
    command, exact, server, tiny_world, tmp_path, engine, signal, said
):
    rows = tmp_path / "rows.jsonl"
    made = [{"prompt": f"{i}:", "response": "r", "who": "second" if i % 2 else "teacher"} for i in range(8)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in made))
    with serving(exact[1], name="n", top=5) as other:
        engine = engine.replace("URL", server.url).replace("OTHER", other.url)
        text = f"teacher_field = 'who'\n{SHORT}[teachers.second]\nmodel = '{exact[1]}'\nengine = '{engine},retries=0'\n"
        path = tiny_world(text, models=exact, prompts=rows)
        first = () if signal == "hidden" else (f"teacher.engine=vllm:m@{server.url}",)
        code, _, line = command(["gkd"], f"training.signal={signal}", "training.top_k=9", *first, recipe=path)
    assert code == 2 and said in line, line
