"""Documents that run: the examples of docs/ are executed, the tree of CONTRIBUTING.md is held against the disk."""

import doctest
import importlib
import json
import re
from pathlib import Path

import pytest

import harness
from harness import registry
from harness.cli import main
from harness.testing import check_task

ROOT = Path(__file__).parent.parent
METHOD, TASK = (
    re.findall(r"```python\n(.*?)```", (ROOT / f"docs/add-a-{kind}.md").read_text("utf-8"), re.DOTALL)
    for kind in ("method", "task")
)


def test_add_a_method_page_works(models, prompts_file, tmp_path, monkeypatch, capsys):
    assert len(METHOD[0].splitlines()) <= 30
    (tmp_path / "my_method.py").write_text(METHOD[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    exec(compile(METHOD[1], "add-a-method.md", "exec"), {})
    (tmp_path / "data/parity").mkdir(parents=True)
    (tmp_path / "data/parity/test.jsonl").write_text('{"number": 1}\n{"number": 2}\n')
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    (tmp_path / "tiny.toml").write_text(
        f"[models]\nstudent = '{models[0]}'\nteacher = '{models[1]}'\n[data]\nprompts = '{prompts_file}'\n"
        "[training]\nsteps = 2\nbatch = 2\nmax_tokens = 64\n"
        "[rollout]\nmax_new_tokens = 4\n[teacher_text]\nmax_new_tokens = 4\n"
    )
    words = [
        "run",
        "--method",
        "./my_method.py",
        "--method",
        "gkd",
        "--recipe",
        "tiny.toml",
        "--set",
        "method.mix=0.3",
        "--seed",
        "0",
        "1",
        "--json",
        "--task",
    ]
    assert main([*words, str(ROOT / "tests/plugin/parity_plugin.py")]) == 0
    found = json.loads(capsys.readouterr().out)["records"]
    assert [r["method"]["name"] for r in found] == ["blend", "blend", "gkd", "gkd"]


def test_add_a_task_page_works(tmp_path):
    assert len(TASK[0].splitlines()) <= 30
    (tmp_path / "even_odd.py").write_text(TASK[0])
    task = check_task(registry.find(registry.TASKS, str(tmp_path / "even_odd.py")), [{"number": 5}, {"number": 6}])
    assert [task.grade(p, "odd").score for p in task.items] == [1.0, 0.0]


def test_docstring_examples_are_true():
    with_examples = [p for p in (ROOT / "harness").rglob("*.py") if ">>> " in p.read_text("utf-8")]
    assert with_examples
    for path in with_examples:
        module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
        found = doctest.testmod(module)
        assert found.attempted and not found.failed, path


def test_the_tree_in_contributing_is_the_tree_on_disk():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    block = re.search(r"```text\n(.*?)```", text[text.index("## Layout") :], re.DOTALL)[1]
    named = re.findall(r"(?<=[ \n]{2})(\w+(?:\.py|/))", block)
    assert len(named) > 15
    for name in named:
        assert (ROOT / "harness" / name).exists() or (ROOT / name).exists(), (
            f"CONTRIBUTING.md names {name}, which is missing"
        )
    public = {p.name for p in (ROOT / "harness").iterdir() if p.suffix == ".py" and not p.name.startswith("__")}
    public |= {f"{p.name}/" for p in (ROOT / "harness").iterdir() if p.is_dir() and not p.name.startswith("__")}
    missing = public - set(named)
    assert not missing, f"CONTRIBUTING.md does not name {sorted(missing)}"


def test_public_names_exist():
    for name in harness.__all__:
        assert getattr(harness, name) is not None


@pytest.mark.parametrize(
    ("folder", "pages"),
    [("micro", ("LEADERBOARD", "GRID")), ("objectives", ("LEADERBOARD",)), ("instruction", ("GRID",))],
)
def test_the_published_tables_are_what_the_records_say(folder, pages):
    from harness.leaderboard.table import leaderboard, render
    from harness.records.store import Store

    root = ROOT / "results" / folder
    store = Store(root)
    records, warnings = store.all()
    assert records and not warnings
    sections = leaderboard(records, None, store.completions)
    if "LEADERBOARD" in pages:
        assert (root / "LEADERBOARD.md").read_text("utf-8").strip() == render(sections, "md").strip()
    if "GRID" in pages:
        grid = render(sections, "md", tasks=False, grid=True).splitlines()
        short = "\n".join(line for line in grid if not line.startswith("convention cards")).strip()
        assert (root / "GRID.md").read_text("utf-8").strip() == short
        assert short in (root / "README.md").read_text("utf-8")


@pytest.mark.slow
def test_every_method_and_variant_is_recorded_with_three_seeds():
    """By what was trained, not by its label: a variant that names the defaults is recorded with them."""
    from harness.options import build, spelt
    from harness.records.store import Store
    from results.scripts.bench.loss import trainable

    seeds = {}
    for record in Store(ROOT / "results/objectives").all()[0]:
        assert record["task"] == "amc23@micro"
        method = record["method"]
        seeds.setdefault((method["name"], json.dumps(method["settings"], sort_keys=True)), set()).add(record["seed"])
    missing = set()
    for label in trainable():
        name, _, variant = label.partition("@")
        found = registry.find(registry.METHODS, name)
        settings = spelt(build(found.Config, found.variants[variant] if variant else {}, label))
        if not {0, 1, 2} <= seeds.get((name, json.dumps(settings, sort_keys=True)), set()):
            missing.add(label)
    pending = ROOT / "results/objectives/PENDING.md"
    listed = set(re.findall(r"^- `(.+?)`$", pending.read_text("utf-8"), re.MULTILINE)) if pending.exists() else set()
    assert missing == listed, (
        "results/objectives/PENDING.md names the methods and variants without records, and no other"
    )


def test_the_page_of_bench_sums_up_what_was_measured():
    from results.scripts.bench.summary import markdown

    text = (ROOT / "results/bench/README.md").read_text("utf-8")
    shown = re.search(r"<!-- BEGIN bench -->\n(.*?)\n<!-- END bench -->", text, re.DOTALL)[1]
    assert shown == markdown(ROOT / "results/bench").strip() and shown.count("\n") > 10
