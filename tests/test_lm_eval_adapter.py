"""Our generator inside lm-eval: every text, count and sample comes through unaltered."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from harness.tasks.amc23 import AMC23

from harness.errors import BadInput, RunFailed
from harness.models.lm_eval_adapter import HarnessLM, complete, decoding_from, run_lm_eval_task
from harness.task import Data
from harness.types import Decoding


@dataclass
class Spoken:
    text: str
    tokens: int
    finish: str
    prompt_tokens: int = 0


class Echo:
    """Answers with its input and seed, in whitespace that a careless harness would strip."""

    def __init__(self, template=None):
        self.asked = []
        self.tokenizer = SimpleNamespace(
            chat_template=template,
            name_or_path="me/echo",
            apply_chat_template=lambda turns, **kwargs: "|".join(t["content"] for t in turns) + "|",
        )

    def render(self, prompt):
        return f" {prompt.plain}"

    def generate(self, texts, decoding, seeds, watch=None):
        self.asked.append((list(texts), decoding))
        return [
            Spoken(f"\n {text}#{seed} \n\n", len(text), "length" if i % 2 else "stop")
            for i, (text, seed) in enumerate(zip(texts, seeds, strict=True))
        ]

    def loglikelihood(self, pairs):
        return [(-float(len(continuation)), continuation.strip() == "yes") for _, continuation in pairs]


def amc(n=3):
    rows = [{"id": f"p{i}", "problem": f"problem {i}", "answer": float(i)} for i in range(n)]
    return AMC23(Data(rows=rows, sha256="0", source="rows of a test"))


def test_all_samples_of_all_problems_come_back_in_order_and_unaltered(capfd):
    task, echo = amc(), Echo()
    decoding = Decoding(temperature=0.7, top_p=0.9, max_new_tokens=33, samples=2, stop=("\n\nProblem:",))
    made = complete(task, echo, task.items, decoding, seed=5)
    assert [(c.problem_id, c.sample) for c in made] == [(f"p{i}", k) for i in range(3) for k in range(2)]
    ((texts, used),) = echo.asked
    assert texts == [f" Problem: problem {i}\nSolution:\n" for i in range(3) for _ in range(2)]
    assert (used.temperature, used.top_p, used.max_new_tokens, used.stop) == (0.7, 0.9, 33, ("\n\nProblem:",))
    assert all(c.text.startswith("\n  Problem: ") and c.text.endswith(" \n\n") for c in made)
    assert [c.finish for c in made] == ["stop", "length"] * 3
    assert [c.tokens for c in made] == [len(text) for text in texts]
    assert len({c.text for c in made}) == 6, "every sample has its own seed"
    assert capfd.readouterr().out == ""


def test_a_sample_depends_on_seed_problem_and_index_alone():
    task, decoding = amc(), Decoding(temperature=1.0, samples=3)
    all_texts = [c.text for c in complete(task, Echo(), task.items, decoding, seed=1)]
    assert [c.text for c in complete(task, Echo(), task.items[2:], decoding, seed=1)] == all_texts[6:]
    assert not set(all_texts) & {c.text for c in complete(task, Echo(), task.items, decoding, seed=2)}


def test_no_problem_no_work_and_greedy_stays_greedy():
    task, echo = amc(), Echo()
    assert complete(task, echo, [], Decoding(), seed=0) == []
    complete(task, echo, task.items, Decoding(), seed=0)
    assert [used.temperature for _, used in echo.asked] == [0.0]


def test_generation_settings_of_lm_eval_tasks():
    assert decoding_from({"until": ["\n"], "do_sample": False, "temperature": 0.6}, "t") == Decoding(
        max_new_tokens=256, stop=("\n",)
    )
    sampled = decoding_from({"until": "END", "do_sample": True, "top_p": 0.9, "max_gen_toks": 7}, "t")
    assert sampled == Decoding(temperature=1.0, top_p=0.9, max_new_tokens=7, stop=("END",))
    with pytest.raises(BadInput, match=r"t: the generation setting 'repetition_penalty' is not supported"):
        decoding_from({"repetition_penalty": 1.1}, "t")


GENERATE = """
task: echoes
custom_dataset: !function documents.make
output_type: generate_until
test_split: test
doc_to_text: "say {{word}}"
doc_to_target: "{{word}}"
generation_kwargs: {until: [], max_gen_toks: 5}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""
CHOOSE = """
task: choices
custom_dataset: !function documents.make
output_type: multiple_choice
test_split: test
doc_to_text: "{{word}}?"
doc_to_choice: ["yes", "no way"]
doc_to_target: "{{label}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""
DOCUMENTS = """
from datasets import Dataset

def make(**kwargs):
    return {"test": Dataset.from_list([{"word": w, "label": int(w == "b")} for w in "abc"])}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "echoes.yaml").write_text(GENERATE)
    (tmp_path / "choices.yaml").write_text(CHOOSE)
    (tmp_path / "documents.py").write_text(DOCUMENTS)
    return tmp_path


def test_an_lm_eval_task_runs_on_our_generator(folder, capfd):
    echo = Echo(template="chat")
    found = run_lm_eval_task("echoes", echo, include_path=folder)
    assert found["results"]["echoes"]["exact_match,none"] == 0.0
    assert found["n-samples"]["echoes"] == {"original": 3, "effective": 3}
    ((texts, used),) = echo.asked
    assert texts == ["say a|", "say b|", "say c|"]
    assert used.max_new_tokens == 5
    # The shorter choice, "yes", is the likelier one to Echo: right for two labels of three.
    chosen = run_lm_eval_task("choices", Echo(), include_path=folder)
    assert chosen["results"]["choices"]["acc,none"] == pytest.approx(2 / 3)
    assert run_lm_eval_task("choices", Echo(), limit=1, include_path=folder)["results"]["choices"]["acc,none"] == 1.0
    assert capfd.readouterr().out == ""


def test_unknown_and_broken_lm_eval_tasks_are_named(folder):
    with pytest.raises(BadInput, match="unknown lm-eval task 'echos'; did you mean echoes"):
        run_lm_eval_task("echos", Echo(), include_path=folder)
    (folder / "documents.py").write_text("def make(**kwargs):\n    raise OSError('no such data')\n")
    with pytest.raises(RunFailed, match=r"lm-eval task 'echoes' failed .*no such data"):
        run_lm_eval_task("echoes", Echo(), include_path=folder)


def test_rolling_likelihood_is_that_of_the_text_after_nothing():
    request = SimpleNamespace(args=("four",))
    assert HarnessLM(Echo()).loglikelihood_rolling([request]) == [-4.0]
