"""Writes the golden values of the public implementations, from an environment of their own:

    python3.11 -m venv PEERS && PEERS/bin/pip install torch==2.13.0 trl==1.16.0 liger_kernel==0.8.5
    PEERS/bin/python tests/golden/make.py

The harness is not imported. Inputs are printed numbers, so that a test needs neither the peers nor the same
generator of random numbers. The research repositories (distillm, distillm-2, TAID, ABKD, AKL) cannot be installed
side by side; what stands for them are the formulas of tests/loss_formulas.py and tests/objective_formulas.py.
"""

import importlib.metadata
import itertools
import json
import math
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from liger_kernel.chunked_loss.jsd_loss import LigerFusedLinearJSDFunction
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer
from trl.experimental.gkd.gkd_trainer import GKDTrainer
from trl.experimental.gold.gold_config import GOLDConfig
from trl.experimental.gold.gold_trainer import ULDLoss
from trl.experimental.iw_opd.iw_opd_trainer import _add_tail_bucket, _jsd_divergence
from trl.experimental.sdpo.loss_utils import apply_importance_sampling_clipping, compute_topk_self_distillation_loss
from trl.trainer.distillation_trainer import _chunked_divergence_loss

HERE = Path(__file__).parent
BETAS = (0.0, 0.1, 0.5, 0.9, 1.0)


def inputs(*shape: int, seed: int, scale: float = 1.5) -> torch.Tensor:
    """Random numbers of three decimals: exact in the file."""
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(*shape, generator=generator)).mul(1000).round().div(1000)


def write(name: str, package: str, function: str, tolerance: float, given: dict, cases: list[dict]) -> None:
    facts = {
        "package": package,
        "version": importlib.metadata.version(package),
        "function": function,
        "torch": torch.__version__.split("+")[0],
        "tolerance": tolerance,
        "made_by": "tests/golden/make.py",
    }
    content = facts | {"inputs": {k: v.tolist() for k, v in given.items()}, "cases": cases}
    (HERE / f"{name}.json").write_text(json.dumps(content) + "\n", "utf-8")


def gkd() -> None:
    """TRL's generalised JSD: sum over the vocabulary, mean over the unmasked tokens of two sequences."""
    given = {"student": inputs(2, 4, 11, seed=1), "teacher": inputs(2, 4, 11, seed=2)}
    labels = torch.tensor([[-100, 3, 4, 5], [-100, -100, 1, 2]])
    cases = []
    for beta in BETAS:
        for temperature in (1.0, 0.9, 2.0):
            student = given["student"].clone().requires_grad_()
            value = GKDTrainer.generalized_jsd_loss(
                student, given["teacher"], labels, beta, temperature, num_items_in_batch=int((labels != -100).sum())
            )
            value.backward()
            cases.append(
                {"beta": beta, "temperature": temperature, "value": value.item(), "gradient": student.grad.tolist()}
            )
    write("trl_gkd", "trl", "GKDTrainer.generalized_jsd_loss", 1e-5, given | {"labels": labels}, cases)


def heads() -> dict[str, torch.Tensor]:
    return {
        "student_hidden": inputs(2, 5, 6, seed=3),
        "teacher_hidden": inputs(2, 5, 8, seed=4),
        "student_head": inputs(17, 6, seed=5, scale=0.7),
        "teacher_head": inputs(17, 8, seed=6, scale=0.7),
        "mask": torch.tensor([[0, 1, 1, 1, 0], [0, 0, 1, 1, 1]]),
    }


def distillation() -> None:
    """TRL's DistillationTrainer: chunked over both heads, with logit scale and soft cap."""
    given, cases = heads(), []
    for beta in BETAS:
        for scale, cap in ((1.0, None), (0.5, None), (1.0, 2.0)):
            hidden, head = (given[f"student_{k}"].clone().requires_grad_() for k in ("hidden", "head"))
            value, _, count = _chunked_divergence_loss(
                hidden,
                given["teacher_hidden"],
                head,
                given["teacher_head"],
                given["mask"],
                beta,
                student_logit_scale=scale,
                teacher_logit_scale=scale,
                student_final_logit_softcapping=cap,
                teacher_final_logit_softcapping=cap,
            )
            value.backward()
            assert count == 6
            cases.append(
                {
                    "beta": beta,
                    "scale": scale,
                    "softcap": cap,
                    "value": value.item(),
                    "gradient_hidden": hidden.grad.tolist(),
                    "gradient_head": head.grad.tolist(),
                }
            )
    write("trl_distillation", "trl", "distillation_trainer._chunked_divergence_loss", 1e-5, given, cases)


