"""Golden values of the public implementations, made by tests/golden/make.py; none of them is installed here.

TRL's GKD and Distillation losses, its top-k loss with a tail bucket, a step of its GRPO trainer, its SDPO loss, and
Liger's chunked JSD. For the research
repositories see tests/objective_formulas.py: independent formulas stand for their goldens.
"""

import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from harness import options, registry
from harness.losses import jsd
from harness.method import Step, Tokens, WholeStep
from harness.models.head import Head, chunked_sum, chunks
from harness.training.batching import TrainingSequence, collate
from harness.training.objective import Student
from harness.training.signals import LiveTeacher, TopKLogits
from harness.training.whole_step import measured
from harness.types import Source

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent / "golden"


def golden(name):
    found = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    given = {key: torch.tensor(value) for key, value in found["inputs"].items()}
    return found, given


@pytest.mark.parametrize("name", ["trl_gkd", "trl_distillation", "trl_top_k", "liger_jsd", "trl_grpo", "trl_sdpo"])
def test_a_golden_says_where_it_comes_from(name):
    found, given = golden(name)
    assert found["package"] in {"trl", "liger_kernel"} and found["version"] and found["torch"] == "2.13.0"
    assert found["function"] and found["tolerance"] <= 2e-5 and len(found["cases"]) >= 10 and given


def test_trl_gkd():
    found, given = golden("trl_gkd")
    mask = given["labels"] != -100
    for case in found["cases"]:
        student = given["student"].clone().requires_grad_()
        value = jsd(student[mask], given["teacher"][mask], beta=case["beta"], temperature=case["temperature"]).mean()
        (grad,) = torch.autograd.grad(value, student)
        assert value.item() == pytest.approx(case["value"], rel=found["tolerance"])
        torch.testing.assert_close(grad, torch.tensor(case["gradient"]), rtol=1e-4, atol=found["tolerance"])


@pytest.mark.parametrize("name", ["trl_distillation", "liger_jsd"])
@pytest.mark.parametrize("elements", [17 * 2, 10**6])
def test_chunked_losses_through_both_heads(name, elements):
    found, given = golden(name)
    mask = given["mask"].reshape(-1) == 1
    for case in found["cases"]:
        scaling = {"scale": case.get("scale", 1.0), "softcap": case.get("softcap")}
        hidden = given["student_hidden"].clone().requires_grad_()
        weight = torch.nn.Parameter(given["student_head"].clone())
        teacher = Head(torch.nn.Parameter(given["teacher_head"]), None, 17, **scaling)
        own, theirs = (h.reshape(-1, h.shape[-1])[mask] for h in (hidden, given["teacher_hidden"]))
        bounds = chunks(range(len(own)), 17, elements, "cpu")
        assert len(bounds) == (3 if elements == 34 else 1)

        def value(logits, a, b, case=case, teacher=teacher, theirs=theirs):
            temperature = case.get("temperature", 1.0)
            return jsd(logits, teacher.logits(theirs[a:b]).detach(), beta=case["beta"], temperature=temperature).sum()

        total = chunked_sum(own, Head(weight, None, 17, **scaling), bounds, value) / int(mask.sum())
        total.backward()
        assert total.item() == pytest.approx(case["value"], rel=found["tolerance"])
        of_hidden = torch.tensor(case["gradient_hidden"]).reshape(hidden.shape)
        torch.testing.assert_close(hidden.grad, of_hidden, rtol=1e-4, atol=found["tolerance"])
        torch.testing.assert_close(weight.grad, torch.tensor(case["gradient_head"]), rtol=1e-4, atol=1e-5)


def test_trl_top_k_with_a_tail_bucket():
    found, given = golden("trl_top_k")
    for case in found["cases"]:
        reading = TopKLogits.of(given["teacher"], case["k"])
        pair = reading.pair(given["student"], 0, len(given["student"]))
        ours = jsd(*pair, beta=case["beta"])
        torch.testing.assert_close(ours, torch.tensor(case["value"]), rtol=1e-4, atol=found["tolerance"])


def configured(name, **settings):
    found = registry.find(registry.METHODS, name)
    return found(options.build(found.Config, settings, name))


