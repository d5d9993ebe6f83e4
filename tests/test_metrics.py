"""Scales: a metric's range, unit and direction reach records, intervals, ranks, comparisons, figures and pages."""

import json
import math
import re

import numpy as np
import pytest
from sample_records import make_record, make_rows

from harness import metrics
from harness.cli import main
from harness.errors import BadInput, RunFailed
from harness.evaluation import evaluate
from harness.evaluation.benchmarks import locate
from harness.leaderboard import text_tables
from harness.leaderboard.compare import compare
from harness.leaderboard.table import leaderboard
from harness.metrics import LEFT_OUT, PERCENT, WRONG, Metric, Scale
from harness.records import record as records
from harness.records.store import Store
from harness.reports.board import formatting, pages, site
from harness.reports.plots import pareto
from harness.stats import intervals
from harness.task import Data
from harness.types import Completion

NATS = Scale(0, math.inf, "nats", digits=3, higher_is_better=False)
RATING = Scale(1, 10, digits=2)
ROUGE = Scale(0, 1, "ROUGE-L", times=100)
ALL = (PERCENT, NATS, RATING, ROUGE, Scale(-math.inf, 0), Scale(-5, 5, "dB"))

# Values of twelve problems: the first method is better on each scale.
VALUES = {
    NATS: {"kd": np.linspace(0.2, 0.75, 12), "gkd": np.linspace(0.5, 1.6, 12)},
    RATING: {"kd": np.linspace(4.0, 9.5, 12), "gkd": np.linspace(3.0, 7.4, 12)},
    ROUGE: {"kd": np.linspace(0.3, 0.8, 12), "gkd": np.linspace(0.2, 0.6, 12)},
}


def store_of(folder, scale):
    """Two methods with two seeds each, measured on a scale of their own."""
    store = Store(folder / "results")
    for method, values in VALUES[scale].items():
        for seed in (0, 1):
            scores = tuple(float(v) for v in values + 0.02 * seed)
            card = {"errors_count_as": LEFT_OUT} | scale.card()
            card["by_problem"] = {f"p{i}": score for i, score in enumerate(scores)}
            ends = [float(min(scores)), float(max(scores))]
            record = make_record(
                method, "chat", seed, scores, metric="own", metric_card=card, interval=ends, world="real", family="chat"
            )
            store.add(record, make_rows(scores))
    return store


@pytest.mark.parametrize("scale", ALL)
def test_a_scale_survives_its_record(scale):
    record = json.loads(json.dumps({"metric": "own", "metric_card": scale.card()}, allow_nan=False))
    assert metrics.scale_of(record) == scale
    assert metrics.of_record(record | {"metric_card": record["metric_card"]}).scale == scale


def test_older_records_are_shares_printed_times_100():
    assert metrics.scale_of({"metric": "accuracy"}) == PERCENT
    old = {"metric": "best@n", "metric_card": {"errors_count_as": WRONG, "unit": "", "by_problem": {"0": 0.5}}}
    assert metrics.scale_of(old) == Scale(0, 1, times=100)


@pytest.mark.parametrize(
    "scale, value, text, signed, caption",
    [
        (PERCENT, 0.405, "40.5", "+40.5", "percent"),
        (RATING, 7.5, "7.50", "+7.50", "from 1 to 10"),
        (ROUGE, 0.3817, "38.2", "+38.2", "ROUGE-L"),
        (NATS, 1.23456, "1.235", "+1.235", "nats, lower is better"),
    ],
)
def test_how_a_scale_prints(scale, value, text, signed, caption):
    assert (scale.text(value), scale.signed(value), scale.caption) == (text, signed, caption)
    assert scale.signed(-value) == signed.replace("+", "-") and float(scale.signed(value * 1e-9)) == 0
    assert scale.signed(-value * 1e-9) == f"{0:.{scale.digits}f}"


@pytest.mark.parametrize("value", [True, None, "0.5", math.nan, math.inf, -math.inf, 10**400])
def test_what_no_bounded_scale_holds(value):
    assert not any(scale.holds(value) for scale in (PERCENT, RATING, ROUGE))
    assert value == 10**400 or not NATS.holds(value)


def test_the_ends_belong_to_a_scale():
    assert all(scale.holds(end) for scale in ALL for end in (scale.low, scale.high) if math.isfinite(end))
    assert not RATING.holds(0.99) and not RATING.holds(10.01) and not NATS.holds(-1e-9) and NATS.holds(1e9)


