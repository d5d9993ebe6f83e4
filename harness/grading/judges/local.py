"""A Hugging Face model in this process as the judge: a folder, a hub id, or ``micro:teacher``.

One question at a time; to judge many with a large model, serve it and use ``openai:``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.grading.judges.contract import JudgeOptions
from harness.grading.judges.protocols import Reply
from harness.models.openai_client import Unanswered
from harness.options import option
from harness.types import Decoding, Prompt


@dataclass(frozen=True)
class LocalOptions(JudgeOptions):
    """Settings of ``hf:`` judges."""

    device: str = option("cpu", "where the model runs, e.g. cuda")
    dtype: str = option("float32", "of the weights", choices=("float32", "bfloat16", "float16"))
    trust_remote_code: bool = option(False, "run Python code that the model's folder brings (auto_map)")


class LocalModel:
    """The weights are identified when the judge is opened and loaded at the first question."""

    parallel = 1

    def __init__(self, name: str, options: LocalOptions):
        from harness.models.files import locate

        self.files, self.options = locate(name, options.trust_remote_code), options
        self._generator: Any = None

    def identity(self) -> dict[str, Any]:
        identity = {"kind": "hf", "model": self.files.id, "revision": self.files.sha256}
        return identity | ({"trust_remote_code": True} if self.files.trusted else {})

    def ask(self, messages: list[dict[str, str]], temperature: float, max_tokens: int, top_logprobs: int) -> Reply:
        if self._generator is None:
            self._generator = self._load()
        generator = self._generator
        turns = {m["role"]: m["content"] for m in messages}
        plain = "\n\n".join(m["content"] for m in messages) + "\n\n"
        text = generator.render(Prompt(turns["user"], plain, turns.get("system")))
        ids = generator.encode(text)
        if generator.limit and len(ids) + max_tokens > generator.limit:
            raise Unanswered(
                f"a question of {len(ids)} tokens and a reply of {max_tokens} do not fit the judge's context of "
                f"{generator.limit}",
                of_question=True,
            )
        first = self._first_token(ids, top_logprobs) if top_logprobs else ()
        from harness.seeds import stable_seed

        decoding = Decoding(temperature=temperature, max_new_tokens=max_tokens)
        (made,) = generator.continue_ids([ids], decoding, [stable_seed("judge", text)])
        return Reply(made.text, first, len(ids), made.tokens, cut=made.finish == "length")

    def _load(self) -> Any:
        from harness.models.files import load_model, load_tokenizer
        from harness.models.generate import Generator

        model = load_model(self.files, self.options.dtype, self.options.device)
        return Generator(model, load_tokenizer(self.files), batch=1)

    def _first_token(self, ids: list[int], top: int) -> tuple[tuple[str, float], ...]:
        """The ``top`` likeliest first tokens of the reply with their log-probabilities at temperature 1."""
        import torch

        model, tokenizer = self._generator.model, self._generator.tokenizer
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids], device=model.device), logits_to_keep=1).logits[0, -1]
        log_probs = logits[: len(tokenizer)].float().log_softmax(-1)
        best = log_probs.topk(min(top, len(log_probs)))
        return tuple(
            (tokenizer.decode([token]), value)
            for token, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        )
