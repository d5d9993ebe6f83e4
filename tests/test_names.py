"""The harness names no method and no task: what a thing is stands on its contract and in its record.

Searched: every string literal and every identifier below ``harness/``, docstrings and examples of help aside, for every
registered name.

- A literal that is a name, alone or with a variant or world (``kd``, ``gkd@trl``, ``amc23@micro``), is refused, and so
  is a sentence in which a name stands as a word.
- A part of a path or a module (``humaneval/HumanEval.jsonl.gz``) is where somebody else's file lies.
- ``teacher`` is also the model that teaches. As a literal it is refused only where a name is compared with it.

What is left is named in :data:`ALLOWED` with its reason. Recipes, papers and jobs are TOML: data, not code.
"""

import ast
import re
from pathlib import Path

import pytest

from harness import registry

ROOT = Path(__file__).parent.parent / "harness"
NAMES = {entry.name for kind in (registry.METHODS, registry.TASKS) for entry in registry.entries(kind)}
MODEL = "teacher"
ALLOWED = {  # folder or file, and the names that may stand there (None: any)
    "micro": (None, "the generated world draws a twin of each benchmark: which it has is its data"),
    "grading/maths/readings.py": ({"gsm8k"}, "the readings are named after lm-eval's tasks"),
    "evaluation/notations.py": ({"gold"}, "a right answer, in the words of its tables"),
    "evaluation/known_answers.py": ({"gold"}, "a right answer, in the words of the tables that it reads"),
    "grading/maths": ({"gold"}, "a right answer, in the words of lm-eval and of maths graders"),
    "losses.py": ({"jsd"}, "the divergence of that name"),
    "grading/judges": ({"distillm2", "alpaca_eval"}, "a judge protocol named as its paper; the package with templates"),
    "grading/instruction/pairwise.py": ({"distillm2", "alpaca_eval"}, "the protocol of that paper's script"),
    "grading/instruction/rouge.py": ({"minillm"}, "the protocol of that paper's script"),
    "grading/code/task.py": ({"distillm2"}, "the protocol of that paper's script"),
    "evaluation/samples.py": ({"alpaca_eval"}, "the format of files that the package alpaca_eval writes"),
}
FILES = sorted(ROOT.rglob("*.py"))


def named_in(source: str) -> list[tuple[int, str]]:
    """(line, name) of every registered name in the code of ``source``."""
    nodes = list(ast.walk(ast.parse(source)))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = {id(node.body[0].value) for node in nodes if isinstance(node, documented) and ast.get_docstring(node)}
    # The examples of help are documentation, too; tests/test_terminal.py parses those of every command.
    for node in nodes:
        if isinstance(node, ast.keyword) and node.arg in ("examples", "epilog"):
            docs |= {id(inner) for inner in ast.walk(node.value)}
    found = []
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            found += [(node.lineno, name) for name in words_of(node.value) - {MODEL}]
        for word in identifiers(node):
            found += [(node.lineno, word)] if word in NAMES - {MODEL} else []
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            asked = any(MODEL in literals(side) for side in sides)
            if asked and any(is_a_name(side) for side in sides):
                found.append((node.lineno, MODEL))
    return found


ANY = re.compile(rf"(?<![\w./-])({'|'.join(map(re.escape, sorted(NAMES, key=len)))})(?![\w./-])")


def words_of(text: str) -> set[str]:
    return set(ANY.findall(text))


def identifiers(node: ast.AST) -> list[str]:
    return [
        str(getattr(node, key)) for key in ("id", "attr", "arg", "name") if isinstance(getattr(node, key, None), str)
    ]


def literals(node: ast.AST) -> set[str]:
    return {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def is_a_name(node: ast.AST) -> bool:
    """Whether an expression reads something's name: ``method["name"]``, ``task.name``, ``name``."""
    keys = literals(node) | {word for inner in ast.walk(node) for word in identifiers(inner)}
    return bool(keys & {"name", "names", "name_of", "method_label", "training_id", "run_id"})


def may_stand(path: Path, name: str) -> bool:
    place = path.relative_to(ROOT)
    for where, (names, _) in ALLOWED.items():
        if place.is_relative_to(where) and (names is None or name in names):
            return True
    return False


@pytest.mark.slow
def test_no_code_names_a_method_or_a_task():
    offences = []
    for path in FILES:
        text, place = path.read_text("utf-8"), path.relative_to(ROOT)
        offences += [f"{place}: imports {m}" for m in ("harness.methods.", "harness.tasks.") if m in text]
        offences += [f"{place}:{line}: {name}" for line, name in named_in(text) if not may_stand(path, name)]
    assert not offences, "\n".join(offences)


def test_templates_and_scripts_of_pages_name_none_either():
    for path in (path for kind in ("*.j2", "*.js", "*.css", "*.html") for path in ROOT.rglob(kind)):
        assert not words_of(path.read_text("utf-8")) - {MODEL}, path


@pytest.mark.parametrize(
    "code",
    [
        'if method.name == "sft":\n    pass',
        'REFERENCES = {"untouched": 1}',
        'x = record["method"]["name"] in ("a", "teacher")',
        'y = training_id.partition("-")[0] in ("teacher",)',
        'z = name == "teacher"',
        'say("use kd instead")',
        'run("gkd@trl")',
        'open_task("amc23@micro")',
        'f(f"{x} under vcrd: {y}")',
        "gkd = 3",
        "def humaneval(): pass",
        "tasks.mbpp",
    ],
)
def test_the_search_finds_names(code):
    assert named_in(code)


@pytest.mark.parametrize(
    "code",
    [
        'x = record["spec"]["teacher"]',
        'if method.evaluates == "teacher":\n    pass',
        '"""A docstring may say vcrd."""',
        'path = "humaneval/HumanEval.jsonl.gz"',
        'say("the teacher is gone")',
        'x = "kdtree"',
        'needs.teacher != "none"',
    ],
)
def test_the_search_leaves_the_rest_alone(code):
    assert not named_in(code)


def test_every_exception_is_needed():
    for where, (names, _) in ALLOWED.items():
        files = [ROOT / where] if where.endswith(".py") else list((ROOT / where).rglob("*.py"))
        found = {name for path in files for _, name in named_in(path.read_text("utf-8"))}
        assert found and (names is None or names <= found), where
