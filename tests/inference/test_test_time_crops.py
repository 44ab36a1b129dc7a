"""Crops at test time: averaged as probabilities, image by image, and kept with the ensemble that was scored so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import tl_kit
from tests.helpers import Listener, quick, write_images
from tl_kit import CropConfig, EnsembleConfig, metrics
from tl_kit.config import RuntimeConfig
from tl_kit.errors import CheckpointError, ConfigError
from tl_kit.images.crops import crop_views
from tl_kit.images.decode import decode, decode_as
from tl_kit.inference.run_models import Scorer

pytestmark = pytest.mark.usefixtures("plain_pictures")

MANY = CropConfig(crops=10, scales=(1.0, 1.25))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), images=12)


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("ckpts")
    quick(data, root / "a")
    quick(data, root / "b", model="test_vit", img_size=48, epochs=1, seed=2)  # another input size
    return [root / name for name in "ab"]


@pytest.fixture(scope="module")
def files(data: Path) -> list[Path]:
    return sorted(data.rglob("*.png"))[::4]


def probabilities(path: Path, files: Sequence[Path], crops: CropConfig | None, **runtime: Any) -> NDArray[np.float64]:
    """(members, n, classes), in the order of the predictor's classes."""
    predictor = tl_kit.load(path, crops=crops, runtime=RuntimeConfig(precision="fp32", **runtime))
    stack, failures = predictor.member_probabilities(files)
    assert failures == {}
    return stack


@pytest.mark.parametrize("config", [CropConfig(crops=5), CropConfig(crops=10), CropConfig(scales=(1.0, 1.3)), MANY])
def test_the_result_is_the_mean_of_the_softmax_of_each_crop_on_its_own(
    runs: list[Path], files: list[Path], config: CropConfig
) -> None:
    for run in runs:
        predictor = tl_kit.load(run, crops=config, runtime=RuntimeConfig(precision="fp32"))
        scorer, p = predictor.scorers[0], predictor.members[0].preprocessing
        expected = []
        for file in files:
            views = crop_views(decode(file), p, config)
            assert len(views) == config.views
            logits = [scorer(view.unsqueeze(0))[0].double().numpy() for view in views]
            exponentials = [np.exp(row - row.max()) for row in logits]
            expected.append(np.mean([row / row.sum() for row in exponentials], axis=0))
        found = predictor.member_probabilities(files)[0][0]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_crops_change_the_result_and_one_crop_does_not(runs: list[Path], files: list[Path]) -> None:
    plain = probabilities(runs[0], files, None)
    assert np.array_equal(probabilities(runs[0], files, CropConfig()), plain)
    for config in (CropConfig(crops=5), CropConfig(crops=10), CropConfig(scales=(1.25,))):
        assert np.abs(probabilities(runs[0], files, config) - plain).max() > 1e-4


@pytest.mark.parametrize("batch_size", [1, 3, 7, 32])
def test_an_image_s_result_does_not_depend_on_other_images_their_order_or_the_batch_size(
    runs: list[Path], files: list[Path], batch_size: int
) -> None:
    whole = probabilities(runs[0], files, MANY)[0]
    order = np.random.default_rng(0).permutation(len(files))
    shuffled = probabilities(runs[0], [files[i] for i in order], MANY, batch_size=batch_size)[0]
    np.testing.assert_allclose(shuffled, whole[order], rtol=0, atol=1e-6)
    alone = [probabilities(runs[0], [file], MANY, batch_size=batch_size)[0][0] for file in files[:3]]
    np.testing.assert_allclose(alone, whole[:3], rtol=0, atol=1e-6)


