"""README.md and docs/: links lead somewhere, tables are the registry's, commands and Python blocks do what they say."""

import re
import shlex
import shutil
import unicodedata
from pathlib import Path

import pytest
import yaml

import harness
from harness import api, registry
from harness.cli import main, parser
from harness.errors import BadInput
from harness.testing import check_method
from results.scripts import catalogue

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "results").glob("**/README.md")), *DOCS]
MADE_BY_THE_SITE = {"methods.md", "tasks.md"}  # docs/site_hooks.py
PLACEHOLDERS = re.compile(r"RUN_ID|FILE|DIR|owner/name|\bmy_|\./|=OLD")


def text_of(page):
    return page.read_text("utf-8")


def prose(page):
    """A page without its code, in which brackets are no links."""
    return re.sub(r"```.*?```|`[^`\n]*`", "`x`", text_of(page), flags=re.DOTALL)


def anchors(page):
    """The anchors of a page's headings, as GitHub and the site name them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL), re.MULTILINE)
    plain = (unicodedata.normalize("NFKD", re.sub(r"[`*\[\]]|\(.*?\)", "", one)).lower() for one in headings)
    return {re.sub(r"[^\w\- ]", "", one).strip().replace(" ", "-") for one in plain}


def test_every_link_within_the_repository_leads_to_a_file_and_a_heading():
    found = 0
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
            if re.match(r"https?:|mailto:", target):
                continue
            path, _, anchor = target.partition("#")
            place = (page.parent / path).resolve() if path else page
            assert place.exists(), f"{page.relative_to(ROOT)}: {target} leads nowhere"
            assert not anchor or anchor in anchors(place), f"{page.relative_to(ROOT)}: no heading for {target}"
            found += 1
    assert found > 100


def test_the_site_shows_every_page():
    def pages(entry):
        if isinstance(entry, str):
            return {entry}
        return set().union(*map(pages, entry.values() if isinstance(entry, dict) else entry))

    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    assert pages(config["nav"]) == {page.name for page in DOCS} | MADE_BY_THE_SITE
    for name in re.findall(r"^::: ([\w.]+)", text_of(ROOT / "docs/reference.md"), re.MULTILINE):
        assert (ROOT / f"{name.replace('.', '/')}.py").exists() or name == "harness.leaderboard.table.load_results"


@pytest.mark.parametrize("name", catalogue.MADE)
def test_the_tables_of_the_readme_are_the_registrys(name):
    shown = re.search(rf"<!-- BEGIN {name} -->\n(.*?)\n<!-- END {name} -->", text_of(ROOT / "README.md"), re.DOTALL)[1]
    assert shown == catalogue.MADE[name](), "python -m results.scripts.catalogue writes the tables of README.md anew"


# Commands


def commands():
    """The commands of the bash blocks of README.md, CONTRIBUTING.md and docs/, without comments, each once."""
    found = {}
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS):
        for block in re.findall(r"```bash\n(.*?)```", text_of(page), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("harness "):
                    found.setdefault(tuple(shlex.split(line, comments=True)[1:]), page.name)
    return found


def test_every_command_of_a_page_is_understood():
    found = commands()
    assert len(found) > 30
    for words, page in found.items():
        try:
            parser().parse_args(words)
        except BadInput as error:
            pytest.fail(f"{page}: harness {shlex.join(words)}: {error}")


READS = {"show", "list", "compare"}


def test_commands_of_pages_work_in_the_micro_world(tmp_path, monkeypatch, capsys):
    """Those that read do so on the published records; those that train say what they would do."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "results/micro", tmp_path / "results", ignore=shutil.ignore_patterns("work", "board"))
    tried, planned = set(), []
    for words, page in commands().items():
        verb = words[0]
        if PLACEHOLDERS.search(" ".join(words)) or verb not in READS | {"run"} or "--recipe" in words:
            continue
        if verb == "run":
            planned.append(words)
            words = (*words, "--dry-run")
            if len(planned) > 1:  # planning takes seconds; all others are understood, see above
                continue
        code = main(list(words))
        told = capsys.readouterr()
        assert code == 0, f"{page}: harness {shlex.join(words)}: {told.err[-300:]}"
        assert told.out.strip()
        tried.add(verb)
    assert tried == READS | {"run"}


# Python


def blocks(page):
    return re.findall(r"```python\n(.*?)```", text_of(page), re.DOTALL)


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """harness.run as pages call it, on four problems and one step."""
    real = api.run
    small = {"training.steps": 1, "training.batch": 2, "data.limit": 4, "evaluation.limit": 4}
    small["rollout.max_new_tokens"] = 8

    def run(methods, tasks, **more):
        return real(methods, tasks, **more | {"settings": more.get("settings", {}) | small, "progress": False})

    monkeypatch.setattr(api, "run", run)
    monkeypatch.chdir(tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_the_notebook_block_of_the_readme_runs(tiny):
    (block,) = (one for one in blocks(ROOT / "README.md") if "harness.run" in one)
    names = {}
    exec(compile(block, "README.md", "exec"), names)
    assert len(names["frame"]) == 6 and set(names["frame"].method) == {"gkd", "vcrd"}
    assert "not distinguishable" in harness.compare("gkd", "vcrd", "amc23").sentence[0]


@pytest.mark.filterwarnings("ignore")
def test_the_quick_start_runs(tiny):
    names = {}
    for block in blocks(ROOT / "docs/quick-start.md"):
        exec(compile(block, "quick-start.md", "exec"), names)
    assert set(names["board"].label) == {"untouched", "kd"} and names["graded"].score == 1
    assert len(names["answers"]) == 4


def test_a_method_of_twelve_lines_conforms(tmp_path):
    (block,) = (one for one in blocks(ROOT / "README.md") if "class Blend" in one)
    assert len([line for line in block.splitlines() if line.strip()]) <= 12
    (tmp_path / "blend.py").write_text(block)
    check_method(registry.find(registry.METHODS, str(tmp_path / "blend.py")))


def test_every_python_block_belongs_to_a_test():
    """Blocks of other pages are executed by test_docs.py and test_doors.py; a new page needs a test of its own."""
    with_blocks = {page.name for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS) if blocks(page)}
    assert with_blocks == {"README.md", "quick-start.md", "add-a-method.md", "add-a-task.md", "add-a-judge.md"}
    assert len(blocks(ROOT / "README.md")) == 2
