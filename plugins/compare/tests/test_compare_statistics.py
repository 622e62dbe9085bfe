"""Intervals against known answers, and paired differences against computations by hand."""

import math

import numpy as np
import pytest
from preimage_compare.scores import Scores, Setting, ranked
from preimage_compare.statistics import FEWEST_IMAGES, Bootstrap, image_means, mean_of_images
from scipy import stats

from preimage import Key
from preimage.errors import BadData, BadParameter

TRIALS = 3000  # the standard error of a coverage of 95 % is then 0.4 %
BOOTSTRAP = Bootstrap(resamples=1000)


def covered(values, truth):
    low, high = BOOTSTRAP.intervals(values)
    return float(np.mean((low <= truth) & (truth <= high)))


@pytest.mark.parametrize("images", [FEWEST_IMAGES, 12, 40])
def test_intervals_of_normal_pairs_cover_in_95_of_100_cases(images):
    random = np.random.default_rng(images)
    first = random.normal(25, 4, (TRIALS, images))
    second = first + random.normal(0.3, 0.5, (TRIALS, images))
    assert 0.93 <= covered(second - first, 0.3) <= 0.97


def test_intervals_of_skewed_pairs_cover_in_95_of_100_cases():
    random = np.random.default_rng(7)
    assert 0.93 <= covered(random.exponential(0.5, (TRIALS, 16)), 0.5) <= 0.97


def test_the_percentile_interval_of_scipy_would_cover_too_little():
    # The reason for an implementation of our own; if SciPy gains the bootstrap-t, this module can go.
    values = np.random.default_rng(3).normal(0, 1, (600, 8))
    found = stats.bootstrap((values,), np.mean, axis=-1, n_resamples=999, method="BCa", rng=0).confidence_interval
    assert np.mean((found.low <= 0) & (found.high >= 0)) < 0.92
    assert covered(values, 0.0) > 0.93


def test_intervals_resample_images_because_draws_of_one_image_are_not_independent():
    random = np.random.default_rng(5)
    images, draws = 12, 6
    differences = random.normal(0, 1, (TRIALS, images, 1)) + random.normal(0, 0.5, (TRIALS, images, draws))
    image_of = np.repeat(np.arange(images), draws)
    flat = differences.reshape(TRIALS, -1)
    assert 0.93 <= covered(image_means(flat, image_of), 0.0) <= 0.97
    assert covered(flat[:600], 0.0) < 0.75


def test_interval_equals_the_definition_computed_with_scipys_resamples():
    values = np.random.default_rng(11).gamma(2.0, 1.0, 15)
    mean, deviation = values.mean(), values.std()

    def studentised(sample, axis):
        spread = sample.std(axis=axis)
        return (sample.mean(axis=axis) - mean) / np.where(spread == 0, np.nan, spread)

    drawn = stats.bootstrap((values,), studentised, n_resamples=40_000, method="percentile", rng=1)
    low, high = np.quantile(drawn.bootstrap_distribution, [0.025, 0.975])
    found = Bootstrap(resamples=40_000).intervals(values[None])
    width = deviation * (high - low)
    np.testing.assert_allclose(
        [found[0][0], found[1][0]], [mean - deviation * high, mean - deviation * low], atol=0.02 * width
    )


def test_intervals_move_with_the_values_and_do_not_depend_on_the_other_rows():
    values = np.random.default_rng(0).normal(size=(5, 10))
    low, high = BOOTSTRAP.intervals(values)
    moved = BOOTSTRAP.intervals(1e6 + 3 * values)
    np.testing.assert_allclose(moved, 1e6 + 3 * np.stack([low, high]), rtol=1e-9)
    np.testing.assert_array_equal(BOOTSTRAP.intervals(values[3:4]), np.stack([low, high])[:, 3:4])
    np.testing.assert_array_equal(BOOTSTRAP.intervals(values), (low, high))
    other = Bootstrap(resamples=1000, key=Key(1)).intervals(values)
    assert not np.array_equal(other[0], low)


