"""lm-eval's own tasks from the command line to a record."""

import json

import pytest
from openai_stub import serving
from test_lm_eval_adapter import CHOOSE, DOCUMENTS, GENERATE

from harness.cli import main
from harness.errors import BadInput
from harness.evaluation.benchmarks import open_task


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "lm").mkdir()
    (tmp_path / "lm/echoes.yaml").write_text(GENERATE)
    (tmp_path / "lm/choices.yaml").write_text(CHOOSE)
    (tmp_path / "lm/documents.py").write_text(DOCUMENTS)
    return tmp_path / "lm"


def test_lm_eval_tasks_make_records(folder, models, tmp_path, capsys):
    words = ["run", "--method", "untouched", "--recipe", "micro", "--student", str(models[0]), "--json"]
    tasks = ["--task", f"lm_eval:{folder}/choices", "--task", f"lm_eval:{folder}/echoes"]
    assert main([*words, *tasks, "--results", str(tmp_path / "results")]) == 0
    chosen, echoed = json.loads(capsys.readouterr().out)["records"]
    assert chosen["task"] == "lm_eval:choices" and chosen["counts"]["total"] == 3
    assert 0 <= chosen["score"] <= 1 and chosen["score"] == chosen["counts"]["correct"] / 3
    assert chosen["protocol"]["grader"]["engine"] == "lm-eval" and chosen["protocol"]["dataset"]["n"] == 3
    assert echoed["task"] == "lm_eval:echoes" and echoed["score"] == 0
    assert (chosen["first_prompt"], echoed["first_prompt"]) == ("a?", "say a")
    assert echoed["protocol"]["decoding"]["max_new_tokens"] == 5
    assert chosen["protocol"]["hash"] != echoed["protocol"]["hash"]
    rows = (tmp_path / "results" / chosen["completions"]["file"]).read_text().splitlines()
    assert json.loads(rows[0])["reason"].startswith("acc by lm-eval")

    assert main([*words, *tasks[:2], "--results", str(tmp_path / "results")]) == 0
    assert json.loads(capsys.readouterr().out)["records"][0]["reused"]
    assert main(["table", "--results", str(tmp_path / "results")]) == 0
    assert "eval:choices" in capsys.readouterr().out


def test_limits_and_mistakes(folder):
    with pytest.raises(BadInput, match="unknown lm-eval task 'choises'; did you mean choices"):
        open_task(f"lm_eval:{folder}/choises")
    with pytest.raises(BadInput, match="no folder of task files"):
        open_task("lm_eval:nowhere/choices")
    with pytest.raises(BadInput, match="graded by lm-eval during the run"):
        task = open_task(f"lm_eval:{folder}/choices")
        task.grade(task.items[0], "yes")


