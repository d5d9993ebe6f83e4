"""The type of number in which the student samples and is evaluated: what it reaches, and what it leaves alone."""

import contextlib
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from tiny_runs import make, quiet, result
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, LlamaConfig, Qwen3MoeConfig

from harness import plan
from harness.errors import BadInput
from harness.evaluation import measurement
from harness.models import bfloat16_products, devices, llama_decoder, sampling
from harness.models.files import load_model, load_tokenizer, locate
from harness.models.generate import Generator
from harness.models.head import trunk
from harness.plan import RunRequest
from harness.recipe import Evaluation
from harness.records.record import Record
from harness.rerun.command import Replacements, find
from harness.students import UNTRAINED, EvaluationModel
from harness.training import distributed
from harness.training.loop import train
from harness.types import Decoding

PARITY = str(Path(__file__).parent / "plugin/parity_plugin.py")


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.fixture
def sampled(monkeypatch):
    """What every rollout samples with, and whether that is the student of the moment, rounded."""
    seen, students = [], []
    made, spoken = distributed.Replicated.__init__, Generator.continue_ids

    def keep(self, student):
        made(self, student)
        students.append(student.model)

    def look(self, *given):
        own, student = weights(self.model), weights(students[-1])
        if own.numel() == student.numel():  # the teacher writes, too
            seen.append((self.model.dtype, torch.equal(own, student.to(own.dtype)), own.float().sum().item()))
        return spoken(self, *given)

    monkeypatch.setattr(distributed.Replicated, "__init__", keep)
    monkeypatch.setattr(Generator, "continue_ids", look)
    return seen


@pytest.mark.parametrize(
    ("settings", "sections", "dtype"),
    [
        ({}, {}, torch.float32),
        ({"precision": "bfloat16"}, {}, torch.bfloat16),
        ({"precision": "bfloat16"}, {"student": {"adapter": "lora", "rank": 2}}, torch.bfloat16),
        ({"precision": "bfloat16"}, {"rollout": {"max_new_tokens": 4, "dtype": "float32"}}, torch.float32),
    ],
)
def test_the_student_samples_in_the_type_of_training_as_it_is_at_every_step(
    models, prompts_file, tmp_path, sampled, settings, sections, dtype
):
    job = make("opd", models, prompts_file, tmp_path, sections=sections, learning_rate=1e-2, **settings)
    AcceleratorState._reset_state(True)
    found = train(job, quiet)
    assert [kind for kind, *_ in sampled] == [dtype] * 3
    assert all(current for _, current, _ in sampled)
    assert len({total for *_, total in sampled}) == 3  # the student moves from step to step
    assert found.model.dtype == torch.float32


def test_sampled_log_probabilities_are_near_those_of_the_float32_student(models, prompts_file):
    files = locate(str(models[0]))
    exact, half = (Generator(load_model(files, kind), load_tokenizer(files)) for kind in ("float32", "bfloat16"))
    prompt = exact.encode("Tell me of the sea.")
    (made,) = half.continue_ids([prompt], Decoding(1.0, 1.0, 24), [3])
    (again,) = exact.score([(prompt, made.ids)])
    gaps = [abs(a - b) for a, b in zip(made.log_probs, again.log_probs, strict=True)]
    assert sum(gaps) / len(gaps) < 0.04 and max(gaps) < 0.2  # over 40 texts: 0.015 and 0.14


