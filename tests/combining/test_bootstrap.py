"""The bootstrap against direct resampling, the normal approximation and known coverage."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tl_kit.combining.bootstrap import paired_bootstrap, paired_interval
from tl_kit.errors import ConfigError

no_deadline = settings(deadline=None)  # timings on a shared machine say nothing here


def pair(wins: int, losses: int, ties: int):
    """Results of a and b where b wins, loses, and both are right or wrong in turn."""
    both = np.arange(ties) % 2 == 0
    a = np.concatenate([np.zeros(wins, bool), np.ones(losses, bool), both])
    b = np.concatenate([np.ones(wins, bool), np.zeros(losses, bool), both])
    return a, b


class TestPairedBootstrap:
    @pytest.mark.parametrize("counts", [(30, 10, 160), (3, 9, 38), (20, 20, 10), (6, 0, 0), (0, 8, 92), (7, 7, 0)])
    def test_against_resampling_the_images(self, counts):
        a, b = pair(*counts)
        gain, lo, hi = paired_bootstrap(a, b, samples=20_000, seed=1)
        rng = np.random.default_rng(2)
        images = rng.integers(0, a.size, (20_000, a.size))
        resampled = b[images].mean(axis=1) - a[images].mean(axis=1)
        expected_lo, expected_hi = np.quantile(resampled, [0.025, 0.975])
        assert gain == pytest.approx(b.mean() - a.mean(), abs=1e-12)
        step = 1 / a.size + 1e-9  # the statistic moves in steps of one image
        assert lo == pytest.approx(expected_lo, abs=step)
        assert hi == pytest.approx(expected_hi, abs=step)

    def test_against_the_normal_approximation(self):
        a, b = pair(900, 600, 8500)
        gain, lo, hi = paired_bootstrap(a, b, samples=20_000, seed=3)
        error = np.std(b.astype(float) - a.astype(float)) / np.sqrt(a.size)
        assert gain == pytest.approx(0.03)
        assert (lo, hi) == pytest.approx((gain - 1.96 * error, gain + 1.96 * error), abs=3e-4)

    @pytest.mark.parametrize("shares", [(0.12, 0.06), (0.05, 0.05), (0.3, 0.1)])
    def test_the_interval_covers_the_true_gain_in_about_95_of_100_data_sets(self, shares):
        win, lose = shares
        rng = np.random.default_rng(4)
        covered = 0
        for seed in range(600):
            wins, losses, ties = rng.multinomial(300, [win, lose, 1 - win - lose])
            _, lo, hi = paired_bootstrap(*pair(wins, losses, ties), samples=400, seed=seed)
            covered += lo <= win - lose <= hi
        assert 0.92 <= covered / 600 <= 0.98

    @no_deadline
    @given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(0, 1000))
    def test_identical_results_gain_exactly_nothing(self, results, seed):
        assert paired_bootstrap(results, results, samples=50, seed=seed) == (0.0, 0.0, 0.0)

    @no_deadline
    @given(st.integers(0, 25), st.integers(0, 25), st.integers(0, 25), st.integers(0, 1000))
    def test_bounds_repetition_and_order_of_images(self, wins, losses, ties, seed):
        a, b = pair(wins, losses, ties + 1)
        gain, lo, hi = paired_bootstrap(a, b, samples=200, seed=seed)
        assert -1 <= lo <= hi <= 1
        shuffle = np.random.default_rng(seed).permutation(a.size)
        assert paired_bootstrap(a[shuffle], b[shuffle], samples=200, seed=seed) == (gain, lo, hi)
        assert paired_bootstrap(b, a, samples=200, seed=seed)[0] == -gain
        assert all(type(value) is float for value in (gain, lo, hi))

    @pytest.mark.parametrize("images", range(1, 6))
    def test_too_few_images_never_prove_anything(self, images):
        gain, lo, hi = paired_bootstrap(*pair(images, 0, 0), samples=200, seed=0)
        assert (gain, lo, hi) == (1, 0, 1)
        gain, lo, hi = paired_bootstrap(*pair(0, images, 200), samples=200, seed=0)
        assert lo < gain < 0
        assert hi == 0

    def test_a_real_gain_is_seen(self):
        _, lo, _ = paired_bootstrap(*pair(30, 8, 334), samples=2000, seed=0)
        assert lo > 0

    def test_memory_does_not_grow_with_images_times_samples(self):
        a, b = pair(40_000, 30_000, 930_000)
        tracemalloc.start()
        paired_bootstrap(a, b, samples=5000, seed=0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10 * a.size  # one index matrix would take 8 · 5000 bytes an image

    @pytest.mark.parametrize(
        ("a", "b"), [([], []), ([True], [True, False]), ([0.5], [1.0]), ([[True]], [[True]]), ([1, 0], [1, 1])]
    )
    def test_wrong_input_is_refused(self, a, b):
        with pytest.raises(ValueError, match="two bool arrays"):
            paired_bootstrap(a, b, samples=10, seed=0)

    def test_samples_must_be_positive(self):
        with pytest.raises(ConfigError, match="bootstrap"):
            paired_bootstrap([True], [False], samples=0, seed=0)


class TestPairedInterval:
    def test_of_hits_it_is_the_interval_of_the_direct_draw(self):
        a, b = pair(40, 22, 300)
        expected = paired_bootstrap(a, b, samples=20_000, seed=1)
        found = paired_interval(b.astype(float) - a.astype(float), samples=20_000, seed=2)
        assert found == pytest.approx(expected, abs=1.5 / a.size)

    def test_against_the_normal_approximation_also_in_pieces(self):
        values = np.random.default_rng(0).exponential(size=5000) - 0.9
        mean, lo, hi = paired_interval(values, samples=4000, seed=3)  # 20 million draws: more than one piece
        error = values.std() / np.sqrt(values.size)
        assert mean == pytest.approx(values.mean())
        assert (lo, hi) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.1 * error)

    def test_equal_seeds_give_equal_intervals_and_a_sign_turns_them(self):
        values = np.random.default_rng(0).normal(size=50)
        mean, lo, hi = paired_interval(values, samples=300, seed=4)
        assert paired_interval(values, samples=300, seed=4) == (mean, lo, hi)
        assert paired_interval(-values, samples=300, seed=4) == pytest.approx((-mean, -hi, -lo))

    def test_too_few_differences_never_prove_anything(self):
        assert paired_interval([1.0] * 5, samples=100, seed=0) == (1, 0, 1)
        assert paired_interval([0.0] * 50 + [-1.0] * 5, samples=100, seed=0)[2] == 0
        assert paired_interval([1.0] * 6, samples=100, seed=0) == (1, 1, 1)
        assert paired_interval([0.0] * 9, samples=100, seed=0) == (0, 0, 0)

    def test_rounding_of_one_sign_is_no_difference(self):
        assert paired_interval([1.1e-16] * 50, samples=100, seed=0) == (0, 0, 0)
        assert paired_interval([-1e-12] * 50, samples=100, seed=0) == (0, 0, 0)
        assert paired_interval([1e-6] * 50, samples=100, seed=0)[1] > 0

    @pytest.mark.parametrize("values", [[], [[1.0]], [np.nan], [np.inf]])
    def test_wrong_input_is_refused(self, values):
        with pytest.raises(ValueError, match="finite differences"):
            paired_interval(values, samples=10, seed=0)

    def test_samples_must_be_positive(self):
        with pytest.raises(ConfigError, match="bootstrap"):
            paired_interval([1.0], samples=0, seed=0)
