"""Distils from one family of models into another: what the two tokenizers have in common, and a few steps of training.

    python -m results.scripts.real.two_families --teacher FILE.gguf [--student small:student] [--out FILE.md]

The data are public instructions below HARNESS_DATA. Every method starts from the same student and sees the same texts.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from harness import plan, safe_read, students
from harness.errors import BadInput
from harness.models import alignment
from harness.models.files import locate, text_codec
from harness.plan import RunRequest
from results.scripts.real import page

METHODS = ("uld", "gold", "multilevel_ot")
FILE, FIRST = "train_prompts/alpaca_en_demo.json", 64
RECIPE = """
world = "real"
[data]
prompts = "data:{file},first={first}"
labelled = "data:{file},first={first}"
prompt_field = "instruction"
response_field = "output"
[training]
steps = {steps}
batch = {batch}
micro_batch = {batch}
learning_rate = 1e-3
max_tokens = {tokens}
signal = "live"
[teacher_text]
max_new_tokens = {tokens}
[rollout]
max_new_tokens = {tokens}
[models]
student = "{student}"
teacher = "{teacher}"
[evaluation]
limit = 1
max_new_tokens = 8
"""


def responses() -> list[str]:
    """The written answers to the prompts that are trained on. Raises BadInput where the file is missing."""
    path = Path(os.environ.get("HARNESS_DATA", "")) / FILE
    if not path.is_file():
        raise BadInput(f"{path} is missing: set HARNESS_DATA to the folder that has {FILE}")
    return [row["output"] for row in safe_read.value(path.read_bytes())[:FIRST] if row["output"]]


def coverage(student: str, teacher: str, texts: Sequence[str]) -> list[str]:
    """Lines of a table: the vocabularies, and the pairs of tokens over the same texts."""
    ours, theirs = (text_codec(locate(name)) for name in (student, teacher))
    assert ours is not None and theirs is not None, "both models have files of their own"
    aligner = alignment.TextAligner(ours, theirs)
    counts = dict.fromkeys(("student", "teacher", "paired", "theirs", "pairs", "single"), 0)
    for text in texts:
        ids = ours.response_ids((), text, ended=False)
        student_text = aligner.reads((), ids, set())
        read, ends = aligner.teacher_ids((), student_text)
        pairs = alignment.pair(student_text.ends, ends)
        numbers = (len(ids), len(read), sum(len(a) for a, _ in pairs), sum(len(b) for _, b in pairs), len(pairs))
        numbers += (sum(len(a) == len(b) == 1 for a, b in pairs),)
        counts = {key: counts[key] + n for key, n in zip(counts, numbers, strict=True)}
    shared = len(aligner.shared((ours.words, theirs.words)))
    return [
        "| | student | teacher |",
        "| --- | ---: | ---: |",
        f"| words of the tokenizer | {ours.words:,} | {theirs.words:,} |",
        f"| of them in both, by their bytes | {shared / ours.words:.1%} | {shared / theirs.words:.1%} |",
        f"| tokens of {len(texts)} responses | {counts['student']:,} | {counts['teacher']:,} |",
        f"| in a pair | {counts['paired'] / counts['student']:.1%} | {counts['theirs'] / counts['teacher']:.1%} |",
        "",
        f"{counts['pairs']:,} pairs, {counts['single'] / counts['pairs']:.1%} of them of one token each.",
        "",
    ]


def main() -> int:
    known = page.parser(__doc__.splitlines()[0])
    known.add_argument("--student", default="small:student")
    known.add_argument("--teacher", required=True)
    known.add_argument("--steps", type=int, default=3)
    known.add_argument("--batch", type=int, default=4)
    known.add_argument("--tokens", type=int, default=96)
    known.add_argument("--methods", nargs="+", default=list(METHODS))
    chosen = known.parse_args()
    with tempfile.TemporaryDirectory() as name:
        recipe = Path(name) / "families.toml"
        words = {key: getattr(chosen, key) for key in ("steps", "batch", "tokens", "student", "teacher")}
        recipe.write_text(RECIPE.format(**words, file=FILE, first=FIRST), "utf-8")
        lines = coverage(chosen.student, chosen.teacher, responses())
        print("\n".join(lines), flush=True)
        steps = " | ".join(f"step {n + 1}" for n in range(chosen.steps))
        rows = [f"| method | {steps} | tokens in pairs | s |", f"| --- |{' ---: |' * (chosen.steps + 2)}"]
        for label in chosen.methods:
            made = plan.prepare(RunRequest((label,), ["gsm8k@real"], str(recipe), results=Path(name) / "results"))
            began = time.monotonic()
            (training,) = made.trainings
            curve = students.train_run(made, training, lambda *_: None).curve
            losses = " | ".join(f"{row['loss']:.3f}" for row in curve)
            paired = sum(row["paired"] for row in curve) / len(curve)
            rows.append(f"| {label} | {losses} | {paired:.1%} | {time.monotonic() - began:.0f} |")
            print(rows[-1], flush=True)
            about = (
                f"Written by `python -m results.scripts.real.two_families`: teacher {Path(chosen.teacher).name}, "
                f"student {chosen.student}, one seed, float32 on CPU cores, {chosen.batch} texts a step of at most "
                f"{chosen.tokens} tokens. Losses are of different objectives and compare within a row alone."
            )
            page.show("A teacher of another family", about, [*lines, *rows], chosen.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
