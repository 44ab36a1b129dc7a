"""Mirror images as augmentation: a run goes without them where they change the classes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tl_kit
from tests.helpers import Listener, interrupt, quick, quick_config, settings_of, told, write_images
from tl_kit.config import AugmentConfig, CacheConfig, CropConfig, MirrorConfig
from tl_kit.finetuning.choices import mirror_images
from tl_kit.finetuning.choices.mirror_images import settle_mirror_images
from tl_kit.finetuning.choices.stage_rows import HEAD_INPUT
from tl_kit.finetuning.preparation import prepare
from tl_kit.reporting import SILENT
from tl_kit.series.resume import resume


def write_ramps(root: Path, *, images: int) -> Path:
    """Class folders of images that get brighter to the right, or to the left; one class is the other's mirror image.

    Each ramp begins somewhere else: a crop that is one pixel off the centre then tells no mirror image.
    """
    random = np.random.default_rng(0)
    for name, step in (("left", -1), ("right", 1)):
        (root / name).mkdir(parents=True)
        for number in range(images):
            start = random.uniform(-0.6, -0.4)
            line = (
                np.linspace(start, start + 1.5, 40)[::step] ** 2 * 200
            )  # not odd about its middle: no cue in the mean
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
    assert choice.harm > max(2.5 * choice.error, 0.3) > 0
    assert run.augment.flip == 0
    assert run.augment_name == "light, with flip=0.0"
    assert choice.images == len(run.manifest.split("train"))


def test_of_classes_that_it_does_not_mirror_images_stay(colours: Path, pretrained: Path) -> None:
    run, choice = settled(colours, pretrained)
    assert not choice.harmful(run.config.mirror)
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
    assert said.startswith("no mirror images in training: a head that is fitted to them too has an NLL ")
    assert re.search(r"NLL \d\.\d+ ± \d\.\d+ higher \(cross-validated, 36 training images\)", said)
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


def test_it_is_asked_of_scenes_and_not_of_their_frames(ramps: Path, pretrained: Path, tmp_path: Path) -> None:
    """Ten scenes of six frames; each frame has its own noise, and is known by its scene."""
    random = np.random.default_rng(1)
    rows = []
    for number, path in enumerate(sorted(ramps.rglob("*.png"))[::6]):
        pixels = np.asarray(Image.open(path), dtype=np.float64)
        for frame in range(6):
            file = tmp_path / f"{number}-{frame}.png"
            Image.fromarray(np.clip(pixels + random.normal(0, 2, pixels.shape), 0, 255).astype(np.uint8)).save(file)
            rows.append(f"{file},{path.parent.name},{number}")
    table = tmp_path / "frames.csv"
    table.write_text("path,label,group\n" + "\n".join(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mirror_images, "keys_of", lambda samples, *, seed: [sample.digest for sample in samples])
        _, alone = settled(table, pretrained)
    run, choice = settled(table, pretrained)
    assert choice.error > 1.5 * alone.error, "frames are no independent evidence"
    assert choice.images == alone.images == len(run.manifest.split("train"))


def test_a_class_of_one_image_does_not_end_the_question(ramps: Path, pretrained: Path, tmp_path: Path) -> None:
    shutil.copytree(ramps, tmp_path / "images")
    for split in ("left", "right"):
        assert len(list((tmp_path / "images" / split).iterdir())) == 30
    (tmp_path / "images" / "single").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "images" / "single" / "0.png")
    allowed = ("class-missing",)
    run, choice = settled(tmp_path / "images", pretrained, allow=allowed)
    assert choice.images == sum(sample.label != 2 for sample in run.manifest.split("train"))
    assert run.augment.flip == 0


def test_an_image_that_cannot_be_decoded_moves_no_other(ramps: Path) -> None:
    run = prepare(quick_config(ramps, Path("unused"), weights="none"), SILENT, dry=True)
    samples = run.manifest.split("train")
    run.cleanup.close()
    drawn = mirror_images._drawn(samples, MirrorConfig(images=16), seed=0)
    assert 14 <= len(drawn) <= 18
    rest = tuple(sample for sample in samples if sample != drawn[0])
    assert set(drawn) - set(mirror_images._drawn(rest, MirrorConfig(images=16), seed=0)) == {drawn[0]}


@pytest.mark.parametrize(
    ("harm", "error", "harmful"),
    [(0.2, 0.09, True), (0.2, 0.11, False), (0.019, 0.001, False), (0.021, 0.001, True), (-0.3, 0.01, False)],
)
def test_harm_is_more_than_noise_and_enough_to_count(harm: float, error: float, harmful: bool) -> None:
    assert mirror_images.MirrorChoice(harm, error, 100).harmful(MirrorConfig()) == harmful


@pytest.mark.parametrize(("error", "said"), [(0.11, True), (0.13, True), (0.14, False)])
def test_a_doubt_is_said(
    error: float, said: bool, ramps: Path, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror_images, "_measured", lambda _: mirror_images.MirrorChoice(0.2, error, 36))
    listener = Listener()
    run = prepare(quick_config(ramps, Path("unused"), weights=str(pretrained)), listener, dry=True)
    same, _ = settle_mirror_images(run)
    run.cleanup.close()
    assert same.augment.flip == 0.5
    told = [line for line in listener.messages if line.startswith("mirror images may change the classes: ")]
    assert len(told) == said
    assert all("--aug flip=0" in line for line in told)


def test_images_are_decoded_once_for_both_views(ramps: Path, pretrained: Path, tmp_path: Path) -> None:
    listener = Listener()
    begun: list[tuple[str, int]] = []
    listener.start = lambda stage, total: begun.append((stage, total))  # type: ignore[method-assign]
    cache = CacheConfig(directory=tmp_path)
    run = prepare(quick_config(ramps, Path("unused"), weights=str(pretrained), cache=cache), listener, dry=True)
    settle_mirror_images(run)
    run.cleanup.close()
    images = len(run.manifest.split("train"))
    assert [entry for entry in begun if entry[0] == "decode"] == [("decode", images)]
    assert ("features of all stages, plain and mirrored", 2 * images) in begun
    held = sum(pixels.nbytes for pixels in run.store._pixels.values())
    assert run.store.used == held


@pytest.mark.parametrize(
    ("options", "asked"), [({}, True), ({"weights": "none"}, False), ({"augment_options": ("flip=0.5",)}, False)]
)
def test_the_number_of_images_that_it_takes(
    options: dict[str, Any], asked: bool, ramps: Path, pretrained: Path
) -> None:
    run = prepare(quick_config(ramps, Path("unused"), **{"weights": str(pretrained), **options}), SILENT, dry=True)
    run.cleanup.close()
    assert mirror_images.images_asked(run) == (len(run.manifest.split("train")) if asked else 0)


def test_all_stages_are_asked(ramps: Path, pretrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the last stage has averaged away, earlier ones still see."""
    _, choice = settled(ramps, pretrained)
    original = mirror_images.rows_of_views

    def blind(*args: Any, **options: Any) -> Any:
        kept, views = original(*args, **options)
        return kept, [{**view, HEAD_INPUT: np.zeros_like(view[HEAD_INPUT])} for view in views]

    monkeypatch.setattr(mirror_images, "rows_of_views", blind)
    run, without_last = settled(ramps, pretrained)
    assert run.augment.flip == 0
    assert without_last.harm > 0.5 * choice.harm