def liger() -> None:
    """Liger's chunked JSD with its hard loss off: mean over the tokens that are not ignored."""
    given, cases = heads(), []
    flat = {k: given[k].reshape(-1, given[k].shape[-1]) for k in ("student_hidden", "teacher_hidden")}
    target = torch.where(given["mask"].reshape(-1) == 1, 1, -100)
    for beta in BETAS:
        for temperature in (1.0, 2.0):
            hidden, head = flat["student_hidden"].clone().requires_grad_(), given["student_head"].clone()
            head.requires_grad_()
            value = LigerFusedLinearJSDFunction.apply(
                hidden,
                head,
                flat["teacher_hidden"],
                given["teacher_head"],
                target,
                None,
                None,
                0.0,
                1.0,
                beta,
                -100,
                temperature,
                False,
                4,
            )
            value.backward()
            cases.append(
                {
                    "beta": beta,
                    "temperature": temperature,
                    "value": value.item(),
                    "gradient_hidden": hidden.grad.tolist(),
                    "gradient_head": head.grad.tolist(),
                }
            )
    write("liger_jsd", "liger_kernel", "LigerFusedLinearJSDFunction", 1e-5, given, cases)


def tail() -> None:
    """TRL's top-k divergence with a bucket for the rest."""
    given, cases = {"student": inputs(5, 13, seed=7), "teacher": inputs(5, 13, seed=8)}, []
    for k in (1, 4, 12):
        ids = given["teacher"].topk(k).indices
        logs = [given[side].log_softmax(-1).gather(-1, ids) for side in ("student", "teacher")]
        (student, mask), (teacher, _) = (_add_tail_bucket(z, torch.ones_like(z, dtype=torch.bool)) for z in logs)
        for beta in BETAS:
            cases.append(
                {"k": k, "beta": beta, "value": _jsd_divergence(student, teacher, beta, mask).sum(-1).tolist()}
            )
    write("trl_top_k", "trl", "iw_opd_trainer._jsd_divergence after _add_tail_bucket", 2e-5, given, cases)


class Words:
    """A vocabulary of single letters, which is all that TRL's ULD loss reads of a tokenizer."""

    def __init__(self, letters: str):
        self.letters = letters

    def get_vocab(self) -> dict[str, int]:
        return {letter: i for i, letter in enumerate(self.letters)}


def gold() -> None:
    """TRL's ULD loss of its GOLDTrainer for two tokenizers: two texts of 6 and 4 bytes behind prompts of two tokens."""
    ends = {"student": [[1, 3, 4, 6, 6], [2, 3, 4, 4, 0]], "teacher": [[2, 3, 5, 6, 6, 0], [1, 2, 3, 4, 4, 0]]}
    tokens = {"student": [5, 4], "teacher": [5, 5]}  # of each response, the end included; the rest is padding
    widths, words = {"student": 7, "teacher": 9}, {"student": "abcdefg", "teacher": "xbyczgdwv"}
    given = {side: inputs(2, 2 + len(ends[side][0]), widths[side], seed=9 + i) for i, side in enumerate(ends)}
    ids, labels, offsets = {}, {}, {}
    for side, rows in ends.items():
        generator = torch.Generator().manual_seed(len(side))
        ids[side] = torch.randint(0, widths[side], (2, 2 + len(rows[0])), generator=generator)
        labels[side] = ids[side].clone()
        labels[side][:, :2] = -100
        for i, n in enumerate(tokens[side]):
            labels[side][i, 2 + n :] = -100
        offsets[side] = torch.tensor([[[0, 0]] * 2 + [[0, e] for e in row] for row in rows])
    cases = []
    settings = [(beta, True, skip) for beta in (0.0, 0.3, 0.5, 1.0) for skip in (True, False)] + [(0.5, False, True)]
    for merge in ("bayesian", "observed"):
        for beta, hybrid, skip in settings:
            if merge == "observed" and not skip:
                continue  # it would read what the models expect behind the end
            config = GOLDConfig(
                output_dir="unused", report_to=[], use_uld_loss=True, uld_use_hybrid_loss=hybrid, beta=beta,
                uld_token_merge_strategy=merge, uld_skip_student_eos=skip, uld_skip_teacher_eos=skip, use_cpu=True,
                bf16=False,
            )  # fmt: skip
            loss = ULDLoss(config, *(Words(words[side]) for side in ends))
            student = given["student"].clone().requires_grad_()
            sides = [[part[side] for side in ends] for part in (labels, ids, offsets)]
            value = loss(student, given["teacher"], *sides[0], *sides[1], *sides[2])
            value.backward()
            cases.append(
                {
                    "merge": merge,
                    "beta": beta,
                    "hybrid": hybrid,
                    "skip": skip,
                    "value": value.item(),
                    "gradient": student.grad.tolist(),
                }
            )
    kept = (
        given
        | {f"{side}_ids": ids[side] for side in ends}
        | {f"{side}_ends": torch.tensor(ends[side]) for side in ends}
    )
    kept |= {"tokens": torch.tensor([tokens[side] for side in ends])}
    pairs = [(words["student"].index(w), k) for k, w in enumerate(words["teacher"]) if w in words["student"]]
    write("trl_gold", "trl", "GOLDTrainer's ULDLoss", 1e-5, kept | {"shared": torch.tensor(pairs)}, cases)


class Recording(GRPOTrainer):
    """TRL's trainer, whose scored texts are kept and whose log-probabilities may be given."""

    given = None

    def _compute_loss(self, model, inputs):
        self.seen = inputs
        return super()._compute_loss(model, inputs)

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        if self.given is None:
            return super()._get_per_token_logps_and_entropies(*args, **kwargs)
        return self.given, torch.zeros_like(self.given), None


