"""A record back to its command, and run again: the same ids, the record untouched, every difference counted."""

import json
import shlex
from pathlib import Path

import pytest
from test_cli import HALFWAY, PARITY, records_of, world  # noqa: F401  (a fixture)

from harness import cli
from harness.cli import main
from harness.commands.run import request_of
from harness.errors import BadInput
from harness.evaluation import measurement
from harness.plan import DEFAULT_RECIPE, prepare
from harness.records.store import Store
from harness.rerun import command, verify
from harness.rerun.command import Replacements

PUBLISHED = Path(__file__).parent.parent / "results/micro"


def parsed(line):
    """The request that the command line ``line`` makes."""
    words = shlex.split(line)
    assert words[:2] == ["harness", "run"]
    return request_of(cli.parser().parse_args(words[1:]))


def ids(line):
    """(training id, identity) of the one run that a command line asks for."""
    plan = prepare(parsed(line))
    (training,), (task,) = plan.trainings, plan.tasks
    return training.training_id, measurement.of(plan, training, task).identity


@pytest.mark.slow
def test_every_published_record_has_a_command_that_makes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records, _ = Store(PUBLISHED).all()
    assert len(records) > 150
    # One record of every configuration: its seeds and tasks differ in nothing that a command has to find.
    each = {(r["method"]["name"], r["method"]["variant"], r["cost"]["steps"]): r for r in records}
    assert len(each) > 12
    for record in each.values():
        found = command.find(record, Path("results"))
        assert found.same_training and found.plan.trainings[0].training_id == record["training_id"]
        asked = parsed(command.line(found.request))
        for field in ("methods", "tasks", "recipe", "student", "teacher", "seeds", "settings", "judge", "protocol"):
            default = DEFAULT_RECIPE if field == "recipe" else None
            assert (getattr(asked, field) or default) == (getattr(found.request, field) or default), record["run_id"]
        # A task whose version rose since is measured otherwise, and the command says so.
        if found.plan.tasks[0].version == record["protocol"]["version"]:
            assert found.exact, found.differs
        else:
            assert "protocol.version" in found.differs
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["small", "engines"])
def test_records_of_shipped_models_need_no_file(folder):
    """The models of the small world have names of their own, as those of the micro world do."""
    records, _ = Store(PUBLISHED.parent / folder).all()
    assert records
    for record in records:
        command.check_form(record, Replacements())