def tokens_of(student, given, mask=None, **more):
    """The tokens of the texts, in a row."""
    here = lambda name: given[name] if mask is None else given[name][mask]  # noqa: E731
    none = torch.zeros(len(student), dtype=torch.long)
    shared = {"sequence": none, "position": none, "length": none, "segment_id": none, "source": (Source.STUDENT,)}
    return Tokens(
        logits=student,
        labels=here("labels"),
        student=student,
        teacher=given.get("teacher"),
        sampler_log_prob=here("old"),
        validity=None,
        step=Step(0, 2, 0.5),
        **shared,
        **more,
    )


def test_trl_grpo_from_scores_to_the_loss_of_a_step():
    """Advantages of texts that TRL generated and scored, one of them without a score, and its three means."""
    found, given = golden("trl_grpo")
    mask = given["mask"] == 1
    lengths = mask.sum(1)
    assert given["reward"].isnan().any() and lengths.unique().numel() > 1
    prompts = given["prompt"].tolist()
    means = {"grpo": "text", "dapo": "token", "dr_grpo": "constant"}
    for case in found["cases"]:
        scale = {"batch": "step"}.get(case["scale"], case["scale"])
        settings = {"scale": scale, "mean": means[case["loss_type"]], "clip_high": case["clip_high"]}
        method = configured("grpo", beta=case["beta"], **settings)
        sequence = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        step = WholeStep(
            sequence,
            (Source.STUDENT,) * len(lengths),
            tuple(prompts),
            Step(0, 2, 0.5),
            given["reward"],
            case["longest"],
        )
        features = method.step_features(torch.zeros(len(sequence), 0), step)
        ours = features[:, 0].double()
        torch.testing.assert_close(ours, torch.tensor(case["advantages"]).double()[sequence], rtol=1e-4, atol=1e-5)
        student = given["student"].clone().requires_grad_()
        tokens = tokens_of(
            student[mask], given, mask, step_features=features, reference_log_prob=given["reference"][mask]
        )
        values = method.objective(tokens)
        weight = 1 / lengths[sequence] if method.reduction == "sequence" else torch.ones(len(sequence))
        loss = (weight * values).sum() / weight.sum()  # as the loop does
        assert loss.item() == pytest.approx(case["value"], rel=1e-4, abs=found["tolerance"])
        (grad,) = torch.autograd.grad(loss, student)
        torch.testing.assert_close(grad, torch.tensor(case["gradient"]), rtol=1e-3, atol=found["tolerance"])


def test_trl_sdpo_on_the_students_likeliest_tokens():
    found, given = golden("trl_sdpo")
    for case in found["cases"]:
        rest = "bucket" if case["tail"] else "renormalised"
        method = configured("sdpo", k=case["k"], alpha=case["alpha"], rest=rest)
        student = given["student"].clone().requires_grad_()
        values = method.objective(tokens_of(student, given))
        torch.testing.assert_close(values, torch.tensor(case["value"]), rtol=1e-4, atol=found["tolerance"])
        (grad,) = torch.autograd.grad(values.sum(), student)
        torch.testing.assert_close(grad, torch.tensor(case["gradient"]), rtol=1e-3, atol=found["tolerance"])