def test_a_packed_decoder_writes_the_texts_of_the_plain_one(models, monkeypatch):
    """Few rows, many rows, rows that end early and prompts behind them: the packed products are the same sums."""
    files = locate(str(models[0]))
    speaker = Generator(load_model(files, "bfloat16"), load_tokenizer(files), batch=3)
    prompts = [speaker.encode(text) for text in ("One", "Two and more", "Three", "Four of them", "Five")]
    used = []
    own = llama_decoder.packed_product
    monkeypatch.setattr(llama_decoder, "packed_product", lambda *given: used.append(given[2]) or own(*given))
    made = {}
    for large in (1, 2**40):
        monkeypatch.setattr(llama_decoder, "LARGE", large)
        made[large] = speaker.continue_ids(prompts, Decoding(1.0, 1.0, 20), range(5))
        assert bool(used) == (large == 1) if llama_decoder.packing_pays(torch.ones(1).bfloat16(), large, 20) else True
        used.clear()
    plain, other = made.values()
    assert [g.ids for g in plain] == [g.ids for g in other]
    for a, b in zip(plain, other, strict=True):
        assert a.log_probs == pytest.approx(b.log_probs, abs=2e-2)
    assert not llama_decoder.packing_pays(torch.ones(1), 2**40, 1000)  # float32 stays to the last bit as it was
    assert not llama_decoder.packing_pays(torch.ones(1).bfloat16(), 2**40, 2)


def test_a_step_on_a_device_crosses_to_the_host_to_the_last_bit():
    token, log_prob = torch.tensor([0, 49151, 2**31 - 1]), torch.tensor([-1e-30, -17.123457, -torch.inf])
    assert sampling.apart(sampling.together(token, log_prob)) == (token.tolist(), log_prob.tolist())