def test_no_batch_is_larger_than_the_runtime_allows(
    runs: list[Path], files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    call = Scorer.__call__

    def counted(self: Scorer, pixels: Tensor) -> Tensor:
        sizes.append(len(pixels))
        return call(self, pixels)

    monkeypatch.setattr(Scorer, "__call__", counted)
    for batch_size in (1, 8, 50):
        sizes.clear()
        probabilities(runs[0], files, MANY, batch_size=batch_size)
        assert sum(sizes) == len(files) * MANY.views
        assert max(sizes) <= batch_size


def test_the_order_of_scales_changes_nothing(runs: list[Path], files: list[Path]) -> None:
    a = probabilities(runs[0], files, CropConfig(crops=5, scales=(1.0, 1.15, 1.3)))
    b = probabilities(runs[0], files, CropConfig(crops=5, scales=(1.3, 1.0, 1.15)))
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_ten_crops_of_the_mirror_image_give_the_same_and_one_does_not(runs: list[Path]) -> None:
    predictor = tl_kit.load(runs[0], crops=CropConfig(crops=10), runtime=RuntimeConfig(precision="fp32"))
    side = predictor.members[0].preprocessing.min_side  # of this height, the image is not resized
    image = Image.fromarray(np.random.default_rng(3).integers(0, 255, (side, 52, 3), dtype=np.uint8))
    assert (52 - predictor.members[0].preprocessing.input_size[2]) % 2 == 0, "the centre stands in the middle"
    mirror = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    here, there = predictor.member_probabilities([image, mirror])[0][0]
    np.testing.assert_allclose(here, there, rtol=0, atol=1e-6)
    here, there = tl_kit.load(runs[0]).member_probabilities([image, mirror])[0][0]
    assert np.abs(here - there).max() > 1e-4


def test_an_image_that_cannot_be_decoded_costs_the_others_nothing(
    runs: list[Path], files: list[Path], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    listener = Listener()
    found = tl_kit.predict(runs[0], [files[0], bad, files[1]], crops=MANY, reporter=listener)
    assert [prediction.error is None for prediction in found] == [True, False, True]
    assert found[2].probabilities == pytest.approx(tl_kit.predict(runs[0], files[1], crops=MANY)[0].probabilities)
    assert listener.messages == ["each image: the mean of 10 crops at scales 1, 1.25"]


def test_large_jpegs_are_decoded_with_pixels_enough_for_the_largest_scale(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (640, 480)).save(tmp_path / "large.jpg")
    asked = []

    def noted(source: Path, *, min_side: int, **more: Any) -> tuple[Image.Image, str | None]:
        asked.append(min_side)
        return decode_as(source, min_side=min_side, **more)

    monkeypatch.setattr("tl_kit.inference.run_models.decode_as", noted)
    predictor = tl_kit.load(runs[0], crops=CropConfig(scales=(3.0, 1.0)))
    predictor.member_probabilities([tmp_path / "large.jpg"])
    assert asked == [3 * predictor.members[0].preprocessing.min_side]


def test_an_ensemble_keeps_its_crops_and_repeats_its_receipt(data: Path, runs: list[Path], tmp_path: Path) -> None:
    config = EnsembleConfig(checkpoints=tuple(runs), out=tmp_path / "e", bootstrap=100, crops=MANY, calibrate=False)
    result = tl_kit.ensemble(config)
    stored = json.loads((tmp_path / "e" / "ensemble.json").read_text())
    assert (stored["crops"], stored["scales"]) == (10, [1.0, 1.25])
    assert json.loads(json.dumps(result.to_dict()))["scales"] == [1.0, 1.25]
    assert tl_kit.load(result.checkpoint).crops == MANY
    again = tl_kit.evaluate(result.checkpoint, data, split="test")
    assert again.metrics == result.receipt["ensemble"]["test"]
    assert (again.to_dict()["crops"], tuple(again.to_dict()["scales"])) == (10, (1.0, 1.25))
    for run, member in zip(runs, result.receipt["members"], strict=True):
        assert tl_kit.evaluate(run, data, split="test", crops=MANY).metrics == member["test"]
    single = tl_kit.evaluate(result.checkpoint, data, split="test", crops=CropConfig())
    plain = tl_kit.ensemble(replace(config, out=tmp_path / "f", crops=CropConfig()))
    assert single.metrics == plain.receipt["ensemble"]["test"] != again.metrics


def test_the_ensembles_probabilities_are_the_members_means(runs: list[Path], files: list[Path], tmp_path: Path) -> None:
    """With members of different input sizes: each crops the image at its own."""
    config = EnsembleConfig(checkpoints=tuple(runs), out=tmp_path / "e", bootstrap=100, crops=MANY, calibrate=False)
    result = tl_kit.ensemble(config)
    together = [prediction.probabilities for prediction in tl_kit.predict(result.checkpoint, files)]
    alone = [[p.probabilities for p in tl_kit.predict(run, files, crops=MANY)] for run in runs]
    for index, found in enumerate(together):
        for name, value in found.items():
            assert value == pytest.approx(np.mean([rows[index][name] for rows in alone]), abs=1e-12)


def rewritten(source: Path, changes: dict[str, Any]) -> Path:
    path = source / "ensemble.json"
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in content.items() if value != "absent"}))
    return source


