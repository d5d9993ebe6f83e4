"""Names to classes: built in, by path, installed as a plugin; and the conformance of all that is built in."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from children import finished, forked

from harness import registry
from harness.cli import main
from harness.errors import BadInput
from harness.testing import check_method, check_task

PLUGIN = Path(__file__).parent / "plugin"
METHOD_NAMES = [entry.name for entry in registry.entries(registry.METHODS)]


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_every_built_in_method_keeps_its_promises(name):
    found = registry.find(registry.METHODS, name)
    check_method(found)
    for settings in found.variants.values():
        from harness.options import build

        check_method(found, build(found.Config, settings, name))


def test_a_method_fits_one_screenful_and_names_its_source():
    facts, wrong = {entry.name: entry.facts for entry in registry.entries(registry.METHODS)}, []
    for name in METHOD_NAMES:
        path = Path(sys.modules[registry.find(registry.METHODS, name).__module__].__file__)
        lines = len(path.read_text("utf-8").splitlines())
        wrong += [f"{name}: {lines} lines, 120 are the limit"] if lines > 120 else []
        wrong += [f"{name}: no {key}" for key in ("doc", "module_doc") if not facts[name][key]]
    assert METHOD_NAMES and not wrong, "\n".join(wrong)


def test_a_class_body_that_unpacks_a_call_is_read(tmp_path):
    path = tmp_path / "method.py"
    path.write_text("class A:\n    'Doc.'\n    name, paper = 'a', 'p'\n    low, high = divmod(7, 2)\n")
    assert registry.read_facts(path, "a")["name"] == "a"


def test_an_unknown_name_answers_with_the_nearest():
    with pytest.raises(BadInput, match="unknown method 'gdk'; did you mean gkd"):
        registry.find(registry.METHODS, "gdk")


def test_a_file_is_a_method_at_once():
    found = registry.find(registry.METHODS, str(PLUGIN / "halfway_plugin.py"))
    check_method(found)
    task = registry.find(registry.TASKS, str(PLUGIN / "parity_plugin.py"))
    checked = check_task(task, [{"number": 3}, {"number": 8}])
    assert [checked.grade(p, " Odd ").score for p in checked.items] == [1.0, 0.0]


def test_a_task_says_that_it_takes_some_rows_only():
    task = registry.find(registry.TASKS, str(PLUGIN / "parity_plugin.py"))
    some = type("Some", (task,), {"problems": lambda self, rows: task.problems(self, rows)[1:]})
    rows = [{"number": 3}, {"number": 8}]
    with pytest.raises(AssertionError, match=r"gave 1 problems for 2 rows; .* takes_some = True"):
        check_task(some, rows)
    assert len(check_task(type("Said", (some,), {"takes_some": True}), rows).items) == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = = 1", "method.py:1: invalid syntax"),
        ("import nothing_like_this", r"method.py:1: ModuleNotFoundError: .*install nothing_like_this"),
        ("x = 1", "no class with a `name`"),
        ("from harness import Method\nclass A(Method):\n    name = 'a_b'\n", "lacks objective"),
        (
            "from harness import Method\nclass A(Method):\n    'Doc.'\n    name = 'kd'\n"
            "    def objective(self, t): ...\n",
            r"two owners: built in \(harness.methods.kd\) and .*method.py",
        ),
    ],
)
def test_a_broken_file_is_one_clear_line(tmp_path, source, message):
    (tmp_path / "method.py").write_text(source)
    with pytest.raises(BadInput, match=message):
        registry.find(registry.METHODS, str(tmp_path / "method.py"))
    with pytest.raises(BadInput, match="no method file"):
        registry.find(registry.METHODS, str(tmp_path / "absent.py"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The example plugin, really built and installed into a folder of its own."""
    target = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source")
    for file in PLUGIN.iterdir():
        if file.is_file():
            (source / file.name).write_bytes(file.read_bytes())
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--target",
        str(target),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return target