class StepOf:
    """A whole step of TRL under our own passes: its two models and texts give the loss and every gradient."""

    def __init__(self, name):
        self.facts = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
        self.student, self.teacher = (self._model(self.facts["models"][side]) for side in ("student", "teacher"))
        rows = [(*(tuple(text[k]) for k in ("prompt", "response")), text) for text in self.facts["texts"]]
        asked = [tuple(text["asked"]) if text.get("informed", "asked" in text) else None for *_, text in rows]
        self.batch = collate(
            [
                TrainingSequence(prompt, response, Source.STUDENT, i, place=i, teacher_prompt=asked[i])
                for i, (prompt, response, _) in enumerate(rows)
            ],
            0,
            None,
            "cpu",
        )

    @staticmethod
    def _model(weights):
        shape = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
        config = LlamaConfig(vocab_size=13, max_position_embeddings=64, pad_token_id=11, **shape)
        model = LlamaForCausalLM(config).eval()  # the embedding of a padding token has no gradient
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.copy_(torch.tensor(weights[name]).reshape(weight.shape))
        return model

    def loss(self, method):
        """As the loop has it: what is decided over the step, the sum over all tokens, divided by their weight."""
        step, whole = Step(0, 2, 0.5), Student(self.student, 13)
        self.batch.source_tokens = {Source.STUDENT: len(self.batch.labels)}
        if method.needs.step_features:
            seen = [torch.zeros(len(self.batch.labels), 0)]
            (self.batch.step_features,) = measured(seen, [self.batch], method, step, 2, list)
        given, sums = whole(self.batch, method, LiveTeacher(self.teacher, 13).read(self.batch), step, None)
        value = given / sums.weight
        self.student.zero_grad()
        value.backward()
        return value.item(), {name: w.grad.flatten().clone() for name, w in self.student.named_parameters()}

    def log_q(self):
        """[N] of the texts' tokens, with gradient."""
        states = self.student.model(input_ids=self.batch.ids, attention_mask=self.batch.mask).last_hidden_state
        logits = self.student.lm_head(states[self.batch.row, self.batch.column])
        return logits.log_softmax(-1).gather(-1, self.batch.labels[:, None])[:, 0]

    def agrees(self, method, case):
        value, gradient = self.loss(method)
        assert value == pytest.approx(case["value"], rel=1e-4, abs=self.facts["tolerance"])
        for name, expected in case["gradient"].items():
            torch.testing.assert_close(gradient[name], torch.tensor(expected), rtol=1e-3, atol=1e-5, msg=name)


def test_a_step_of_trl_sdft():
    """From the texts and the teacher's own prompts: means over texts whose lengths differ."""
    step = StepOf("trl_sdft_step")
    assert len(set(step.batch.counts)) > 1
    for case in step.facts["cases"]:
        rest = "bucket" if case["tail"] else "renormalised"
        step.agrees(configured("sdft", k=case["k"], alpha=case["alpha"], rest=rest), case)
    # The mean over tokens is another number, which this file can tell apart.
    value, _ = step.loss(configured("sdft", k=3, mean="token"))
    assert value != pytest.approx(step.facts["cases"][2]["value"], rel=1e-2)


def test_a_step_of_trl_sdpo():
    """One of the texts has no solution to learn from: it counts, with 0."""
    step = StepOf("trl_sdpo_step")
    assert len(set(step.batch.counts)) > 1 and not all(step.batch.informed)
    for case in step.facts["cases"]:
        loss = {"sampled_token": "sampled", "topk_logits": "jsd"}[case["mode"]]
        step.agrees(configured("sdpo", loss=loss, k=case["k"], alpha=case["alpha"], mean="text"), case)


@pytest.mark.parametrize("case", [0, 1])
def test_a_step_of_trl_minillm(case):
    """Its value; and its gradient but for a term without expectation that its rewards, not detached, add.

    The reward of a token is log p - log q. TRL takes the gradient of the returns too, which gives each grad log q(y_t)
    a factor that does not depend on y_t: over texts of q its mean is 0. The texts have one length, because the mask of
    that trainer keeps padding.
    """
    step = StepOf("trl_minillm_step")
    case = step.facts["cases"][case]
    assert set(step.batch.counts) == {6} and case["normalised"]
    discount = case["discount"]
    plain = {"mixture": 0.0, "lm": 0.0, "own_reward": True, "per": "discount"}
    value, ours = step.loss(configured("minillm", discount=discount, **plain))
    assert value == pytest.approx(case["value"], rel=1e-4)

    # The factor of a token: what its reward adds to the returns of itself and of the tokens before it.
    length = step.batch.counts[0]
    share = [1 / sum(discount**i for i in range(length - t)) for t in range(length)]
    factor = torch.tensor([sum(discount ** (u - t) * share[t] for t in range(u + 1)) for u in range(length)])
    step.student.zero_grad()
    log_q = step.log_q()
    (log_q * factor.repeat(len(step.batch.counts))).mean().backward()
    for name, weight in step.student.named_parameters():
        theirs = torch.tensor(case["gradient"][name])
        torch.testing.assert_close(ours[name] + weight.grad.flatten(), theirs, rtol=1e-3, atol=2e-5, msg=name)
        assert not torch.allclose(ours[name], theirs, atol=1e-3)
