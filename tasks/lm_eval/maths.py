"""Our prompts, decoding and grader behind lm-eval's interface; loaded by the task files in this folder.

With ``--apply_chat_template`` a model is asked in turns, the box asked for in the system turn; without it the model
continues the plain text. Both are what ``harness run`` asks. A task file of your own that says
``include: harness_amc23.yaml`` and ``repeats: 32`` gives avg@32.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import datasets
from lm_eval.api.task import ConfigurableTask

from harness.evaluation.benchmarks import open_task
from harness.task import Task

PREFIX = "harness_"
opened: Callable[[str], Task] = cache(open_task)


class HarnessMaths(ConfigurableTask):
    """The task of that name. Raises BadInput where its data are not available."""

    def __init__(self, config: Mapping[str, Any]):
        self.ours = opened(config["task"].removeprefix(PREFIX))
        decoding = self.ours.decoding
        settings = {
            "output_type": "generate_until",
            "custom_dataset": self._documents,
            "test_split": "test",
            "num_fewshot": 0,
            "doc_to_text": "{{plain}}",
            "doc_to_target": "{{gold}}",
            "process_results": self._grade,
            "generation_kwargs": {
                "until": list(decoding.stop),
                "do_sample": decoding.temperature > 0,
                "temperature": decoding.temperature,
                "top_p": decoding.top_p,
                "max_gen_toks": decoding.max_new_tokens,
            },
            "filter_list": [
                {"name": "none", "filter": [{"function": "take_first_k", "k": config.get("repeats", 1)}]},
            ],
            "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        }
        super().__init__(config=settings | {key: value for key, value in config.items() if key != "class"})
        self.VERSION = float(self.ours.version)

    def fewshot_context(
        self,
        doc: Mapping[str, str],
        num_fewshot: int = 0,
        system_instruction: str | None = None,
        apply_chat_template: bool = False,
        fewshot_as_multiturn: bool = False,
        chat_template: Callable[..., str] | None = None,
        gen_prefix: str | None = None,
    ) -> str:
        if num_fewshot:
            raise ValueError(f"{self.config.task} is asked without examples: leave --num_fewshot out")
        if not apply_chat_template:
            return doc["plain"]
        turns = [{"role": "user", "content": doc["user"]}]
        if system := "\n\n".join(filter(None, (system_instruction, doc["system"]))):
            turns.insert(0, {"role": "system", "content": system})
        return chat_template(turns, add_generation_prompt=True)

    def construct_requests(self, doc: Mapping[str, str], ctx: str, **named: Any) -> Any:
        """A request whose stop strings are those of its form: a reply in a chat is not cut where a text would be."""
        chat = bool(named.get("apply_chat_template"))
        request = super().construct_requests(doc, ctx, **named)
        settings = request.arguments[1]
        if chat and settings.get("until") == list(self.ours.decoding.stop):  # else the caller's own
            settings["until"] = []
        return request

    def _documents(self, **_: Any) -> Mapping[str, datasets.Dataset]:
        rows = [
            {
                "id": problem.id,
                "user": problem.prompt.user,
                "system": problem.prompt.system or "",
                "plain": problem.prompt.plain,
                "gold": problem.reference.text,
            }
            for problem in self.ours.items
        ]
        return {"test": datasets.Dataset.from_list(rows)}

    def _grade(self, doc: Mapping[str, str], results: Sequence[Any]) -> Mapping[str, float]:
        problem = next(problem for problem in self.ours.items if problem.id == doc["id"])
        texts = [text for result in results for text in ([result] if isinstance(result, str) else result)]
        scores = [self.ours.grade(problem, text).score for text in texts]
        return {"exact_match": sum(scores) / len(scores)}
