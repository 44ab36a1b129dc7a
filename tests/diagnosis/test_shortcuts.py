"""Shortcuts: what chance raises, what is left out, and what the traits are."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ExifTags, Image

from tests.data.images import encoded, noise
from tl_kit.config import ShortcutConfig
from tl_kit.diagnosis.shortcuts import KINDS, Shortcut, Traits, border_colour, find_shortcuts, read_traits

CONFIG = ShortcutConfig()


def made_up(values: np.ndarray) -> list[Traits]:
    """Images (n,) whose width is the only thing known of them."""
    return [Traits(size=(float(v),), file=("JPEG",), exif=(None,), border=(0.0,)) for v in values]


def search(
    values: np.ndarray, labels: np.ndarray, groups: list[str] | None = None, config: ShortcutConfig = CONFIG
) -> list[Shortcut]:
    keys = [f"{number:06d}" for number in np.random.default_rng(0).permutation(len(values))]
    return list(find_shortcuts(made_up(values), labels.tolist(), groups or keys, config=config))


def test_one_class_of_many_is_named_with_its_figures():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 40)
    (found,) = search(np.where(labels == 7, 1000, rng.integers(1, 900, 400)), labels)
    assert (found.kind, found.label, found.recall, found.others, found.chance) == ("size", 7, 1.0, 0.0, 0.1)
    assert found.balanced < 0.5, "the other nine are guessed"


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("images", [5, 20, 100])
def test_chance_raises_no_alarm(classes, images):
    rng = np.random.default_rng(classes * images)
    labels = np.repeat(np.arange(classes), images)
    assert not any(search(rng.normal(size=len(labels)), labels) for _ in range(30))


def test_the_false_alarm_rate_is_what_it_says():
    """Without the demand for a large excess, at 20 % a data set: chance must stay below, and not by never speaking."""
    config = ShortcutConfig(excess=-1, false_alarms=0.2)
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 30)
    alarms = sum(bool(search(rng.normal(size=90), labels, config=config)) for _ in range(200))
    assert 0 < alarms < 200 * 0.2


def test_a_weak_relation_is_none():
    """Significant, and not worth a word: the widths of the classes differ by a third of their spread."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 1000)
    assert search(rng.normal(labels / 3, 1), labels) == []
    assert search(rng.normal(labels / 3, 1), labels, config=ShortcutConfig(excess=0.05)) != []


def test_what_identifies_a_group_and_no_class_is_none():
    """Ten patients, each with a width of their own and one diagnosis, drawn at random."""
    rng = np.random.default_rng(1)
    patient = np.repeat(np.arange(10), 20)
    alone, grouped = 0, 0
    for _ in range(30):
        labels = rng.permutation(np.repeat([0, 1], 5))[patient]
        names = [f"{rng.bit_generator.random_raw():x}" for _ in range(10)]
        alone += bool(search(patient, labels))
        grouped += bool(search(patient, labels, groups=[names[p] for p in patient]))
    assert alone > 20, "without groups it looks like one"
    assert grouped == 0


def test_classes_of_too_few_images_are_left_out():
    labels = np.array([0] * 30 + [1] * 30 + [2] * 4)
    widths = np.random.default_rng(0).normal(size=64)
    widths[60:] = 1000
    assert search(widths, labels) == []
    assert search(np.arange(4.0), np.array([0, 0, 1, 1])) == []


def test_every_image_under_two_labels_has_no_class_to_tell():
    widths, labels = np.repeat(np.arange(20.0), 2), np.tile([0, 1], 20)
    assert search(widths, labels, groups=[f"{number * 7 % 20:02d}" for number in range(20) for _ in range(2)]) == []


def test_names_are_told_apart_too():
    traits = [Traits(size=(1.0,), file=("PNG" if n % 2 else "JPEG",), exif=(None,), border=(0.0,)) for n in range(60)]
    (found,) = find_shortcuts(
        traits, [n % 2 for n in range(60)], [f"{n * 7919 % 61:02d}" for n in range(60)], config=CONFIG
    )
    assert (found.kind, found.recall, found.others) == ("file", 1.0, 0.0)


def test_traits_of_a_turned_photo():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Model] = "Model\0 7"
    data = encoded(Image.fromarray(noise(0, height=30, width=60)), "JPEG", exif=exif, quality=80)
    traits = read_traits(data, suffix=".JPG", border=(1.0, 2.0, 3.0))
    assert traits.size == (30.0, 60.0, 0.5), "as it is seen: upright"
    assert traits.exif[0] == 1.0
    assert traits.exif[1] == "6"
    assert (traits.file[:2], traits.file[3]) == (("JPEG", "RGB"), ".jpg")
    assert (
        traits.file[2]
        < read_traits(encoded(Image.fromarray(noise(0)), "JPEG", quality=50), suffix="", border=(0.0, 0.0, 0.0)).file[2]
    ), "a coarser table"
    plain = read_traits(encoded(Image.fromarray(noise(0)), "PNG"), suffix=".png", border=(0.0, 0.0, 0.0))
    assert plain.exif == (0.0, None, None, None, None)
    assert set(KINDS) == set(Traits.__dataclass_fields__)


def test_the_border_is_what_is_on_the_edge():
    pixels = np.zeros((6, 5, 3), dtype=np.uint8)
    pixels[1:-1, 1:-1] = 255
    assert border_colour(pixels) == (0.0, 0.0, 0.0)
    pixels[0, :, 1] = 90  # 5 of the 18 pixels of the edge
    assert border_colour(pixels) == (0.0, 25.0, 0.0)
