"""Rules for the length of a run, by table: batch, epochs, schedule and patience."""

from __future__ import annotations

import math

import pytest

from tests.optimization.rule_cases import LOOP, case
from tl_kit.config import LoopConfig, SwaConfig
from tl_kit.optimization.cases import AS_GIVEN, Case, Reasoned
from tl_kit.optimization.rules import batch_size, epochs, patience, schedule


@pytest.mark.parametrize(
    ("images", "given", "expected"), [(1000, None, 32), (1000, 8, 8), (20, None, 20), (20, 64, 20), (1, None, 1)]
)
def test_a_batch_holds_no_more_than_all_images(images: int, given: int | None, expected: int) -> None:
    assert batch_size(case(images=images), given, LOOP) == Reasoned(
        expected, f"{math.ceil(images / expected)} steps for {images} images"
    )


@pytest.mark.parametrize(
    ("known", "given", "expected", "reason"),
    [
        (case(), 7, 7, AS_GIVEN),
        (case("head"), None, 100, "100 where the head alone trains"),
        (case(), None, 12, "12, which are 200 steps or more"),
        (case(images=330), None, 19, "11 steps an epoch: more than 12, for 200 steps"),
        (case(images=30), None, 30, "at most 30: 200 steps would be more"),
        (case(images=30, pretrained=False), None, 60, "at most 60: 1000 steps would be more"),
        (case(images=3000, pretrained=False), None, 12, "12, which are 1000 steps or more"),
        (case(images=1000, pretrained=False), None, 32, "32 steps an epoch: more than 12, for 1000 steps"),
    ],
)
def test_epochs_by_table(known: Case, given: int | None, expected: int, reason: str) -> None:
    assert epochs(known, 32, given, LOOP) == Reasoned(expected, reason)


@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize("images", [1, 32, 33, 500, 1_000, 3_000, 100_000])
def test_epochs_are_the_fewest_that_make_the_steps(images: int, pretrained: bool) -> None:
    least, most = (LOOP.least_steps, LOOP.most_epochs) if pretrained else (LOOP.scratch_steps, LOOP.scratch_most_epochs)
    found, steps = epochs(case(images=images, pretrained=pretrained), 32, None, LOOP).value, math.ceil(images / 32)
    assert LOOP.epochs <= found <= most
    assert found * steps >= least or found == most
    assert (found - 1) * steps < least or found == LOOP.epochs


DECAYS = "the usual one: a rate that decays does its best work at the end"


@pytest.mark.parametrize(
    ("given", "loop", "cycles", "swa", "expected", "reason"),
    [
        (None, LOOP, None, None, "cosine", DECAYS),
        (None, LoopConfig(schedule="wsd"), None, None, "wsd", AS_GIVEN),
        ("linear", LoopConfig(schedule="wsd"), None, SwaConfig(), "linear", AS_GIVEN),
        ("cyclic", LOOP, 3, None, "cyclic", AS_GIVEN),
        (None, LOOP, 3, None, "cyclic", "a snapshot at the end of each cycle"),
        (None, LoopConfig(schedule="wsd"), 1, SwaConfig(), "cyclic", "a snapshot at the end of each cycle"),
        (None, LOOP, None, SwaConfig(), "constant", "the usual one where weights are averaged"),
        (None, LOOP, None, SwaConfig(schedule="linear"), "linear", "the usual one where weights are averaged"),
    ],
)
def test_schedule_by_table(
    given: str | None, loop: LoopConfig, cycles: int | None, swa: SwaConfig | None, expected: str, reason: str
) -> None:
    assert schedule(given, loop, cycles=cycles, swa=swa) == Reasoned(expected, reason)


END = "all epochs: a run under {} does its best work at the end"


LONG = "the rate of {} has no end of its own: 5 of 12 epochs, and 5 at least"


@pytest.mark.parametrize(
    ("length", "name", "given", "loop", "averages", "expected", "reason"),
    [
        (20, "cosine", 3, LOOP, True, 3, AS_GIVEN),
        (20, "cosine", None, LOOP, False, 20, END.format("cosine")),
        (20, "cosine", None, LOOP, True, 20, "all epochs: the weights of the later ones are averaged"),
        (20, "constant", None, LOOP, True, 20, "all epochs: the weights of the later ones are averaged"),
        (1, "constant", None, LOOP, False, 5, LONG.format("constant")),
        (12, "constant", None, LOOP, False, 5, LONG.format("constant")),
        (13, "plateau", None, LOOP, False, 6, LONG.format("plateau")),
        (24, "plateau", None, LOOP, False, 10, LONG.format("plateau")),
        (100, "constant", None, LOOP, False, 42, LONG.format("constant")),
        (
            20,
            "constant",
            None,
            LoopConfig(stops_early=()),
            False,
            20,
            END.format("constant"),
        ),
        (9, "linear", None, LoopConfig(stops_early=("linear",), patience=2, epochs=3), False, 6, None),
    ],
)
def test_patience_by_table(
    length: int, name: str, given: int | None, loop: LoopConfig, averages: bool, expected: int, reason: str | None
) -> None:
    found = patience(length, name, given, loop, averages=averages)
    assert found.value == expected
    assert found.reason == (reason or "the rate of linear has no end of its own: 2 of 3 epochs, and 2 at least")
