"""Wraps our generator as an lm-eval model, and runs our benchmarks through lm-eval's evaluator.

lm-eval only handles requests and repeats; it neither changes a text nor sets a seed. It drops repeated samples, token
counts and finish reasons, so those are taken from the generator directly.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.task import Task as LMEvalTask
from lm_eval.config.task import TaskConfig
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from harness.errors import BadInput, RunFailed, unknown
from harness.models import chat_template
from harness.models.server_generator import CHAT
from harness.progress import UNWATCHED, Watch
from harness.task import Task
from harness.types import Completion, Decoding, Problem, stable_seed

if TYPE_CHECKING:
    from harness.models.generate import Generated, Generator

DEFAULT_NEW_TOKENS = 256  # lm-eval's default of max_gen_toks
FEWSHOT_SEED = 1234  # lm-eval's own


class HarnessLM(LM):
    """One generator for every lm-eval task.

    After a run ``generated[task][doc][sample]`` holds what :meth:`generate_until` gave to lm-eval as text.
    A sample's random numbers depend only on ``seed``, task, document and sample index.
    """

    def __init__(self, generator: Generator, seed: int = 0, watch: Watch = UNWATCHED):
        super().__init__()
        self.generator = generator
        self.seed, self.watch = seed, watch
        self.generated: dict[str, dict[int, list[Generated]]] = {}

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """The continuations of ``(context, gen_kwargs)``. Raises BadInput for an unsupported setting."""
        seeds = self._seeds(requests)
        continuations: list[Generated | None] = [None] * len(requests)
        groups: dict[Decoding, list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault(decoding_from(request.args[1], request.task_name), []).append(i)
        for decoding, members in groups.items():
            texts = [requests[i].args[0] for i in members]
            answers = self.generator.generate(texts, decoding, [seeds[i] for i in members], self.watch)
            for i, generated in zip(members, answers, strict=True):
                continuations[i] = generated
        for request, generated in zip(requests, continuations, strict=True):
            self.generated.setdefault(request.task_name, {}).setdefault(request.doc_id, []).append(generated)
        return [generated.text for generated in continuations]

    def _seeds(self, requests: Sequence[Instance]) -> list[int]:
        """The sample index of each request; lm-eval requests a further sample by passing the same object again."""
        sample: Counter[int] = Counter()
        seeds = []
        for request in requests:
            known = isinstance(request.doc, dict) and "id" in request.doc
            document = request.doc["id"] if known else request.doc_id
            seeds.append(stable_seed(self.seed, request.task_name, document, sample[id(request)]))
            sample[id(request)] += 1
        return seeds

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Log-probability of each continuation given its context, and whether it is the greedy one.

        Raises BadInput for a served model, which returns none.
        """
        if self.served:
            raise BadInput(
                f"{requests[0].task_name} scores continuations, which a served model cannot; give a model folder"
            )
        return self.generator.loglikelihood([request.args for request in requests])

    def loglikelihood_rolling(self, requests: Sequence[Instance]) -> list[float]:
        """Log-probability of each whole text, as the continuation of an empty context."""
        if self.served:
            raise BadInput(
                f"{requests[0].task_name} scores whole texts, which a served model cannot; give a model folder"
            )
        return [value for value, _ in self.generator.loglikelihood([("", r.args[0]) for r in requests])]

    @property
    def served(self) -> bool:
        """Whether the model is behind a server, which renders the turns of a chat itself."""
        return not hasattr(self.generator, "tokenizer")

    @property
    def tokenizer_name(self) -> str:
        return "the-server's" if self.served else self.generator.tokenizer.name_or_path.replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        if not chat_template:
            return None
        return "the server's" if self.served else self.generator.tokenizer.chat_template

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        if self.served:
            return CHAT + json.dumps(chat_history, ensure_ascii=False)
        return chat_template.render(
            self.generator.tokenizer,
            chat_history,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )


def decoding_from(settings: Mapping[str, Any], where: str | None) -> Decoding:
    """lm-eval's ``generation_kwargs`` as a Decoding. Raises BadInput for a setting that would be ignored."""
    known = {"until", "do_sample", "temperature", "top_p", "max_gen_toks", "max_new_tokens"}
    if strange := sorted(set(settings) - known):
        raise BadInput(f"{where}: the generation setting {strange[0]!r} is not supported; leave it out")
    until = settings.get("until") or ()
    # lm-eval decodes greedily unless do_sample says otherwise, whatever the temperature.
    temperature = float(settings.get("temperature", 1.0)) if settings.get("do_sample") else 0.0
    return Decoding(
        temperature=temperature,
        top_p=float(settings.get("top_p", 1.0)),
        max_new_tokens=int(settings.get("max_gen_toks", settings.get("max_new_tokens", DEFAULT_NEW_TOKENS))),
        stop=(until,) if isinstance(until, str) else tuple(until),
    )


