"""What the site does to its pages: tables from README.md, links that leave docs/, roles in docstrings.

Run by mkdocs (mkdocs.yml names this file); nothing of the harness imports it.
"""

import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
TABLES = {
    "methods": "Every method with the four choices it makes by default ([concepts](concepts.md)).",
    "tasks": "Every task with its metric and the published ways to use it ([protocols](protocols.md)).",
}


def on_files(files, config):
    """Adds a page for each table that README.md holds between markers."""
    readme = (ROOT / "README.md").read_text("utf-8")
    for name, sentence in TABLES.items():
        table = re.search(rf"<!-- BEGIN {name} -->\n(.*?)\n<!-- END {name} -->", readme, re.DOTALL)[1]
        text = f"# {name.capitalize()}\n\n{sentence}\n\n{table}\n"
        files.append(File.generated(config, f"{name}.md", content=_outside(text, r"(?!https?:|\w+[\w-]*\.md)", config)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links into the repository outside docs/ lead to ``repo_url``, or become words where there is none."""
    return _outside(markdown, r"\.\./", config)


def on_page_content(html, page, config, files):
    """The roles of reStructuredText that docstrings use: the code that they mark is enough."""
    return re.sub(r":(?:class|func|mod|meth|data|attr):(?=<code>)", "", html)


def _outside(markdown, start, config):
    """``[words](start…)`` as a link to the file in the repository, or as the words with the file's name."""

    def told(match):
        words, path = match[1], match[2]
        if config.repo_url:
            return f"[{words}]({config.repo_url.rstrip('/')}/blob/main/{path})"
        return words if path.split("#")[0] in words else f"{words} (`{path.split('#')[0]}`)"

    return re.sub(rf"(?<!!)\[([^\]]+)\]\({start}([^)]+)\)", told, markdown)
