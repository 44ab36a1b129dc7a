"""The choice between a fitted head, a trained network and their averages, against cases worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tl_kit import metrics
from tl_kit.combining.bootstrap import worse_by_more_than_noise
from tl_kit.combining.head_choice import choose_network, clearly_better
from tl_kit.config import GuardConfig

Floats = NDArray[np.float64]
SELECTS = ("accuracy", "balanced_accuracy", "macro_f1", "nll")


def of(at_label: Sequence[float], labels: Sequence[int] | None = None) -> tuple[Floats, NDArray[np.int64]]:
    """Probabilities of two classes with these at each image's label (class 0, where none are given)."""
    truth = np.array([0] * len(at_label) if labels is None else labels)
    rows = np.array(at_label)[:, None]
    return np.where(np.arange(2) == truth[:, None], rows, 1 - rows), truth


@pytest.mark.parametrize(
    ("differences", "errors", "worse"),
    [
        # One of ten: mean 0.1; s² = (0.9² + 9 · 0.1²) / 9 = 0.1; s / √10 = 0.1, which is just as much.
        ([1] + [0] * 9, 1.0, False),
        ([1] + [0] * 9, 0.99, True),
        # Two of ten: mean 0.2; s² = (2 · 0.8² + 8 · 0.2²) / 9 = 0.1778; s / √10 = 0.1333.
        ([1, 1] + [0] * 8, 1.0, True),
        ([1, 1] + [0] * 8, 1.51, False),
        # Three won and one lost of ten: mean 0.2; s² = (10 · 0.4 - 0.4) / 9 = 0.4; s / √10 = 0.2.
        ([1, 1, 1, -1] + [0] * 6, 1.0, False),
        ([0] * 10, 1.0, False),
        ([-1] * 5, 1.0, False),
        ([1] * 5, 1.0, True),
        ([1], 1.0, False),
    ],
)
def test_noise_is_so_many_standard_errors_of_the_paired_difference(
    differences: list[int], errors: float, worse: bool
) -> None:
    assert worse_by_more_than_noise(np.array(differences, dtype=np.float64), errors=errors) is worse


def chosen(*at_label: Sequence[float], labels: Sequence[int] | None = None, select: str = "accuracy") -> int:
    """The position chosen; the last is the head."""
    rows = [of(each, labels) for each in at_label]
    stack, truth = [row for row, _ in rows], rows[0][1]
    return choose_network(stack, truth, head=len(stack) - 1, select=select, config=GuardConfig(noise=1.0))


def test_a_clearly_lower_nll_is_taken_where_accuracy_is_within_the_noise() -> None:
    sure_but_one_wrong = [0.95] * 9 + [0.4]
    all_right = [0.6] * 10
    assert chosen(sure_but_one_wrong, all_right) == 0, "-ln 0.95 · 0.9 - ln 0.4 · 0.1 = 0.14 against 0.51"


def test_whoever_is_clearly_less_accurate_is_out_however_low_its_nll() -> None:
    two_wrong = [0.95] * 8 + [0.45] * 2
    assert chosen(two_wrong, [0.6] * 10) == 1, "two of ten are more than a standard error"
    assert chosen(two_wrong, [0.6] * 10, select="nll") == 0


def test_a_network_of_a_higher_nll_than_the_heads_is_never_taken() -> None:
    right_and_once_very_wrong = [0.99] * 11 + [1e-12]
    head = [0.7] * 9 + [0.45] * 3
    trained, truth = of(right_and_once_very_wrong)
    assert metrics.accuracy(trained, truth) > metrics.accuracy(of(head)[0], truth)
    assert metrics.nll(trained, truth) > metrics.nll(of(head)[0], truth)
    assert metrics.bounded_nll(trained, truth) < metrics.bounded_nll(of(head)[0], truth), "one image is bounded"
    assert chosen(right_and_once_very_wrong, head) == 0
    twice = [0.99] * 10 + [1e-12] * 2
    assert metrics.bounded_nll(*of(twice)) > metrics.bounded_nll(*of(head))
    assert chosen(twice, head) == 1


def test_balanced_accuracy_counts_the_classes_alike() -> None:
    """Of ten images eight are of one class. One loses two of these, the other the two of the small class."""
    labels = [0] * 8 + [1] * 2
    large_lost = [0.6] * 6 + [0.49] * 2 + [0.6] * 2
    small_lost = [0.9] * 8 + [0.4] * 2
    head = [0.5 - 1e-6] * 10
    assert chosen(small_lost, large_lost, head, labels=labels) == 0, "as accurate, and of lower NLL"
    assert chosen(small_lost, large_lost, head, labels=labels, select="balanced_accuracy") == 1


def test_of_what_is_not_clearly_less_accurate_the_lowest_nll_is_taken() -> None:
    """One of eight is within a standard error; of equal NLLs, the first counts."""
    trained, middle, head = [0.75] * 5 + [0.45] * 3, [0.6] * 8, [0.55] * 8
    assert metrics.bounded_nll(*of(trained)) < metrics.bounded_nll(*of(middle))
    assert chosen(trained, middle, head, select="nll") == 0
    assert chosen(trained, middle, head) == 1, "three of eight are more than a standard error"
    assert chosen([0.9] * 7 + [0.45], middle, head) == 0
    assert chosen(middle, [0.7] * 8, head) == 1
    assert chosen([0.7] * 5, [0.7] * 5, [0.7] * 5) == 0


def test_the_head_is_kept_where_nothing_is_better() -> None:
    assert chosen([0.4] * 8, [0.6] * 8, [0.62] * 8) == 2


def test_two_together_are_clearly_better_where_every_image_gains() -> None:
    kept, truth = of([0.5, 0.6, 0.7, 0.8] * 3)
    assert clearly_better(of([0.6, 0.7, 0.8, 0.9] * 3)[0], kept, truth, errors=2.0)
    assert not clearly_better(kept, kept, truth, errors=2.0)
    assert not clearly_better(of([0.9] + [0.5, 0.6, 0.7, 0.8] * 2 + [0.59, 0.6, 0.7])[0], kept, truth, errors=2.0)


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(2, 4), st.sampled_from(SELECTS))
def test_whatever_is_chosen_has_no_higher_nll_than_the_head(seed: int, images: int, classes: int, select: str) -> None:
    rng = np.random.default_rng(seed)
    stack = [rng.dirichlet(np.full(classes, 0.5), images) for _ in range(4)]
    labels = rng.integers(0, classes, images)
    position = choose_network(stack, labels, head=2, select=select)
    assert metrics.bounded_nll(stack[position], labels) <= metrics.bounded_nll(stack[2], labels)
