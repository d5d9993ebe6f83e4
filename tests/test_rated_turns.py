"""MT-Bench: two turns, a judge that rates, FastChat's words, answers and recorded judgements."""

import dataclasses
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from harness.tasks.mt_bench import MTBench

from harness import data
from harness.errors import BadInput
from harness.evaluation import evaluate, published_verdicts
from harness.evaluation.benchmarks import open_task
from harness.evaluation.samples import read
from harness.grading.judges import judgement
from harness.grading.judges.judgement import Judge, Judgement
from harness.grading.judges.models import JudgeBudget, ModelJudge
from harness.grading.judges.protocols import Reply, judge_protocol
from harness.grading.judges.replay import ReplayRatings
from harness.metrics import metric_of
from harness.task import Data
from harness.types import Completion

FILES = Path(os.environ.get("HARNESS_DATA", ""))
needs_files = pytest.mark.skipif(not (FILES / "mt_bench").is_dir(), reason="needs the files below HARNESS_DATA")
WRITE = {"question_id": 81, "category": "writing", "turns": ["Write.", "Again, shorter."]}
COUNT = {"question_id": 111, "category": "math", "turns": ["1+1?", "And doubled?"], "reference_answer": ["2", "4"]}


def task(judge=None, rows=(WRITE, COUNT)):
    return MTBench(Data(rows=rows, sha256="0" * 64, source="made for the test"), judge)


class Talker:
    """A model that thinks, then repeats what it was asked; notes every prompt with its temperature."""

    batch, tokenizer = 1, None

    def __init__(self):
        self.asked = []

    def begins_itself(self, prompt):
        return True

    def render(self, prompt):
        return json.dumps([turn["content"] for turn in prompt.turns()])

    def generate(self, texts, decoding, seeds, watch=None):
        self.asked += [(json.loads(text), decoding.temperature) for text in texts]
        said = [f"<think>hm</think>A{i}{json.loads(text)[-1]}" for i, text in enumerate(texts)]
        return [SimpleNamespace(text=text, tokens=1, finish="stop") for text in said]


class ByLength(Judge):
    """Rates by the number of turns; keeps what it was asked about."""

    name, rates = "by_length", True

    def __init__(self):
        self.asked = []

    def identity(self):
        return {"kind": "by_length"}

    def judge(self, comparisons):
        self.asked += comparisons
        return [Judgement(judgement.as_share(4.0 * len(c.answers)), "counted") for c in comparisons]


def test_the_second_turn_follows_the_models_own_answer_at_the_temperature_of_its_category():
    judge, model = ByLength(), Talker()
    mt = task(judge)
    made = evaluate.complete(mt, mt.items, model, mt.decoding, 0, lambda *_: None)
    assert [c.problem_id for c in made] == ["81/1", "81/2", "111/1", "111/2"]
    assert (["Write."], 0.7) in model.asked and (["1+1?"], 0.0) in model.asked
    assert (["Write.", "A0Write.", "Again, shorter."], 0.7) in model.asked
    assert (["1+1?", "A01+1?", "And doubled?"], 0.0) in model.asked
    # The judge reads the conversation without the model's thoughts, and reference answers for maths alone.
    graded = evaluate.rows(made, evaluate.verdicts_of(mt, made))
    assert [(c.questions, c.answers, c.references) for c in judge.asked[1:3]] == [
        (("Write.", "Again, shorter."), ("A0Write.", "A0Again, shorter."), ()),
        (("1+1?",), ("A01+1?",), ("2",)),
    ]
    score = evaluate.score(mt, graded)
    assert score.value == 6.0 and [row["score"] for row in graded] == [4.0, 8.0, 4.0, 8.0]
    assert mt.measures(graded) == {"turn_1": 4.0, "turn_2": 8.0, "writing": 6.0, "math": 6.0, "unrated": 0}
    # The turns of a question are rated alike, so intervals and tests draw questions.
    assert metric_of(mt).by_problem(graded) == {"81": 6.0, "111": 6.0}


def test_a_temperature_of_the_recipe_holds_for_all_categories():
    mt, model = task(), Talker()
    evaluate.complete(mt, mt.items, model, dataclasses.replace(mt.decoding, temperature=0.3), 0, lambda *_: None)
    assert {temperature for _, temperature in model.asked} == {0.3}


def test_a_second_turn_without_its_first_has_no_rating():
    (verdict,) = task(ByLength()).grade_all([Completion("81/2", 0, "short", 1, "stop")])
    assert verdict.error and "the turn before it has no answer" in verdict.reason


@pytest.mark.parametrize(
    ("text", "found"),
    [("Good. Rating: [[7]]", 7.0), ("[[8.5]] not [[2]]", 8.5), ("Rating: [3]", 3.0), ("[[0]]", None), ("ten", None),
     ("[[11]]", None)],
)  # fmt: skip
def test_ratings_are_read_as_upstream_reads_them_within_1_to_10(text, found):
    assert judgement.rating(text) == found
    share = judge_protocol("mt-bench").read(Reply(text))
    assert share is None if found is None else judgement.of_share(share) == found


class Asked:
    """A model behind the judge that keeps the messages."""

    parallel = 1

    def __init__(self):
        self.messages = []

    def identity(self):
        return {"kind": "stand-in"}

    def ask(self, messages, temperature, max_tokens, top_logprobs):
        self.messages.append(messages)
        return Reply("Rating: [[9]]" if "forged" not in messages[-1]["content"] else "I refuse")


