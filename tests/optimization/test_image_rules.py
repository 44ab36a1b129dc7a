"""Rules that read the images alone or above all, by table: balance, selection, augmentation and statistics."""

from __future__ import annotations

import pytest

from tests.optimization.rule_cases import LOOP, case
from tl_kit.config import AugmentLevels, BalanceConfig
from tl_kit.optimization.cases import AS_GIVEN, Case, Reasoned
from tl_kit.optimization.rules import augmentation, balance, selection, statistics


@pytest.mark.parametrize(
    ("counts", "method", "figure"),
    [
        ((10,), "none", "accuracy"),
        ((10, 10), "none", "accuracy"),
        ((10, 29), "none", "accuracy"),
        ((10, 30), "loss", "balanced_accuracy"),
        ((90, 5, 40), "loss", "balanced_accuracy"),
    ],
)
def test_the_images_decide_on_a_balance_from_three_times_as_many_on(
    counts: tuple[int, ...], method: str, figure: str
) -> None:
    spread = (
        f"{min(counts)} to {max(counts)} training images a class, {max(counts) / min(counts):.3g} times as many in the "
        "largest"
    )
    because = {
        "none": f"{spread} (below 3): every image counts the same",
        "loss": f"{spread} (from 3): every class counts the same",
        "accuracy": "the largest class has less than 3 times the images of the smallest",
        "balanced_accuracy": "every class counts the same: the largest has 3 times the images of the smallest, or more",
    }
    assert balance(counts, "auto", BalanceConfig()) == Reasoned(method, because[method])
    assert selection(counts, "auto", BalanceConfig()) == Reasoned(figure, because[figure])


def test_a_balance_that_is_given_is_taken_and_the_threshold_moves() -> None:
    usual, higher = BalanceConfig(), BalanceConfig(uneven_from=4.0)
    for counts in ((1, 100), (5, 5)):
        assert balance(counts, "sampler", usual) == Reasoned("sampler", AS_GIVEN)
        assert balance(counts, "none", usual) == Reasoned("none", AS_GIVEN)
        assert selection(counts, "macro-f1", usual) == Reasoned("macro_f1", AS_GIVEN)
    assert (balance((10, 39), "auto", higher).value, selection((10, 39), "auto", higher).value) == ("none", "accuracy")
    assert balance((10, 40), "auto", higher).value == "loss"


LEVELS = AugmentLevels()


@pytest.mark.parametrize(
    ("per_class", "head_only", "expected"),
    [(19.9, False, "light"), (20, False, "standard"), (1, True, "none"), (500, True, "none")],
)
def test_augmentation_by_table(per_class: float, head_only: bool, expected: str) -> None:
    found = augmentation(per_class, LEVELS, head_only=head_only)
    assert found.value == expected
    assert found.reason == (
        "the head is fitted to images as evaluation sees them"
        if head_only
        else f"{per_class:.0f} images a class: light below {LEVELS.light_below_per_class}"
    )


@pytest.mark.parametrize(
    ("known", "given", "expected", "reason"),
    [
        (case("full", images=299), "auto", "frozen", "the pretrained statistics stay: 299 training images, below 300"),
        (case("full", images=300), "auto", "train", "each batch's own: 300 training images, from 300 on"),
        (case("full", images=9), "train", "train", AS_GIVEN),
        (case(images=9), "frozen", "frozen", AS_GIVEN),
        (case(images=9), "auto", "train", "each batch's own statistics, in the layers that train"),
        (
            case("full", images=9, pretrained=False),
            "auto",
            "train",
            "each batch's own statistics, in the layers that train",
        ),
    ],
)
def test_statistics_by_table(known: Case, given: str, expected: str, reason: str) -> None:
    assert statistics(known, given, LOOP) == Reasoned(expected, reason)