def test_a_folder_from_before_there_were_crops_takes_one(runs: list[Path], tmp_path: Path) -> None:
    tl_kit.ensemble(EnsembleConfig(checkpoints=tuple(runs), out=tmp_path / "e", bootstrap=100, crops=MANY))
    old = rewritten(tmp_path / "e", {"crops": "absent", "scales": "absent"})
    assert tl_kit.load(old).crops == CropConfig()


@pytest.mark.parametrize(
    "changes",
    [
        *({"crops": value} for value in (3, "10", None, True, [10], {})),
        *({"scales": value} for value in ([], "1.0", ["1.0"], [None], [[1.0]], [0], [1e308 * 10], [10**400], None, {})),
        {"scales": [0.1]},  # a scale, but below every member's crop
    ],
)
def test_broken_crops_in_a_folder_are_an_error_of_one_line(ensemble: Path, changes: dict[str, Any]) -> None:
    before = (ensemble / "ensemble.json").read_text()
    try:
        rewritten(ensemble, changes)
        with pytest.raises(CheckpointError) as caught:
            tl_kit.load(ensemble)
        assert str(ensemble) in str(caught.value)
        assert "\n" not in str(caught.value)
    finally:
        (ensemble / "ensemble.json").write_text(before)


@pytest.fixture(scope="module")
def ensemble(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ensembles") / "e"
    return Path(tl_kit.ensemble(EnsembleConfig(checkpoints=tuple(runs), out=out, bootstrap=100)).checkpoint)


@pytest.mark.parametrize(
    ("config", "option"), [(CropConfig(crops=3), "--crops 3"), (CropConfig(crops=5, scales=(0.2,)), "--scales 0.2")]
)
def test_wrong_choices_are_refused_before_anything_is_scored(
    data: Path,
    runs: list[Path],
    files: list[Path],
    tmp_path: Path,
    config: CropConfig,
    option: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tl_kit.Predictor, "member_probabilities", None)
    for refused in (
        lambda: tl_kit.load(runs[0], crops=config),
        lambda: tl_kit.predict(runs[0], files, crops=config),
        lambda: tl_kit.evaluate(runs[0], data, crops=config),
        lambda: tl_kit.ensemble(EnsembleConfig(checkpoints=tuple(runs), out=tmp_path / "e", crops=config)),
    ):
        with pytest.raises(ConfigError, match=option):
            refused()
    assert not (tmp_path / "e").exists()


def test_one_view_is_the_plain_softmax_to_the_last_bit(runs: list[Path], files: list[Path]) -> None:
    predictor = tl_kit.load(runs[0])
    pixels = torch.stack([predictor.members[0].preprocessing.evaluate(decode(file)) for file in files])
    expected = metrics.softmax(predictor.scorers[0](pixels).numpy())
    assert np.array_equal(predictor.member_probabilities(files)[0][0], expected)
