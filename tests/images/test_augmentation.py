"""Views depend on seed, epoch and image alone; every step does what its formula says, on uint8."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from tests.data.preparing import photo, preprocessing
from tl_kit.config import AugmentConfig, AugmentLevels
from tl_kit.errors import ConfigError
from tl_kit.images.augmentation import TrainTransform, augment, draw_all, resolve_augment, seeded_draws

NONE = AugmentConfig(crop="none", flip=0.0)


def views(config: AugmentConfig, image: Tensor, count: int) -> Tensor:
    transform = TrainTransform(preprocessing(), config)
    return augment([image] * count, transform, seed=0, epoch=0, keys=[str(number) for number in range(count)])


def test_augmentation_does_not_depend_on_the_batch() -> None:
    p = preprocessing()
    images = [p.resize(photo(300, 260, seed=i)) for i in range(6)]
    keys = [f"image {i}" for i in range(6)]
    transform = TrainTransform(p)
    whole = augment(images, transform, seed=1, epoch=2, keys=keys)
    order = [4, 0, 5, 2, 1, 3]
    parts = [augment([images[i]], transform, seed=1, epoch=2, keys=[keys[i]]) for i in order]
    assert torch.equal(torch.cat(parts), whole[order])
    assert whole.dtype == torch.uint8
    assert whole.shape == (6, 3, 224, 224)


@pytest.mark.parametrize("change", [{"seed": 2}, {"epoch": 3}, {"keys": ["other"]}])
def test_seed_epoch_and_key_each_change_the_view(change: dict[str, Any]) -> None:
    p = preprocessing()
    image, transform = p.resize(photo(300, 260)), TrainTransform(p)
    base: dict[str, Any] = {"seed": 1, "epoch": 2, "keys": ["image"]}
    a = augment([image], transform, **base)
    b = augment([image], transform, **{**base, **change})
    assert not torch.equal(a, b)


def test_augmentation_leaves_the_global_random_state_alone() -> None:
    p = preprocessing()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    augment([p.resize(photo(300, 260))], TrainTransform(p), seed=0, epoch=0, keys=["a"])
    assert torch.equal(torch.rand(3), expected)


def test_none_is_the_image_of_evaluation() -> None:
    p = preprocessing()
    image = photo(400, 534)
    assert not NONE.active
    assert not NONE.draws_crops
    mirrored = views(replace(NONE, flip=1.0), p.evaluate(image), 1)[0]
    assert torch.equal(mirrored, p.evaluate(image).flip(-1))
    assert replace(NONE, erasing=0.1).active


def test_the_level_is_sized_to_the_data() -> None:
    limit = AugmentLevels().light_below_per_class
    assert resolve_augment("auto", {}, images_per_class=limit - 1)[1] == "light"
    assert resolve_augment("auto", {}, images_per_class=limit) == (AugmentConfig(), "standard")
    assert resolve_augment("none", {}, images_per_class=5) == (NONE, "none")


def test_single_options_replace_those_of_the_level() -> None:
    config, name = resolve_augment("none", {"flip": 1.0}, images_per_class=5)
    assert config == replace(NONE, flip=1.0)
    assert name == "none, with flip=1.0"


@pytest.mark.parametrize(
    ("level", "options", "message"),
    [
        ("lihgt", {}, "known are auto, none, light, standard, strong"),
        ("auto", {"crop": "square"}, "crop=square: known are resized"),
        ("auto", {"flip": 1.5}, "flip=1.5"),
        ("auto", {"erasing": -0.1}, "erasing"),
        ("auto", {"crop_scale": (0.9, 0.5)}, "crop_scale"),
        ("auto", {"crop_scale": (0.5, 1.5)}, "at most 1"),
        ("auto", {"short_side": (0.5, 1.5)}, "at least 1"),
    ],
)
def test_what_cannot_be_is_refused(level: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_augment(level, options, images_per_class=100)


def test_the_flip_is_the_mirror_image_in_so_many_cases() -> None:
    image = preprocessing().resize(photo(300, 260))
    plain = views(NONE, image, 1)[0]
    found = views(replace(NONE, flip=0.3), image, 400)
    mirrored = [torch.equal(view, plain.flip(2)) for view in found]
    assert all(torch.equal(view, plain) or flipped for view, flipped in zip(found, mirrored, strict=True))
    assert 0.22 < np.mean(mirrored) < 0.38


def test_the_short_side_is_drawn_from_its_range_and_a_square_is_cut() -> None:
    """On a ramp along x, the slope of a crop tells to which length the image was resized."""
    width, height = 400, 200
    ramp = (torch.arange(width).float() / width * 255).expand(3, height, width).round().to(torch.uint8)
    small = replace(preprocessing(), input_size=(3, 128, 128))
    config = AugmentConfig(crop="short-side", short_side=(160 / 128, 320 / 128), flip=0.0)
    lengths, starts = [], []
    for out in augment([ramp] * 200, TrainTransform(small, config), seed=0, epoch=0, keys=list(map(str, range(200)))):
        view = out.float()
        assert view.shape == (3, 128, 128)
        slope = (view[0, 0, -1] - view[0, 0, 0]) / 127
        lengths.append(255 / slope.item() / width * height)
        starts.append(view[0, 0, 0].item())
    assert 155 < min(lengths) < 175
    assert 305 < max(lengths) < 330
    assert np.std(lengths) == pytest.approx(160 / np.sqrt(12), rel=0.15), "uniform"
    assert max(starts) - min(starts) > 100, "the square is somewhere else each time"


def test_lighting_moves_all_pixels_along_the_principal_colours() -> None:
    vectors = torch.tensor([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    values = torch.tensor([0.2175, 0.0188, 0.0045])
    grey = torch.full((3, 4, 4), 128, dtype=torch.uint8)
    shifts = views(replace(NONE, lighting=0.5), grey, 3000).float() - 128
    assert (shifts == shifts[:, :, :1, :1]).all(), "one shift for the whole image"
    expected = vectors @ torch.diag((0.5 * 255 * values) ** 2) @ vectors.T
    found = torch.cov(shifts[:, :, 0, 0].T)
    torch.testing.assert_close(found, expected, rtol=0.1, atol=3.0)


def test_brightness_and_contrast_stay_within_their_range() -> None:
    grey = torch.full((3, 256, 256), 100, dtype=torch.uint8)
    found = views(replace(NONE, brightness=0.4), grey, 200).float().mean((1, 2, 3)) / 100
    assert 0.59 <= found.min() < 0.7
    assert 1.3 < found.max() <= 1.41
    checks = torch.tensor([60, 140], dtype=torch.uint8).repeat(128).expand(3, 256, 256)
    spread = views(replace(NONE, contrast=0.4), checks, 200).float().amax((1, 2, 3)) - 100
    assert 0.6 * 40 - 1 <= spread.min() < 0.7 * 40, "to a level of rounding"
    assert 1.3 * 40 < spread.max() <= 1.4 * 40 + 1


def test_erasing_paints_a_rectangle_in_the_mean_colour() -> None:
    p = preprocessing()
    white = torch.full((3, 256, 256), 255, dtype=torch.uint8)
    mean = torch.tensor([round(255 * value) for value in p.mean], dtype=torch.uint8)
    shares = []
    for view in views(replace(NONE, erasing=1.0), white, 20):
        erased = (view != 255).any(0)
        rows, columns = erased.any(1).nonzero(), erased.any(0).nonzero()
        box = view[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (box == mean.view(3, 1, 1)).all()
        assert erased.sum() == box[0].numel()
        shares.append(float(erased.float().mean()))
    assert min(shares) > 0.01
    assert max(shares) < 0.36


def test_every_level_gives_uint8_of_the_input_size() -> None:
    p = preprocessing()
    for config in [*AugmentLevels().levels.values(), AugmentConfig(crop="short-side")]:
        image = p.whole(photo(300, 260)) if config.draws_crops else p.evaluate(photo(300, 260))
        found = views(config, image, 4)
        assert (found.dtype, tuple(found.shape)) == (torch.uint8, (4, 3, 224, 224))


OTHERS = {
    "short-side": AugmentConfig(crop="short-side"),
    "all": AugmentConfig(crop="short-side", brightness=0.3, contrast=0.5, erasing=0.5, short_side=(1.0, 1.3)),
}


@pytest.mark.parametrize("name", ["none", "light", "standard", "strong", "short-side", "all"])
def test_views_are_those_of_torchvisions_transforms_under_the_same_draws(name: str) -> None:
    p = preprocessing()
    config = replace((dict(AugmentLevels().levels) | OTHERS)[name], lighting=0.0)  # torchvision has no such step
    size, (low, high) = p.input_size[1:], (round(224 * sides) for sides in config.short_side)
    crops: dict[str, list[v2.Transform]] = {
        "none": [],
        "resized": [v2.RandomResizedCrop(size, scale=config.crop_scale, ratio=config.crop_ratio, antialias=True)],
        "short-side": [v2.RandomShortestSize(range(low, high + 1)), v2.RandomCrop(size, pad_if_needed=True)],
    }
    colour = [v2.ColorJitter(config.brightness, config.contrast)] if config.brightness else []
    erasing = [v2.RandomErasing(config.erasing, value=[124, 116, 104])] if config.erasing else []
    flip = [v2.RandomHorizontalFlip(config.flip)] if config.flip else []
    reference = v2.Compose([*crops[config.crop], *flip, *colour, *erasing, v2.Identity()])
    for number, side in enumerate([(300, 260), (400, 534), (260, 600), (224, 1500)]):
        image = (p.whole if config.draws_crops else p.evaluate)(photo(*side, seed=number))
        found = augment([image], TrainTransform(p, config), seed=3, epoch=1, keys=[str(number)])[0]
        with torch.random.fork_rng(devices=[]):
            seeded_draws(3, 1, number)
            assert torch.equal(found, reference(image))


def test_draws_need_no_more_of_an_image_than_its_size() -> None:
    transform = TrainTransform(preprocessing(), AugmentLevels().levels["strong"])
    drawn = draw_all([(256, 300), (300, 256)], transform, seed=0, epoch=0, keys=["a", "b"])
    assert drawn == [
        draw_all([size], transform, seed=0, epoch=0, keys=[key])[0]
        for size, key in [((256, 300), "a"), ((300, 256), "b")]
    ]


@pytest.mark.parametrize(
    "config",
    [
        AugmentConfig(),
        AugmentConfig(crop_scale=(0.08, 1.0), flip=0.3),
        AugmentConfig(crop_scale=(0.9, 1.0), crop_ratio=(0.9, 1.1), flip=0.0),
    ],
)
def test_crops_drawn_for_a_whole_batch_are_those_drawn_one_by_one(config: AugmentConfig) -> None:
    """Also of images in which ten tries do not fit."""
    rng = np.random.default_rng(0)
    sizes = list(
        zip(rng.choice([1, 2, 256, 300], 3000).tolist(), rng.choice([1, 256, 341, 1900], 3000).tolist(), strict=True)
    )
    keys = [str(number) for number in range(3000)]
    quick, slow = TrainTransform(preprocessing(), config), TrainTransform(preprocessing(), config)
    slow.quick = False
    options: dict[str, Any] = {"seed": 4, "epoch": 1, "keys": keys}
    assert quick.quick
    assert draw_all(sizes, quick, **options) == draw_all(sizes, slow, **options)
