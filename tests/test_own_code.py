"""People's own methods and tasks: what identifies them; every mistake is one line with FILE:LINE and the fix."""

import json
import os
import re
from pathlib import Path

import pytest

from harness import contract_checks, registry, user_code
from harness.cli import main
from harness.evaluation import benchmarks, measurement
from harness.records.store import Store

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PARITY = (ROOT / "tests/plugin/parity_plugin.py").read_text("utf-8")
METHOD = '''from dataclasses import dataclass
from harness.losses import forward_kl
from harness.method import Method, Needs
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    mix: float = option(0.5, "a share", low=0, high=1)


class Mine(Method):
    """Forward KL."""

    name, Config = "mine", Config
    needs = Needs(teacher="signal")

    def sources(self, step):
        return (Source.TEACHER,)

    def objective(self, tokens):
        kl = forward_kl(tokens.student, tokens.teacher)
        return kl
'''
OBJECTIVE = "        return kl\n"


@pytest.fixture
def world(tiny_world, tmp_path, monkeypatch):
    """``run(*words)`` in a folder with a recipe on random models and the data of a task."""
    (tmp_path / "data/parity/none.jsonl").write_text("")
    tiny_world("[training]\nsteps = 5\nbatch = 2\nmax_tokens = 64\n[teacher_text]\nmax_new_tokens = 6\n")
    (tmp_path / "m.py").write_text(METHOD)
    (tmp_path / "t.py").write_text(PARITY)
    monkeypatch.chdir(tmp_path)

    def run(*words, method="m.py", task="t.py"):
        return main(
            ["run", "--method", method, "--task", task, "--recipe", "tiny.toml", "--results", "results", *words]
        )

    return run


def changed(text, *pairs):
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


def the_line(capsys):
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("harness: ")]
    assert len(said) == 1, said
    assert "Traceback" not in said[0]
    return said[0]


GIVEN = [
    ("kl.sum()", "m.py:22: objective of method mine gave a tensor [] of float32", "take out .sum()"),
    ("kl.mean()", "m.py:22: ", "take out .sum() or .mean()"),
    ("kl[:, None]", "gave a tensor [13, 1]", ".squeeze(-1)"),
    ("kl[:, None].squeeze()", "gave a tensor [] of float32", "[1] here"),
    ("tokens.student", "gave a tensor [13, 11]", ".sum(-1)"),
    ("kl[:-1]", "gave a tensor [12]", "[13] here"),
    ("kl.long()", "of int64", ".float()"),
    ("kl > 0", "of bool", ".float()"),
    ("kl + 0j", "of complex64", ".float()"),
    ("kl.detach().numpy()", "a numpy array", "return a tensor"),
    ("None", "gave None", "lack a return"),
    ("(kl,)", "a tuple of 1", "return a tensor"),
    ("kl.sum().item()", "gave float", "return a tensor"),
    ("kl.detach()", "without a gradient path", "without .detach()"),
    ("kl.detach().requires_grad_()", "without a gradient path", "without .detach()"),
    ("kl.detach() + 0 * kl", "gradient of 0 everywhere", "without .detach()"),
    ("kl * float('nan')", "NaN or infinite values", "guard"),
    ("kl + (kl - kl).sqrt()", "gradient of NaN", "guard"),
    ("tokens.logit.sum(-1)", "m.py:24: ", "did you mean logits"),
    (
        "tokens.sequence_features[:, 0]",
        "m.py:24: ",
        "tokens.sequence_features is None without Needs(sequence_features=True)",
    ),
    ("tokens.validity[:, 0]", "m.py:24: ", "Needs(proposals=True)"),
    ("self.config.mux * kl", "m.py:24: ", "no attribute 'mux'"),
    ("1 / 0", "m.py:24: ", "ZeroDivisionError"),
    ("__import__('sys').exit()", "m.py:24: ", "sys.exit()"),
    ("__import__('os')._exit(0)", "m.py:24: ", "calls os._exit(), which would end the harness"),
    (
        "__import__('os').kill(__import__('os').getpid(), 9)",
        "m.py:24: ",
        "calls os.kill(), which would end the harness",
    ),
]


@pytest.mark.parametrize(("given", "where", "fix"), GIVEN, ids=[g[0] for g in GIVEN])
def test_an_objective_of_the_wrong_kind_is_refused_before_any_work(world, tmp_path, capsys, given, where, fix):
    (tmp_path / "m.py").write_text(changed(METHOD, (OBJECTIVE, f"        return {given}\n")))
    assert world() == 2
    said = the_line(capsys)
    assert where in said and fix in said
    assert not (tmp_path / "results").exists()


