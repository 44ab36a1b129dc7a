"""A batch augmented at once is the same as its images one by one, to a level here and there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms.v2 import functional

from tests.data.preparing import photo, preprocessing
from tl_kit.config import AugmentConfig, AugmentLevels
from tl_kit.images.augmentation import Drawn, Piece, TrainTransform, augment, draw_all
from tl_kit.images.batched import Windows, _resample, apply_batch, gather_windows, vary

CPU = torch.device("cpu")
SIDES = [(300, 260), (400, 534), (260, 600), (224, 1900), (230, 230), (900, 224)]
CONFIGS = dict(AugmentLevels().levels) | {
    "short-side": AugmentConfig(crop="short-side"),
    "smaller than the crop": AugmentConfig(crop="short-side", short_side=(1.0, 1.2)),
    "all": AugmentConfig(brightness=0.5, contrast=0.5, lighting=0.3, erasing=0.5),
}


def images(config: AugmentConfig, count: int) -> list[Tensor]:
    p = preprocessing()
    take = p.whole if config.draws_crops else p.evaluate
    return [take(photo(*SIDES[number % len(SIDES)], seed=number)) for number in range(count)]


def both(config: AugmentConfig, count: int = 12, *, size: tuple[int, int] = (224, 224)) -> tuple[Tensor, Tensor]:
    given, keys = images(config, count), [str(number) for number in range(count)]
    transform = TrainTransform(replace(preprocessing(), input_size=(3, *size)), config)
    drawn = draw_all([tuple(image.shape[1:]) for image in given], transform, seed=1, epoch=2, keys=keys)
    together = apply_batch(given, drawn, transform, device=CPU)
    return together.int(), augment(given, transform, seed=1, epoch=2, keys=keys).int()


@pytest.mark.parametrize("name", list(CONFIGS))
def test_a_batch_equals_its_images_one_by_one(name: str) -> None:
    together, alone = both(CONFIGS[name])
    apart = (together - alone).abs()
    assert together.shape == alone.shape
    assert int(apart.max()) <= 4, "a level of the crop, times 1.5 of brightness and of contrast"
    assert float(apart.float().mean()) < 0.02
    assert float((apart > 1).float().mean()) < 0.003


def test_a_view_wider_than_the_resized_image_is_black_outside_of_it() -> None:
    config = AugmentConfig(crop="short-side", short_side=(1.0, 1.1), flip=0.5)
    together, alone = both(config, size=(160, 420))
    assert bool((alone == 0).all(dim=1).any()), "some are wider than their image"
    assert int((together - alone).abs().max()) <= 2


def test_what_changes_nothing_leaves_every_level() -> None:
    given = images(AugmentConfig(crop="none"), 3)
    transform = TrainTransform(preprocessing(), AugmentConfig(crop="none", flip=0.0))
    found = apply_batch(given, [Drawn(), Drawn(flip=True), Drawn()], transform, device=CPU)
    assert torch.equal(found, torch.stack([given[0], given[1].flip(-1), given[2]]))


def test_images_do_not_depend_on_their_batch() -> None:
    config = CONFIGS["all"]
    given, keys = images(config, 6), list("abcdef")
    transform = TrainTransform(preprocessing(), config)
    drawn = draw_all([tuple(image.shape[1:]) for image in given], transform, seed=0, epoch=0, keys=keys)
    whole = apply_batch(given, drawn, transform, device=CPU)
    order = [4, 1, 5]
    some = apply_batch([given[i] for i in order], [drawn[i] for i in order], transform, device=CPU)
    assert int((some.int() - whole[order].int()).abs().max()) <= 1


@settings(max_examples=60, deadline=None)
@given(
    image=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    corner=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    part=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    flip=st.booleans(),
)
def test_any_box_is_resized_as_torchvision_does(
    image: tuple[int, int], corner: tuple[float, float], part: tuple[float, float], size: tuple[int, int], flip: bool
) -> None:
    pixels = torch.randint(0, 256, (3, *image), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    sides = [max(1, int(share * side)) for share, side in zip(part, image, strict=True)]
    starts = [int(share * (side - own)) for share, side, own in zip(corner, image, sides, strict=True)]
    box = (starts[0], starts[1], sides[0], sides[1])
    expected = functional.resized_crop(pixels, *box, size=list(size), antialias=True)
    transform = TrainTransform(replace(preprocessing(), input_size=(3, *size)))
    found = apply_batch([pixels], [Drawn(piece=Piece(box, size), flip=flip)], transform, device=CPU)[0]
    found = found.flip(-1) if flip else found
    assert int((found.int() - expected.int()).abs().max()) <= 2


def test_half_precision_is_enough_for_the_weights() -> None:
    """What a GPU multiplies: float16 with sums in float32, against float32 all through."""
    given = images(CONFIGS["standard"], 8)
    transform = TrainTransform(preprocessing(), CONFIGS["standard"])
    keys = [str(number) for number in range(8)]
    drawn = draw_all([tuple(image.shape[1:]) for image in given], transform, seed=0, epoch=0, keys=keys)
    pieces = [numbers.piece for numbers in drawn if numbers.piece is not None]
    windows = Windows(pieces, transform.size, [False] * 8)
    parts = gather_windows(given, windows)
    wide = _resample(parts, windows, torch.float32)
    half = _resample(parts, windows, torch.float16)
    apart = (wide - half).abs()
    assert float(apart.max()) <= 2
    assert float(apart.mean()) < 0.1


def test_the_parts_of_images_are_all_that_their_views_need() -> None:
    """What stands behind a part, or beside it in the image, is never seen."""
    given = images(CONFIGS["light"], 4)
    transform = TrainTransform(preprocessing(), CONFIGS["light"])
    drawn = draw_all([tuple(image.shape[1:]) for image in given], transform, seed=0, epoch=0, keys=list("abcd"))
    expected = apply_batch(given, drawn, transform, device=CPU)
    other = [image.clone() for image in given]
    for image, numbers in zip(other, drawn, strict=True):
        assert numbers.piece is not None
        top, left, height, width = numbers.piece.box
        kept = image[:, top : top + height, left : left + width].clone()
        image.fill_(255)
        image[:, top : top + height, left : left + width] = kept
    assert torch.equal(apply_batch(other, drawn, transform, device=CPU), expected)


def test_on_a_cpu_images_are_varied_one_by_one() -> None:
    given = images(CONFIGS["strong"], 2)
    transform = TrainTransform(preprocessing(), CONFIGS["strong"])
    found = vary(given, transform, seed=0, epoch=0, keys=["a", "b"], device=CPU)
    assert torch.equal(found, augment(given, transform, seed=0, epoch=0, keys=["a", "b"]))


def test_images_in_one_buffer_are_taken_by_one_look_up() -> None:
    given = images(CONFIGS["standard"], 6)
    buffer = torch.cat([image.flatten() for image in given])
    packed, start = [], 0
    for image in given:
        packed.append(buffer[start : start + image.numel()].view(image.shape))
        start += image.numel()
    transform = TrainTransform(preprocessing(), CONFIGS["standard"])
    drawn = draw_all([tuple(image.shape[1:]) for image in given], transform, seed=0, epoch=0, keys=list("abcdef"))
    assert torch.equal(
        apply_batch(packed, drawn, transform, device=CPU), apply_batch(given, drawn, transform, device=CPU)
    )