def complete(
    task: Task,
    generator: Generator,
    problems: Sequence[Problem],
    decoding: Decoding,
    seed: int,
    watch: Watch = UNWATCHED,
) -> list[Completion]:
    """``decoding.samples`` completions of every problem through lm-eval's evaluator, problem by problem."""
    if not problems:
        return []
    model = HarnessLM(generator, seed, watch)
    texts = [generator.render(p.prompt) for p in problems]
    with _quiet():
        generation = _Generation(task.name, problems, texts, decoding)
        evaluate(model, {"tasks": {task.name: generation}}, log_samples=False, bootstrap_iters=0)
    answers = model.generated[task.name]
    return [
        Completion(problem.id, sample, generated.text, generated.tokens, generated.finish)
        for i, problem in enumerate(problems)
        for sample, generated in enumerate(answers[i])
    ]


class _Generation(LMEvalTask):
    """Problems as an lm-eval task without grading, because every sample must reach our grader."""

    OUTPUT_TYPE = "generate_until"

    def __init__(self, name: str, problems: Sequence[Problem], texts: Sequence[str], decoding: Decoding):
        self.documents = [{"id": p.id, "text": text} for p, text in zip(problems, texts, strict=True)]
        self.settings = {
            "until": list(decoding.stop),
            "do_sample": decoding.temperature > 0,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "max_gen_toks": decoding.max_new_tokens,
        }
        super().__init__()
        self._config = TaskConfig(  # set here because the base class drops the configuration it receives
            task=name,
            output_type=self.OUTPUT_TYPE,
            num_fewshot=0,
            repeats=decoding.samples,
            generation_kwargs=self.settings,
        )

    def download(self, data_dir=None, cache_dir=None, download_mode=None) -> None:
        """Does nothing: the documents are in memory."""

    def has_training_docs(self) -> bool:
        return False

    def has_validation_docs(self) -> bool:
        return False

    def has_test_docs(self) -> bool:
        return True

    def test_docs(self) -> list[dict[str, str]]:
        return self.documents

    def doc_to_text(self, doc: Mapping[str, str]) -> str:
        return doc["text"]

    def doc_to_target(self, doc: Mapping[str, str]) -> str:
        return ""

    def fewshot_context(self, doc: Mapping[str, str], num_fewshot: int, **_: Any) -> str:
        return self.doc_to_text(doc)

    def construct_requests(self, doc: Mapping[str, str], ctx: str, metadata=None, **_: Any) -> Instance:
        return Instance("generate_until", doc, (ctx, self.settings), 0, metadata)

    def process_results(self, doc: Mapping[str, str], results: Sequence[str]) -> dict[str, float]:
        return {}

    def aggregation(self) -> dict[str, Any]:
        return {}

    def higher_is_better(self) -> dict[str, bool]:
        return {}


def load_lm_eval_task(name: str, include_path: Path | None = None) -> dict[str, Any]:
    """lm-eval's own task or group ``name``, as its evaluator takes it.

    ``include_path`` is a folder of task files that replaces the built-in ones, which take about 20 s to scan.
    Raises BadInput for an unknown task, RunFailed where its data is not available.
    """
    with _quiet():
        manager = TaskManager(include_path=include_path, include_defaults=include_path is None)
        if name not in manager.all_tasks:
            raise unknown("lm-eval task", name, manager.all_tasks)
        with _failing(name):
            loaded = manager.load([name])
            for task in loaded["tasks"].values():
                if task.get_config("num_fewshot") is None:
                    task.set_config("num_fewshot", 0)
                task.set_fewshot_seed(FEWSHOT_SEED)
    return loaded


def run_lm_eval_task(
    name: str,
    generator: Generator,
    limit: int | None = None,
    include_path: Path | None = None,
    loaded: dict[str, Any] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Runs lm-eval's own task ``name``, graded by lm-eval; returns metrics, versions, sample counts and samples.

    Raises BadInput for an unknown task, RunFailed where its data is not available or it fails.
    """
    loaded = loaded or load_lm_eval_task(name, include_path)
    with _quiet(), _failing(name):
        # simple_evaluate would seed the whole process and run programs to describe the machine.
        model = HarnessLM(generator, seed)
        results = evaluate(
            model,
            loaded,
            limit=limit,
            log_samples=True,
            bootstrap_iters=0,
            apply_chat_template=bool(model.chat_template(True)),
            fewshot_as_multiturn=True,
        )
    return {key: results[key] for key in ("results", "versions", "n-shot", "n-samples", "higher_is_better", "samples")}


@contextmanager
def _failing(name: str) -> Iterator[None]:
    """Turns any exception of a task into one line: third-party tasks fail for datasets, packages, permissions."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise RunFailed(f"lm-eval task {name!r} failed ({type(error).__name__}: {reason})") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences lm-eval's remarks on its defaults; errors still appear."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