def rounded(values: torch.Tensor) -> list:
    """To eight decimals, which keeps the file small."""
    return values.double().mul(1e8).round().div(1e8).tolist()


def score(ids: list[int]) -> float | None:
    """A reward for a text that is decided by its ids; of some texts none can be said."""
    return None if sum(ids) % 5 == 4 else sum(ids) % 5 / 3


def scored(scale: str) -> Recording:
    """TRL's trainer behind a step of two prompts with four texts each: generated, scored and compared."""
    vocab = {word: i for i, word in enumerate("abcdefghijk")} | {"<pad>": 11, "<eos>": 12}
    words = Tokenizer(WordLevel(vocab, unk_token="a"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
    torch.manual_seed(0)
    shape = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=13, eos_token_id=12, pad_token_id=11, bos_token_id=None, **shape))
    with tempfile.TemporaryDirectory() as folder:
        settings = GRPOConfig(
            folder,
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=5,
            max_steps=1,
            scale_rewards=scale,
            use_bias_correction_kl=False,  # the ratio multiplies the reward's term alone, as in DeepSeekMath
            report_to="none",
            use_cpu=True,
            bf16=False,
        )
        trainer = Recording(
            model,
            lambda completion_ids, **_: [score(ids) for ids in completion_ids],
            settings,
            Dataset.from_dict({"prompt": ["a b", "c d"]}),
            processing_class=tokenizer,
        )
        trainer.train()
    return trainer


def grpo() -> None:
    """TRL's GRPOTrainer: advantages of its own generated texts, and the loss of the step on given logits."""
    trainers = {scale: scored(scale) for scale in ("group", "batch", "none")}
    seen = trainers["group"].seen
    labels, mask, prompts = seen["completion_ids"], seen["completion_mask"], seen["prompt_ids"].tolist()
    texts = [row[keep == 1].tolist() for row, keep in zip(labels, mask, strict=True)]
    rewards = [math.nan if score(ids) is None else score(ids) for ids in texts]
    given = {"student": inputs(*labels.shape, 13, seed=9)}
    own = given["student"].log_softmax(-1).gather(-1, labels[..., None])[..., 0]
    given |= {"labels": labels, "mask": mask, "reward": torch.tensor(rewards)}
    given |= {"prompt": torch.tensor([prompts.index(prompt) for prompt in prompts])}
    given |= {
        name: own + inputs(*labels.shape, seed=seed, scale=0.3) for name, seed in (("old", 10), ("reference", 11))
    }
    cases = []
    for scale, trainer in trainers.items():
        assert torch.equal(trainer.seen["completion_ids"], labels)
        for loss_type, beta in itertools.product(("grpo", "dapo", "dr_grpo"), (0.0, 0.04)):
            high = 0.28 if loss_type == "dapo" else 0.2
            trainer.loss_type, trainer.beta, trainer.epsilon_high = loss_type, beta, high
            student = given["student"].clone().requires_grad_()
            trainer.given = student.log_softmax(-1).gather(-1, labels[..., None])[..., 0]
            more = {"old_per_token_logps": given["old"], "ref_per_token_logps": given["reference"]}
            value = trainer._compute_loss(trainer.model, trainer.seen | more)
            value.backward()
            case = {"scale": scale, "loss_type": loss_type, "beta": beta, "clip_high": high, "longest": 5}
            case |= {"advantages": trainer.seen["advantages"].tolist(), "value": value.item()}
            cases.append(case | {"gradient": rounded(student.grad)})
    write("trl_grpo", "trl", "GRPOTrainer._compute_loss", 1e-5, given, cases)


def sdpo() -> None:
    """TRL's self-distillation loss on the student's top k, with its clipped importance weight."""
    given, cases = {"student": inputs(5, 13, seed=12), "teacher": inputs(5, 13, seed=13)}, []
    labels = torch.tensor([0, 3, 5, 7, 12])
    own = given["student"].log_softmax(-1).gather(-1, labels[:, None])[:, 0]
    given |= {"labels": labels, "old": own - torch.tensor([1.0, 0.3, 0.0, -0.2, 0.1])}
    for k, alpha, add_tail in itertools.product((3, 6), (0.0, 0.3, 0.5, 1.0), (True, False)):
        student = given["student"].clone().requires_grad_()
        value = compute_topk_self_distillation_loss(
            student, given["teacher"], distillation_topk=k, distillation_alpha=alpha, distillation_add_tail=add_tail
        )
        value = apply_importance_sampling_clipping(value, own, given["old"], 2.0)
        value.sum().backward()
        case = {"k": k, "alpha": alpha, "tail": add_tail, "value": value.tolist()}
        cases.append(case | {"gradient": student.grad.tolist()})
    write("trl_sdpo", "trl", "sdpo.loss_utils.compute_topk_self_distillation_loss", 1e-5, given, cases)


if __name__ == "__main__":
    for make in (gkd, distillation, liger, tail, gold, grpo, sdpo):
        make()