def test_a_top_k_signal_is_tried_as_well(world, tmp_path, capsys):
    (tmp_path / "m.py").write_text(changed(METHOD, ("forward_kl(tokens.student", "forward_kl(tokens.logits")))
    assert world("--set", "training.signal=top-k", "--set", "training.top_k=4") == 2
    assert "m.py:23: " in the_line(capsys)


VALUE = "    value = helper.VALUE\n"
CLASS = '    needs = Needs(teacher="signal")\n'
DECLARED = [
    ([('"signal"', '"logits"')], "m.py:17: needs of method mine says teacher='logits'"),
    ([(CLASS, ""), ("TEACHER", "DATA")], 'tokens.teacher is None without needs = Needs(teacher="signal")'),
    ([(CLASS, "")], "asks for Source.TEACHER; say needs = Needs("),
    ([(CLASS, '    needs = "signal"\n')], "say needs = Needs(...)"),
    ([('teacher="signal"', 'techer="signal"')], "m.py:17: TypeError"),
    ([('"signal"', '"signal", sequence_features=True')], "add a method sequence_features"),
    ([("(Source.TEACHER,)", '"teacher"')], "m.py:19: sources of method mine gave 'teacher'"),
    ([("(Source.TEACHER,)", "Source.TEACHER")], "return a tuple: (Source.TEACHER,)"),
    ([("(Source.TEACHER,)", "()")], "one or more harness.types.Source"),
    ([('"mine"', '"mi ne/@"')], "m.py:16: name 'mi ne/@'"),
    ([('"mine"', '"kd"')], "m.py:16: method 'kd' has two owners"),
    ([('name, Config = "mine", Config', "Config = Config")], "m.py:13: class Mine has no name"),
    ([("(Method)", "")], "m.py:13: class Mine is no harness.Method"),
    ([("return (Source", "return ((Source")], "m.py:20: '(' was never closed"),
    (
        [('name, Config = "mine", Config', 'name = "mine"'), ("return kl", "return self.config.mix * kl")],
        "write Config = Config in it",
    ),
    ([("@dataclass(frozen=True)\n", "")], "put @dataclass(frozen=True)"),
    ([(' = option(0.5, "a share", low=0, high=1)', "")], "m.py:10: setting mix of method mine has no default"),
    ([("mix: float", "mix")], "m.py:8: TypeError: 'mix' is a field but has no type annotation"),
    ([("0.5", '"warm"')], "'warm' is not a number"),
    ([("0.5", "2.0")], "outside [0, 1]"),
    ([("objective(self, tokens)", "objective(self)")], "m.py:22: objective of method mine: TypeError"),
    ([(CLASS, f"{CLASS}    def __init__(self, a, b): pass\n")], "m.py:18: TypeError"),
    ([(CLASS, f"{CLASS}    def __init__(self, config): pass\n")], "leaves out super().__init__(config)"),
    (
        [(CLASS, f"{CLASS}    def weight(self, t): return -t.position\n")],
        "m.py:18: weight of method mine gave a weight",
    ),
    ([(CLASS, f"{CLASS}    def weight(self, t): return t.labels.float().mean()\n")], "[13] finite values from 0"),
    ([(CLASS, f"{CLASS}    def after_step(self, s, report): self.state['x'] = report['lss']\n")], "KeyError: 'lss'"),
    ([(CLASS, f"{CLASS}    def after_step(self, s, report): self.state['x'] = print\n")], "what a checkpoint cannot"),
    ([("return kl", "tokens.metrics['loss'] = kl; return kl")], "choose another name"),
    ([("return kl", "tokens.metrics['x'] = 3.0; return kl")], "a tensor [13] is wanted"),
    ([("class Mine", "import nothing_like_this\nclass Mine")], "m.py:13: ModuleNotFoundError"),
    ([("class Mine", "raise KeyError('x')\nclass Mine")], "m.py:13: KeyError: 'x'"),
]


@pytest.mark.parametrize(("changes", "said"), DECLARED, ids=[d[1][:40] for d in DECLARED])
def test_a_mistake_in_a_method_is_one_line_before_any_work(world, tmp_path, capsys, changes, said):
    (tmp_path / "m.py").write_text(changed(METHOD, *changes))
    assert world() == 2
    line = the_line(capsys)
    assert said in line and "m.py:" in line
    assert not (tmp_path / "results").exists()


