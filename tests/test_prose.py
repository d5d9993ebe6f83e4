"""Prose is plain English: phrases that a reader has to translate are refused, each with the plain one.

Searched: the pages, those of ``results/`` included; the docstrings, comments and messages of the package and of the
scripts behind the results; and TOML files, whose comments and reasons are printed. A phrase is a regular expression
over text whose line breaks are spaces. Add a phrase when you find a new kind.
"""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
REFUSED = {  # phrase: what to write instead
    r"\b(was|is|be|been|are) had\b|\bto be had\b|\bhad again\b": "available, run again",
    r"\bthe mend\b|\bmends?\b|\bmended\b": "fix, repair",
    r"\bat hand\b": "available, on this machine",
    r"\bfor want of\b": "for lack of",
    r"\banew\b": "again",
    r"\bbut for\b": "except, up to",
    r"\b(and|or) its like\b": "or similar",
    r"\bfor ever\b": "forever",
    r"\bonce more\b": "again",
    r"\bwhoever\b|\bwho has\b": "name the subject",
    r"\bsomebody\b|\bnobody\b(?!;)": "name the subject",
    r"\bin silence\b": "silently",
    r"\bwithout a word\b(?! in)|\bno word\b": "silently, no message",
    r"\b(says?|told) of (a|the|its|it|them|all)\b": "say about, describe",
    r"\bis to know\b|\bis known of\b": "verbs first",
    r"\bcannot be told (from|apart)\b": "is not distinguishable from",
    r"\bis taken for\b|\bstands? for no\b": "counts as",
    r"\bbehind (commas|its own|a comma)\b": "after",
    r"\b(stands?|lies|lie) (beside|behind|there)\b": "is next to, follows",
    r"\bas (they come|it comes)\b": "unchanged, untrained",
    r"\bwhat (it|they) amounts? to\b": "verbs first",
    r"\bone (a|an) (seed|task|line|paper|file|row)\b": "per",
    r"\b(one|two|three) \w+s? a (seed|paper|source|kind|task|record)\b": "per",
    r"\b(if|where) (it|they) (is|are) not there\b": "is missing",
    r"\b(was|were) (not )?there\b(?! (is|are|was|were))": "is missing, available",
    r"(?<!there )\b(is|are) no (row|name|text|mapping|number|file|folder|whole|task|dataclass|word|page)\b": "is not a",
    r"\bever (more|fewer) (often|of)\b": "more and more",
    r"\bcosts itself\b|\bcosts each itself\b": "harms only itself",
    r"\bwith which (a|the) \w+ (completes|begins)\b": "that the ...",
}
EXEMPT = {
    "harness/sandbox/kernel.py": "the user called nobody",
    "results/vcrd/plan.md": "committed before its runs, and unchanged since",
    "results/vcrd/plan-longer.md": "committed before its runs, and unchanged since",
}
FOLDERS = ("harness", "methods", "tasks", "results")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted(path for path in (ROOT / "results").rglob("*.md") if "work" not in path.relative_to(ROOT).parts)
PAGES += sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.toml") if path.parent.name != "answers")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def flat(text: str) -> str:
    return re.sub(r"\s+#?\s*", " ", text)


def prose_of(source: str) -> str:
    """Docstrings, comments and strings of a file, one after the other."""
    parts = [
        token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    ]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            parts.append(node.value)
    return "\n\n".join(flat(part) for part in parts)


def found_in(text: str) -> list[str]:
    return [
        f"{text[max(0, hit.start() - 30) : hit.end() + 30]!r} (write: {plain})"
        for phrase, plain in REFUSED.items()
        for hit in re.finditer(phrase, text)
    ]


def test_pages_are_plain_english():
    wrong = []
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        if name not in EXEMPT:
            text = re.sub(r"`[^`\n]*`", "`code`", page.read_text("utf-8"))
            wrong += [f"{name}: {one}" for one in found_in(flat(text))]
    assert len(PAGES) > 100 and not wrong, "\n".join(wrong)


def test_docstrings_comments_and_messages_are_plain_english():
    wrong = []
    for path in FILES:
        name = str(path.relative_to(ROOT))
        if name not in EXEMPT:
            wrong += [f"{name}: {one}" for one in found_in(prose_of(path.read_text("utf-8")))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "for want of a GPU",
        "one a seed",
        "x is no row; give one",
        "nothing is told of the teacher",
        "settings behind commas",
    ],
)
def test_the_search_finds_dialect(text):
    assert found_in(text)
