"""Greedy texts and log-probabilities of the engines against each other, on the same weights.

    python -m results.scripts.engines.agreement [--model micro:teacher micro:student small:teacher] [--prompts 24]
        [--new 48] [--dtype float32] [--out FILE.md]

Three comparisons a model, all with the harness' own prompts: greedy texts id by id, the log-probabilities of their ids,
and those of this process' texts as the server scores a given text. A greedy text that differs is explained by the
log-probabilities of the two ids where it leaves: a tie within rounding, or not.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.evaluation.benchmarks import open_unjudged
from harness.models import engine_choice, engines
from harness.models.engine_choice import EngineChoice
from harness.models.files import load_model, load_tokenizer, locate
from harness.models.generate import Generator
from harness.types import Decoding
from results.scripts.real import page

GREEDY, TOLERANCE = "greedy texts equal", 1e-3
HEAD = (
    "model", "prompts", GREEDY, "tokens", "mean gap", "largest gap", "given text: largest gap", "sampled twice: equal"
)  # fmt: skip


def compare(name: str, prompts: int, new: int, dtype: str) -> tuple[list[str], list[str], bool]:
    """The cells of a row, remarks on texts that differ, and whether every difference is rounding."""
    files = locate(name)
    ours = Generator(load_model(files, dtype), load_tokenizer(files))
    task = open_unjudged("gsm8k@real" if name.startswith("small:") else "gsm8k@micro")
    prompt_ids = [ours.encode(ours.render(problem.prompt)) for problem in task.items[:prompts]]
    decoding, seeds = Decoding(max_new_tokens=new), list(range(prompts))
    choice = engine_choice.with_dtype(EngineChoice("vllm"), dtype)
    with TemporaryDirectory() as folder:
        # Without the rows of a padded vocabulary, as the student is handed to an engine in training.
        copy = Path(folder) / "copy"
        ours.model.resize_token_embeddings(ours.words)
        ours.model.save_pretrained(copy)
        ours.tokenizer.save_pretrained(copy)
        theirs = engines.remote(locate(str(copy)), choice, "cpu", Path(folder) / "vllm.log")
        theirs.end_ids = ours.end_ids
        try:
            made, here = (
                theirs.continue_ids(prompt_ids, decoding, seeds),
                ours.continue_ids(prompt_ids, decoding, seeds),
            )
            scored = theirs.score([(p, g.ids) for p, g in zip(prompt_ids, here, strict=True)])
            hot = Decoding(temperature=1.0, max_new_tokens=new)
            first, second = (theirs.continue_ids(prompt_ids[:k], hot, seeds[:k]) for k in (prompts, prompts // 2))
        finally:
            theirs.server.stop()
    again = sum(a.ids == b.ids for a, b in zip(first, second, strict=False))
    remarks = list(_partings(name, ours, prompt_ids, here, made, dtype))
    gaps = [abs(a - b) for g, h in zip(made, here, strict=True) for a, b, same in _together(g, h) if same]
    score_gaps = [
        abs(a - b) for h, row in zip(here, scored, strict=True) for a, b in zip(h.log_probs, row.log_probs, strict=True)
    ]
    equal = sum(g.ids == h.ids for g, h in zip(made, here, strict=True))
    cells = [
        name, str(prompts), f"{equal} of {prompts}", f"{len(gaps):,}", f"{statistics.fmean(gaps):.1e}",
        f"{max(gaps):.1e}", f"{max(score_gaps):.1e}", f"{again} of {prompts // 2}",
    ]  # fmt: skip
    tolerance = TOLERANCE if dtype == "float32" else 100 * TOLERANCE
    good = all("not a tie" not in remark for remark in remarks) and max(*gaps, *score_gaps) <= tolerance
    return cells, remarks, good


def _together(a, b) -> Iterator[tuple[float, float, bool]]:
    """Both log-probabilities of every id up to the first that differs."""
    for i, (x, y) in enumerate(zip(a.log_probs, b.log_probs, strict=False)):
        same = a.ids[: i + 1] == b.ids[: i + 1]
        yield x, y, same


def _partings(name, ours: Generator, prompt_ids, here, made, dtype: str) -> Iterator[str]:
    for number, (prompt, h, g) in enumerate(zip(prompt_ids, here, made, strict=True)):
        if h.ids == g.ids:
            continue
        at = next(
            (i for i, (a, b) in enumerate(zip(h.ids, g.ids, strict=False)) if a != b), min(len(h.ids), len(g.ids))
        )
        before = [*prompt, *h.ids[:at]]
        (one,), (other,) = (ours.score([(before, row.ids[at : at + 1])])[0].log_probs for row in (h, g))
        tie = "a tie within rounding" if abs(one - other) < (1e-3 if dtype == "float32" else 0.2) else "not a tie"
        yield f"{name}, text {number}, token {at}: log-probabilities {one:.5f} and {other:.5f} here, {tie}."


def main() -> int:
    known = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known.add_argument(
        "--model", nargs="+", default=["micro:student", "micro:teacher", "small:student", "small:teacher"]
    )
    known.add_argument("--prompts", type=int, default=24)
    known.add_argument("--new", type=int, default=48)
    known.add_argument("--dtype", default="float32")
    known.add_argument("--out", type=Path)
    chosen = known.parse_args()
    lines, remarks, good = [f"| {' | '.join(HEAD)} |", "| --- |" + " ---: |" * (len(HEAD) - 1)], [], True
    for name in chosen.model:
        cells, differences, fine = compare(name, chosen.prompts, chosen.new, chosen.dtype)
        lines.append(f"| {' | '.join(cells)} |")
        remarks, good = remarks + differences, good and fine
        print(lines[-1], file=sys.stderr, flush=True)
    lines += ["", *(f"- {remark}" for remark in remarks)] if remarks else []
    about = (
        f"Written by `python -m results.scripts.engines.agreement`: vLLM {engine_choice.version('agreement')} on CPU "
        f"cores beside the decoder of the harness, {chosen.dtype}, at most {chosen.new} new tokens. A gap is the "
        "difference of two log-probabilities of one token, in nats. Prompts of GSM8K in the micro world, and of the "
        "benchmark for SmolLM2. Rows of a padded vocabulary are cut off, as they are in rollouts; left in, they take "
        "their mass (0.4 % with micro:student). The last column asks half of the prompts again, sampled at temperature "
        "1 with the same seeds beside other neighbours."
    )
    page.show("Engines agree", about, lines, chosen.out)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
