"""Log-probabilities of texts: ours against the logits of plain transformers, token by token, within 1e-4.

    python -m results.scripts.real.log_probs [--model NAME] [--texts 8] [--out FILE.md]

The texts are questions of GSM8K with their solutions, as chat turns.
"""

from __future__ import annotations

import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness import data
from harness.models.files import load_model, load_tokenizer, locate
from harness.models.generate import Generator
from harness.registry import TASKS, find
from harness.types import Prompt
from results.scripts.real import page

TOLERANCE = 1e-4


def main() -> int:
    known = page.parser(__doc__.splitlines()[0])
    known.add_argument("--texts", type=int, default=8)
    chosen = known.parse_args()
    files = locate(chosen.model)
    generator = Generator(load_model(files), load_tokenizer(files))
    plain = AutoModelForCausalLM.from_pretrained(files.path, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(files.path)
    rows = data.read(find(TASKS, "gsm8k").dataset).rows[: chosen.texts]
    lines, worst = (
        ["| text | tokens | mean log-probability | largest difference |", "| ---: | ---: | ---: | ---: |"],
        0.0,
    )
    for number, row in enumerate(rows):
        rendered = generator.render(Prompt(user=row["question"], plain=row["question"]))
        prompt = generator.encode(rendered)
        response = generator.response_ids(prompt, row["answer"], ended=True)
        (ours,) = (s.log_probs for s in generator.score([(prompt, response)]))
        # Plain transformers renders, encodes and scores by itself.
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}],
            return_tensors="pt",
            return_dict=True,
        )["input_ids"][:, : len(prompt) + len(response)]
        if ids[0].tolist() != [*prompt, *response]:
            lines.append(f"| {number} | the token ids differ | | |")
            worst = float("inf")
            continue
        with torch.no_grad():
            logits = plain(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        theirs = logits[torch.arange(len(response)), torch.tensor(response)]
        apart = (theirs - torch.tensor(ours)).abs().max().item()
        worst = max(worst, apart)
        lines.append(f"| {number} | {len(response)} | {theirs.mean():.4f} | {apart:.1e} |")
    lines += ["", f"Largest difference: {worst:.1e} (at most {TOLERANCE:.0e} is accepted)."]
    about = "Written by `python -m results.scripts.real.log_probs`: the same ids through the harness, and through "
    about += f"transformers' own template, encoding and logits. {files.id}, float32, CPU."
    page.show("Log-probabilities equal plain transformers", about, lines, chosen.out)
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
