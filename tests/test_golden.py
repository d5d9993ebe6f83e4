"""Golden values of the public implementations, made by tests/golden/make.py; none of them is installed here.

TRL's GKD and Distillation losses, its top-k loss with a tail bucket, and Liger's chunked JSD. For the research
repositories see tests/objective_formulas.py: independent formulas stand for their goldens.
"""

import json
from pathlib import Path

import pytest
import torch

from harness.losses import jsd
from harness.models.head import Head, chunked_sum, chunks
from harness.training.signals import TopKLogits

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent / "golden"


def golden(name):
    found = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    given = {key: torch.tensor(value) for key, value in found["inputs"].items()}
    return found, given


@pytest.mark.parametrize("name", ["trl_gkd", "trl_distillation", "trl_top_k", "liger_jsd"])
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
