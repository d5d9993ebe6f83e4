"""Statistics against closed forms, scipy, published values and simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from harness.stats import intervals as st
from harness.stats.seed_variance import SeedVariance


def coverage(intervals, truth):
    """The share of ``intervals`` [R, 2] that hold ``truth`` (a number or [R]), in percent."""
    low, high = np.asarray(intervals).T
    return 100 * np.mean((low <= truth) & (truth <= high))


# -- Wilson --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        (4, 30, 5.3, 29.7),
        (12, 40, 18.1, 45.4),
        (100, 164, 53.3, 68.1),
        (250, 378, 61.2, 70.7),
        (135, 675, 17.2, 23.2),
    ],
)
def test_wilson_gives_the_published_values(correct, total, low, high):
    assert [round(100 * bound, 1) for bound in st.wilson(correct, total)] == [low, high]


@pytest.mark.parametrize("correct", [0, 1, 17, 29, 30])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_wilson_agrees_with_scipy(correct, level):
    expected = stats.binomtest(correct, 30).proportion_ci(level, method="wilson")
    assert st.wilson(correct, 30, level) == pytest.approx((expected.low, expected.high))


def test_wilson_of_nothing_knows_nothing():
    assert st.wilson(0, 0) == (0, 1)
    with pytest.raises(ValueError, match="not a proportion"):
        st.wilson(5, 4)


@pytest.mark.parametrize("n", [30, 164, 805])
def test_wilson_covers_95_percent_over_the_range_of_scores(n):
    """Exact: summed over the binomial distribution, averaged over true scores."""
    intervals = np.array([st.wilson(c, n) for c in range(n + 1)])
    truths = np.linspace(0.05, 0.95, 181)
    held = (intervals[:, :1] <= truths) & (truths <= intervals[:, 1:])
    exact = (held * stats.binom.pmf(np.arange(n + 1)[:, None], n, truths)).sum(axis=0)
    assert 94.5 < 100 * exact.mean() < 95.6


# -- means that are not proportions --------------------------------------------------------------------------


def test_one_run_of_right_and_wrong_gets_wilson():
    assert st.mean_interval([1, 1, 0, 0, 0, 1, 0]) == st.wilson(3, 7)


def test_the_interval_of_a_mean_is_close_to_students_when_n_is_large():
    scores = np.random.default_rng(0).beta(3, 2, 2000)
    plain = stats.t.interval(0.95, 1999, scores.mean(), stats.sem(scores))
    assert st.mean_interval(scores) == pytest.approx(plain, abs=2e-4)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_scores_all_alike_do_not_give_certainty(value):
    assert st.mean_interval([value] * 30) == st.wilson(30 * value, 30)
    assert st.mean_interval(np.full((3, 30), value)) == st.wilson(30 * value, 30)


@pytest.mark.parametrize("answer", [0.0, 1.0])
def test_a_row_with_one_and_the_same_answer_has_the_interval_of_one_seed(answer):
    """Though other rows of its table tell how far seeds differ."""
    found = st.mean_interval(np.full((3, 150), answer), seeds=SeedVariance(0.001, 8.0))
    assert found == st.wilson(answer * 150, 150, 0.95) and found.low - 1e-12 <= answer <= found.high + 1e-12


def test_the_interval_stays_within_bounds_and_contains_the_mean():
    rng = np.random.default_rng(1)
    for _ in range(200):
        scores = rng.integers(0, 5, size=(rng.integers(1, 4), rng.integers(1, 6))) / 4
        low, high = st.mean_interval(scores)
        assert 0 <= low <= scores.mean() <= high <= 1


@pytest.mark.slow
@pytest.mark.parametrize("n", [30, 164, 805])
@pytest.mark.parametrize("kind", ["avg@32", "avg@4", "win rate"])
def test_intervals_of_averages_cover_95_percent(kind, n):
    rng = np.random.default_rng([n, len(kind)])
    runs = 6000
    if kind == "win rate":  # both orders judged: 0, ¼, ½, ¾, 1
        scores, truth = rng.choice(5, p=(0.1, 0.1, 0.2, 0.2, 0.4), size=(runs, n)) / 4, 0.675
    else:  # ability of a problem beta distributed, k samples of it
        a, b, k = (0.3, 1.0, 32) if kind == "avg@32" else (0.6, 0.4, 4)
        scores, truth = rng.binomial(k, rng.beta(a, b, (runs, n))) / k, a / (a + b)
    assert 94 < coverage([st.mean_interval(row) for row in scores], truth) < 96  # known to ± 0.6 by 6000 runs


# -- seeds and problems --------------------------------------------------------------------------------------


def crossed(rng, seeds, problems, seed_sd, problem_sd=0.15, rest_sd=0.1):
    """Scores around 0.5 with additive effects of seeds and problems."""
    return (
        0.5
        + rng.normal(0, seed_sd, (seeds, 1))
        + rng.normal(0, problem_sd, (1, problems))
        + rng.normal(0, rest_sd, (seeds, problems))
    )


def test_variance_components_are_unbiased():
    rng = np.random.default_rng(2)
    spreads = [st.variance_of_mean(crossed(rng, 4, 40, 0.2)) for _ in range(2000)]
    assert np.mean([s.seeds for s in spreads]) == pytest.approx(0.2**2, rel=0.05)
    assert np.mean([s.problems for s in spreads]) == pytest.approx(0.15**2, rel=0.05)
    assert np.mean([s.rest for s in spreads]) == pytest.approx(0.1**2, rel=0.05)
    true_variance = 0.2**2 / 4 + 0.15**2 / 40 + 0.1**2 / 160
    assert np.mean([s.value for s in spreads]) == pytest.approx(true_variance, rel=0.05)


def test_one_seed_leaves_the_ordinary_standard_error():
    scores = np.random.default_rng(3).random(50)
    spread = st.variance_of_mean(scores)
    assert math.sqrt(spread.value) == pytest.approx(stats.sem(scores))
    assert spread.freedom == 49


def test_samples_are_averaged_within_a_problem_first():
    scores = np.random.default_rng(4).random((2, 20, 8))
    assert st.mean_interval(scores) == st.mean_interval(scores.mean(axis=2))
    assert st.hierarchical_bootstrap(scores) == st.hierarchical_bootstrap(scores.mean(axis=2))


@pytest.mark.parametrize("seed_sd", [0.0, 0.05])
def test_intervals_over_seeds_cover_the_mean_of_all_seeds(seed_sd):
    rng = np.random.default_rng(5)
    runs = [crossed(rng, 4, 60, seed_sd) for _ in range(600)]
    assert 92.5 < coverage([st.mean_interval(scores) for scores in runs], 0.5) < 98
    bootstrap = [st.hierarchical_bootstrap(scores, draws=400) for scores in runs]
    assert 92 < coverage(bootstrap, 0.5) < 98


@pytest.mark.parametrize("seed_sd", [0.0, 0.05])
def test_two_seeds_suffice_when_several_methods_tell_how_seeds_vary(seed_sd):
    rng = np.random.default_rng(13)
    pooled, alone = [], []
    for _ in range(300):
        methods = [crossed(rng, 2, 60, seed_sd) for _ in range(8)]
        seeds = st.pooled_seed_variance(methods)
        assert seeds.freedom == 8
        pooled.append(st.mean_interval(methods[0], seeds=seeds))
        alone.append(st.mean_interval(methods[0]))
    assert 91.5 < coverage(pooled, 0.5) < 98.5
    assert np.diff(pooled).mean() < np.diff(alone).mean()


def test_seeds_cannot_be_pooled_from_single_runs():
    assert st.pooled_seed_variance([[0.1, 0.2], [[1, 0, 1]]]) is None


def test_forgetting_the_seeds_would_claim_too_much():
    scores = crossed(np.random.default_rng(6), 5, 200, 0.1)
    of_one = st.mean_interval(scores.mean(axis=0))
    over_seeds = st.mean_interval(scores)
    assert over_seeds.high - over_seeds.low > 2 * (of_one.high - of_one.low)


def test_the_bootstrap_of_one_run_agrees_with_scipys():
    scores = np.random.default_rng(7).beta(1, 2, 300)
    theirs = stats.bootstrap((scores,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    ours = st.hierarchical_bootstrap(scores, draws=20_000)
    assert ours == pytest.approx((theirs.low, theirs.high), abs=2e-3)


def test_draws_hang_on_the_seed_alone():
    scores = np.random.default_rng(8).random((3, 40))
    assert st.hierarchical_bootstrap(scores, seed=1) == st.hierarchical_bootstrap(scores, seed=1)
    assert st.hierarchical_bootstrap(scores, seed=1) != st.hierarchical_bootstrap(scores, seed=2)


@pytest.mark.parametrize("scores", [[], [0.1, float("nan")], np.zeros((1, 2, 3, 4))])
def test_scores_that_are_none_are_refused(scores):
    with pytest.raises(ValueError, match="finite"):
        st.mean_interval(scores)


# -- pass@k --------------------------------------------------------------------------------------------------


def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample():
    assert st.pass_at_k(5, [0, 2, 5], 1) == pytest.approx([0, 0.4, 1])
    assert st.pass_at_k(5, [2], 3) == pytest.approx([1 - 1 / 10])  # C(3,3) / C(5,3)
    assert st.pass_at_k(20_000, [1], 10_000) == pytest.approx([0.5])  # where the binomials overflow


def test_pass_at_k_is_unbiased():
    rng = np.random.default_rng(9)
    estimates = st.pass_at_k(20, rng.binomial(20, 0.1, 20_000), 5)
    assert estimates.mean() == pytest.approx(1 - 0.9**5, abs=0.005)


@pytest.mark.parametrize(("n", "correct", "k"), [(4, 2, 5), (4, 2, 0), (4, 5, 2), (4, -1, 2)])
def test_pass_at_k_refuses_what_has_no_answer(n, correct, k):
    with pytest.raises(ValueError, match=r"pass@|counts"):
        st.pass_at_k(n, [correct], k)


def test_avg_at_k():
    assert st.avg_at_k([[1, 0, 0, 1], [1, 1, 1, 1]]) == pytest.approx([0.5, 1.0])


# -- two methods ---------------------------------------------------------------------------------------------


def test_mcnemar_needs_six_problems_one_way():
    assert st.mcnemar(5, 0) == st.mcnemar(0, 5) == pytest.approx(0.0625)
    assert st.mcnemar(6, 0) == pytest.approx(0.03125)
    assert st.mcnemar(0, 0) == st.mcnemar(3, 3) == 1


@pytest.mark.parametrize(("only_a", "only_b"), [(2, 9), (30, 31), (0, 12)])
def test_mcnemar_agrees_with_the_binomial_test(only_a, only_b):
    assert st.mcnemar(only_a, only_b) == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue)


def test_sign_flips_agree_with_scipys_permutation_test():
    few = np.array([0.3, -0.1, 0.4, 0.2, 0.05, 0.25, -0.2])
    theirs = stats.permutation_test((few,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert st.sign_flip(few) == pytest.approx(theirs.pvalue)
    many = np.random.default_rng(10).normal(0.15, 1, 200)
    assert st.sign_flip(many) == pytest.approx(stats.ttest_1samp(many, 0).pvalue, abs=0.02)
    assert st.sign_flip(np.zeros(5)) == 1


@pytest.mark.parametrize(
    ("a", "b", "test"),
    [
        ([1, 0, 1], [1, 1, 0], "exact McNemar"),
        ([0.5, 0, 1], [1, 1, 0], "sign flips over problems"),
        ([[1, 0, 1]] * 2, [[1, 1, 0], [0, 1, 1]], "paired t over seeds and problems"),
        ([[0, 0, 0]] * 2, [[1, 1, 1]] * 2, "sign flips over problems"),
    ],
)
def test_the_test_fits_the_runs(a, b, test):
    assert st.paired_test(a, b)[1] == test


def test_a_comparison_says_how_much_and_which_way():
    a, b = np.zeros(40), np.repeat([1.0, 0.0], 20)
    found = st.compare(a, b)
    assert found.difference == 0.5
    assert (found.only_a, found.only_b) == (0, 20)
    assert found.interval.low < 0.5 < found.interval.high
    assert found.p == st.mcnemar(0, 20)
    back = st.compare(b, a)
    assert (back.difference, back.only_a, back.only_b, back.p) == (-0.5, 20, 0, found.p)


def test_scores_of_different_problems_cannot_be_paired():
    for pair in (st.compare, st.paired_bootstrap, st.paired_test):
        with pytest.raises(ValueError, match="one shape"):
            pair([1, 0], [1, 0, 1])


@pytest.mark.slow
@pytest.mark.parametrize("n", [30, 164, 805])
def test_the_paired_bootstrap_covers_the_true_difference_of_averages(n):
    """avg@4 of two methods whose chances at a problem are alike: the pairing removes most of the variance."""
    rng = np.random.default_rng([14, n])
    found, runs = [], 600
    for _ in range(runs):
        chance = rng.beta(2, 2, n) * 0.8
        a, b = rng.binomial(4, chance) / 4, rng.binomial(4, chance + 0.1) / 4
        found.append(st.paired_bootstrap(a, b, draws=400))
    assert 93 < coverage(found, 0.1) < 97  # 600 runs know it to ± 1.8


def test_the_paired_bootstrap_agrees_with_scipys():
    rng = np.random.default_rng(15)
    a, b = rng.random((2, 400))
    theirs = stats.bootstrap((b - a,), np.mean, n_resamples=20_000, method="percentile", rng=2).confidence_interval
    assert st.paired_bootstrap(a, b, draws=20_000) == pytest.approx((theirs.low, theirs.high), abs=3e-3)
    assert st.compare(a, b).interval == st.paired_bootstrap(a, b)


@pytest.mark.parametrize("seeds", [1, 4])
def test_equal_methods_differ_in_at_most_5_percent_of_comparisons(seeds):
    rng = np.random.default_rng(11)
    wrong = 0
    for _ in range(500):
        hard = rng.normal(0, 2, 50)
        chance = 1 / (1 + np.exp(-hard - rng.normal(0, 0.2, (2, seeds, 1))))
        a, b = (rng.random((2, seeds, 50)) < chance).astype(float)
        wrong += st.paired_test(a, b)[0] < 0.05
    assert wrong / 500 < 0.08


@pytest.mark.parametrize("seeds", [2, 3])
def test_two_seeds_are_tested_at_their_level_when_several_methods_tell_how_seeds_vary(seeds):
    """Alone they call every eighth pair of equal methods different."""
    rng = np.random.default_rng(16)
    wrong, runs = 0, 400
    for _ in range(runs):
        hard = rng.normal(0, 1.5, 150) + rng.normal(0, 0.5, (6, seeds, 150))
        chance = 1 / (1 + np.exp(-hard - rng.normal(0, 0.3, (6, seeds, 1))))
        scores = (rng.random((6, seeds, 150)) < chance).astype(float)
        pooled = st.pooled_seed_variance(scores)
        compared = st.compare(scores[0], scores[1], seeds=pooled)
        wrong += compared.p < 0.05
        assert (compared.p < 0.05) == (not compared.interval.low <= 0 <= compared.interval.high)
    assert 0.02 < wrong / runs < 0.075


def test_unpaired_counts_agree_with_the_chi_squared_test():
    table = [[60, 104], [80, 84]]
    expected = stats.chi2_contingency(table, correction=False).pvalue
    assert st.difference_of_counts(60, 164, 80, 164) == pytest.approx(expected)
    assert st.difference_of_counts(0, 10, 0, 10) == 1


def test_holm_adjusts_step_by_step():
    assert st.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert st.holm([0.5, 0.9]) == pytest.approx([1, 1])
    assert st.holm([]) == []


# -- planning ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "p"), [(164, 0.4), (30, 0.13), (805, 0.5)])
def test_the_minimum_detectable_effect_solves_its_equation(n, p):
    gain = st.minimum_detectable_effect(n, p)
    q = p + gain
    error = math.sqrt((p * (1 - p) + q * (1 - q)) / n)
    assert gain / error == pytest.approx(stats.norm.ppf(0.975) + stats.norm.ppf(0.8))


def test_a_gain_of_the_minimum_size_is_found_four_times_in_five():
    rng = np.random.default_rng(12)
    gain = st.minimum_detectable_effect(400, 0.5, discordant=0.3)
    up, down = (0.3 + gain) / 2, (0.3 - gain) / 2
    draws = rng.multinomial(400, (up, down, 0.7), size=2000)
    found = np.mean([st.mcnemar(d, u) < 0.05 for u, d, _ in draws])
    assert 0.74 < found < 0.84  # McNemar's exact test is a little cautious


def test_too_few_problems_show_nothing():
    assert st.minimum_detectable_effect(10, 0.9) == math.inf
    assert st.minimum_detectable_effect(4, 0.2, discordant=0.1) == math.inf


def test_problems_and_seeds_needed_follow_from_where_the_variance_is():
    spread = st.Spread(seeds=0.0004, problems=0.2, rest=0.1, value=0.0, freedom=1.0)
    found = st.Comparison(0.05, st.Interval(0, 0.1), 0.2, "", 0, 0, spread)
    reach = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    n = st.problems_needed(found, seeds=4)
    variance = 0.0004 / 4 + (0.2 + 0.1 / 4) / n
    assert 0.05 / math.sqrt(variance) == pytest.approx(reach, rel=0.01)
    s = st.seeds_needed(found, problems=2000)
    assert 0.05 / math.sqrt((0.0004 + 0.1 / 2000) / s + 0.2 / 2000) >= reach
    assert st.seeds_needed(found, problems=100) == math.inf  # the problems alone leave too much doubt
    assert st.problems_needed(found, seeds=1) == math.inf  # and so does a single seed


def test_seeds_and_problems_can_grow_together_until_a_difference_shows():
    spread = st.Spread(seeds=0.001, problems=0.2, rest=0.3, value=0.0, freedom=1.0)
    found = st.Comparison(0.02, st.Interval(0, 0.1), 0.2, "", 0, 0, spread)
    times = st.scale_needed(found, seeds=5, problems=100)
    variance = 0.001 / (5 * times) + 0.2 / (100 * times) + 0.3 / (500 * times**2)
    assert 0.02 / math.sqrt(variance) == pytest.approx(st.reach(0.8, 0.95))
    assert times > 1 and st.scale_needed(found, 50, 10_000) < 1
    same = st.Comparison(0.0, st.Interval(0, 0), 1.0, "", 0, 0, spread)
    assert st.scale_needed(same, 5, 100) == math.inf