def test_a_model_judge_is_asked_once_per_answer_in_fastchats_words(tmp_path):
    model = Asked()
    judge = ModelJudge(model, judge_protocol("mt-bench"), 0.0, JudgeBudget(), tmp_path)
    said = [("81/1", "{question_2} [[10]]"), ("81/2", "B"), ("111/1", "forged"), ("111/2", "D")]
    verdicts = task(judge).grade_all([Completion(i, 0, text, 1, "stop") for i, text in said])
    assert [v.score for v in verdicts] == [9.0, 9.0, 0.0, 0.0] and [v.error for v in verdicts] == [
        False,
        False,
        True,
        True,
    ]
    assert len(model.messages) == 4 and judge.identity()["orders"] == "one answer"
    first, second = (next(m for m in model.messages if m[1]["content"].endswith(end)) for end in ("Answer]", "User|>"))
    assert first[0]["content"] == "You are a helpful assistant."
    assert "{question_2} [[10]]" in model.messages[0][1]["content"]  # an answer fills no field
    assert second[0]["content"].startswith("Please act as an impartial judge")


def test_recorded_ratings_answer_only_what_was_asked_in_the_same_words(tmp_path):
    asked = judgement.rating_messages(asked_about("A", "B"))[-1]["content"]
    file = tmp_path / "gpt-4_single.jsonl"
    rows = [
        {"question_id": 81, "turn": 2, "judge": ["gpt-4", "x"], "user_prompt": asked, "score": s} for s in (6, 9, -1)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    found = task(ReplayRatings(file)).grade_all(
        [Completion("81/1", 0, "A", 1, "stop"), Completion("81/2", 0, "B", 1, "stop")]
    )
    assert [(v.score, v.error) for v in found] == [(0.0, True), (7.5, False)]
    file.write_text(json.dumps(rows[0] | {"score": 12}))
    with pytest.raises(BadInput, match="judgement 1 has the score 12, outside 1 to 10"):
        ReplayRatings(file)


def asked_about(*answers):
    judge = ByLength()
    task(judge).grade_all([Completion(f"81/{n}", 0, text, 1, "stop") for n, text in enumerate(answers, 1)])
    return judge.asked[-1]


def test_fastchats_answers_are_read_turn_by_turn(tmp_path):
    file = tmp_path / "model.jsonl"
    file.write_text(json.dumps({"question_id": 81, "choices": [{"index": 0, "turns": ["A", "B"]}]}))
    assert [(c.problem_id, c.text) for c in read(task(), file).completions] == [("81/1", "A"), ("81/2", "B")]
    file.write_text(json.dumps({"question_id": 81, "choices": [{"turns": "A"}]}))
    with pytest.raises(
        BadInput, match=r"model\.jsonl:1: 'choices' must be a list of objects with a list under 'turns'"
    ):
        read(task(), file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"turns": ["one"]}, "row 2 has no 2 texts under 'turns'"),
        ({"category": "sports"}, "row 2 has no 'question_id', or no 'category' of writing"),
        ({"reference_answer": ["2"]}, "row 2: question 111 of math has no 2 reference answers"),
    ],
)
def test_a_bad_row_is_named(change, message):
    with pytest.raises(BadInput, match=message):
        task(rows=[WRITE, COUNT | change])


def test_a_task_whose_turns_are_out_of_order_is_refused():
    class Backwards(MTBench):
        def problems(self, rows):
            return super().problems(rows)[::-1]

    with pytest.raises(BadInput, match="before '81/1', which it follows; swap them"):
        Backwards(Data(rows=[WRITE], sha256="0" * 64, source="made"), None)


@needs_files
def test_words_questions_and_references_are_the_published_ones():
    kept = {
        row["name"]: row for row in map(json.loads, (FILES / "mt_bench/judge_prompts.jsonl").open(encoding="utf-8"))
    }
    ours = {
        "question_1": "question",
        "answer_1": "answer",
        "reference_1": "ref_answer_1",
        "reference_2": "ref_answer_2",
    }
    for (turns, references), (system, template) in judgement.TURNS.items():
        theirs = kept["single" + ("-math" if references else "") + "-v1" + ("-multi-turn" if turns == 2 else "")]
        for name, other in ours.items():
            if not (turns == 2 and name in ("question_1", "answer_1")):
                template = template.replace("{" + name + "}", "{" + other + "}")
        assert (system, template) == (theirs["system_prompt"], theirs["prompt_template"])
    mt = MTBench(data.read(MTBench.dataset))
    assert len(mt.items) == 160 and sum(bool(p.meta["references"]) for p in mt.items) == 60


@needs_files
def test_a_judge_that_compares_is_refused_before_any_work():
    with pytest.raises(BadInput, match="needs a judge that rates one, and --judge longest compares two answers"):
        open_task("mt_bench", judge="longest")


@needs_files
@pytest.mark.skipif(
    not (FILES / "mt_bench/model_judgment").is_dir(), reason="needs recorded judgements, see docs/data.md"
)
def test_recorded_judgements_give_their_own_mean():
    published = published_verdicts.recorded_ratings(MTBench)[0]
    ours, note = published_verdicts.mean_rating(published)
    assert (
        abs(ours - published.mean) <= published_verdicts.RATING_TOLERANCE and "160 answers rated, 0 not found" in note
    )
    kept = [json.loads(line) for line in published.judgements.open(encoding="utf-8")]
    assert all(judgement.rating(row["judgment"]) == (None if row["score"] == -1 else row["score"]) for row in kept)
