"""Members by forward selection: against all subsets, within limits, and with an estimate that is not too good."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from tl_kit import metrics
from tl_kit.combining.bootstrap import standard_error
from tl_kit.combining.member_choice import Limits, MemberChoice, choose_members
from tl_kit.config import MemberChoiceConfig

Floats = NDArray[np.float64]


def draw(
    skills: list[float], *, images: int = 200, classes: int = 4, seed: int = 0
) -> tuple[Floats, NDArray[np.int64]]:
    """Probabilities (m, n, k) of members whose evidence for the label is their skill, each with noise of its own."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=images)
    truth = np.eye(classes)[labels]
    return np.stack([metrics.softmax(skill * truth + rng.normal(size=truth.shape)) for skill in skills]), labels


def choose(stack: Floats, labels: NDArray[np.int64], **options: object) -> MemberChoice:
    given: dict[str, object] = {
        "prefer": "nll",
        "latencies": [1.0] * len(stack),
        "parameters": [1.0] * len(stack),
        "limits": Limits(members=8),
        "folds": 5,
        "seed": 0,
    }
    found = choose_members(stack, labels, **(given | options))
    assert found is not None
    return found


@pytest.mark.parametrize("seed", range(5))
def test_it_is_within_the_noise_of_the_best_of_all_subsets(seed: int) -> None:
    stack, labels = draw([0.2, 1.0, 1.5, 1.2, 0.1], seed=seed)
    everything = [c for size in range(1, 6) for c in combinations(range(5), size)]
    losses = {c: metrics.image_losses(stack[list(c)].mean(axis=0), labels) for c in everything}
    best = min(everything, key=lambda subset: losses[subset].mean())
    found = choose(stack, labels)
    apart = losses[found.members] - losses[best]
    assert apart.mean() <= 2 * standard_error(apart) + 1e-9 or found.members == best


def test_few_images_are_no_reason_for_few_members() -> None:
    """Members of equal skill are all taken; the lowest NLL of twelve images would be that of two or three."""
    sizes = [len(choose(*draw([1.2] * 6, images=12, seed=seed)).members) for seed in range(20)]
    assert np.mean(sizes) > 5


def test_a_member_that_is_clearly_bad_is_left_out() -> None:
    stack, labels = draw([1.5, 1.5, 1.5, -2.0], images=400)
    assert 3 not in choose(stack, labels).members