WORKING = [
    ("if tokens.step.index == 3: raise KeyError('x')\n        return kl", "m.py:24: KeyError: 'x'; step 3"),
    ("return kl.long() if tokens.step.index == 3 else kl", "of int64"),
    ("return kl.mean() if tokens.step.index == 3 else kl", "gave a tensor [] of float32"),
]


@pytest.mark.parametrize(("change", "said"), WORKING, ids=["raises", "dtype", "shape"])
def test_what_goes_wrong_at_a_later_step_says_the_step_and_what_is_kept(world, tmp_path, capsys, change, said):
    (tmp_path / "m.py").write_text(changed(METHOD, ("return kl", change)))
    assert world("--set", "training.checkpoint_every=2", "--set", "training.steps=8") == 1
    line = the_line(capsys)
    assert line.startswith("harness: failed: m.py:2") and said in line
    assert "step 3; the checkpoint of step 2 is kept" in line


VERDICT = 'return Verdict(problem.id, 0, float(right), f"expected {problem.reference}", text.strip()[:20] or None)'
TASKS = [
    ([(VERDICT, "return right")], "t.py:31: grade of task parity gave False"),
    ([(VERDICT, "pass")], "grade of task parity gave None"),
    ([(VERDICT, "return Verdict(problem.id, 0, right, 'x')")], "write float(right)"),
    ([(VERDICT, "return Verdict(problem.id, 0, 5.0, 'x')")], "gave the score 5.0"),
    ([(VERDICT, "return Verdict(problem.id, 0, float('nan'), 'x')")], "gave the score nan"),
    ([(VERDICT, "return Verdict('7', 0, 1.0, 'x')")], "a verdict on problem '7' when asked about '0'"),
    ([(VERDICT, "return Verdict(problem.id, 0, float(int(text)), 'x')")], "t.py:33: ValueError"),
    ([(VERDICT, "import sys; sys.exit(3)")], "t.py:33: calls sys.exit()"),
    ([(VERDICT, "import os; os.abort()")], "t.py:33: calls os.abort()"),
    ([(VERDICT, "import os; os.execlp('true', 'true')")], "t.py:33: calls os.execv()"),
    ([("grade(self, problem, text)", "grade(self, problem)")], "t.py:31: TypeError"),
    ([("        return found", "        return [{}]")], "t.py:22: problems of task parity gave a dict"),
    ([("        return found", "        return (f for f in found)")], "gave a generator"),
    ([("        return found", "        return found + found")], "two problems of id '0'"),
    ([("        return found", "        return []")], "gave no problem for 4 rows"),
    ([("        return found", "        pass")], "problems of task parity gave None"),
    ([("Prompt(user=asked,", "Prompt(user='',")], "a prompt whose user is ''"),
    ([("Problem(str(i),", "Problem(i,")], "an id is 0".replace("an id", "whose id")),
    ([("decoding = Decoding(max_new_tokens=4)", "decoding = {}")], "t.py:20: decoding of task parity"),
    ([("max_new_tokens=4", "max_new_tokens='4'")], "says max_new_tokens='4'"),
    ([("dataset = Dataset(", "data_set = Dataset(")], "dataset of task parity is None"),
    ([('"parity", "1"', '"parity", 1')], "version of task parity is 1"),
    ([('row.get("number")', 'row["nummer"]')], "t.py:25: KeyError: 'nummer'"),
    ([('"parity"', '"gsm8k"')], "two owners"),
    ([("(Task)", "")], "t.py:8: class Parity is no harness.Task"),
    ([("    def problems", "    def __init__(self): pass\n    def problems")], "t.py:22: TypeError"),
]


@pytest.mark.parametrize(("changes", "said"), TASKS, ids=[t[1][:40] for t in TASKS])
def test_a_mistake_in_a_task_is_one_line_before_any_work(world, tmp_path, capsys, changes, said):
    (tmp_path / "t.py").write_text(changed(PARITY, *changes))
    assert world() == 2
    line = the_line(capsys)
    assert said in line and "t.py:" in line
    assert not (tmp_path / "results/work").exists()