def test_blocks_of_resamples_change_nothing(monkeypatch):
    values = np.random.default_rng(0).normal(size=(2, 20))
    whole = BOOTSTRAP.intervals(values)
    monkeypatch.setattr("preimage_compare.statistics._CHUNK", 700)
    np.testing.assert_allclose(BOOTSTRAP.intervals(values), whole, rtol=1e-12)


def test_missing_images_are_left_out_and_too_few_give_no_interval():
    values = np.random.default_rng(2).normal(size=(1, FEWEST_IMAGES + 2))
    holed = np.concatenate([values, np.full((1, 3), np.nan)], axis=1)
    np.testing.assert_array_equal(BOOTSTRAP.intervals(holed), BOOTSTRAP.intervals(values))
    few = np.where(np.arange(FEWEST_IMAGES + 2) < FEWEST_IMAGES - 1, values, np.nan)
    assert np.isnan(BOOTSTRAP.intervals(few)).all()
    assert np.isnan(BOOTSTRAP.intervals(np.zeros((2, 0)))).all()


def test_equal_values_give_a_point_and_nearly_all_equal_ones_no_interval():
    np.testing.assert_array_equal(BOOTSTRAP.intervals(np.full((1, 9), 0.5)), [[0.5], [0.5]])
    assert np.isnan(BOOTSTRAP.intervals(np.array([[0.0] * 8 + [1.0]]))).all()