def test_a_served_model_answers_and_cannot_be_asked_for_likelihoods(folder, tmp_path, capsys):
    words = ["run", "--method", "untouched", "--results", str(tmp_path / "results"), "--json"]
    with serving("500", "garbage") as stub:
        words += ["--student", f"openai:stub@{stub.url}", "--task"]
        assert main([*words, f"lm_eval:{folder}/echoes"]) == 0
        (record,) = json.loads(capsys.readouterr().out)["records"]
        asked = [body["messages"] for body in stub.requests()]
        assert len(asked) == 5 and [{"role": "user", "content": "say a"}] in asked
        assert main([*words, f"lm_eval:{folder}/choices"]) == 2
    assert record["counts"]["total"] == 3 and record["first_prompt"] == 'chat:[{"role": "user", "content": "say a"}]'
    assert "choices scores continuations, which a served model cannot; give a model folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("{}/echos", "unknown lm-eval task 'echos'; did you mean echoes"),
        ("nowhere/echoes", "no folder of task files"),
        ("{}/", "unknown lm-eval task ''"),
    ],
)
def test_a_wrong_name_is_one_line(folder, models, tmp_path, capsys, task, message):
    words = ["run", "--method", "untouched", "--student", str(models[0]), "--results", str(tmp_path / "results")]
    assert main([*words, "--task", f"lm_eval:{task.format(folder)}"]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error


def test_our_maths_tasks_run_from_lm_evals_command_line(models, tmp_path, monkeypatch):
    """Prompts, decoding and verdicts are those of ``harness run``."""
    import harness.tasks.lm_eval as ours
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    data = tmp_path / "data/amc23"
    data.mkdir(parents=True)
    rows = [{"id": i, "problem": f"What is {i} + 1?", "answer": float(i + 1)} for i in range(2)]
    (data / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("HARNESS_DATA", str(data.parent))
    task = open_task("amc23@real")
    said = {task.items[0].prompt.plain: "so \\boxed{1}", task.items[1].prompt.plain: "so 2"}
    from lm_eval.api.model import LM

    class Speaking(LM):
        def generate_until(self, requests):
            assert all(request.args[1]["max_gen_toks"] == task.decoding.max_new_tokens for request in requests)
            stops.append(requests[0].args[1]["until"])
            return [said[request.args[0]] for request in requests]

        loglikelihood = loglikelihood_rolling = None
        tokenizer_name = "me/speaking"

        def chat_template(self, chosen=False):
            return "turns"

        def apply_chat_template(self, turns, add_generation_prompt=True):
            return next(p.prompt.plain for p in task.items if p.prompt.user == turns[-1]["content"])

    stops = []
    manager = TaskManager(include_path=ours.__path__[0], include_defaults=False)
    asked = {"tasks": ["harness_amc23"], "task_manager": manager, "bootstrap_iters": 0}
    simple_evaluate(Speaking(), apply_chat_template=True, **asked)
    found = simple_evaluate(Speaking(), **asked)
    assert stops == [[], ["\n\nProblem:"]]  # a reply in a chat is not cut where a text would be
    assert found["results"]["harness_amc23"]["exact_match,none"] == 0.5
    assert [s["exact_match"] for s in found["samples"]["harness_amc23"]] == [1.0, 0.0]


TWO_FILTERS = """
task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{q}}}}"
doc_to_target: "{{{{a}}}}"
generation_kwargs: {{until: ["Q:"], do_sample: false, max_gen_toks: 8}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
filter_list:
  - name: strict-match
    filter:
      - {{function: regex, regex_pattern: "#### (\\\\d+)"}}
      - {{function: take_first}}
  - name: flexible-extract
    filter:
      - {{function: regex, group_select: -1, regex_pattern: "(\\\\d+)"}}
      - {{function: take_first}}
metadata: {{version: 1.0}}
"""
SAID = ["so 1", "#### 2", "3 or 4", "5", "9", "6 #### 6"]  # strict: 2 of 6; flexible: 4 of 6
WANTED = ["1", "2", "3", "5", "8", "6"]


def test_every_filter_is_a_metric_of_its_own_as_lm_evals_own_command_says(tmp_path, monkeypatch):
    """One row a document; score and filters equal simple_evaluate's with the same answers."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    from harness.evaluation import evaluate

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "docs.jsonl"
    data.write_text("".join(json.dumps({"q": f"Q{i}", "a": a}) + "\n" for i, a in enumerate(WANTED)))
    (tmp_path / "lm").mkdir()
    (tmp_path / "lm/sums.yaml").write_text(TWO_FILTERS.format(data=data))
    said = {f"Q{i}": text for i, text in enumerate(SAID)}
    from lm_eval.api.model import LM

    class Speaking(LM):
        def generate_until(self, requests):
            return [said[request.args[0]] for request in requests]

        loglikelihood = loglikelihood_rolling = None

    manager = TaskManager(include_path=str(tmp_path / "lm"), include_defaults=False)
    theirs = simple_evaluate(Speaking(), tasks=["sums"], task_manager=manager, bootstrap_iters=0)["results"]["sums"]

    class Generator:
        def generate(self, texts, decoding, seeds, watch=None):
            from harness.models.generation_cache import CachedAnswer

            return [
                CachedAnswer(said[text.removeprefix('chat:[{"role": "user", "content": "')[:2]], 1, "stop")
                for text in texts
            ]

    task = open_task(f"lm_eval:{tmp_path}/lm/sums")
    rows, _ = task.measure(Generator(), None, 0)
    score = evaluate.score(task, rows)
    assert score.value == pytest.approx(theirs["exact_match,strict-match"]) == pytest.approx(2 / 6)
    assert score.counts["total"] == 6 and score.counts["correct"] == 2
    from harness.stats.intervals import wilson

    assert score.interval == pytest.approx(wilson(2, 6))
    beside = task.measures(rows)["filters"]
    assert beside["flexible-extract"]["exact_match"] == pytest.approx(theirs["exact_match,flexible-extract"])
    assert beside["flexible-extract"]["exact_match"] == pytest.approx(4 / 6)
    assert beside["strict-match"]["exact_match"] == pytest.approx(2 / 6)
    assert "'strict-match'" in task.extractor and "'flexible-extract'" in task.extractor
    assert task.grader_identity()["score_filter"] == "strict-match"


def test_a_task_with_one_filter_has_no_figures_of_filters(folder):
    task = open_task(f"lm_eval:{folder}/choices")
    assert task.filters == ["none"] and "score_filter" not in task.grader_identity() and task.measures([]) == {}
