"""Writes what whole training steps of TRL come to: from texts and two models to the loss and every weight's gradient.

    python3.11 -m venv PEERS && PEERS/bin/pip install torch==2.13.0 trl==1.16.0
    PEERS/bin/python tests/golden/make_steps.py sdft sdpo gold
    python3.11 -m venv OLDER && OLDER/bin/pip install torch==2.13.0 trl==0.26.2    # the last to have MiniLLMTrainer
    OLDER/bin/python tests/golden/make_steps.py minillm

Each trainer is built as a user builds it, on random models of 0.9 k weights; it samples and scores its own texts and
makes the teacher's prompts, and ``compute_loss`` runs under several settings on the batch that it made. The harness is
not imported; weights are printed numbers, so that a test needs nothing but the file.
"""

import copy
import importlib.metadata
import itertools
import json
import sys
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).parent
END, PAD = 12, 11
SHAPE = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
ROWS = {"prompt": ["a b", "c d e", "f", "g h"], "privileged_context": ["b c", "h", "d d e", "a i"]}


def tokenizer() -> PreTrainedTokenizerFast:
    """A word is a letter, and its id its place in the alphabet."""
    words = Tokenizer(WordLevel({w: i for i, w in enumerate("abcdefghijk")} | {"<pad>": PAD, "<eos>": END}, "a"))
    words.pre_tokenizer = Whitespace()
    names = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", model_input_names=names
    )


def model(seed: int, vocab: int = 13) -> LlamaForCausalLM:
    """A random model whose weights have three decimals; it prefers some words, so that models differ."""
    ends = {"eos_token_id": vocab - 1, "pad_token_id": vocab - 2, "bos_token_id": None}
    made = LlamaForCausalLM(LlamaConfig(vocab_size=vocab, max_position_embeddings=64, **ends, **SHAPE))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            spread, center = (1.0 if "embed" in name or "head" in name else 0.3), (1 if "norm" in name else 0)
            values = center + spread * torch.randn(weight.shape, generator=generator)
            weight.copy_(values.mul(1000).round().div(1000))
    return made


def saved(of: LlamaForCausalLM, folder: str) -> str:
    """The folder of the model: a trainer loads its frozen teacher from where its student came from."""
    of.save_pretrained(f"{folder}/before")
    return f"{folder}/before"


def weights(of: LlamaForCausalLM) -> dict[str, list]:
    return {name: rounded(weight.detach()) for name, weight in of.named_parameters()}


def rounded(values: torch.Tensor, places: int = 8) -> list:
    return [round(v, places) for v in values.double().flatten().tolist()]


def settings(of: type, folder: str, **more):
    plain = {"per_device_train_batch_size": 4, "max_steps": 1, "report_to": "none", "use_cpu": True, "bf16": False}
    return of(folder, **(plain | {"learning_rate": 0.0, "seed": 3} | more))


def recording(trainer: type) -> type:
    """The trainer, whose first batch is kept with what its loss is asked under."""

    class Recording(trainer):
        seen = None

        def compute_loss(self, model, inputs, *args, **kwargs):
            if self.seen is None:
                self.seen = {k: copy.deepcopy(v) for k, v in inputs.items()}
            return super().compute_loss(model, inputs, *args, **kwargs)

    return Recording


def texts(seen: dict) -> list[dict]:
    """Prompt, response and what the teacher reads before it, as ids without padding."""
    found = []
    for i, ids in enumerate(seen["completion_ids"]):
        width = len(ids)
        row = {
            "prompt": seen["prompt_ids"][i][seen["prompt_mask"][i] == 1].tolist(),
            "response": ids[seen["completion_mask"][i] == 1].tolist(),
        }
        if "teacher_input_ids" in seen:
            read, mask = seen["teacher_input_ids"][i][:-width], seen["teacher_attention_mask"][i][:-width]
            row["asked"] = read[mask == 1].tolist()
        if "self_distillation_mask" in seen:
            row["informed"] = bool(seen["self_distillation_mask"][i])
        found.append(row)
    return found


def loss_of(trainer, seen: dict, **more) -> dict:
    """The loss on a copy of the batch and the gradient of every weight."""
    trainer.model.zero_grad()
    value = trainer.compute_loss(trainer.model, {k: copy.deepcopy(v) for k, v in seen.items()}, **more)
    value.backward()
    return {"value": value.item(), "gradient": {n: rounded(p.grad, 7) for n, p in trainer.model.named_parameters()}}


