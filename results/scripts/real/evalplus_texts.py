"""HumanEval's prompts and greedy continuations: the harness against EvalPlus' own decoder at one dtype.

    python -m results.scripts.real.evalplus_texts [--model NAME] [--items 4] [--tokens 128] [--out FILE.md]

EvalPlus' command loads bfloat16, cuts a prompt's white space, and adds one more stop criterion to the model with every
problem. The script asks EvalPlus' ``HuggingFaceDecoder`` with a single criterion in float32 and in bfloat16, then
EvalPlus as released, and the harness in both types. Where texts part it says why: a stop string of an earlier problem
in the prompt, or a near tie, two tokens whose logits are closer than the type's rounding moves them. Anything else
is a difference without a reason, and the script exits with 1.
"""

from __future__ import annotations

import sys
from pathlib import Path

import evalplus.codegen
import torch
from evalplus.provider.hf import HuggingFaceDecoder

from harness.evaluation.benchmarks import open_task
from harness.models.files import load_model, load_tokenizer, locate
from harness.models.generate import Generated, Generator
from harness.types import Decoding
from results.scripts.real import page

ASKS = "Please provide a self-contained Python script that solves the following problem in a markdown code block:"
OPENS = (
    "Below is a Python script with a self-contained function that solves the problem and passes corresponding tests:"
)


def decoder_of(path: str, tokens: int, dtype: str) -> HuggingFaceDecoder:
    return HuggingFaceDecoder(
        path, "humaneval", temperature=0.0, max_new_tokens=tokens, dtype=dtype,
        instruction_prefix=ASKS, response_prefix=OPENS,
    )  # fmt: skip


def by_evalplus(decoder: HuggingFaceDecoder, stubs: list[str], *, stacked: bool) -> list[str]:
    """EvalPlus' greedy texts. Unless ``stacked``, the criterion of the problem before is taken off the model."""
    texts = []
    for stub in stubs:
        texts += decoder.codegen(stub, do_sample=False, num_samples=1)
        if not stacked:
            vars(decoder.model).pop("_get_stopping_criteria", None)
    return texts


class Reasons:
    """Why two greedy texts of one prompt part."""

    def __init__(self, prompts: list[list[int]], stops: list[str], by_type: dict[str, Generator]):
        self.prompts, self.stops, self.by_type = prompts, stops, by_type
        self.tokenizer = by_type["float32"].tokenizer

    def earlier_stop(self, i: int) -> int | None:
        """The first earlier problem whose criterion, looking from the end of its own prompt on, stops in prompt i."""
        for k in range(i):
            rest = self.tokenizer.decode(self.prompts[i][len(self.prompts[k]) :])
            if any(stop in rest for stop in self.stops):
                return k
        return None

    def near_tie(self, i: int, ours: Generated, common: int) -> tuple[float, float]:
        """Where the texts part: how far apart the two likeliest tokens are, and how far bfloat16 moves their logits."""
        n = 0
        while n < len(ours.ids) and len(self.tokenizer.decode(ours.ids[: n + 1])) <= common:
            n += 1
        ids = torch.tensor([[*self.prompts[i], *ours.ids[:n]]])
        with torch.no_grad():
            exact, rounded = (self.by_type[t].model(ids).logits[0, -1].double() for t in ("float32", "bfloat16"))
        two = exact.topk(2).indices
        gap, moved = exact[two[0]] - exact[two[1]], rounded[two[0]] - rounded[two[1]]
        return float(gap), float((gap - moved).abs() + _step(rounded[two[0]]))


def _step(logit: torch.Tensor) -> float:
    """The distance of two neighbouring numbers of bfloat16 at a value: 8 bits of precision."""
    return 2.0 ** (int(torch.log2(logit.abs()).floor()) - 7)


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
    tokenizer = load_tokenizer(files)
    by_type = {t: Generator(load_model(files, t), tokenizer) for t in ("float32", "bfloat16")}
    rendered = [by_type["float32"].render(p.prompt) for p in problems]
    decoding = Decoding(max_new_tokens=chosen.tokens, stop=task.decoding.stop)
    ours = {t: generator.generate(rendered, decoding, [0] * len(rendered)) for t, generator in by_type.items()}

    written = {row["task_id"]: row["prompt"] for row in task.data.rows}
    stubs = [written[p.id].strip() + "\n" for p in problems]
    path = str(files.path)
    exact = decoder_of(path, chosen.tokens, "float32")
    stops = list(exact.eos)
    alone = by_evalplus(exact, stubs, stacked=False)
    stacked = by_evalplus(exact, stubs, stacked=True)
    rounded = by_evalplus(decoder_of(path, chosen.tokens, "bfloat16"), stubs, stacked=False)
    prompts = _prompts(path, stubs)
    why = Reasons([tokenizer.encode(p, add_special_tokens=False) for p in prompts], stops, by_type)

    lines = ["| problem | prompt | float32, one criterion | bfloat16, one criterion | float32, as released |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    sound = True
    for i, problem in enumerate(problems):
        same_prompt = rendered[i] == prompts[i]
        cells = [
            _cell(i, ours["float32"][i], alone[i], None, None),
            _cell(i, ours["bfloat16"][i], rounded[i], why, None),
            _cell(i, ours["float32"][i], stacked[i], None, why),
        ]
        sound &= same_prompt and all(known for known, _ in cells)
        cells_text = " | ".join(text for _, text in cells)
        lines.append(f"| {problem.id} | {'equal' if same_prompt else 'differs'} | {cells_text} |")
    lines += [
        "",
        "A near tie: in float32 the two likeliest tokens are the first number apart; computing in bfloat16 moves their "
        "difference by up to the second. EvalPlus' attention and batches round elsewhere than the harness', so either "
        "token may come first.",
        "",
        "As released, EvalPlus' decoder leaves the stop criterion of every earlier problem on the model. It looks for "
        "the stop strings from the end of that earlier prompt on, so it finds them in a longer prompt itself and ends "
        "the text after one token.",
    ]
    about = "Written by `python -m results.scripts.real.evalplus_texts`: greedy, at most "
    about += f"{chosen.tokens} new tokens, the harness against EvalPlus' `HuggingFaceDecoder`, both in the type of the "
    about += f"column; {files.id}. torch {torch.__version__.partition('+')[0]}."
    page.show("EvalPlus' codegen and the harness", about, lines, chosen.out)
    return 0 if sound else 1


def _prompts(path: str, stubs: list[str]) -> list[str]:
    """The prompts that EvalPlus' decoder builds."""
    from evalplus.provider.utility import make_raw_chat_prompt
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    return [make_raw_chat_prompt(stub, ASKS, OPENS, tokenizer) for stub in stubs]


def _cell(i: int, ours: Generated, theirs: str, ties: Reasons | None, stops: Reasons | None) -> tuple[bool, str]:
    """Whether the texts are equal or part for a known reason, and the cell that says so."""
    mine = ours.text.replace("\t", "    ")  # as EvalPlus writes them
    if mine == theirs:
        return True, "equal"
    common = page.common_start(mine, theirs)
    where = f"apart after {common} of {len(mine)} characters"
    if ties is not None:
        gap, moved = ties.near_tie(i, ours, common)
        return gap <= moved, f"{where}: {'a near tie' if gap <= moved else 'no near tie'}, {gap:.3f} and {moved:.3f}"
    if stops is not None and (k := stops.earlier_stop(i)) is not None and mine.startswith(theirs):
        return True, f"`{theirs.strip()}` alone: a stop string after the length of prompt {k} stands in this prompt"
    return False, f"{where}, without a known reason"


if __name__ == "__main__":
    sys.exit(main())
