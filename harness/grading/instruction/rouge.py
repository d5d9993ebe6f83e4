"""Tasks scored by ROUGE-L against reference responses: the suite of MiniLLM, and of DistiLLM, TAID and ABKD after it.

As in MiniLLM's evaluation (microsoft/LMOps, minillm/evaluate_main.py and rouge_metric.py): the text up to
``<|endoftext|>`` without white space around it, scored by the F-measure of rouge_score's ``rougeL`` with stemming, the
maximum over the references; sampled at temperature 1 without a nucleus, five times (MiniLLM averages five seeds), with
256 new tokens, which is its 512 tokens less the 256 that it leaves to the prompt.

MiniLLM cuts a prompt after 256 tokens of the model's tokenizer. Here it stays whole.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from harness.errors import BadInput
from harness.task import Dataset, Protocol, Task
from harness.types import Decoding, Problem, Prompt, Verdict

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

ENDS = "<|endoftext|>"
SUITE_REPOSITORY = "sonho4ng/SRAv2"  # a public copy; MiniLLM's own archive is not a repository
SUITE_COMMIT = "d7c7263c15d7d9db67eb956ed113381755c6a3c1"


def in_suite(path: str, sha256: str, n: int) -> Dataset:
    """A file of the suite."""
    return Dataset(
        local=f"rouge_suite/{path}",
        repository=SUITE_REPOSITORY,
        commit=SUITE_COMMIT,
        path=f"llm-data/{path}",
        sha256=sha256,
        n=n,
    )


class _PlainText:
    """Rules of the protocol ``minillm``."""

    def wording(self, row: Mapping[str, Any]) -> Prompt:
        return Prompt(user=row["prompt"], plain=row["prompt"], chat=False)


class _Instruction:
    """Rules of the protocol ``instruction``."""

    def wording(self, row: Mapping[str, Any]) -> Prompt:
        context = row.get("input")
        user = f"{row['instruction']}\n\n{context}" if context else row["instruction"]
        return Prompt(user=user, plain=user)


class RougeTask(Task):
    """Rows with ``instruction``, ``input``, ``prompt`` (both in Alpaca's words) and ``output``: a text or several."""

    family, metric = "instruction", "rougeL"
    grader = "rouge-score"
    paper = "https://arxiv.org/abs/2306.08543"
    decoding = Decoding(temperature=1.0, max_new_tokens=256, samples=5)
    extractor = f"the completion up to {ENDS}, without white space around it"
    equivalence = "F-measure of rouge-score's rougeL with stemming, the largest over the references"
    known_wrong = "overlap"
    protocols: ClassVar[Mapping[str, Protocol]] = {
        "minillm": Protocol(
            "MiniLLM's prompt as a text that the model continues, also where it has a chat template",
            rules=_PlainText,
        ),
        "instruction": Protocol(
            "the instruction, and below it the input, as a user's turn without Alpaca's words around them",
            rules=_Instruction,
        ),
    }

    def problems(self, rows):
        return [self._problem(row, i) for i, row in enumerate(rows)]

    def _problem(self, row: Mapping[str, Any], index: int) -> Problem:
        where = f"{self.data.source}: row {index + 1}"
        for key in ("prompt", "instruction"):
            if not isinstance(row.get(key), str) or not row[key].strip():
                raise BadInput(f"{where} has no text under {key!r}")
        if not isinstance(row.get("input", ""), str):
            raise BadInput(f"{where}: 'input' is not text")
        written = row.get("output")
        references = written if isinstance(written, list) else [written]
        if not references or not all(isinstance(each, str) for each in references):
            raise BadInput(f"{where} has no text and no list of texts under 'output'")
        return Problem(str(index), self.wording(row), tuple(references))

    def wording(self, row: Mapping[str, Any]) -> Prompt:
        """Alpaca's words around instruction and input, as MiniLLM asks; in a user's turn where there is a template."""
        return Prompt(user=row["prompt"], plain=row["prompt"])

    def grade(self, problem, text):
        answer = text.partition(ENDS)[0].strip()
        score = rouge_l(answer, problem.reference)
        return Verdict(problem.id, 0, score, f"ROUGE-L {score:.4f}, the largest of {len(problem.reference)}", answer)

    def grader_identity(self):
        return super().grader_identity() | {"versions": {"rouge-score": importlib.metadata.version("rouge-score")}}

    def gold_completion(self, problem):
        """The last reference that contains a word, which reveals a grader that compares only the first one."""
        return next((each for each in reversed(problem.reference) if words(each)), None)

    def remarks(self, graded):
        """Counts the problems that cannot be scored, because ROUGE reads only letters a to z and digits."""
        ids = {row["problem_id"] for row in graded}
        blank = [p for p in self.items if p.id in ids and self.gold_completion(p) is None]
        if not blank:
            return []
        return [f"{len(blank)} of {len(ids)} problems have no reference with a letter a to z or a digit: they score 0"]


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """The largest ROUGE-L F-measure in [0, 1] of a text against ``references``; 0 without a word in common."""
    return max(float(_scorer().score(target=each, prediction=answer)["rougeL"].fmeasure) for each in references)


def words(text: str) -> list[str]:
    """The words that ROUGE compares: lower-case runs of letters a to z and digits, stemmed."""
    return _scorer()._tokenizer.tokenize(text)


@functools.cache
def _scorer() -> RougeScorer:
    from rouge_score import rouge_scorer

    return rouge_scorer.RougeScorer(["rougeL"], tokenizer=_Words())


class _Words:
    """The tokenizer of rouge-score. Its stemmer takes most of the time, so each word is stemmed once."""

    def __init__(self) -> None:
        from nltk.stem import porter

        self.stem = functools.lru_cache(maxsize=100_000)(porter.PorterStemmer().stem)

    def tokenize(self, text: str) -> list[str]:
        from rouge_score.tokenize import tokenize

        return tokenize(text, self)