def test_the_better_of_two_values():
    assert RATING.gain(8, 7) == 1 and NATS.gain(8, 7) == -1
    assert sorted((2, 3, 1), key=NATS.place) == [1, 2, 3] and sorted((2, 3, 1), key=RATING.place) == [3, 2, 1]
    assert RATING.worst == 1 and NATS.worst == math.inf


# -- contract ----------------------------------------------------------------------------------------------------------

TASK = """
import math
import random

import numpy as np

from harness.errors import BadInput
from harness.metrics import LEFT_OUT, WRONG, Metric, Scale
from harness.task import Dataset, Task
from harness.types import Decoding, Problem, Prompt, Verdict


class Own(Metric):
    name = "own"
    {metric}


class Chat(Task):
    name, version, family, metric = "chat", "1", "chat", "own"
    dataset = Dataset("chat.jsonl", "me/chat", "0" * 40, "chat.jsonl", "0" * 64, n=3)

    def problems(self, rows):
        return [Problem(str(i), Prompt(user="q", plain="q"), None) for i, _ in enumerate(rows)]

    def grade(self, problem, text):
        return Verdict(problem.id, 0, {score}, "graded", error={error})
"""


def task_of(folder, metric, score="7.0", error="False"):
    (folder / "chat.py").write_text(TASK.format(metric=metric, score=score, error=error))
    found, _ = locate(str(folder / "chat.py"))
    return found(Data([{}] * 3, "0" * 64, "test"))


def graded(task):
    completions = [Completion(p.id, 0, "text", 1, "stop") for p in task.items]
    return evaluate.rows(completions, task.verdicts(completions))


def test_a_rating_task_is_graded_on_its_scale(tmp_path):
    task = task_of(tmp_path, "scale = Scale(1, 10, digits=2)")
    score = evaluate.score(task, graded(task))
    assert score.value == 7.0 and 1 <= score.interval[0] < 7 < score.interval[1] <= 10
    assert score.metric_card["range"] == [1, 10] and score.metric_card["by_problem"] == {"0": 7.0, "1": 7.0, "2": 7.0}


@pytest.mark.parametrize("score", ["0.5", "11.0", "True", "None", "float('nan')", "'7'"])
def test_a_verdict_off_the_scale_is_refused_with_its_place(tmp_path, score):
    with pytest.raises(RunFailed, match=r"chat\.py:\d+: grade of task chat gave the score .*(from 1 to 10|float)"):
        graded(task_of(tmp_path, "scale = Scale(1, 10)", score))


def test_errors_are_the_worst_value_or_left_out(tmp_path):
    task = task_of(tmp_path, "scale = Scale(1, 10)", "0.0 if problem.id == '0' else 7.0", "problem.id == '0'")
    assert evaluate.score(task, graded(task)).value == 5.0  # 1, 7, 7
    task = task_of(
        tmp_path,
        "scale, errors_count_as = Scale(0, math.inf, 'nats', higher_is_better=False), LEFT_OUT",
        "0.0 if problem.id == '0' else 7.0",
        "problem.id == '0'",
    )
    assert evaluate.score(task, graded(task)).value == 7.0


@pytest.mark.parametrize(
    "metric, said",
    [
        ("scale = Scale(1, 1)", "low must be below high"),
        ("scale = Scale(0, 1, times=0)", "low must be below high, and times a positive number"),
        ("scale = Scale('0', 1)", "low must be below high"),
        ("scale = Scale(0, 1, 5)", "its unit is text"),
        ("scale = Scale(0, 1, digits=1.5)", "digits a whole number"),
        ("scale = (0, 1)", r"Scale\(low, high, unit\) is wanted"),
        (
            "scale = Scale(0, math.inf, higher_is_better=False)",
            "no worst value for errors; set errors_count_as = LEFT_OUT",
        ),
        ("errors_count_as = 'ignored'", "is one of"),
    ],
)
def test_a_metric_that_breaks_its_contract_is_refused_before_any_work(tmp_path, metric, said):
    with pytest.raises(BadInput, match=rf"chat\.py:\d+: \w+ of metric own .*{said}"):
        task_of(tmp_path, metric)