def trained_and_head(seed: int, *, images: int = 100) -> tuple[Floats, NDArray[np.int64]]:
    """A sure member with a few bad mistakes, and one that is doubtful of every image."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(4, size=images)
    truth = np.eye(4)[labels]
    mistaken = rng.random((images, 1)) < 0.06
    noise = rng.normal(size=truth.shape)
    trained = np.where(mistaken, 2 * noise, 5 * truth + noise)
    return np.stack([metrics.softmax(trained), metrics.softmax(1.5 * truth + rng.normal(size=truth.shape))]), labels


@pytest.mark.parametrize("seed", [2, 5, 20, 23, 27])
def test_one_that_is_clearly_worse_alone_has_to_lower_the_nll(seed: int) -> None:
    """Their mean is near enough to the better one to be taken as the larger ensemble, and brings nothing."""
    stack, labels = trained_and_head(seed)
    assert metrics.nll(stack[0], labels) < metrics.nll(stack.mean(axis=0), labels)
    assert choose(stack, labels, config=MemberChoiceConfig(worse_alone=1e9)).members == (0, 1)
    assert choose(stack, labels).members == (0,)


@pytest.mark.parametrize("seed", [2, 23, 52, 53])
def test_for_accuracy_it_may_make_clearly_fewer_errors_in_place_of_that(seed: int) -> None:
    stack, labels = trained_and_head(seed)
    alone, together = (metrics.correct(each, labels).astype(float) for each in (stack[0], stack.mean(axis=0)))
    assert (together - alone).mean() > standard_error(together - alone)
    assert choose(stack, labels, prefer="nll").members == (0,)
    assert choose(stack, labels, prefer="accuracy").members == (0, 1)


def test_a_weak_member_that_knows_something_else_is_taken() -> None:
    """Two that are too sure of themselves, each of something else."""
    stack, labels = draw([1.5, 1.2], images=400)
    stack = stack**3 / (stack**3).sum(axis=-1, keepdims=True)
    losses = [metrics.image_losses(each, labels) for each in stack]
    assert (losses[1] - losses[0]).mean() > 2 * standard_error(losses[1] - losses[0])
    assert metrics.nll(stack.mean(axis=0), labels) < metrics.nll(stack[0], labels)
    assert choose(stack, labels).members == (0, 1)


def test_the_same_predictions_count_once() -> None:
    stack, labels = draw([1.5, 1.2])
    found = choose(np.concatenate([stack, stack[:1], stack[:1]]), labels)
    assert len(found.members) == 2


def test_its_predictions_are_the_tempered_mean() -> None:
    stack, labels = draw([1.0, 1.5, 1.2])
    found = choose(stack, labels)
    fitted = found.whole.fitted
    assert np.allclose(found.whole.pooled, stack[list(found.members)].mean(axis=0))
    again = found.whole.pooled ** (1 / fitted.temperature)
    assert np.allclose(fitted(stack[list(found.members)]), again / again.sum(axis=1, keepdims=True))


def test_the_order_of_members_does_not_matter() -> None:
    stack, labels = draw([0.5, 1.5, 1.0, 1.4])
    order = np.array([2, 0, 3, 1])
    found, other = choose(stack, labels), choose(stack[order], labels)
    assert set(found.members) == {int(order[m]) for m in other.members}


@pytest.mark.parametrize("limits", [Limits(members=2), Limits(members=8, latency=5.0), Limits(members=8, parameters=3)])
def test_limits_hold_for_all_members_together(limits: Limits) -> None:
    stack, labels = draw([1.0, 1.1, 1.2, 1.3])
    latencies, parameters = [2.0, 2.0, 2.5, 6.0], [1.0, 1.0, 2.0, 4.0]
    found = choose(stack, labels, latencies=latencies, parameters=parameters, limits=limits)
    assert limits.allow([latencies[m] for m in found.members], [parameters[m] for m in found.members])


def test_no_member_within_the_limits() -> None:
    stack, labels = draw([1.0, 1.1])
    assert (
        choose_members(
            stack,
            labels,
            prefer="nll",
            latencies=[9.0, 9.0],
            parameters=[1.0, 1.0],
            limits=Limits(members=2, latency=1.0),
            folds=5,
            seed=0,
        )
        is None
    )


def test_speed_takes_the_fastest_that_is_within_the_noise() -> None:
    stack, labels = draw([1.5, 1.5, 0.1])
    stack = np.concatenate([stack, stack[:1]])  # a slow copy of the first
    latencies = [2.0, 3.0, 1.0, 9.0]
    best, fast = choose(stack, labels), choose(stack, labels, prefer="speed", latencies=latencies)
    assert sum(latencies[m] for m in fast.members) <= sum(latencies[m] for m in best.members)
    assert fast.members != (2,)  # the fastest of all is far worse
    alone = choose(stack[[0, 3]], labels, prefer="speed", latencies=[2.0, 9.0])
    assert alone.members == (0,)


def test_the_estimate_is_no_better_than_chance_where_all_members_guess() -> None:
    """The best of forty guessing members looks better than chance on the images that chose it; the estimate doesn't."""
    selected, estimated = [], []
    for seed in range(30):
        stack, labels = draw([0.0] * 40, images=60, classes=2, seed=seed)
        found = choose(stack, labels, prefer="accuracy", limits=Limits(members=1))
        selected.append(metrics.accuracy(found.whole.scored, labels))
        estimated.append(metrics.accuracy(found.whole.estimate, labels))
    assert np.mean(selected) > 0.6
    assert abs(np.mean(estimated) - 0.5) < 0.03
