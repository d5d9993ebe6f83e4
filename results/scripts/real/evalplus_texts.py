"""HumanEval's prompts and greedy continuations: the harness against EvalPlus' own decoder at one dtype.

    python -m results.scripts.real.evalplus_texts [--model NAME] [--items 4] [--tokens 128] [--out FILE.md]

EvalPlus' command loads bfloat16, cuts a prompt's white space, and stops on strings by a criterion that it stacks anew
upon the model with every problem. The script asks EvalPlus' ``HuggingFaceDecoder`` with a single criterion in float32
and in bfloat16, and as it comes, and says for every problem where the texts part.
"""

from __future__ import annotations

import sys
from pathlib import Path

import evalplus.codegen
import torch
from evalplus.provider.hf import HuggingFaceDecoder

from harness.evaluation.benchmarks import open_task
from harness.models.files import load_model, load_tokenizer, locate
from harness.models.generate import Generator
from harness.types import Decoding
from results.scripts.real import page

ASKS = "Please provide a self-contained Python script that solves the following problem in a markdown code block:"
OPENS = (
    "Below is a Python script with a self-contained function that solves the problem and passes corresponding tests:"
)


def by_evalplus(path: str, stubs: list[str], tokens: int, *, stacked: bool, dtype: str = "float32") -> list[str]:
    """EvalPlus' greedy texts. Unless ``stacked``, the criterion of the problem before is taken off the model."""
    decoder = HuggingFaceDecoder(
        path, "humaneval", temperature=0.0, max_new_tokens=tokens, dtype=dtype,
        instruction_prefix=ASKS, response_prefix=OPENS,
    )  # fmt: skip
    texts = []
    for stub in stubs:
        texts += decoder.codegen(stub, do_sample=False, num_samples=1)
        if not stacked:
            vars(decoder.model).pop("_get_stopping_criteria", None)
    return texts


def main() -> int:
    known = page.parser(__doc__.splitlines()[0])
    known.add_argument("--items", type=int, default=4)
    known.add_argument("--tokens", type=int, default=128)
    chosen = known.parse_args()
    if ASKS not in Path(evalplus.codegen.__file__).read_text("utf-8"):
        raise SystemExit("this release of EvalPlus asks in other words: compare ASKS and OPENS with its codegen.py")
    files = locate(chosen.model)
    task = open_task("humaneval@real", protocol="evalplus-0.2.0")
    problems = task.items[: chosen.items]
    generator = Generator(load_model(files), load_tokenizer(files))
    asked = [generator.render(p.prompt) for p in problems]
    stop = task.decoding.stop
    ours = generator.generate(asked, Decoding(max_new_tokens=chosen.tokens, stop=stop), [0] * len(asked))

    written = {row["task_id"]: row["prompt"] for row in task.data.rows}
    stubs = [written[p.id].strip() + "\n" for p in problems]
    path = str(files.path)
    alone = by_evalplus(path, stubs, chosen.tokens, stacked=False)
    stacked = by_evalplus(path, stubs, chosen.tokens, stacked=True)
    bfloat16 = by_evalplus(path, stubs, chosen.tokens, stacked=False, dtype="bfloat16")
    lines = ["| problem | prompt | float32, one criterion | float32, as it comes | bfloat16, one criterion |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    sound = True
    decoder_prompt = _prompts(path, stubs)
    for i, problem in enumerate(problems):
        mine = ours[i].text.replace("\t", "    ")
        same_prompt = asked[i] == decoder_prompt[i]
        sound &= same_prompt and mine == alone[i]
        told = [_told(mine, text) for text in (alone[i], stacked[i], bfloat16[i])]
        lines.append(f"| {problem.id} | {'equal' if same_prompt else 'differs'} | {' | '.join(told)} |")
    lines += [
        "",
        "As it comes, EvalPlus' decoder leaves the stop criterion of every earlier problem on the model. It looks for "
        "the stop strings from the end of that earlier prompt on, so it finds them in a longer prompt itself and ends "
        "the text after one token. bfloat16 rounds the logits, and greedy decoding parts at the first near tie.",
    ]
    about = "Written by `python -m results.scripts.real.evalplus_texts`: greedy, at most "
    about += f"{chosen.tokens} new tokens, the harness in float32 against EvalPlus' `HuggingFaceDecoder`; {files.id}. "
    about += f"torch {torch.__version__.partition('+')[0]}."
    page.show("EvalPlus' codegen and the harness", about, lines, chosen.out)
    return 0 if sound else 1


def _prompts(path: str, stubs: list[str]) -> list[str]:
    """The prompts that EvalPlus' decoder builds."""
    from evalplus.provider.utility import make_raw_chat_prompt
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    return [make_raw_chat_prompt(stub, ASKS, OPENS, tokenizer) for stub in stubs]


def _told(ours: str, theirs: str) -> str:
    if ours == theirs:
        return "equal"
    return f"apart after {page.common_start(ours, theirs)} of {len(ours)} characters (theirs has {len(theirs)})"


if __name__ == "__main__":
    sys.exit(main())
