"""Training resolution: small images train at their own size, where the network takes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tl_kit.config import DecodeConfig, FitConfig, SideConfig
from tl_kit.data.manifest import Sample
from tl_kit.fitting.candidates import Candidate
from tl_kit.fitting.ladder import Rung, Step
from tl_kit.fitting.step_options import StepOptions
from tl_kit.planning.training_side import longer_side, training_side
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
    options = StepOptions.on(config, [candidate], written(tmp_path, [(64, 64)] * 4))
    assert options.of(Step(rung, network)).img_size == expected