@pytest.mark.parametrize(
    "metric, said",
    [
        (
            "def aggregate(self, problems): return 0.0",
            "aggregate of metric own gave 0.0; a number from 1 to 10 is wanted",
        ),
        ("def aggregate(self, problems): return None", "aggregate of metric own gave None"),
        ("def aggregate(self, problems): return 1 / 0", "ZeroDivisionError"),
        ("def aggregate(self, problems): return 10**400", "aggregate of metric own gave 1000"),
        ("def aggregate(self): return 2.0", r"aggregate\(\) takes 1 positional argument"),
        ("def of_problem(self, scores): max(scores)", "of_problem of metric own gave None"),
        ("def of_problem(self, scores): return all(scores)", r"gave True; .* is wanted: float\(\.\.\.\)"),
        ("def of_problem(self, scores): return 1 + 9 * random.random()", "two results for the same scores; seed what"),
        ("def of_problems(self, scores): return max(scores)", "did you mean of_problem"),
        ("def value(self, problems): return 2.0", "value is no part of a metric, and nothing calls it; the parts"),
        (
            "def interval(self, problems): return 1, 2",
            r"gave a tuple of 2; \(low, high, its method",
        ),
        ("def interval(self, problems): return 9, 1, 'mine'", "gave 9 to 1; two numbers in order are wanted"),
        ("def interval(self, problems): return math.nan, 9, 'mine'", "two numbers in order are wanted"),
        ("def interval(self, problems): return 9.5, 9.9, 'mine'", "around the score .*, which lies outside"),
        ("def interval(self, problems): return 1, 9, None", "names its method None"),
        ("def __init__(self, k): self.k = k", "a metric is made without arguments"),
        ("class Scale: pass\n    scale = Scale()", r"Scale\(low, high, unit\) is wanted"),
        ("right_from = 'high'", "right_from of metric own is 'high'"),
        ("pass\n\nclass Again(Metric):\n    name = 'own'", r"metric 'own' is also at .*chat\.py:\d+; give one of them"),
    ],
)
def test_a_metric_is_tried_before_any_work(tmp_path, metric, said):
    with pytest.raises(BadInput, match=rf"chat\.py:\d+: .*{said}"):
        task_of(tmp_path, f"scale = Scale(1, 10)\n    {metric}")


def test_a_metric_of_the_name_of_one_that_ships_is_refused(tmp_path):
    (tmp_path / "chat.py").write_text(TASK.format(metric="", score="1.0", error="False").replace('"own"', '"accuracy"'))
    with pytest.raises(BadInput, match=r"chat\.py:\d+: metric 'accuracy' is also a metric that ships"):
        locate(str(tmp_path / "chat.py"))


@pytest.mark.parametrize(
    "metric, said",
    [
        (
            "def by_problem(self, rows): return [1.0]",
            "by_problem of metric own gave a list of 1; a dict of",
        ),
        ("def by_problem(self, rows): return {'0': 11.0}", "by_problem of metric own gave 11.0; a number from 1 to 10"),
        ("def by_problem(self, rows): return {}", "by_problem of metric own kept none of 3 verdicts"),
        ("def by_problem(self, rows): rows[0]['score'] = 9.0", "does not support item assignment"),
        ("def counted(self, rows): pass", "counted of metric own gave None; a list of some of the graded rows"),
        ("def of_problem(self, scores): return 0.0 if 7.0 in scores else 5.0", "of_problem of metric own gave 0.0"),
    ],
)
def test_what_a_metric_makes_of_the_verdicts_is_checked(tmp_path, metric, said):
    task = task_of(tmp_path, f"scale = Scale(1, 10)\n    {metric}")
    with pytest.raises(RunFailed, match=rf"chat\.py:\d+: .*{said}"):
        evaluate.score(task, graded(task))


def test_numpys_numbers_are_numbers(tmp_path):
    task = task_of(tmp_path, "scale = Scale(1, 10)\n    def of_problem(self, scores): return np.float32(max(scores))")
    card = evaluate.score(task, graded(task)).metric_card
    assert card["by_problem"] == {"0": 7.0, "1": 7.0, "2": 7.0} and json.dumps(card)


def test_a_score_that_is_no_mean_has_its_own_interval_and_no_test_between_rows(tmp_path):
    """The least of the problems: an interval of their mean would not hold it, nor a test of means speak of it."""
    score = "float(problem.id) + 1"
    task = task_of(tmp_path, "scale = Scale(1, 10)\n    def aggregate(self, problems): return min(problems)", score)
    worst = evaluate.score(task, graded(task))
    assert worst.value == 1.0 and worst.interval[0] == 1.0 < worst.interval[1] <= 3.0
    assert worst.metric_card["mean"] is False and worst.interval_method == "bootstrap over items"

    store = Store(tmp_path / "results")
    for method, low in (("kd", 1.0), ("gkd", 2.0)):
        for seed in (0, 1):
            record = make_record(
                method, "chat", seed, (low, 5.0, 9.0), metric="own", score=low + seed / 10, interval=[low, low + 1],
                metric_card=worst.metric_card | {"by_problem": {"p0": low, "p1": 5.0, "p2": 9.0}}, world="real",
                family="chat",
            )  # fmt: skip
            store.add(record, make_rows((low, 5.0, 9.0)))
    (section,) = leaderboard(store.all()[0], None, store.completions)
    best = section.rows[0]
    assert best.label == "gkd" and best.low <= best.score == 2.05 <= best.high and section.rows[1].tied
    assert any("own is no mean over problems, so no difference" in note for note in section.notes)
    with pytest.raises(BadInput, match="own is no mean over problems, and only means are compared"):
        compare(store.all()[0], "kd", "gkd", ["chat"], store.completions)


