"""Computations over a whole optimizer step: gathers values of its tokens from all micro-batches and processes.

Texts are sorted by their place in the step, so that the result depends neither on the micro-batches nor on the number
of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from harness import method_contract
from harness.method import Method, Step, WholeStep
from harness.training.batching import Batch

Gather = Callable[[list[Any]], list[Any]]


def over_step(
    values: Sequence[Tensor],
    batches: Sequence[Batch],
    step: Step,
    prompts: int,
    gather: Gather,
    decide: Callable[[Tensor, WholeStep], Tensor],
    longest: int = 1,
) -> list[Tensor]:
    """For each micro-batch its rows [N, ...] of the result of ``decide`` on all M rows of the step.

    ``values`` [N, ...] of each of this process' micro-batches. ``prompts`` is the number of prompts of a step, each of
    which appears once per source; ``longest`` is that of :class:`WholeStep`. ``gather`` turns this process' list into
    the list of all processes.
    """
    # One entry per sequence: its place in the optimizer step, its facts, and the values of its tokens.
    mine = []
    for batch, rows in zip(batches, values, strict=True):
        parts = rows.split(batch.counts)
        each = zip(batch.places, batch.sources, batch.rewards, batch.informed, parts, strict=True)
        mine += [(*facts, part.tolist()) for *facts, part in each]
    everyone = sorted(gather(mine), key=lambda entry: entry[0])
    places, sources, rewards, informed, parts = zip(*everyone, strict=True)
    lengths = [len(part) for part in parts]
    whole = WholeStep(
        sequence=torch.repeat_interleave(torch.arange(len(parts)), torch.tensor(lengths)),
        source=sources,
        prompt=tuple(place % prompts for place in places),
        step=step,
        reward=torch.tensor([float("nan") if reward is None else reward for reward in rewards], dtype=torch.float64),
        longest=longest,
        informed=informed,
    )
    decided = decide(torch.tensor([value for part in parts for value in part]), whole)
    by_place = dict(zip(places, decided.split(lengths), strict=True))
    return [torch.cat([by_place[p] for p in batch.places]).to(batch.ids.device) for batch in batches]


def measured(
    values: Sequence[Tensor],
    batches: Sequence[Batch],
    method: Method,
    step: Step,
    prompts: int,
    gather: Gather,
    longest: int = 1,
) -> list[Tensor]:
    """The step features of each micro-batch's tokens, [N, ...], from the method's measurements."""

    def decide(flat: Tensor, whole: WholeStep) -> Tensor:
        features = method.step_features(flat, whole)
        method_contract.features(method, "step_features", features, len(flat))
        return features.float()

    return over_step(values, batches, step, prompts, gather, decide, longest)


def shuffle(weights: Sequence[Tensor], batches: Sequence[Batch], step: Step, gather: Gather) -> list[Tensor]:
    """The shuffled-weight control: the weights [N] of each of this process' micro-batches, permuted over the step.

    The weights keep their mean and spread and lose only their information, so the gain of a weighting method over this
    control is due to the placement of the weights.

    ``gather`` turns this process' list into the list of all processes.
    """

    def deal(flat: Tensor, whole: WholeStep) -> Tensor:
        return flat[torch.randperm(len(flat), generator=torch.Generator().manual_seed(step.index))]

    return over_step(weights, batches, step, 1, gather, deal)
