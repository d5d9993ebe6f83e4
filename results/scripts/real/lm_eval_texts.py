"""GSM8K through lm-eval: the harness' ``lm_eval:`` task against lm-eval's own command, item by item.

    python -m results.scripts.real.lm_eval_texts [--model NAME] [--items 4] [--shots 2] [--tokens 64] [--out FILE.md]

Both read the same task file: lm-eval's gsm8k with the data below HARNESS_DATA and shorter answers, because lm-eval
itself decodes one item at a time. Greedy, float32, chat template, examples as turns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import lm_eval.tasks
import yaml

from harness.evaluation.lm_eval_task import open_lm_eval_task
from harness.models.files import load_model, load_tokenizer, locate
from harness.models.generate import Generator
from results.scripts.real import page

NAME = "gsm8k_here"


def task_file(folder: Path, shots: int, tokens: int) -> None:
    """Writes lm-eval's gsm8k with local data into ``folder``."""
    shipped = Path(lm_eval.tasks.__file__).parent / "gsm8k/gsm8k.yaml"
    facts = yaml.safe_load(shipped.read_text("utf-8"))
    root = Path(os.environ["HARNESS_DATA"]).resolve() / "gsm8k"
    facts |= {
        "task": NAME,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: str(root / f"{split}.jsonl") for split in ("train", "test")}},
        "num_fewshot": shots,
        "generation_kwargs": facts["generation_kwargs"] | {"max_gen_toks": tokens},
    }
    facts.pop("tag", None)
    (folder / f"{NAME}.yaml").write_text(yaml.safe_dump(facts), "utf-8")


def by_its_command(model: Path, folder: Path, items: int) -> list[dict]:
    """The samples that ``python -m lm_eval`` logs."""
    words = [sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={model},dtype=float32"]
    words += ["--tasks", NAME, "--include_path", str(folder), "--limit", str(items), "--log_samples", "--device", "cpu"]
    words += ["--apply_chat_template", "--fewshot_as_multiturn", "--output_path", str(folder / "out")]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"lm-eval failed: {done.stderr.strip().splitlines()[-1]}")
    (log,) = (folder / "out").rglob("samples_*.jsonl")
    return [json.loads(line) for line in log.read_text("utf-8").splitlines()]


def main() -> int:
    known = page.parser(__doc__.splitlines()[0])
    known.add_argument("--items", type=int, default=4)
    known.add_argument("--shots", type=int, default=2)
    known.add_argument("--tokens", type=int, default=64)
    chosen = known.parse_args()
    files = locate(chosen.model)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        task_file(folder, chosen.shots, chosen.tokens)
        ours, _ = open_lm_eval_task(f"{folder}/{NAME}").measure(
            Generator(load_model(files), load_tokenizer(files)), chosen.items, 0
        )
        theirs = by_its_command(files.path, folder, chosen.items)
    strict = {str(s["doc_id"]): s for s in theirs if s["filter"] == "strict-match"}
    lines, sound = ["| item | texts | exact_match, ours | lm-eval's |", "| ---: | --- | ---: | ---: |"], True
    for row in ours:
        other = strict[row["problem_id"]]
        mine, its = json.loads(row["text"])[0][0], other["resps"][0][0]
        same = mine == its and row["score"] == other["exact_match"]
        sound &= same
        how = "equal" if mine == its else f"apart after {page.common_start(mine, its)} characters"
        lines.append(f"| {row['problem_id']} | {how} | {row['score']:.0f} | {other['exact_match']:.0f} |")
    about = "Written by `python -m results.scripts.real.lm_eval_texts`: lm-eval's gsm8k, "
    about += f"{chosen.shots} examples as turns, {chosen.tokens} new tokens, greedy, float32, filter strict-match; "
    about += f"{files.id}."
    page.show("lm-eval's own command and the harness", about, lines, chosen.out)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
