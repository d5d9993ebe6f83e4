"""The reconstruction of VCRD: validities, gates and weights in closed form, and proposals judged by a checker."""

import dataclasses
import math

import pytest
import torch

from harness import registry
from harness.errors import BadInput
from harness.models.generate import Generated
from harness.options import build
from harness.testing import random_tokens
from harness.training.batching import TrainingSequence
from harness.training.cost import Cost
from harness.training.proposals import Proposals
from harness.types import Example, Prompt, Source

VCRD = registry.find(registry.METHODS, "vcrd")


def method(**settings):
    return VCRD(build(VCRD.Config, settings, "vcrd"))


def tokens_of(student, teacher, segment_id):
    """Tokens whose distributions are given as rows of probabilities."""
    base = random_tokens(seed=0, keep=slice(0, len(student)))
    q, p = torch.tensor(student).log(), torch.tensor(teacher).log()
    return dataclasses.replace(base, logits=q, student=q, teacher=p, segment_id=torch.tensor(segment_id))


def test_the_weight_is_the_gate_of_the_validity_gap_of_the_step():
    teacher = [[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.34, 0.33, 0.33]]
    student = [[0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]]
    gaps = [0.7 - 0.2, 0.0, 0.34 - 0.33]  # teacher's likeliest against student's likeliest, both under p
    weights = method(step="token", kappa=3.0).weight(tokens_of(student, teacher, [0, 1, 2]))
    assert weights.tolist() == pytest.approx([2 / (1 + math.exp(-3.0 * g)) for g in gaps], rel=1e-5)

    line = method(step="line", gate="clip", kappa=2.0).weight(tokens_of(student, teacher, [0, 0, 1]))
    mean = (gaps[0] + gaps[1]) / 2
    assert line.tolist() == pytest.approx([1 + 2 * mean, 1 + 2 * mean, 1 + 2 * gaps[2]], rel=1e-5)


def test_a_doubtful_teacher_is_not_taken_as_valid():
    """The same disagreement counts for less where the teacher spreads its mass."""
    student = [[0.05, 0.9, 0.05]] * 2
    sure, doubtful = [0.9, 0.05, 0.05], [0.4, 0.3, 0.3]
    weights = method(step="token").weight(tokens_of(student, [sure, doubtful], [0, 1]))
    assert weights[0] > weights[1] > 1.0


@pytest.mark.parametrize("gate", ["sigmoid", "tanh", "clip", "one"])
def test_no_gap_weighs_one(gate):
    same = [[0.6, 0.3, 0.1]] * 2
    assert method(gate=gate).weight(tokens_of(same, same, [0, 1])).tolist() == [1.0, 1.0]


def test_the_verifier_can_find_the_teacher_wrong():
    tokens = tokens_of([[0.5, 0.5]] * 4, [[0.5, 0.5]] * 4, [0, 1, 2, 3])
    nan = float("nan")
    tokens.validity = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [nan, 1.0]])
    weights = method(validity="verifier", gate="tanh", kappa=1.0).weight(tokens)
    assert weights.tolist() == pytest.approx([1 + math.tanh(1), 1 - math.tanh(1), 1.0, 1.0])


def test_the_verifier_needs_whole_lines():
    with pytest.raises(BadInput, match=r"set method.step=line"):
        method(validity="verifier", step="token")


class Letters:
    """A tokenizer whose tokens are characters."""

    def decode(self, ids, **_):
        return "".join(map(chr, ids))


class Scripted:
    """Continues every prefix with the line that ``say`` makes of it; counts what it was asked."""

    tokenizer = Letters()

    def __init__(self, say):
        self.say, self.asked = say, []

    def continue_ids(self, prefixes, decoding, seeds):
        assert decoding.stop == ("\n",)
        texts = [Letters().decode(p) for p in prefixes]
        self.asked += texts
        return [Generated(self.say(t), (65,), (0.0,), "stop", len(t)) for t in texts]


def test_both_models_propose_at_every_line_and_only_the_other_one_generates():
    student, teacher = Scripted(lambda _: "s"), Scripted(lambda _: "t")
    own = TrainingSequence(tuple(b"P:"), tuple(b"a\nbb\n"), Source.STUDENT, 0)
    reference = TrainingSequence(tuple(b"P:"), tuple(b"c"), Source.DATA, 0)
    examples = [Example("0", Prompt(user="P", plain="P:"), None, {"right": {"a", "t"}})]
    seen = []

    def check(meta, prefix, line):
        seen.append((prefix, line))
        return None if prefix and line == "t" else float(line in meta["right"])

    cost = Cost()
    first, second = Proposals(student, teacher, check).judge([own, reference], examples, examples, 0, cost)
    assert teacher.asked == ["P:", "P:a\n", "P:"] and student.asked == ["P:"]
    # line "a": teacher's "t" right, student's own "a" right; line "bb": teacher unknown, student wrong
    assert first.validity[:2] == ((1.0, 1.0),) * 2
    assert all(math.isnan(t) and s == 0.0 for t, s in first.validity[2:]) and len(first.validity) == 5
    assert second.validity == ((1.0, 0.0),)
    assert ("a\n", "bb") in seen
    assert cost.generated_tokens == 4 and cost.teacher_forward_tokens == 3 + len("P:") * 2 + len("P:a\n")