@pytest.mark.slow
def test_the_printed_command_gives_the_same_ids(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("gkd-humaneval@micro-s0-cbe4", "vcrd@shuffled-amc23@micro-s3", "teacher-humaneval@micro-s0"):
        record = Store(PUBLISHED).get(name)
        assert main(["show", name, "--command", "--results", str(PUBLISHED)]) in (0, 1)
        training, identity = ids(capsys.readouterr().out)
        assert training == record["training_id"]
        current = prepare(parsed(f"harness run --method sft --task {record['task']}")).tasks[0].version
        assert (identity == record["identity"]) == (current == record["protocol"]["version"])


OVERRIDES = [
    ["--method", "gkd", "--set", "method.beta=0.25", "--set", "method.on_policy=0"],
    ["--method", "gkd@trl", "--seed", "7"],
    ["--method", "vcrd", "--set", "training.learning_rate=3e-05", "--set", "rollout.top_p=0.9"],
    ["--method", "sft", "--set", "data.limit=30", "--set", "training.steps=0"],
    ["--method", "kd", "--set", "data.limit=30", "--set", "teacher_text.temperature=0.7"],
    ["--method", "kd", "--set", "data.limit=none", "--set", "training.signal=top-k", "--set", "training.top_k=8"],
    ["--method", "untouched", "--set", "evaluation.limit=5", "--set", "evaluation.temperature=0.5"],
    ["--method", "teacher", "--set", "evaluation.samples=3", "--set", "evaluation.max_new_tokens=20"],
    ["--method", "kd", "--student", "micro:teacher"],
    ["--method", "teacher", "--teacher", "micro:student"],
]


@pytest.mark.parametrize("words", OVERRIDES, ids=" ".join)
def test_overrides_are_read_back_from_what_was_resolved(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = prepare(parsed(shlex.join(["harness", "run", "--task", "amc23", *words])))
    (training,), (task,) = plan.trainings, plan.tasks
    found = measurement.of(plan, training, task)
    protocol, identity = found.protocol, found.identity
    record = {  # an older one, which keeps no words of the request
        "run_id": "x",
        "method": {"name": training.method.name, "variant": training.variant},
        "task": task.title,
        "seed": training.seed,
        "student": plan.student.id,
        "teacher": plan.teacher.id if plan.teacher and training.spec.get("teacher") else None,
        "spec": json.loads(json.dumps(training.spec)),
        "training_id": training.training_id,
        "protocol": json.loads(json.dumps(protocol)),
        "provenance": {"device": "cpu"},
    }
    found = command.find(record, tmp_path)
    assert found.exact, found.differs
    assert ids(command.line(found.request)) == (training.training_id, identity)


@pytest.mark.parametrize(
    ("judge", "word"),
    [
        ({"kind": "longest"}, "longest"),
        ({"kind": "openai", "model": "m", "revision": None, "protocol": "distillm2", "temperature": 1.0,
          "max_tokens": 1024}, "openai:m,protocol=distillm2,temperature=1.0,max_tokens=1024"),
        ({"kind": "openai", "model": "m", "revision": "7", "protocol": "alpacaeval-2", "temperature": 0.5,
          "max_tokens": 9}, "openai:m,revision=7,protocol=alpacaeval-2,temperature=0.5,max_tokens=9"),
        ({"kind": "hf", "model": "org/j", "revision": "0" * 64, "protocol": "alpacaeval-1", "temperature": 0.0,
          "max_tokens": 100}, "hf:org/j,protocol=alpacaeval-1,temperature=0.0,max_tokens=100"),
        ({"kind": "replay", "annotations_sha256": "0" * 64}, None),
        ({"kind": "hf", "model": "../evil", "revision": ""}, None),
        ({"kind": "openai", "model": "m@http://127.0.0.1:9/v1", "revision": None}, None),
        (None, None),
    ],
)  # fmt: skip
def test_a_judge_is_named_as_far_as_its_record_tells(judge, word):
    assert command.judge_word({"protocol": {"grader": {"engine": "judge", "judge": judge}}}) == word


def test_a_judge_of_ones_own_is_named_by_the_word_of_its_request(capsys):
    judge = {"kind": "longest", "code": "sha256:00"}  # whatever its fields say
    record = {"protocol": {"grader": {"judge": judge}}, "request": {"judge": "most_digits.py:3"}}
    assert command.judge_word(record) == "most_digits.py:3" and command.judge_word(record | {"request": {}}) is None
    (said,) = command._judge_file(record, command.Replacements())
    assert "--judge FILE" in said and not list(command._judge_file(record, command.Replacements(judge="x")))
    assert not list(command._judge_file({"request": {"judge": "micro"}}, command.Replacements()))


def one_record(results):
    (record,), _ = Store(results).all()
    return record


def test_what_a_record_cannot_hold_is_given_along(world, capsys, tmp_path, monkeypatch):  # noqa: F811
    run, results, recipe = world
    assert run("--set", "method.end=0.25", "--set", "data.limit=3", "--set", "evaluation.limit=2", method=HALFWAY) == 0
    record = one_record(results)
    assert record["request"] == {
        "method": "halfway_plugin.py",
        "task": "parity_plugin.py",
        "recipe": "tiny.toml",
        "settings": ["method.end=0.25", "data.limit=3", "evaluation.limit=2"],
    }
    assert str(tmp_path) not in json.dumps(record)
    capsys.readouterr()
    show = ["show", record["run_id"][:12], "--command", "--results", str(results)]
    monkeypatch.chdir(tmp_path / "data")
    assert main(show) == 2  # nothing of it lies here
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "--method FILE" in said and "--task FILE" in said
    given = ["--method", HALFWAY, "--task", PARITY, "--recipe", str(recipe)]
    assert main([*show, *given]) == 0
    assert ids(capsys.readouterr().out) == (record["training_id"], record["identity"])
    copy = tmp_path / "copy.py"
    copy.write_text(Path(HALFWAY).read_text())
    monkeypatch.chdir(tmp_path)  # where the recipe has the name that the record tells
    given = ["--method", "./copy.py", "--task", PARITY]
    assert main([*show, *given]) == 0
    assert ids(capsys.readouterr().out) == (record["training_id"], record["identity"])
    recipe.write_text(recipe.read_text().replace("steps = 2", "steps = 2\nwarmup = 0.5\nthreads = 1"))
    assert main([*show, *given]) == 0 and "--set training.warmup=0.05" in capsys.readouterr().out
    copy.write_text(Path(HALFWAY).read_text() + "\n")
    assert main([*show, *given]) == 1  # another file: printed, and told what differs
    said = capsys.readouterr()
    assert "harness run" in said.out and "method.origin was" in said.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": {"name": "./evil.py", "variant": None}}, "--method FILE"),
        ({"method": {"name": "gkd", "variant": "x/evil.py"}}, "--method FILE"),
        ({"task": "./evil.py"}, "--task FILE"),
        ({"task": "lm_eval:../evil/task"}, "--task FILE"),
        ({"student": "/etc"}, "--student"),
        ({"teacher": "../evil"}, "--teacher"),
        ({"student": "openai:m@http://127.0.0.1:9/v1"}, "--student"),
        ({"request": {"method": "gkd", "task": "amc23", "recipe": "micro", "settings": ["data.prompts=/etc/passwd"]}},
         "--recipe FILE"),
        ({"request": {"method": "gkd", "task": "amc23", "recipe": "micro", "settings": ["data.prompts=data:../x"]}},
         "--recipe FILE"),
    ],
)  # fmt: skip
def test_no_path_is_taken_from_a_record(change, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    (tmp_path / "gkd@x").mkdir()
    (tmp_path / "gkd@x/evil.py").write_text("raise SystemExit('ran')")
    record = Store(PUBLISHED).get("gkd-amc23@micro-s0") | change
    with pytest.raises(BadInput, match=message):
        command.find(record, tmp_path)
    if "task" in change:
        with pytest.raises(BadInput, match=message):
            verify.grade_again(record, Store(PUBLISHED), Replacements(), None)


def test_show_refuses_what_leads_nowhere(world, capsys):  # noqa: F811
    run, results, _ = world
    assert run() == 0
    where = ["--results", str(results)]
    for words, message in (
        (["show", "nothing", "--command"], "no such record|unknown record"),
        (["show", "method", "sft", "--command"], "takes one record"),
        (["show", "sft", "--recipe", "micro"], "go with --command"),
    ):
        capsys.readouterr()
        assert main([*words, *where]) == 2
        assert capsys.readouterr().err.count("\n") == 1, message


@pytest.fixture
def recorded(world, capsys):  # noqa: F811
    """(words that verify the one record, its results folder)"""
    run, results, recipe = world
    assert run(method="kd") == 0
    capsys.readouterr()
    words = ["verify", "kd", "--results", str(results), "--task", PARITY]
    return words, results, recipe


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_record_that_holds_is_equal_and_untouched(recorded, capsys, tmp_path):
    words, results, recipe = recorded
    before = snapshot(results)
    assert main([*words, "--recipe", str(recipe), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["equal"] and report["difference"] == 0 and report["compared"] == 4 and report["curve"] == 0
    assert report["machine_then"] == report["machine_now"] and report["machine_now"]["kernel"]
    assert main([*words, "--grade-only"]) == 0
    assert "equal: every verdict is the recorded one" in capsys.readouterr().out
    assert main([*words, "--recipe", str(recipe), "--work", str(tmp_path / "kept")]) == 0
    assert len(records_of(tmp_path / "kept")) == 1 and snapshot(results) == before


def rescored(results, change, text=None):
    """The one record sealed anew, with its first ``change`` verdicts turned over."""
    store = Store(results)
    record, rows = one_record(results), store.completions(one_record(results))
    for path in (store.path_of(record), results / record["completions"]["file"]):
        path.unlink()
    for row in rows[:change]:
        row["score"] = 1.0 - row["score"]
        row["text"] = row["text"] if text is None else text
    correct = sum(row["score"] for row in rows)
    sealed = {
        k: v for k, v in record.items() if k not in ("schema_version", "created", "completions", "content_sha256")
    }
    sealed |= {"score": correct / len(rows), "counts": record["counts"] | {"correct": correct}}
    sealed |= {"interval": [0.0, 1.0]}  # a score outside its interval would leave the record out
    store.add(sealed, rows)


def test_a_record_that_does_not_hold_is_exit_1(recorded, capsys):
    words, results, recipe = recorded
    rescored(results, 4, "other")
    before = snapshot(results)
    assert main([*words, "--recipe", str(recipe), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert abs(report["difference"]) > report["bound"]["value"] and not report["holds"]
    assert report["changed_texts"] == 4 and report["gained"] + report["lost"] == 4
    assert any("same kernels" in note for note in report["notes"])
    assert main([*words, "--grade-only"]) == 1
    assert "NOT confirmed" in capsys.readouterr().out
    assert snapshot(results) == before


def test_grading_again_has_no_bound(recorded, capsys):
    words, results, _ = recorded
    rescored(results, 1)
    assert main([*words, "--grade-only"]) == 1
    assert "1 of 4 differ" in capsys.readouterr().out


def test_what_cannot_be_verified_is_bad_input(recorded, capsys):
    words, results, recipe = recorded
    record = one_record(results)
    given = ["--recipe", str(recipe)]
    for more, message in (
        (["--work", str(results), *given], "is the results folder itself"),
        (["--recipe", "micro"], "the student 'student' is a folder: give it with --student DIR"),
        (
            ["--recipe", "micro", "--student", "micro:student", "--teacher", "micro:teacher"],
            "cannot be run again exactly",
        ),
        ([*given, "--student", "./nowhere"], "no model folder"),
    ):
        assert main([*words, *more]) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1
    assert main(["verify", "nothing", "--results", str(results)]) == 2
    (results / record["completions"]["file"]).unlink()
    for more in (given, ["--grade-only"]):
        assert main([*words, *more]) == 2
        assert "completions of" in capsys.readouterr().err


class Recorded:
    """A store of records that differ in seed and score alone."""

    def __init__(self, rows):
        self.records = [
            {
                "task": "t",
                "protocol": {"hash": "h"},
                "spec": {"method": name, "seed": seed},
                "seed": seed,
                "score": score,
            }
            for name, scores in rows.items()
            for seed, score in enumerate(scores)
        ]

    def all(self):
        return self.records, []


def graded(scores):
    return [{"problem_id": str(i), "sample": 0, "score": score} for i, score in enumerate(scores)]


def test_the_bound_rests_on_the_best_evidence():
    own = Recorded({"a": [0.48, 0.44, 0.40, 0.44, 0.5133], "b": [0.1, 0.9]})
    bound = verify._bound(own.records[0], own, [], [])
    assert bound.value == pytest.approx(2.776 * 2**0.5 * 0.0431, rel=1e-2) and "this row's 5 seeds" in bound.why
    pooled = Recorded({"a": [0.5], "b": [0.4, 0.5], "c": [0.4, 0.5, 0.6]})
    bound = verify._bound(pooled.records[0], pooled, [], [])
    assert bound.value == pytest.approx(3.182 * 2**0.5 * (0.025 / 3) ** 0.5, rel=1e-2) and "of 2 rows" in bound.why
    alone = Recorded({"a": [0.5]})
    bound = verify._bound(alone.records[0], alone, graded([1, 1, 0, 0]), graded([1, 0, 1, 0]))
    assert bound.value == pytest.approx(1.96 * 2**0.5 / 4, rel=1e-4) and "too few seeds" in bound.why
    assert verify._bound(alone.records[0], alone, graded([1, 0]), graded([1, 0])).value == 0


def test_a_task_whose_completions_are_others_is_bad_input(recorded):
    _, results, _ = recorded
    record, store = one_record(results), Store(results)

    class Strange(Store):
        def completions(self, record):
            return [row | {"problem_id": "no such"} for row in super().completions(record)]

    with pytest.raises(BadInput, match="has no problem 'no such'"):
        verify.grade_again(record, Strange(store.root), Replacements(task=PARITY), None)


@pytest.mark.parametrize("line", ["[]", "{}", '{"problem_id": 1}', '{"problem_id": "0", "sample": 0, "text": null}'])
def test_completions_that_are_none_are_bad_input(recorded, line):
    _, results, _ = recorded

    class Odd(Store):
        def completions(self, record):
            return [json.loads(line)]

    for again in (
        lambda: verify.grade_again(one_record(results), Odd(results), Replacements(task=PARITY), None),
        lambda: verify.run_again(one_record(results), Odd(results), Replacements(), None, print, print),
    ):
        with pytest.raises(BadInput, match=r"jsonl:1: no graded completion"):
            again()


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {}},
        {"spec": {"method": [], "student": {"id": "x"}}},
        {"spec": {"method": {"settings": 3}, "student": {"id": "x"}}},
        {"spec": {"method": {"settings": {}}, "student": "x"}},
        {"spec": {"method": {"settings": {}}, "student": {"id": "x"}, "training": [1]}},
        {"protocol": {"hash": "h", "grader": "mine"}},
        {"request": "harness run"},
    ],
)
def test_a_record_of_another_form_is_bad_input(change, tmp_path):
    record = Store(PUBLISHED).get("gkd-amc23@micro-s0")
    with pytest.raises(BadInput, match="has another form"):
        command.find(record | change, tmp_path)


def test_a_model_that_is_not_here_is_not_fetched_to_print_a_command(tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def absent(name, local_files_only=False, **_):
        asked.append(local_files_only)
        raise huggingface_hub.errors.LocalEntryNotFoundError("not here")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", absent)
    record = Store(PUBLISHED).get("gkd-amc23@micro-s0")
    found = command.find(record | {"student": "org/student"}, tmp_path, fetch=False)
    assert not found.exact and found.plan is None and "org/student is not on this machine" in found.differs
    assert "--student org/student" in command.line(found.request) and all(asked)