@pytest.mark.parametrize("wrong", [{"level": 0.0}, {"level": 1.0}, {"level": float("nan")}, {"resamples": 99}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(BadParameter, match=next(iter(wrong))):
        Bootstrap(**wrong)


def cell(method, image, seed=0, psnr=None, outcome="ok", noise="0.1", **more):
    labels = {"data": "d", "image": image, "operator": "blur", "noise": noise, "seed": seed, "method": method}
    return labels | {"key": f"{method}{image}{seed}{noise}", "outcome": outcome, "metrics": {"psnr": psnr}} | more


def small():
    """Three images, two draws; b fails once, and a third method is skipped everywhere."""
    a = {("x", 0): 20.0, ("x", 1): 22.0, ("y", 0): 30.0, ("y", 1): 31.0, ("z", 0): 10.0, ("z", 1): 10.0}
    b = {("x", 0): 21.0, ("x", 1): 22.0, ("y", 0): 33.0, ("y", 1): None, ("z", 0): 9.0, ("z", 1): 8.0}
    cells = [cell("a", image, seed, value) for (image, seed), value in a.items()]
    cells += [cell("b", i, s, value, "failed" if value is None else "ok") for (i, s), value in b.items()]
    return Scores([*cells, *(cell("c", image, seed, None, "skipped") for image, seed in a)])


def test_paired_difference_equals_a_computation_by_hand():
    first, second, third = small().summarise("psnr", "a", small().part(), BOOTSTRAP)
    # Image means of a: x 21, y 30.5, z 10. Differences b - a: x (1 + 0) / 2, y 3 (one draw failed), z (-1 - 2) / 2.
    assert first.mean == pytest.approx((21 + 30.5 + 10) / 3)
    assert second.mean == pytest.approx((21.5 + 33 + 8.5) / 3)
    assert second.difference == pytest.approx((0.5 + 3 - 1.5) / 3)
    assert (second.pairs, second.unpaired, second.images) == (5, 1, 3)
    assert (second.wins, second.ties, second.losses) == (2, 1, 2)
    assert (first.difference, first.ties, first.unpaired) == (0.0, 6, 0)
    assert math.isnan(third.difference)
    assert (third.pairs, third.unpaired) == (0, 6)
    assert math.isnan(second.difference_low)  # three images


def test_failed_and_missing_cells_are_counted_never_dropped():
    scores = small()
    assert scores.counts(scores.part())[1] == {"ok": 5, "failed": 1, "skipped": 0, "missing": 0}
    assert scores.counts(scores.part())[2] == {"ok": 0, "failed": 0, "skipped": 6, "missing": 0}
    more = Scores(scores.cells, [("d", "w", "blur", "0.1", 0, "a"), ("d", "w", "blur", "0.1", 0, "new")])
    assert more.methods == ["a", "b", "c", "new"]
    assert more.counts(more.part())[0]["missing"] == 1
    assert more.counts(more.part())[3]["missing"] == 7
    assert more.summarise("psnr", "a", more.part(), BOOTSTRAP)[1].unpaired == 2


def test_numbers_that_a_failed_cell_left_behind_do_not_count():
    scores = Scores([cell("a", "x", psnr=20.0), cell("b", "x", psnr=90.0, outcome="failed")])
    assert math.isnan(scores.summarise("psnr", "a", scores.part(), BOOTSTRAP)[1].mean)


def test_infinite_and_absent_metrics_are_no_numbers():
    scores = Scores([cell("a", "x", psnr=float("inf")), cell("a", "y", psnr=20.0), cell("a", "z", psnr=None)])
    found = scores.summarise("psnr", "a", scores.part(), BOOTSTRAP)[0]
    assert (found.mean, found.pairs, found.unpaired) == (20.0, 1, 2)


def test_settings_are_parts_of_the_whole():
    cells = [
        cell(m, i, 0, p, noise=n) for m, i, p, n in [("a", "x", 1.0, "1"), ("a", "x", 3.0, "2"), ("b", "x", 5.0, "2")]
    ]
    scores = Scores(cells)
    assert scores.settings == [Setting("d", "blur", "1"), Setting("d", "blur", "2")]
    first, second = (scores.summarise("psnr", "a", scores.part(s), BOOTSTRAP) for s in scores.settings)
    assert [first[0].mean, second[0].mean, second[1].difference] == [1.0, 3.0, 2.0]
    assert (first[1].pairs, first[1].unpaired) == (0, 1)


def test_lower_is_better_for_errors_and_neither_for_the_misfit():
    cells = [cell(m, "x", 0, 1.0) for m in ("a", "b")]
    for one, nmse in zip(cells, (0.2, 0.1), strict=True):
        one["metrics"] = {"nmse": nmse, "misfit": nmse}
    scores = Scores(cells)
    nmse = scores.summarise("nmse", "a", scores.part(), BOOTSTRAP)
    assert (nmse[1].wins, nmse[1].losses) == (1, 0)
    assert [s.method for s in ranked(nmse, scores.metric("nmse"))] == ["b", "a"]
    misfit = scores.summarise("misfit", "a", scores.part(), BOOTSTRAP)
    assert (misfit[1].wins, misfit[1].ties, misfit[1].losses) == (0, 0, 0)
    assert [s.method for s in ranked(misfit, scores.metric("misfit"))] == ["a", "b"]


def test_methods_without_a_pair_are_ranked_last_and_kept():
    scores = small()
    found = ranked(scores.summarise("psnr", "a", scores.part(), BOOTSTRAP), scores.metric("psnr"))
    assert [s.method for s in found] == ["b", "a", "c"]


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(BadData, match="no cells"):
        Scores([])
    with pytest.raises(BadData, match="two cells for method 'a'"):
        Scores([cell("a", "x", psnr=1.0), cell("a", "x", psnr=2.0)])
    with pytest.raises(BadParameter, match="no metric 'lpips'"):
        small().metric("lpips")
    with pytest.raises(BadParameter, match="no method 'tv'"):
        small().summarise("psnr", "tv", small().part(), BOOTSTRAP)


def test_means_over_images_count_each_image_once():
    values = np.array([[1.0, 1.0, 1.0, 5.0, np.nan]])
    means = image_means(values, np.array([4, 4, 4, 2, 7]))
    np.testing.assert_array_equal(means, [[5.0, 1.0, np.nan]])
    assert mean_of_images(means) == [3.0]
