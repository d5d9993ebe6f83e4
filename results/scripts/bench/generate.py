"""Generation in this process: the harness' generator against transformers' own ``generate``, on mixed lengths.

The same prompts in the same order reach both; transformers takes them ``batch`` at a time, padded, as its users do,
and again sorted by length. Greedy texts are compared token by token. Texts end where the model ends them: the
micro student's are natural; the 30 M-parameter model draws its end of text about once in 64 tokens.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any

from results.scripts.bench.measure import BenchReport, Side, in_turns, ratio, spread, stopwatch

CASES = {
    "micro, a rollout of 32": {"models": "micro", "prompts": 32, "batch": 32, "new": 72},
    "micro, 256 prompts": {"models": "micro", "prompts": 256, "batch": 32, "new": 72},
    "30 M parameters, 48 prompts": {"models": "30m", "prompts": 48, "batch": 16, "new": 256},
}
COLUMNS = [
    "case",
    "decoding",
    "speed-up (wall)",
    "speed-up (CPU)",
    "over sorted (CPU)",
    "ours tok/CPU s",
    "theirs tok/CPU s",
    "same texts",
]


def run(chosen: Any) -> BenchReport:
    """Every case, greedy and sampled."""
    report, rows = BenchReport.of("generate", __doc__, chosen.threads), []
    for case, sizes in CASES.items():
        if chosen.only and case.split()[0].strip(",") not in chosen.only:
            continue
        spec = sizes | ({"new": 8} if chosen.size == "small" else {})
        with (
            Side(__name__, spec | {"who": "ours"}, sys.executable, chosen.threads) as ours,
            Side(__name__, spec | {"who": "transformers"}, sys.executable, chosen.threads) as theirs,
        ):
            for temperature in (0.0, 1.0):
                sides = [_turn(ours, temperature), _turn(theirs, temperature), _turn(theirs, temperature, True)]
                in_turns(sides, 1)  # warm-up, not counted
                rounds = in_turns(sides, chosen.rounds)
                report.raw[f"{case}, temperature {temperature}"] = [
                    [{key: value for key, value in s.items() if key != "texts"} for s in each] for each in rounds
                ]
                rows.append([case, "greedy" if temperature == 0 else "sampled", *_cells(rounds, temperature)])
        report.tables = [("", COLUMNS, rows)]
        report.write(chosen.out)
    return report


def _turn(side: Side, temperature: float, ordered: bool = False) -> Callable[[], dict[str, Any]]:
    return lambda: side.turn(temperature=temperature, ordered=ordered)


def _cells(rounds: list, temperature: float) -> list[str]:
    """Speeds are per generated token, since samples of the two sides differ in length."""
    rate = lambda side, key: side["tokens"] / side[key]  # noqa: E731
    cells = [spread(ratio([(rate(o, key), rate(t, key)) for o, t, _ in rounds])) for key in ("seconds", "cpu")]
    cells.append(spread(ratio([(rate(o, "cpu"), rate(t, "cpu")) for o, _, t in rounds])))
    middle = sorted(rounds, key=lambda each: each[0]["seconds"])[len(rounds) // 2]
    cells += [f"{rate(side, 'cpu'):.0f}" for side in middle[:2]]
    same = sum(a == b for o, t, _ in rounds for a, b in zip(o["texts"], t["texts"], strict=True))
    return [*cells, f"{same} of {sum(len(o['texts']) for o, *_ in rounds)}" if temperature == 0 else "seeds differ"]


def side(spec: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Prepares one generator; a turn answers all prompts once."""
    import torch

    from results.scripts.bench.train_models import pair

    torch.set_num_threads(spec["threads"])
    model, _, tokenizer = pair(spec["models"])
    model.eval()
    if spec["models"] != "micro":
        _end_now_and_then(model, tokenizer.eos_token_id, 64)
    prompts, count = _prompts(spec, tokenizer), iter(range(10**6))
    work = _ours(model, tokenizer, spec) if spec["who"] == "ours" else _theirs(model, tokenizer, spec)

    def turn(request: dict[str, Any]) -> dict[str, Any]:
        report: dict[str, Any] = {}
        order = (
            sorted(range(len(prompts)), key=lambda i: len(prompts[i])) if request["ordered"] else range(len(prompts))
        )
        with stopwatch(report):
            texts = work([prompts[i] for i in order], request["temperature"], next(count))
        return report | {"tokens": sum(map(len, texts)), "texts": texts}

    return turn


def _ours(model: Any, tokenizer: Any, spec: dict[str, Any]) -> Callable[..., list[list[int]]]:
    from harness.models.generate import Generator
    from harness.types import Decoding

    generator = Generator(model, tokenizer, spec["batch"])

    def work(prompts: list[list[int]], temperature: float, seed: int) -> list[list[int]]:
        seeds = [seed * len(prompts) + i for i in range(len(prompts))]
        return [list(g.ids) for g in generator.continue_ids(prompts, Decoding(temperature, 1.0, spec["new"]), seeds)]

    return work


def _theirs(model: Any, tokenizer: Any, spec: dict[str, Any]) -> Callable[..., list[list[int]]]:
    import torch

    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    beyond = list(range(len(tokenizer), model.config.vocab_size))  # rows of the output layer that belong to no token

    @torch.no_grad()
    def work(prompts: list[list[int]], temperature: float, seed: int) -> list[list[int]]:
        torch.manual_seed(seed)
        texts = []
        for start in range(0, len(prompts), spec["batch"]):
            part = prompts[start : start + spec["batch"]]
            width = max(map(len, part))
            ids = torch.tensor([[pad] * (width - len(p)) + p for p in part])
            mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in part])
            sampling = (
                {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
            )
            made = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=spec["new"], pad_token_id=pad, eos_token_id=end,
                suppress_tokens=beyond or None, **sampling,
            )  # fmt: skip
            for row in made[:, width:].tolist():
                texts.append(row[: row.index(end) + 1] if end in row else row)
        return texts

    return work


def _prompts(spec: dict[str, Any], tokenizer: Any) -> list[list[int]]:
    dice = random.Random(0)
    if spec["models"] != "micro":
        return [[dice.randrange(5, 32_000) for _ in range(dice.randint(16, 256))] for _ in range(spec["prompts"])]
    from harness.recipe import load
    from harness.training_data import examples

    recipe = load("micro")
    loaded = examples.load(recipe.data.prompts, recipe.data, labelled=False)
    return [tokenizer(example.prompt.plain)["input_ids"] for example in (loaded * 4)[: spec["prompts"]]]


def _end_now_and_then(model: Any, end: int, once_in: int) -> None:
    """Makes the end of text about as likely as 1 in ``once_in`` for a random model, whose logits are near 0.

    A direction of the hidden states that all texts share carries the bias: the output layer stays a plain matrix.
    """
    import torch

    with torch.no_grad():
        ids = torch.randint(5, 32_000, (4, 64), generator=torch.Generator().manual_seed(0))
        hidden = model.model(input_ids=ids).last_hidden_state.flatten(0, 1)
        shared = hidden.mean(0)
        weight = model.lm_head.weight
        others = (hidden @ weight.T).logsumexp(-1).mean()
        wanted = others - torch.log(torch.tensor(once_in - 1.0))
        untied = torch.nn.Parameter(weight.clone())
        untied[end] = shared * wanted / (hidden @ shared).mean()
        model.lm_head.weight = untied