SIZE = {"num_hidden_layers": 2, "vocab_size": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
WIDTH = {"hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
CAUSAL = {
    "Llama": (LlamaConfig, {**WIDTH, "intermediate_size": 24}),
    "Gemma 2, sliding window": (Gemma2Config, {**WIDTH, "intermediate_size": 24, "head_dim": 8, "sliding_window": 4}),
    "GPT-2, absolute positions": (GPT2Config, {"n_embd": 16, "n_head": 2, "n_positions": 16}),
    "Qwen 3, experts": (
        Qwen3MoeConfig,
        {**WIDTH, "intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 8},
    ),
}


@pytest.mark.parametrize("name", CAUSAL)
def test_padding_on_the_right_needs_no_mask(name):
    """So a GPU is given none; a CPU keeps it, and with it its rounding."""
    kind, sizes = CAUSAL[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(kind(**SIZE, **sizes)).eval()
    ids, mask = torch.randint(3, 40, (3, 9)), torch.arange(9) < torch.tensor([[9], [5], [1]])
    ids = ids.where(mask, 0)
    read = lambda seen: trunk(model)(input_ids=ids, attention_mask=seen, use_cache=False).last_hidden_state  # noqa: E731
    told, untold = read(mask), read(None)
    torch.testing.assert_close(told[mask], untold[mask], rtol=1e-4, atol=1e-5)
    assert devices.padding_mask(mask) is mask and devices.padding_mask(mask.to("meta")) is None


@pytest.mark.parametrize("label", ["opd", "gkd"])
def test_prompts_of_several_steps_are_sampled_together_and_their_texts_are_that_old(
    models, prompts_file, tmp_path, sampled, label
):
    settings = {"steps": 5, "learning_rate": 0.0, "warmup": 0.0}
    found = {}
    for k in (1, 3):
        sections = {"rollout": {"max_new_tokens": 8, "steps_together": k}}
        found[k] = result(
            make(label, models, prompts_file, tmp_path, sections=sections, name=f"{label}{k}", **settings)
        )
        sampled.append(None)
    alone, together = (list(part) for part in split(sampled))
    on_policy = sum(row["on_policy"] for row in found[1].curve)
    assert len(alone) == on_policy and len(together) < len(alone)
    # A student that does not move writes the same texts, however many prompts it is given at once.
    assert found[3].losses == pytest.approx(found[1].losses, rel=1e-5)
    assert found[3].cost == found[1].cost
    assert all(row["buffer_age"] == 0 for row in found[1].curve)
    ages = [row["buffer_age"] for row in found[3].curve if row["on_policy"]]
    assert ages[0] == 0 and max(ages) in (1, 2) and (label == "gkd" or ages == [0, 1, 2, 0, 1])


def split(seen):
    """The rollouts of each run, which ends with None."""
    while seen:
        end = seen.index(None)
        yield seen[:end]
        del seen[: end + 1]


def planned(tiny_world, tmp_path, *settings, methods=("opd", "kd")):
    path = tiny_world("[training]\nsteps = 2\nbatch = 6\n")
    return plan.prepare(RunRequest(methods, [PARITY], str(path), settings=settings, results=tmp_path / "results"))


def test_only_a_student_that_samples_in_another_type_than_it_trains_in_is_another_training(
    tiny_world, models, tmp_path
):
    def ids(*settings):
        return [t.training_id for t in planned(tiny_world, tmp_path, *settings).trainings]

    half = "training.precision=bfloat16"
    assert ids() == ids("rollout.dtype=float32") != ids("rollout.dtype=bfloat16")
    assert ids(half) == ids(half, "rollout.dtype=bfloat16")
    # As it was before there was a copy: float32 weights sampled, whatever the passes computed in.
    before = planned(tiny_world, tmp_path, half, "rollout.dtype=float32")
    assert "sampled_in" not in before.trainings[0].spec and "dtype" not in before.trainings[0].spec["rollout"]
    assert ids(half)[0] != before.trainings[0].training_id and ids(half)[1] == before.trainings[1].training_id
    # Either is found again from its specification.
    for own in (before, planned(tiny_world, tmp_path, half, "evaluation.dtype=bfloat16")):
        training, task = own.trainings[0], own.tasks[0]
        record = recorded(training, task, measurement.of(own, training, task).protocol)
        back = find(
            record,
            tmp_path / "results",
            Replacements(task=PARITY, recipe=own.request.recipe, student=str(models[0]), teacher=str(models[1])),
        )
        assert back.exact, back.differs


def recorded(training, task, protocol) -> Record:
    method = {"name": training.method.name, "variant": None}
    spec = {
        **training.spec,
        "method": {**training.spec["method"], "settings": dict(training.spec["method"]["settings"])},
    }
    return {
        "run_id": "r",
        "method": method,
        "task": task.title,
        "spec": spec,
        "protocol": protocol,
        "seed": training.seed,
        "student": training.spec["student"]["id"],
        "teacher": training.spec["teacher"]["id"],
        "training_id": training.training_id,
        "provenance": {"device": "cpu"},
        "request": {},
    }


def test_the_type_of_evaluation_enters_the_protocol_unless_it_is_float32(tiny_world, tmp_path):
    def protocol(*settings):
        own = planned(tiny_world, tmp_path, *settings)
        return measurement.of(own, own.trainings[0], own.tasks[0]).protocol

    plain, half = protocol(), protocol("evaluation.dtype=bfloat16")
    assert plain == protocol("evaluation.dtype=float32") and "dtype" not in plain
    assert half["hash"] != plain["hash"] and half["card"] == plain["card"]
    assert {k: v for k, v in half.items() if k not in ("hash", "dtype")} == {
        k: v for k, v in plain.items() if k != "hash"
    }
    assert half["dtype"] == "bfloat16"


def test_an_evaluation_in_bfloat16_loads_the_model_so(models, tmp_path):
    student = EvaluationModel(locate(str(models[0])), UNTRAINED, trained=False)
    for dtype in ("float32", "bfloat16"):
        opened = student.generator("cpu", Evaluation(dtype=dtype), tmp_path, again=False)
        assert opened.model.dtype == getattr(torch, dtype)


def test_types_that_cannot_be_are_refused_in_one_line(tiny_world, tmp_path, monkeypatch):
    with pytest.raises(BadInput, match=r"evaluation.dtype=bfloat16: the server of openai:m decides"):
        path = tiny_world("[training]\nsteps = 2\nbatch = 6\n")
        request = RunRequest(
            ["untouched"],
            [PARITY],
            str(path),
            settings=["evaluation.dtype=bfloat16"],
            student="openai:m@http://localhost:9/v1",
            results=tmp_path,
        )
        plan.prepare(request)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda name: "Tesla T4")
    with pytest.raises(BadInput, match=r"rollout.dtype=bfloat16: Tesla T4 has no bfloat16; set rollout.dtype=float32"):
        plan.devices.check_type("bfloat16", "cuda:0", "rollout.dtype")


@contextlib.contextmanager
def widened():
    """Replaces torch's kernels on any processor."""
    library = bfloat16_products.replace()
    try:
        yield
    finally:
        library._destroy()


def alike(ours, theirs):
    """Of one shape, type and layout (what follows may take a view of it), and equal up to rounding."""
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape and ours.stride() == theirs.stride()
    return torch.allclose(ours.float(), theirs.float(), rtol=2**-7, atol=1e-3)


def test_widened_products_round_as_the_kernels_of_torch():
    """Values, gradients and in-place sums are those of torch's own bfloat16 kernels, up to the order of additions."""
    generator = torch.Generator().manual_seed(0)
    x, w, c, q, k = (
        torch.randn(*shape, generator=generator).bfloat16()
        for shape in ((7, 64), (64, 9), (7, 9), (2, 3, 4, 8), (2, 3, 8, 5))
    )

    def products():
        weight = w.clone().requires_grad_()
        (torch.nn.functional.linear(x, weight.T, c[0]) * c).sum().backward()
        sums = c.clone().addmm_(x, w, beta=0.5, alpha=2)
        return [x @ w, torch.addmm(c, x, w, beta=2), q @ k, sums, weight.grad, x.float() @ w.float()]

    plain, exact = products(), x.double() @ w.double()
    with widened():
        wide = products()
        with pytest.raises(RuntimeError):
            torch.addmm(c.float(), x, w)
        assert torch.equal(wide[0], (x.float() @ w.float()).bfloat16())
    assert all(map(alike, wide, plain))
    # One rounding of an exact sum; float32 products are not touched.
    assert torch.allclose(wide[0].double(), exact, rtol=2**-8, atol=1e-5) and torch.equal(wide[-1], plain[-1])


@pytest.mark.parametrize(
    "rows, inner, columns", [(3, 16, 90), (90, 16, 3), (3, 90, 16), (90, 16, 90), (90, 1, 1), (1, 1, 1)]
)
def test_a_large_product_is_widened_in_blocks(rows, inner, columns, monkeypatch):
    """Whichever side is long: of a head, of its gradient, or the side that adds up; the last block is smaller."""
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(rows, inner, generator=generator).bfloat16()
    right = torch.randn(columns, inner, generator=generator).bfloat16().T  # as a linear layer has its weight
    plain = left @ right
    monkeypatch.setattr(bfloat16_products, "WHOLE", 1)
    monkeypatch.setattr(bfloat16_products, "BLOCK", 100)
    with widened():
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            left @ right.new_empty(inner + 1, columns)
        assert alike(left @ right, plain)
        assert torch.allclose((left @ right).double(), left.double() @ right.double(), rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize("mask", ["causal", "booleans", "numbers"])
def test_widened_attention_is_that_of_torch(mask):
    """Outputs and gradients in bfloat16 are nearer to attention in float32 than those of torch's kernel."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(3, 2, 4, 40, 16, generator=generator).bfloat16()  # query, key, value [B, H, L, d]
    hidden = torch.ones(40, 40).triu(1).bool()
    masks = {"booleans": ~hidden, "numbers": torch.zeros(40, 40).masked_fill(hidden, -1e4)}

    def attention(dtype):
        inputs = [state.to(dtype).requires_grad_() for state in states]
        chosen = masks.get(mask)
        chosen = chosen.to(dtype) if mask == "numbers" else chosen
        output = torch.nn.functional.scaled_dot_product_attention(*inputs, chosen, is_causal=chosen is None)
        return [output.detach(), *torch.autograd.grad(output.sum(), inputs)]

    plain, exact = attention(torch.bfloat16), attention(torch.float32)
    with widened():
        wide = attention(torch.bfloat16)
        assert all(map(torch.equal, attention(torch.float32), exact))
    for ours, theirs, best in zip(wide, plain, exact, strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        assert (ours - best).norm() <= (theirs - best).norm()
