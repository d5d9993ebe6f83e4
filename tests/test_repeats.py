"""avg@k, pass@k and maj@k against values worked out by hand."""

from math import comb

import pytest

from harness.evaluation.benchmarks import open_task
from harness.metrics import majority, repeated
from harness.types import Completion


def rows(*problems):
    """One list per problem of (score, extracted)."""
    return [
        {"problem_id": str(i), "sample": k, "score": float(score), "extracted": extracted, "error": False}
        for i, samples in enumerate(problems)
        for k, (score, extracted) in enumerate(samples)
    ]


def strings(answers):
    return [None if answer is None else hash(answer) for answer in answers]


def test_one_sample_has_no_further_figures():
    assert repeated(rows([(1, "2")], [(0, "3")])) == {} and repeated([]) == {}


def test_pass_at_k_is_the_unbiased_estimator():
    found = repeated(rows([(1, "a"), (0, "b"), (0, "b"), (0, "b")], [(1, "a")] * 2 + [(0, "b")] * 2))
    assert found["samples"] == 4 and found["avg@4"] == pytest.approx((0.25 + 0.5) / 2)
    assert found["pass@1"] == pytest.approx(found["avg@4"])
    assert found["pass@2"] == pytest.approx((1 - comb(3, 2) / comb(4, 2) + 1 - comb(2, 2) / comb(4, 2)) / 2)
    assert found["pass@4"] == 1.0


def test_uneven_samples_are_counted_to_the_fewest():
    found = repeated(rows([(1, "a")] * 3, [(0, "b"), (1, "a")]))
    assert found["samples"] == 2 and found["pass@2"] == 1.0 and found["avg@2"] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("samples", "vote"),
    [
        ([(1, "2"), (1, "2"), (0, "3")], 1.0),
        ([(1, "2"), (0, "3"), (0, "3")], 0.0),
        ([(1, "2"), (0, "3")], 0.5),
        ([(1, "2"), (0, "3"), (0, "4")], pytest.approx(1 / 3)),
        ([(0, None), (0, None), (1, "2")], 1.0),
        ([(0, None), (0, None)], 0.0),
    ],
)
def test_the_majority_votes_with_answers_and_shares_ties(samples, vote):
    assert majority(rows(samples), strings) == vote


def test_maths_votes_over_verified_classes_not_over_strings():
    task = open_task("amc23@micro")
    problem = task.items[0]
    gold = int(problem.reference.text)
    texts = [
        f"\\boxed{{{gold}}}",
        f"\\boxed{{\\frac{{{2 * gold}}}{{2}}}}",
        *["\\boxed{-77}"] * 2,
        f"\\boxed{{{gold}.0}}",
    ]
    completions = [Completion(problem.id, k, text, 1, "stop") for k, text in enumerate(texts)]
    graded = [
        {"problem_id": v.problem_id, "score": v.score, "extracted": v.extracted, "error": v.error}
        for v in task.grade_all(completions)
    ]
    found = task.measures(graded)
    assert [row["score"] for row in graded] == [1, 1, 0, 0, 1]
    assert found["maj@5"] == 1.0 and found["avg@5"] == pytest.approx(0.6) and found["pass@5"] == 1.0
