"""Training resolution: small images train at their own size, where the network takes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tl_kit.config import BudgetConfig, DecodeConfig, FinetuneConfig, FitConfig, LadderConfig, SideConfig
from tl_kit.data.manifest import Manifest, Sample
from tl_kit.fitting import step_options
from tl_kit.fitting.budget import Budget
from tl_kit.fitting.candidates import Candidate
from tl_kit.fitting.journal import Entry
from tl_kit.fitting.ladder import Attempt, Rung, Step
from tl_kit.fitting.prices import Prices
from tl_kit.fitting.speed import Speed
from tl_kit.fitting.step_options import StepOptions
from tl_kit.planning.training_side import longer_side, training_side
from tl_kit.reporting import SILENT
from tl_kit.zoo.forward_cost import forward_cost, takes_side

CONFIG = SideConfig()


@pytest.mark.parametrize(
    ("images", "network", "expected"),
    [
        (28, 224, 128),  # four sevenths of the network's
        (105, 224, 128),
        (129, 224, 160),
        (193, 224, 224),
        (4000, 224, 224),
        (28, 240, 160),
        (28, 32, 32),
        (100, 90, 90),
    ],
)
def test_it_is_the_images_own_size_in_steps(images: int, network: int, expected: int) -> None:
    assert training_side(images, network, CONFIG) == expected


@given(st.integers(1, 10_000), st.integers(1, 1_000))
def test_it_neither_enlarges_nor_shrinks_more_than_it_may(images: int, network: int) -> None:
    side = training_side(images, network, CONFIG)
    assert min(network, max(images, CONFIG.least * network)) <= side <= network
    assert side == network or side % CONFIG.step == 0


def written(folder: Path, sizes: Sequence[tuple[int, int]], *, turned: bool = False) -> list[Sample]:
    samples = []
    for number, size in enumerate(sizes):
        path = folder / f"{number:03d}.jpg"
        exif = Image.Exif()
        if turned:
            exif[0x0112] = 6
        Image.new("RGB", size).save(path, exif=exif)
        samples.append(Sample(path, 0, "train", str(number)))
    return samples


@pytest.mark.parametrize("turned", [False, True])
def test_most_images_are_no_larger(turned: bool, tmp_path: Path) -> None:
    """One of twenty is large, and changes nothing; the longer side counts, whichever it is."""
    samples = written(tmp_path, [(100, 40)] * 10 + [(30, 96)] * 9 + [(900, 900)], turned=turned)
    assert longer_side(samples, CONFIG, decode=DecodeConfig()) == 100
    assert longer_side(samples, replace(CONFIG, share=1.0), decode=DecodeConfig()) == 900


def test_files_that_are_no_images_do_not_count(tmp_path: Path) -> None:
    samples = written(tmp_path, [(50, 50)] * 3)
    samples[0].path.write_bytes(b"no image")
    assert longer_side(samples, CONFIG, decode=DecodeConfig()) == 50
    assert longer_side(samples[:1], CONFIG, decode=DecodeConfig()) is None
    assert longer_side([], CONFIG, decode=DecodeConfig()) is None


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("resnet18", True),
        ("tf_efficientnet_lite2", True),
        ("vit_small_patch16_224", False),
        ("swin_tiny_patch4_window7_224", False),
    ],
)
def test_a_network_that_is_built_for_one_size_keeps_it(network: str, expected: bool) -> None:
    assert takes_side(network, 160) is expected


@pytest.mark.parametrize(
    ("rung", "network", "img_size", "expected"),
    [
        ("head", "resnet18", None, None),
        ("view", "resnet18", None, None),
        ("full", "resnet18", None, 128),
        ("part", "resnet18", None, 128),
        ("member", "resnet18", None, 128),
        ("full", "vit_small_patch16_224", None, None),
        ("full", "resnet18", 96, 96),
    ],
)
def test_trained_steps_take_it_unless_the_user_names_a_size(
    rung: Rung, network: str, img_size: int | None, expected: int | None, tmp_path: Path
) -> None:
    candidate = Candidate(network, forward_cost(network, img_size), "mit", "a test")
    config = FitConfig(data=tmp_path, img_size=img_size)
    options = StepOptions(config, [candidate], written(tmp_path, [(64, 64)] * 4))
    assert options.of(Step(rung, network)).img_size == expected


def test_no_header_is_read_for_a_head_or_a_network_of_one_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_options, "longer_side", lambda *_, **options: pytest.fail("read"))
    names = ("resnet18", "vit_small_patch16_224")
    candidates = [Candidate(name, forward_cost(name), "mit", "a test") for name in names]
    options = StepOptions(FitConfig(data=tmp_path), candidates, [])
    assert options.of(Step("head", "resnet18")).img_size is None
    assert options.of(Step("full", "vit_small_patch16_224")).img_size is None


def test_passes_of_smaller_images_cost_less(tmp_path: Path) -> None:
    """In proportion to their pixels."""
    candidate = Candidate("resnet18", forward_cost("resnet18"), "mit", "a test")
    speed = Speed(latency=1.0, row=0.5)
    head = Attempt(step=Step("head", "resnet18"), status="finished")
    entry = Entry(attempt=head, name="01-resnet18-head", seconds=1.0, elapsed=1.0, speed=speed)
    manifest = Manifest(tmp_path, ("a",), tuple(written(tmp_path, [(64, 64)] * 4)))
    passes = 1 + LadderConfig.part_views
    options = FinetuneConfig(model="resnet18", data=tmp_path)
    for img_size, seconds in ((None, 4 * passes * 0.5), (112, passes * 0.5)):
        for left, expected in ((seconds * 1.01, True), (seconds * 0.99, False)):
            budget = Budget(left, clock=lambda: 0.0)
            prices = Prices([candidate], manifest, budget, BudgetConfig(), LadderConfig())
            assert prices.may_train_early(replace(options, img_size=img_size), [entry]) is expected


def test_passes_alone_are_the_least_that_a_run_needs(tmp_path: Path) -> None:
    """No step of it is timed: the fit says "at least"."""
    candidate = Candidate("resnet18", forward_cost("resnet18"), "mit", "a test")
    head = Attempt(step=Step("head", "resnet18"), status="finished")
    entry = Entry(attempt=head, name="01", seconds=1.0, elapsed=1.0, speed=Speed(latency=1.0, row=0.5))
    manifest = Manifest(tmp_path, ("a",), tuple(written(tmp_path, [(64, 64)] * 4)))
    prices = Prices([candidate], manifest, Budget(1.9, clock=lambda: 0.0), BudgetConfig(), LadderConfig())
    options = FinetuneConfig(model="resnet18", data=tmp_path)
    admission = prices.admit(Step("member", "resnet18", 1), options, [entry], SILENT)
    assert (admission.admitted, admission.needed, admission.tried) == (False, 2.0, False)