def write(name: str, function: str, content: dict, cases: list[dict]) -> None:
    facts = {
        "package": "trl",
        "version": importlib.metadata.version("trl"),
        "function": function,
        "torch": torch.__version__.split("+")[0],
        "tolerance": 1e-5,
        "made_by": "tests/golden/make_steps.py",
    }
    (HERE / f"{name}.json").write_text(json.dumps(facts | content | {"cases": cases}) + "\n", "utf-8")


def sdft() -> None:
    """SDFTTrainer on four prompts with a demonstration each; the teacher is the student before it moved."""
    from trl.experimental.sdft import SDFTConfig, SDFTTrainer

    student, before = model(1), model(2)
    with tempfile.TemporaryDirectory() as folder:
        given = settings(SDFTConfig, folder, max_completion_length=6, num_generations=1, distillation_topk=3)
        data = Dataset.from_dict(ROWS)
        trainer = recording(SDFTTrainer)(saved(before, folder), given, data, processing_class=tokenizer())
        trainer.model.load_state_dict(student.state_dict())
        trainer.train()
    cases = []
    for k, alpha, tail in itertools.product((3, 0), (0.0, 0.5, 1.0), (False, True)):
        if k == 0 and tail:
            continue
        trainer.args.distillation_mode = "topk_logits" if k else "full_logits"
        trainer.args.distillation_topk, trainer.args.distillation_alpha = k or None, alpha
        trainer.args.distillation_add_tail = tail
        cases.append({"k": k, "alpha": alpha, "tail": tail} | loss_of(trainer, trainer.seen))
    models = {"student": weights(trainer.model), "teacher": weights(trainer.teacher_model)}
    write("trl_sdft_step", "SDFTTrainer.compute_loss", {"models": models, "texts": texts(trainer.seen)}, cases)


def sdpo() -> None:
    """SDPOTrainer on two prompts with four texts each, of which a group reward picks the solutions."""
    from trl.experimental.sdpo import SDPOConfig, SDPOTrainer

    student, before = model(1), model(2)
    with tempfile.TemporaryDirectory() as folder:
        more = {"reprompt_template": "{prompt} {solution}{feedback}"}
        more |= {"solution_template": "i {successful_previous_attempt}"}
        given = settings(
            SDPOConfig, folder, max_completion_length=6, num_generations=4, per_device_train_batch_size=8, **more
        )
        trainer = recording(SDPOTrainer)(
            saved(before, folder),
            lambda completion_ids, **_: [float(sum(ids) % 4 == 0) for ids in completion_ids],
            given,
            Dataset.from_dict({"prompt": ROWS["prompt"][:2]}),
            processing_class=tokenizer(),
        )
        trainer.model.load_state_dict(student.state_dict())
        trainer.train()
    cases = []
    for mode, k, alpha, tail in [("sampled_token", None, 1.0, False), ("topk_logits", 3, 0.5, True)]:
        trainer.args.distillation_mode, trainer.args.distillation_topk = mode, k
        trainer.args.distillation_alpha, trainer.args.distillation_add_tail = alpha, tail
        cases.append({"k": k or 0, "alpha": alpha, "mode": mode} | loss_of(trainer, trainer.seen))
    models = {"student": weights(trainer.model), "teacher": weights(trainer.teacher_model)}
    write("trl_sdpo_step", "SDPOTrainer.compute_loss", {"models": models, "texts": texts(trainer.seen)}, cases)


def minillm() -> None:
    """MiniLLMTrainer on two prompts with two texts each, without a reward of a task."""
    from trl.experimental.minillm import MiniLLMConfig, MiniLLMTrainer

    student, teacher = model(1), model(2)
    student.generation_config.eos_token_id = None
    with tempfile.TemporaryDirectory() as folder:
        given = settings(MiniLLMConfig, folder, max_completion_length=6, num_generations=2)
        trainer = recording(MiniLLMTrainer)(
            student, teacher, args=given, train_dataset=Dataset.from_dict({"prompt": ROWS["prompt"][:2]}),
            processing_class=tokenizer(),
        )  # fmt: skip
        trainer.train()
    cases = []
    for gamma, normalised in ((0.0, True), (0.9, True), (0.9, False)):
        trainer.gamma, trainer.length_normalization = gamma, normalised
        cases.append({"discount": gamma, "normalised": normalised} | loss_of(trainer, trainer.seen))
    models = {"student": weights(trainer.model), "teacher": weights(trainer.teacher_model)}
    write("trl_minillm_step", "MiniLLMTrainer.compute_loss", {"models": models, "texts": texts(trainer.seen)}, cases)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        globals()[name]()