def test_a_benchmark_without_rows_and_a_grader_that_fails_on_some_text(world, tmp_path, capsys):
    (tmp_path / "t.py").write_text(changed(PARITY, ("parity/test.jsonl", "parity/none.jsonl")))
    assert world() == 2 and "has no rows" in the_line(capsys)
    (tmp_path / "t.py").write_text(
        changed(PARITY, (VERDICT, f"if text.strip() not in TEXTS: 1 / 0\n        {VERDICT}"))
    )
    (tmp_path / "t.py").write_text(
        (tmp_path / "t.py").read_text() + f"\n\nTEXTS = {[t.strip() for t in benchmarks.SMOKE_TEXTS]}\n"
    )
    assert world(method="sft") == 1
    line = the_line(capsys)
    assert "t.py:33: ZeroDivisionError" in line and "the completions are kept" in line


@pytest.mark.parametrize(
    "name", ["./notes.txt", ".", "./", "binary.py", "folder.py", "missing.py", "vcrd@../../x", "kd@"]
)
def test_what_is_no_method_is_one_line_in_every_command(world, tmp_path, capsys, name):
    (tmp_path / "notes.txt").write_text("a note")
    (tmp_path / "binary.py").write_bytes(b"\x00\xff\x7fELF")
    (tmp_path / "folder.py").mkdir()
    assert world(method=name) == 2
    the_line(capsys)
    for words in (["show", "method", name], ["check", "--method", name]):
        assert main(words) == 2
        the_line(capsys)


def test_debug_prints_the_trace_and_an_internal_error_is_one_line(world, tmp_path, capsys, monkeypatch):
    (tmp_path / "m.py").write_text(changed(METHOD, (OBJECTIVE, "        return 1 / 0\n")))
    assert world("--debug") == 2
    said = capsys.readouterr().err
    assert "Traceback" in said and 'm.py", line 24' in said and said.splitlines()[-1].startswith("harness: m.py:24")
    monkeypatch.setattr("harness.show.rows", lambda kind: [][1])
    assert main(["list", "methods"]) == 1
    line = the_line(capsys)
    assert "internal error: IndexError" in line and "test_own_code.py:" in line and "--debug" in line


def identities(folder, name):
    kind = registry.METHODS if name == "m.py" else registry.TASKS
    return user_code.identity(registry.find(kind, str(folder / name)))


def test_the_identity_covers_the_code_and_what_is_imported_beside_it(world, tmp_path):
    helper = "def double(x):\n    return x\n"
    (tmp_path / "helper.py").write_text(helper)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/__init__.py").write_text("")
    (tmp_path / "deep/inner.py").write_text("A = 1\n")
    (tmp_path / "m.py").write_text("import helper\n" + METHOD)
    (tmp_path / "helper.py").write_text("from deep import inner\n" + helper)
    seen = [identities(tmp_path, "m.py")]
    for file, text in (("deep/inner.py", "A = 2\n"), ("helper.py", helper), ("m.py", "import helper  # \n" + METHOD)):
        (tmp_path / file).write_text(text)
        seen.append(identities(tmp_path, "m.py"))
    assert len(set(seen)) == 4 and all(re.fullmatch("file sha256:[0-9a-f]{16}", one) for one in seen)
    (tmp_path / "unrelated.py").write_text("x = 1\n")
    assert identities(tmp_path, "m.py") == seen[-1]


def test_two_folders_have_helpers_of_one_name_and_an_edit_is_seen(tmp_path):
    for folder, value in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "helper.py").write_text(f"VALUE = {value}\n")
        source = changed(
            METHOD, ("class Mine", "import helper\n\n\nclass Mine"), (CLASS, CLASS + "    value = helper.VALUE\n")
        )
        late = "    def card(self):\n        import helper\n        return {'late': helper.VALUE}\n"
        (tmp_path / folder / "m.py").write_text(source + late)
    a, b = (registry.find(registry.METHODS, str(tmp_path / f / "m.py")) for f in "ab")
    assert (a.value, b.value) == (1, 2) and (a().card()["late"], b().card()["late"]) == (1, 2)
    (tmp_path / "a/helper.py").write_text("VALUE = 3\n")
    assert registry.find(registry.METHODS, str(tmp_path / "a/m.py")).value == 3


