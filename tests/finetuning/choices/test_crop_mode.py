"""The way of images into the square: settled by cross-validated heads, recorded, and the same in timm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

import tl_kit
from tests.helpers import COLOURS, Listener, interrupt, quick, quick_config, same, weights, write_images
from tl_kit import FinetuneConfig, plan
from tl_kit.config import CacheConfig, CropModeConfig, PenaltyConfig
from tl_kit.errors import ConfigError
from tl_kit.finetuning.choices.crop_mode import CropModeChoice, settle_crop_mode
from tl_kit.finetuning.preparation import prepare
from tl_kit.finetuning.run import Run
from tl_kit.images.decode import decode
from tl_kit.images.transforms import normalize
from tl_kit.optimization.penalty_choice import stratified_part
from tl_kit.reporting import SILENT
from tl_kit.storage.checkpoint import load_checkpoint
from tl_kit.training.held_out import HeldOut, held_out

GREY = (120, 120, 120)


def write_strips(root: Path, *, ends: bool, size: tuple[int, int] = (96, 32), images: int = 12) -> Path:
    """Noisy images (width, height) whose class is a colour, of their ends alone or of their middle alone."""
    rng = np.random.default_rng(0)
    width, height = size
    for name in ("red", "green", "blue"):
        (root / name).mkdir(parents=True)
        for number in range(images):
            pixels = np.empty((height, width, 3))
            pixels[:] = COLOURS[name] if ends else GREY
            pixels[:, width // 3 : -(width // 3)] = GREY if ends else COLOURS[name]
            pixels = np.clip(pixels + rng.normal(0, 40, pixels.shape), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_strips(tmp_path_factory.mktemp("ends") / "images", ends=True)


@pytest.fixture(scope="module")
def middle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_strips(tmp_path_factory.mktemp("middle") / "images", ends=False)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("pretrained")
    quick(write_images(folder / "images"), folder / "run")
    return str(folder / "run")


def a_run(data: Path, folder: Path, reporter: Any = SILENT, **options: Any) -> Run:
    cache = CacheConfig(directory=folder / "cache")
    return prepare(quick_config(data, folder / "run", cache=cache, **options), reporter, dry=True)


def settled(data: Path, folder: Path, **options: Any) -> tuple[CropModeChoice, Run, list[str]]:
    listener = Listener()
    run = a_run(data, folder, listener, **options)
    return settle_crop_mode(run), run, [text for text in listener.messages if text.startswith("crop mode")]


@pytest.mark.parametrize("policy", ["auto", "head", "full"])
def test_squash_is_taken_where_the_ends_tell_the_classes(
    ends: Path, pretrained: str, tmp_path: Path, policy: str
) -> None:
    choice, run, told = settled(ends, tmp_path, weights=pretrained, policy=policy, epochs=None)
    assert choice.mode == run.preprocessing.crop_mode == run.store.preprocessing.crop_mode == "squash"
    assert told == [f"crop mode squash: {choice.reason}"]
    assert "hides 67% of the pixels" in choice.reason
    assert "center" in choice.reason
    assert "squash" in choice.reason


def test_the_models_own_mode_stays_where_no_other_is_better(middle: Path, pretrained: str, tmp_path: Path) -> None:
    choice, run, told = settled(middle, tmp_path, weights=pretrained, policy="head", epochs=None)
    assert choice.mode == run.preprocessing.crop_mode == "center"
    assert choice.compared
    assert len(told) == 1
    assert "not better by more than its standard error" in told[0]


def test_a_margin_that_none_can_pass_keeps_the_models_own(ends: Path, pretrained: str, tmp_path: Path) -> None:
    config = CropModeConfig(margin=1000.0)
    choice, *_ = settled(ends, tmp_path, weights=pretrained, policy="head", epochs=None, crop_choice=config)
    assert choice.mode == "center"


def test_square_images_cost_nothing(pretrained: str, tmp_path: Path) -> None:
    data = write_strips(tmp_path / "images", ends=True, size=(40, 40))
    choice, run, told = settled(data, tmp_path, weights=pretrained, policy="head", epochs=None)
    assert (choice.mode, choice.compared, told) == ("center", False, [])
    assert run.store.used == 0, "no image was decoded"


@pytest.mark.parametrize(("size", "mode"), [((96, 32), "squash"), ((40, 32), "center")])
def test_random_weights_have_a_rule(tmp_path: Path, size: tuple[int, int], mode: str) -> None:
    data = write_strips(tmp_path / "images", ends=True, size=size)
    choice, run, _ = settled(data, tmp_path)
    assert choice.mode == run.preprocessing.crop_mode == mode
    assert not choice.compared
    assert "no features to compare modes by" in choice.reason


def test_a_class_of_one_image_falls_back_to_the_rule(ends: Path, pretrained: str, tmp_path: Path) -> None:
    rows = [
        f"{path},{path.parent.name},{'val' if number % 4 == 0 else 'train'}"
        for number, path in enumerate(sorted(ends.rglob("*.png")))
    ]
    train = [row for row in rows if row.endswith("train")]
    lone = next(row for row in train if ",red," in row)
    kept = [row for row in rows if ",red," not in row or row == lone or row.endswith("val")]
    (tmp_path / "images.csv").write_text("\n".join(["path,label,split", *kept]))
    choice, *_ = settled(tmp_path / "images.csv", tmp_path, weights=pretrained, policy="head", epochs=None)
    assert (choice.mode, choice.compared) == ("squash", False)


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_a_given_mode_is_trained_saved_and_timm_prepares_the_same_pixels(
    ends: Path, pretrained: str, tmp_path: Path, mode: str
) -> None:
    quick(ends, tmp_path / "run", weights=pretrained, crop_mode=mode, epochs=1)
    card = json.loads((tmp_path / "run" / "config.json").read_text())["pretrained_cfg"]
    assert card["crop_mode"] == mode
    model = timm.create_model(f"local-dir:{tmp_path / 'run'}", pretrained=True).eval()
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    ours = load_checkpoint(tmp_path / "run")
    assert ours.preprocessing.crop_mode == mode
    for number, (image, exact) in enumerate(odd_images(mode)):
        image.save(tmp_path / f"{number}.png")
        decoded = decode(tmp_path / f"{number}.png")
        pixels = normalize(ours.preprocessing.evaluate(decoded).unsqueeze(0), ours.preprocessing)[0]
        assert pixels.shape == ours.preprocessing.input_size
        if not exact:
            continue
        theirs = transform(decoded)
        assert torch.equal(pixels, theirs), f"{image.size} {image.mode}"
        with torch.inference_mode():
            expected = torch.softmax(model(theirs.unsqueeze(0)).double(), 1)[0]
        found = tl_kit.predict(tmp_path / "run", tmp_path / f"{number}.png")[0].probabilities
        assert [found[name] for name in ours.classes] == pytest.approx(expected.tolist(), abs=1e-5)


def odd_images(mode: str) -> list[tuple[Image.Image, bool]]:
    """Images of odd sizes, shapes and modes; and whether timm takes them as they are.

    Of those longer than 20 times their width the middle is taken under "center", where timm enlarges them whole; and of
    the longest under "border", where timm fails.
    """
    rng = np.random.default_rng(0)
    sizes = [(97, 33), (33, 97), (640, 32), (32, 640), (1, 20), (20, 1), (1, 1), (41, 40)]
    found = []
    for width, height in sizes:
        pixels = rng.integers(0, 255, (height, width, 4), dtype=np.uint8)
        found += [(Image.fromarray(pixels), True), (Image.fromarray(pixels[..., :3]), True)]
    long = Image.fromarray(rng.integers(0, 255, (1, 60, 3), dtype=np.uint8))
    return [*found, (long, mode != "center"), (long.resize((5000, 1)), mode == "squash")]


def test_the_settled_mode_is_that_of_checkpoint_plan_and_prediction(
    ends: Path, pretrained: str, tmp_path: Path
) -> None:
    options = {"weights": pretrained, "policy": "head", "epochs": None, "cache": CacheConfig(directory=tmp_path / "c")}
    planned = plan(quick_config(ends, tmp_path / "run", **options))
    assert next(choice.value for choice in planned.choices if choice.name == "crop mode") == "squash"
    result = quick(ends, tmp_path / "run", **options)
    assert load_checkpoint(tmp_path / "run").preprocessing.crop_mode == "squash"
    assert result.val is not None
    scored = tl_kit.evaluate(tmp_path / "run", ends, split="val")
    assert scored.metrics["accuracy"] == result.val["accuracy"]
    assert scored.metrics["nll"] == pytest.approx(result.val["nll"], abs=1e-6)


def test_a_resumed_run_keeps_the_mode_that_it_settled(
    ends: Path, pretrained: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    quick(ends, whole, weights=pretrained, epochs=3)
    interrupt(monkeypatch, at=6)
    cut = tmp_path / "cut"
    assert quick(ends, cut, weights=pretrained, epochs=3).status == "interrupted"
    assert json.loads((cut / "tlkit.json").read_text())["resume"]["crop_mode"] == "squash"
    monkeypatch.undo()
    monkeypatch.setattr("tl_kit.finetuning.choices.crop_mode._choose", lambda *_, **__: pytest.fail("settled already"))
    tl_kit.resume(cut)
    assert load_checkpoint(cut).preprocessing.crop_mode == "squash"
    assert same(weights(cut), weights(whole))


def test_a_run_of_an_earlier_version_goes_on_as_it_began(
    ends: Path, pretrained: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, at=6)
    quick(ends, tmp_path / "run", weights=pretrained, epochs=3, crop_mode="center")
    monkeypatch.undo()
    meta = json.loads((tmp_path / "run" / "tlkit.json").read_text())
    for name in ("crop_mode", "crop_choice"):
        del meta["config"][name]
    del meta["resume"]["crop_mode"]
    (tmp_path / "run" / "tlkit.json").write_text(json.dumps(meta))
    tl_kit.resume(tmp_path / "run")
    assert load_checkpoint(tmp_path / "run").preprocessing.crop_mode == "center"


def test_another_word_is_refused(ends: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--crop-mode stretch: known are auto, center, squash, border$"):
        prepare(FinetuneConfig(model="test_resnet", data=ends, crop_mode="stretch"), SILENT, dry=True)


def test_images_that_cannot_be_decoded_are_told_once(ends: Path, pretrained: str, tmp_path: Path) -> None:
    data = write_strips(tmp_path / "images", ends=True)
    whole = (data / "red" / "0.png").read_bytes()
    for number in range(3):
        (data / "red" / f"broken-{number}.png").write_bytes(whole[: len(whole) // 2] + bytes([number]) * 40)
    listener = Listener()
    quick(data, tmp_path / "run", weights=pretrained, policy="head", epochs=None, reporter=listener)
    assert sum("broken-" in text for text in listener.messages) <= 3
    assert load_checkpoint(tmp_path / "run").preprocessing.crop_mode == "squash"


def test_both_ways_together_are_offered_where_they_pay(pretrained: str, tmp_path: Path) -> None:
    """Two bits, one in the ends, one in the middle: each way sees its own well, and four classes need both."""
    planned = plan(quick_config(write_strips(tmp_path / "i", ends=False), tmp_path / "r", weights=pretrained))
    assert planned.offers == (), "the middle alone tells these apart"


def test_held_out_predictions_have_not_seen_the_image() -> None:
    """Features that only name the image say nothing of another one; the label among them says all."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    noise = rng.normal(size=(60, 200)).astype(np.float32)
    told = noise[:, :5].copy()
    told[:, 0] = 20 * labels
    blind, clear = (held_out(features, labels, seed=0, config=PenaltyConfig()) for features in (noise, told))
    assert blind is not None
    assert clear is not None
    assert 0.2 < blind.accuracy < 0.8
    assert clear.accuracy == pytest.approx(1)
    assert clear.nll < blind.nll
    np.testing.assert_array_equal(blind.images, clear.images)
    assert held_out(noise[:3], np.array([0, 0, 1]), seed=0, config=PenaltyConfig()) is None


def test_a_gain_is_paired_and_weighted() -> None:
    images, loss, share = np.arange(4), np.zeros(4), np.array([0.4, 0.2, 0.2, 0.2])
    one, other = (HeldOut(images, loss, np.array(right), share, images) for right in ([1.0, 1, 0, 1], [0.0, 1, 0, 1]))
    gain, error = one.gain(other)
    assert gain == pytest.approx(one.accuracy - other.accuracy) == pytest.approx(0.4)
    assert error == pytest.approx(np.std([1.6, 0, 0, 0], ddof=1) / 2), "each image's difference is 4 times its share"
    assert one.gain(one) == (0, 0)


def test_a_part_keeps_the_classes_proportions_and_the_rare_ones() -> None:
    labels = np.repeat([0, 1, 2], [600, 300, 4])
    part = stratified_part(labels, 90, least=5, seed=0)
    assert np.bincount(labels[part]).tolist() == [60, 30, 4]
    assert (np.diff(part) > 0).all()
    assert len(stratified_part(labels, 5000, least=5, seed=0)) == len(labels)
