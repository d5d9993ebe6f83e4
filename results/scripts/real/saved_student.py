"""A trained student, loaded with plain AutoModelForCausalLM, answers as the harness has it answer.

    python -m results.scripts.real.saved_student --student FOLDER [--prompts 3] [--tokens 48] [--out FILE.md]

FOLDER is a student below ``work/trained`` of a results folder, or one that ``harness export`` wrote. Greedy, float32.
"""

from __future__ import annotations

import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness import data
from harness.models.files import load_model, load_tokenizer, locate
from harness.models.generate import Generator
from harness.registry import TASKS, find
from harness.types import Decoding, Prompt
from results.scripts.real import page


def main() -> int:
    known = page.parser(__doc__.splitlines()[0])
    known.add_argument("--student", required=True)
    known.add_argument("--prompts", type=int, default=3)
    known.add_argument("--tokens", type=int, default=48)
    chosen = known.parse_args()
    files = locate(chosen.student)
    generator = Generator(load_model(files), load_tokenizer(files))
    plain = AutoModelForCausalLM.from_pretrained(chosen.student).eval()
    tokenizer = AutoTokenizer.from_pretrained(chosen.student)
    rows = data.read(find(TASKS, "self_instruct").dataset).rows[: chosen.prompts]
    lines, sound = ["| prompt | tokens | texts |", "| ---: | ---: | --- |"], True
    for number, row in enumerate(rows):
        rendered = generator.render(Prompt(user=row["instruction"], plain=row["instruction"]))
        (ours,) = generator.generate([rendered], Decoding(max_new_tokens=chosen.tokens), [0])
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": row["instruction"]}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        with torch.no_grad():
            whole = plain.generate(**ids, do_sample=False, max_new_tokens=chosen.tokens)[0, ids["input_ids"].shape[1] :]
        theirs = tokenizer.decode(whole, skip_special_tokens=True)
        same = theirs == ours.text
        sound &= same
        how = "equal" if same else f"apart after {page.common_start(ours.text, theirs)} characters"
        lines.append(f"| {number} | {ours.tokens} | {how} |")
    about = "Written by `python -m results.scripts.real.saved_student`: greedy answers to the first prompts of "
    about += "self_instruct, by the harness and by `AutoModelForCausalLM.from_pretrained(FOLDER).generate`."
    page.show("A trained student loads plainly and answers the same", about, lines, chosen.out)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