def test_an_edited_grader_is_another_protocol_and_record(world, tmp_path, capsys):
    found = []
    for source in (PARITY, changed(PARITY, ("float(right)", "1.0 - right"))):
        (tmp_path / "t.py").write_text(source)
        assert world("--json", method="untouched") == 0
        found += json.loads(capsys.readouterr().out)["records"]
    first, second = found
    assert first["protocol"]["hash"] != second["protocol"]["hash"] and first["run_id"] != second["run_id"]
    assert first["protocol"]["code"] != second["protocol"]["code"] and not second["reused"]


def test_what_ships_keeps_its_identity_and_its_published_hashes():
    records, _ = Store(ROOT / "results/micro").all()
    hashes = {(r["task"], r["protocol"]["version"], r["protocol"]["card"]) for r in records if "card" in r["protocol"]}
    assert hashes and not any("code" in r["protocol"] for r in records)
    for title, version, card in hashes:
        task = benchmarks.open_task(title)
        assert (measurement.card_hash(task) == card) is (task.version == version), title
    for kind in (registry.METHODS, registry.TASKS):
        for entry in registry.entries(kind):
            assert user_code.identity(registry.find(kind, entry.name)) == user_code.OURS
    assert {r["spec"]["method"]["origin"] for r in records} == {user_code.OURS}


def test_check_prints_what_was_checked_of_a_method_and_a_task(world, tmp_path, capsys):
    assert main(["check", "--method", "m.py", "--task", "t.py"]) == 0
    printed = capsys.readouterr().out
    assert (
        "ok  objective: one floating-point value per token" in printed and "ok  grade: repeatable verdicts" in printed
    )
    (tmp_path / "m.py").write_text(changed(METHOD, ("return kl", "return kl + kl.mean()")))
    assert main(["check", "--method", "m.py"]) == 1
    assert "looks across tokens" in capsys.readouterr().out
    (tmp_path / "t.py").write_text(changed(PARITY, (VERDICT, "return right")))
    (tmp_path / "data/parity/test.jsonl").unlink()
    assert main(["check", "--task", "t.py"]) == 1
    assert "not checked: problems, prompts and verdicts" in capsys.readouterr().out


JUDGE = """
from harness.grading.judges.judgement import Judge


class MostDigits(Judge):
    name = "most_digits"

    def identity(self):
        return {IDENTITY}

    def prefer(self, instruction, reference, candidate):
        ours, theirs = (sum(c.isdigit() for c in text) for text in (candidate, reference))
        return VERDICT
"""
SOUND = '(0.5 if ours == theirs else float(ours > theirs)), f"{ours} digits against {theirs}"'


@pytest.mark.parametrize(
    ("identity", "verdict", "code", "told"),
    [
        ('"kind": "most_digits"', SOUND, 0, "conforms"),
        ("", SOUND, 2, "identity is empty"),
        ('"kind": "most_digits"', "3.0, 'much better'", 1, "most_digits.py:"),
        ('"kind": "most_digits"', "0.5, ''", 1, "reason"),
        ('"kind": "most_digits"', "1 / 0, ''", 1, "ZeroDivisionError"),
        ('"kind": id(object()), "n": __import__("itertools").count', SOUND, 2, "is not JSON"),
        ('"kind": float("nan")', SOUND, 2, "is not JSON"),
    ],
)
def test_check_prints_what_it_checked_of_a_judge(tmp_path, capsys, identity, verdict, code, told):
    path = tmp_path / "most_digits.py"
    path.write_text(JUDGE.replace("IDENTITY", identity).replace("VERDICT", verdict))
    assert main(["check", "--judge", str(path)]) == code
    said = capsys.readouterr()
    assert told in (said.err if code == 2 else said.out) and "Traceback" not in said.err
    assert code != 2 or len(said.err.splitlines()) == 1
    assert main(["check", "--judge", str(tmp_path / "none.py")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_check_takes_a_judge_by_name(capsys):
    assert main(["check", "--judge", "longest", "--json"]) == 0
    assert "conforms" not in capsys.readouterr().err


def test_a_new_variable_of_the_environment_is_taken_out_again(monkeypatch):
    monkeypatch.setenv("HARNESS_OLD", "1")
    before = contract_checks.ProcessState()
    os.environ |= {"HARNESS_OLD": "2", "HARNESS_NEW": "3"}
    changed, _ = before.changed()
    assert "HARNESS_ variables" in changed and before.changed() is None
    assert os.environ["HARNESS_OLD"] == "1" and "HARNESS_NEW" not in os.environ


def test_a_working_directory_that_is_gone_is_no_fault_of_the_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    assert contract_checks.ProcessState().changed() is None
