"""TRL's side of the `train` benchmark. Runs in the peers' environment, see :mod:`results.scripts.bench.peers`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset

from results.scripts.bench.train_models import pair


def prepare(spec: dict[str, Any]) -> Callable[[str], tuple[float, int]]:
    """The step; see :func:`results.scripts.bench.train.side`. Without gradient checkpointing or mixed precision."""
    student, teacher, tokenizer = pair(spec["models"])
    rows = len(spec["prompts"])
    settings = {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": rows,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "learning_rate": 1e-6,
        "beta": 0.5,
        "temperature": 1.0,
        "max_steps": 10**6,
    }
    if spec["who"] == "gkd":
        from trl.experimental.gkd import GKDConfig, GKDTrainer

        talk = [{"role": "user", "content": "w5"}, {"role": "assistant", "content": "w6"}]
        trainer = GKDTrainer(
            student, teacher, GKDConfig(max_new_tokens=spec["new"], **settings), data_collator=lambda rows: rows,
            train_dataset=Dataset.from_list([{"messages": talk}]), processing_class=tokenizer,
        )  # fmt: skip
    else:
        from trl import DistillationConfig, DistillationTrainer

        trainer = DistillationTrainer(
            model=student, teacher_model=teacher, processing_class=tokenizer,
            args=DistillationConfig(max_completion_length=spec["new"], **settings),
            train_dataset=Dataset.from_list([{"prompt": "w5"}] * rows),
        )  # fmt: skip
        trainer._tokenize_prompts = lambda prompts: ([list(p) for p in spec["prompts"]], None, {})
    model, optimizer = trainer.accelerator.prepare(
        trainer.model, torch.optim.AdamW(trainer.model.parameters(), lr=1e-6)
    )
    trainer.model_wrapped, trainer.optimizer = model, optimizer
    trainer.current_gradient_accumulation_steps = 1
    fixed = _collated(spec["prompts"], spec["responses"])
    count = torch.tensor(sum(map(len, spec["responses"])))

    def step(kind: str) -> tuple[float, int]:
        if spec["who"] == "gkd":
            trainer.lmbda = 1.0 if kind == "own" else -1.0
            inputs = dict(fixed)
            # Trainer passes the number of labels; TRL has no fitting one for own text and takes a mean.
            loss = trainer.training_step(model, inputs, None if kind == "own" else count)
            tokens = int((inputs["labels"][:, 1:] != -100).sum()) if kind == "own" else 0
        else:
            before = trainer.state.num_input_tokens_seen
            loss = trainer.training_step(model, [{"prompt": "w5"}] * rows, None)
            trainer._step = 0  # every step generates its own text
            tokens = int(trainer.state.num_input_tokens_seen - before) - sum(map(len, spec["prompts"]))
        trainer.accelerator.clip_grad_norm_(model.parameters(), 1.0)
        if kind != "loss":
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        trainer.state.global_step += 1
        return float(loss), tokens

    return step


def _collated(prompts: list[list[int]], responses: list[list[int]]) -> dict[str, Any]:
    """The tensors of TRL's DataCollatorForChatML: everything padded on the left, prompts masked in the labels."""
    whole = [p + r for p, r in zip(prompts, responses, strict=True)]
    width, long = max(map(len, whole)), max(map(len, prompts))
    left = lambda ids, size, fill: [fill] * (size - len(ids)) + ids  # noqa: E731
    return {
        "input_ids": torch.tensor([left(w, width, 0) for w in whole]),
        "attention_mask": torch.tensor([left([1] * len(w), width, 0) for w in whole]),
        "labels": torch.tensor(
            [left([-100] * len(p) + r, width, -100) for p, r in zip(prompts, responses, strict=True)]
        ),
        "prompts": torch.tensor([left(p, long, 0) for p in prompts]),
        "prompt_attention_mask": torch.tensor([left([1] * len(p), long, 0) for p in prompts]),
    }
