"""Mirror images as augmentation: a run goes without them where they change the classes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tl_kit
from tests.helpers import Listener, interrupt, quick, quick_config, settings_of, told, write_images
from tl_kit.config import AugmentConfig, CropConfig
from tl_kit.finetuning.choices import mirror_images
from tl_kit.finetuning.choices.mirror_images import settle_mirror_images
from tl_kit.finetuning.preparation import prepare
from tl_kit.reporting import SILENT
from tl_kit.series.resume import resume


def write_ramps(root: Path, *, images: int) -> Path:
    """Class folders of images that get brighter to the right, or to the left; one class is the other's mirror image."""
    random = np.random.default_rng(0)
    ramp = np.abs(np.linspace(-0.5, 1, 40)) ** 2 * 200  # not odd about its middle: the mean says nothing
    for name, line in (("left", ramp[::-1]), ("right", ramp)):
        (root / name).mkdir(parents=True)
        for number in range(images):
            pixels = np.broadcast_to(line, (40, 40))[..., None] + random.normal(20, 12, (40, 40, 3))
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def ramps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ramps(tmp_path_factory.mktemp("ramps"), images=30)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("colours"), images=20, size=(40, 40))


@pytest.fixture(scope="module")
def pretrained(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose features are those of random filters."""
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    quick(colours, folder, policy="head", epochs=None)
    return folder


def settled(data: Path, pretrained: Path | str, **options: Any) -> Any:
    run = prepare(quick_config(data, Path("unused"), weights=str(pretrained), **options), SILENT, dry=True)
    try:
        return settle_mirror_images(run)
    finally:
        run.cleanup.close()


def test_classes_that_a_mirror_exchanges_are_found(ramps: Path, pretrained: Path) -> None:
    run, choice = settled(ramps, pretrained)
    assert choice.harm > 2 * choice.error > 0
    assert run.augment.flip == 0
    assert run.augment_name == "light, with flip=0.0"
    assert choice.images == len(run.manifest.split("train"))


def test_of_classes_that_it_does_not_mirror_images_stay(colours: Path, pretrained: Path) -> None:
    run, choice = settled(colours, pretrained)
    assert choice.harm <= 2 * choice.error
    assert (run.augment.flip, run.augment_name) == (0.5, "light")


@pytest.mark.parametrize(
    ("options", "flip"),
    [
        ({"augment_options": ("flip=0.3",)}, 0.3),
        ({"augment_options": {"flip": 0.0}}, 0.0),
        ({"augment": AugmentConfig(flip=0.4)}, 0.4),
        ({"augment": "none"}, 0.0),
        ({"policy": "head", "epochs": None}, 0.5),
        ({"weights": "none"}, 0.5),
    ],
)
def test_it_is_not_asked_where_the_answer_is_given_or_nothing_can_tell(
    ramps: Path, pretrained: Path, options: dict[str, Any], flip: float
) -> None:
    given = {"weights": str(pretrained), **options}
    run = prepare(quick_config(ramps, Path("unused"), **given), SILENT, dry=True)
    try:
        same, choice = settle_mirror_images(run)
    finally:
        run.cleanup.close()
    assert choice is None
    assert same.augment.flip == flip
    assert same.augment_name == run.augment_name


def test_other_settings_of_the_augmentation_stay(ramps: Path, pretrained: Path) -> None:
    run, _ = settled(ramps, pretrained, augment="strong", augment_options=("brightness=0.1",))
    assert (run.augment.flip, run.augment.brightness, run.augment.contrast) == (0.0, 0.1, 0.4)
    assert run.augment_name == "strong, with brightness=0.1, flip=0.0"


def test_a_run_says_so_and_records_it(ramps: Path, pretrained: Path, tmp_path: Path) -> None:
    listener = Listener()
    quick(ramps, tmp_path / "run", weights=str(pretrained), epochs=1, reporter=listener)
    (said,) = [line for line in listener.messages if "mirror images in training" in line]
    assert said.startswith("no mirror images in training, for they change the classes: a head that is fitted to ")
    assert re.search(r"has an NLL \d\.\d+ ± \d\.\d+ higher \(cross-validated, 36 training images\)", said)
    assert "--aug flip=0.5" in said
    assert settings_of(tmp_path / "run")["flip"] == 0.0
    record = json.loads((tmp_path / "run" / "tlkit.json").read_text())
    assert record["settings"]["augment"] == "light, with flip=0.0"


def test_a_run_that_is_taken_up_again_keeps_its_choice(
    ramps: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, at=7)
        quick(ramps, tmp_path / "run", weights=str(pretrained), epochs=4)
    monkeypatch.setattr(mirror_images, "_measured", lambda _: pytest.fail("settled already"))
    result = resume(tmp_path / "run")
    assert result.epochs == 4
    assert settings_of(tmp_path / "run")["flip"] == 0.0


@pytest.mark.parametrize(("crops", "said"), [(10, True), (5, False)])
def test_crops_with_mirror_images_of_a_network_trained_without_are_said(
    crops: int, said: bool, ramps: Path, pretrained: Path, tmp_path: Path
) -> None:
    quick(ramps, tmp_path / "run", weights=str(pretrained), epochs=1)
    told()
    tl_kit.load(tmp_path / "run", crops=CropConfig(crops=crops))
    assert any("was trained without mirror images, and --crops 10 averages them in" in line for line in told()) == said
