"""The arguments and the page that these scripts share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def parser(about: str) -> argparse.ArgumentParser:
    known = argparse.ArgumentParser(description=about)
    known.add_argument("--model", default="small:teacher", help="folder, hub id or small:teacher (default)")
    known.add_argument("--out", type=Path, help="a Markdown file to write, too")
    return known


def show(title: str, about: str, lines: Sequence[str], out: Path | None) -> None:
    """Prints the lines, and writes them below a title where a file is named."""
    print("\n".join(lines))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(f"# {title}\n\n{about}\n\n" + "\n".join(lines) + "\n", "utf-8")


def common_start(ours: str, theirs: str) -> int:
    """How many characters two texts have in common from the beginning."""
    pairs = zip(ours, theirs, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))