def ask(installed, *words, plugins="1", also=""):
    environment = os.environ | {"PYTHONPATH": f"{installed}{also}", "HARNESS_PLUGINS": plugins}
    return subprocess.run(
        [sys.executable, "-m", "harness", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
def test_an_installed_plugin_is_listed_and_named_with_its_owner(installed):
    rows = {row["name"]: row for row in json.loads(ask(installed, "list", "methods", "--json").stdout)}
    assert rows["halfway"]["owner"] == "harness-plugin-example" and rows["kd"]["owner"] == "built in"
    tasks = {row["name"] for row in json.loads(ask(installed, "list", "tasks", "--json").stdout)}
    assert "parity" in tasks
    assert "halfway" not in ask(installed, "list", "methods", plugins="0").stdout


@pytest.mark.slow
def test_an_installed_plugin_trains_and_is_recorded(installed, models, prompts_file, tmp_path):
    (tmp_path / "data/parity").mkdir(parents=True)
    (tmp_path / "data/parity/test.jsonl").write_text("".join(f'{{"number": {i}}}\n' for i in range(4)))
    environment = {"HARNESS_PLUGINS": "1", "HARNESS_DATA": str(tmp_path / "data")}
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        f"[models]\nstudent = '{models[0]}'\nteacher = '{models[1]}'\n[data]\nprompts = '{prompts_file}'\n"
        "[training]\nsteps = 2\nbatch = 2\nmax_tokens = 64\n[teacher_text]\nmax_new_tokens = 6\n"
    )
    words = ["run", "--method", "halfway", "--task", "parity", "--set", "method.end=0.5"]
    words += ["--recipe", str(recipe), "--results", str(tmp_path / "results"), "--json"]

    def run():
        sys.path.insert(0, str(installed))
        return main(words)

    printed = tmp_path / "printed"
    assert finished(forked(run, printed, **environment)) == 0, printed.with_name("printed.err").read_text()
    (record,) = json.loads(printed.read_text())["records"]
    assert record["counts"]["total"] == 4 and record["method"]["settings"] == {"end": 0.5}
    assert re.fullmatch(r"harness-plugin-example 0.3.0 sha256:[0-9a-f]{16}", record["spec"]["method"]["origin"])
    assert re.fullmatch(r"harness-plugin-example 0.3.0 sha256:[0-9a-f]{16}", record["protocol"]["code"])


@pytest.mark.slow
def test_two_owners_of_one_name_are_both_named(installed, tmp_path):
    info = tmp_path / "rival-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[harness.methods]\nhalfway = rival:X\nkd = rival:Y\n")
    done = ask(installed, "list", "methods", also=f"{os.pathsep}{tmp_path}")
    assert done.returncode == 2 and done.stdout == ""
    assert "two owners" in done.stderr and "rival" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import sys; sys.exit(0)", r"calls sys.exit\(\), which would end the harness; .* at .*oddly.py:1$"),
        ("import os; os._exit(0)", r"calls os._exit\(\), which would end the harness; .* at .*oddly.py:1$"),
        ("class E(BaseException): pass\nraise E('gone')", r"cannot be loaded: E: gone at .*oddly.py:2$"),
        ("def (", r"cannot be loaded: invalid syntax at .*oddly.py:1$"),
        ("x = 1", r"has no attribute 'Odd' at oddly:Odd$"),
        (
            "import torch; torch.set_default_dtype(torch.float64); Odd = 1",
            "importing oddly changes torch's default dtype",
        ),
        ("import os; os.chdir('/'); Odd = 1", "importing oddly changes the working directory"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_one_line_with_its_place(tmp_path, monkeypatch, source, said):
    (tmp_path / "oddly.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "oddly", raising=False)
    with pytest.raises(BadInput, match=said):
        registry._load(registry.METHODS, registry.Entry("odd", "some-plugin", "oddly:Odd"))
    assert torch.get_default_dtype() is torch.float32 and os.getcwd() != "/"


def test_damaged_entry_points_of_one_package_cost_that_package(tmp_path, monkeypatch, capsys):
    for name, points in (("damaged", "[harness.methods]\nplug\n"), ("sound", "[harness.methods]\nplug = a:B\n")):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("HARNESS_PLUGINS", raising=False)
    assert ("plug", "sound", "a:B") in {(e.name, e.owner, e.target) for e in registry._installed(registry.METHODS)}
    registry._installed(registry.METHODS)
    assert re.fullmatch(r"warning: .*damaged-1.0.dist-info: left out: .*\n", capsys.readouterr().err)


def test_an_unknown_name_among_hundreds_lists_three():
    from harness.errors import unknown

    told = str(unknown("record", "RUN_ID", [f"kd-amc23@micro-s{i}" for i in range(200)]))
    assert "200 are known, such as kd-amc23@micro-s0" in told and len(told) < 140
    assert "did you mean kd-amc23@micro-s7" in str(unknown("record", "kd-amc23@micro-7", ["kd-amc23@micro-s7"] * 60))