def test_a_record_off_its_scale_is_no_record(tmp_path):
    store = store_of(tmp_path, RATING)
    (path, *_) = sorted(store.records_dir.rglob("*.json"))
    for change in ({"score": 10.5}, {"interval": [0.5, 3]}, {"metric_card": None}):
        made = json.loads(path.read_text()) | change
        if change == {"metric_card": None}:
            del made["metric_card"]  # then its scores are shares
        made["content_sha256"] = records.content_hash(made)
        (tmp_path / "odd.json").write_text(json.dumps(made))
        found, fault = records.examine(tmp_path / "odd.json", tmp_path)
        assert found is None and "outside its range" in fault
        with pytest.raises(RunFailed, match="does not fit its schema"):
            records.validate(made | {"score": "x"})
    made["score"] = 1.5
    with pytest.raises(RunFailed, match=r"\$\.score: 1\.5 is greater"):
        records.validate(made | {"interval": [0.0, 1.0]})


# -- intervals and tests -----------------------------------------------------------------------------------------------


def test_an_interval_moves_with_its_scale():
    shares = np.random.default_rng(0).beta(2, 3, (3, 60))
    low, high = intervals.mean_interval(shares)
    moved = intervals.mean_interval(1 + 9 * shares, limits=(1, 10))
    assert moved == pytest.approx((1 + 9 * low, 1 + 9 * high))
    seeds = intervals.pooled_seed_variance([shares])
    low, high = intervals.mean_interval(shares, seeds=seeds)
    again = intervals.mean_interval(1 + 9 * shares, seeds=seeds.scaled(9), limits=(1, 10))
    assert again == pytest.approx((1 + 9 * low, 1 + 9 * high))


@pytest.mark.parametrize("seeds", [1, 3])
def test_intervals_without_ends_hold_their_level(seeds):
    rng, inside, runs = np.random.default_rng(1), 0, 400
    for _ in range(runs):
        scores = rng.gamma(2.0, 0.5, 60) + rng.normal(0, 0.1, (seeds, 60)) + 1
        low, high = intervals.mean_interval(scores, limits=(0.0, math.inf))
        inside += low <= 2.0 <= high
    assert 0.91 < inside / runs < 0.985


def test_intervals_are_cut_at_the_ends_and_empty_where_nothing_varies():
    low, high = intervals.mean_interval([0.0, 0.0, 0.0, 0.0, 4.0], limits=(0.0, math.inf))
    assert 0 <= low < 0.8 < high
    assert intervals.mean_interval([2.0] * 9, limits=(0.0, math.inf)) == (2.0, 2.0)
    assert intervals.mean_interval([2.0], limits=(0.0, math.inf)) == (2.0, 2.0)


def test_a_difference_is_cut_at_the_width_of_the_scale():
    a, b = np.zeros((2, 6)), np.array([[9, 9, 0, 0, 9, 9], [0, 9, 9, 9, 0, 9.0]])
    assert intervals.compare(a, b, width=9).interval.high <= 9
    assert intervals.compare(a, b, width=math.inf).interval.high >= intervals.compare(a, b, width=9).interval.high
    assert intervals.compare(a, b).interval.high == 1.0


# -- tables, comparisons, figures, pages -------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", VALUES)
@pytest.mark.parametrize("paired", [True, False])
def test_the_better_method_stands_first(tmp_path, scale, paired):
    store = store_of(tmp_path, scale)
    (section,) = leaderboard(store.all()[0], None, store.completions if paired else None)
    assert [row.method for row in section.rows] == ["kd", "gkd"] and [row.rank for row in section.rows] == [1, 2]
    for row in section.rows:
        assert scale.low <= row.low < row.score < row.high <= scale.high
    assert [row.method for row in pareto.frontier(section.rows, "seconds")] == ["kd"]


@pytest.mark.parametrize(
    "scale, expected",
    [
        (NATS, ["own, nats, lower is better, 12 problems", "| **0.485** |", "completions"]),
        (RATING, ["own, from 1 to 10, 12 problems", "| **6.76"]),
        (ROUGE, ["own, ROUGE-L, 12 problems", "| **56.0**", "completions"]),
    ],
)
def test_a_table_states_the_scale(tmp_path, scale, expected, capsys):
    store = store_of(tmp_path, scale)
    assert main(["table", "--results", str(store.root)]) == 0
    text = capsys.readouterr().out
    assert all(part in text for part in expected), text
    assert ("correct/total" in text) == scale.counts
    assert main(["table", "--results", str(store.root), "--layout", "grid"]) == 0
    text = capsys.readouterr().out
    assert "score ± half of the 95 % interval" in text and f"chat: own ({scale.caption}), 12 problems" in text
    assert main(["table", "--results", str(store.root), "--format", "json"]) == 0
    (row, _) = json.loads(capsys.readouterr().out)
    assert (row["unit"], row["higher_is_better"]) == (scale.unit, scale.higher_is_better)
    assert row["score"] == pytest.approx(VALUES[scale]["kd"].mean() + 0.01)


def test_a_comparison_knows_the_direction(tmp_path, capsys):
    store = store_of(tmp_path, NATS)
    assert main(["compare", "kd", "gkd", "--task", "chat", "--results", str(store.root)]) == 0
    text = capsys.readouterr().out
    assert "gkd is worse than kd by 0.575 nats [95 %" in text and "1.060 against 0.485, lower is better" in text
    assert main(["compare", "gkd", "kd", "--task", "chat", "--results", str(store.root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "kd is better than gkd by 0.575 nats" in json.dumps(found, ensure_ascii=False)


def test_numbers_with_half_their_interval():
    assert text_tables.spread(7.5, 7.0, 8.0, RATING) == "7.50 ±0.50"
    assert text_tables.spread(9.8, 9.0, 10.0, RATING) == "9.80 (9.00–10.00)"
    assert text_tables.spread(0.1, 0.0, 0.4, NATS) == "0.100 (0.000–0.400)"
    assert text_tables.spread(0.5, 0.4, 0.6) == "50.0 ±10.0"


@pytest.mark.slow
@pytest.mark.parametrize("scale", VALUES)
def test_figures_and_pages_are_drawn_on_the_scale(tmp_path, scale):
    store = store_of(tmp_path, scale)
    best = scale.text(VALUES[scale]["kd"].mean() + 0.01)
    for kind in ("scores", "pareto"):
        out = tmp_path / f"{kind}.svg"
        assert main(["plot", "--results", str(store.root), "--kind", kind, "--theme", "auto", "--out", str(out)]) == 0
        assert ("lower is better" in out.read_text()) != scale.higher_is_better
    assert best in (tmp_path / "scores.svg").read_text()
    site.build(store, tmp_path / "board", [])
    (page,) = (tmp_path / "board/tasks").glob("*.html")
    front = page.read_text()
    assert f">{best}" in front and scale.caption in front and "in percent" not in front
    assert ('aria-sort="ascending"' in front) != scale.higher_is_better
    (pair,) = (tmp_path / "board/data").glob("pairs-*.js")
    assert pages.unpacked(pair.read_bytes())["scale"]["digits"] == scale.digits
    (page, *_) = sorted((tmp_path / "board/runs").glob("*.html"))
    assert not re.search(r"\b(nan|inf)\b", page.read_text().lower())


@pytest.mark.parametrize("scale", ALL)
def test_axes_have_round_ends_and_few_ticks(scale):
    rng = np.random.default_rng(2)
    low, high = max(scale.low, -50.0), min(scale.high, 50.0)
    for _ in range(50):
        values = rng.uniform(low, high, 4) if rng.random() < 0.8 else np.full(4, rng.uniform(low, high))
        axis = formatting.axis(values, scale)
        assert scale.low <= axis["low"] <= min(values) + 1e-9 and max(values) - 1e-9 <= axis["high"] <= scale.high
        assert 2 <= len(axis["ticks"]) <= 7 and axis["low"] < axis["high"]
        assert all(float(text) == pytest.approx(scale.shown(tick), abs=1e-6) for tick, text in axis["ticks"])


def test_a_metric_is_shown_with_its_scale(capsys):
    assert main(["show", "metric", "win_rate", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert "[0.0, 1.0]" in json.dumps(shown) and "left out" in json.dumps(shown)


def test_shipped_metrics_are_percentages():
    others = {"rougeL", "rating_of_turns"}  # a mean of overlaps from 0 to 100, and of ratings from 1 to 10
    assert {cls().scale for name, cls in metrics.SHIPPED.items() if name not in others} == {Metric.scale} == {PERCENT}
