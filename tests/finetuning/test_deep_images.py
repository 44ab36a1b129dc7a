"""Images of more than 8 bits a sample, from the folder to the prediction: one range, found once, used ever after."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tl_kit
from tests.data.images import png, tiff
from tests.helpers import COLOURS, UNGUARDED, Listener, quick, quick_config, write_images
from tl_kit.config import CacheConfig, EnsembleConfig, ExportConfig
from tl_kit.errors import CheckpointError
from tl_kit.images.deep import SampleRanges, lies_outside
from tl_kit.inference.run_models import FileReader
from tl_kit.planning.plan import plan
from tl_kit.series.cross_validate import cross_validate
from tl_kit.storage.checkpoint import load_checkpoint

pytestmark = pytest.mark.usefixtures("plain_pictures")

CLASSES = ("red", "green", "blue")
TWELVE = SampleRanges.of({"uint16": (0, 4095)})


def write_deep(root: Path, *, scale: float, kind: str = "uint16", images: int = 12, seed: int = 0) -> Path:
    """As :func:`write_images`, of levels times ``scale``; grey, and brighter from class to class, but for uint16."""
    rng = np.random.default_rng(seed)
    for number, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(images):
            level = np.array(COLOURS[name]) if kind == "uint16" else np.array(50 + 70 * number)
            noise = rng.normal(0, 40 if kind == "uint16" else 10, (40, 48, 3) if kind == "uint16" else (40, 48))
            values = np.clip(level + noise, 0, 255).astype(np.uint8) * float(scale)
            samples = (values if kind == "float32" else np.rint(values)).astype(kind)
            data = png(samples, colour_type=2) if kind == "uint16" else tiff(samples)
            (root / name / f"{seed}-{index}.img").write_bytes(data)
    return root


def head(data: Path, out: Path, **options: Any) -> tl_kit.FinetuneResult:
    return quick(data, out, policy="head", epochs=None, cache=CacheConfig(directory=out.parent / "cache"), **options)


@pytest.mark.parametrize(
    ("scale", "kind", "text"),
    [
        (1, "uint16", "0..255"),
        (4095 / 255, "uint16", "0..4095"),
        (257, "uint16", "0..65535"),
        (4095 / 255, "int32", "0..4095"),
        (1 / 255, "float32", "0..1"),
        (1e-9, "float32", "e-"),
    ],
)
def test_a_head_learns_and_its_checkpoint_predicts_as_it_did(
    scale: float, kind: str, text: str, tmp_path: Path
) -> None:
    data, listener = write_deep(tmp_path / "data", scale=scale, kind=kind), Listener()
    result = head(data, tmp_path / "out", reporter=listener)
    assert result.val is not None
    assert result.val["accuracy"] > 0.9
    (line,) = [message for message in listener.messages if "8 bits" in message]
    assert line.startswith("36 images have more than 8 bits a sample: their values lie in ")
    assert text in line
    for split, scores in (("val", result.val), ("test", result.test)):
        listener = Listener()
        assert tl_kit.evaluate(tmp_path / "out", data, split=split, reporter=listener).metrics == scores
        assert not [message for message in listener.messages if "8 bits" in message]
    card = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "ranges" not in json.dumps(card)


def test_every_depth_gives_the_head_of_the_8_bit_images(tmp_path: Path) -> None:
    found = {}
    for name, scale in {"8 bits": 0, "8 of 16": 1, "12 of 16": 16, "16 of 16": 257}.items():
        for split, seed in {"train": 1, "val": 2, "test": 3}.items():
            folder = tmp_path / name / split
            if scale:
                write_deep(folder, scale=scale, seed=seed)
            else:
                write_images(folder, CLASSES, seed=seed)
        result = head(tmp_path / name, tmp_path / f"out {name}")
        found[name] = {**(result.val or {}), **{f"test {key}": value for key, value in (result.test or {}).items()}}
    plain = found.pop("8 bits")
    assert plain["accuracy"] > 0.9
    for scores in found.values():
        assert scores == pytest.approx(plain, abs=1e-3)


def test_a_model_that_knows_no_range_says_so(tmp_path: Path) -> None:
    quick(write_images(tmp_path / "8"), tmp_path / "out")
    deep = write_deep(tmp_path / "deep", scale=257, images=2)
    for act in (
        lambda listener: tl_kit.predict(tmp_path / "out", deep, reporter=listener),
        lambda listener: tl_kit.evaluate(tmp_path / "out", deep, split="all", reporter=listener),
    ):
        listener = Listener()
        act(listener)
        (line,) = [message for message in listener.messages if "8 bits" in message]
        assert line.startswith(
            "warning: 6 images have more than 8 bits a sample, and the model knows no range for them"
        )
        assert line.endswith("they are read as uint16 over 0..65535")
    listener = Listener()
    tl_kit.predict(tmp_path / "out", tmp_path / "8", reporter=listener)
    assert not [message for message in listener.messages if "8 bits" in message]
    assert load_checkpoint(tmp_path / "out").preprocessing.ranges is None


def test_images_outside_the_range_of_a_model_are_told(tmp_path: Path) -> None:
    """Another camera, or another scale: they are white to the model, and their classes a guess."""
    quick(write_deep(tmp_path / "12", scale=16), tmp_path / "out", epochs=1)
    exported = tl_kit.export(ExportConfig(checkpoint=tmp_path / "out", out=tmp_path / "model.onnx")).file
    same, other = (write_deep(tmp_path / name, scale=scale, images=2) for name, scale in (("same", 16), ("16", 257)))
    for model in (tmp_path / "out", exported):
        for images, count in ((same, 0), (other, 6), (sorted(other.rglob("*.img"))[0], 1)):
            listener = Listener()
            tl_kit.predict(model, images, reporter=listener)
            told = [message for message in listener.messages if "outside the values" in message]
            assert len(told) == (count > 0)
            if told:
                lie = "image lies" if count == 1 else "images lie"
                assert told[0].startswith(f"warning: {count} {lie} outside the values that the model was trained on")
                assert "(0..4095)" in told[0]
    listener = Listener()
    tl_kit.evaluate(tmp_path / "out", other, split="all", reporter=listener)
    assert any("6 images lie outside the values" in message for message in listener.messages)


def fills(random: np.random.Generator, *values: float) -> np.ndarray:
    """A thermal image in 28632..31337, its tails beyond, most of it fills."""
    scene = np.clip(random.normal(30_000, 300, 400), 28_500, 31_500)
    return np.concatenate([scene, np.repeat(values, 1000)])


@pytest.mark.parametrize(
    ("low", "high", "outside"),
    [(0, 65_536, True), (0, 700, True), (0, 450, False), (-500, 100, True), (-90, 100, False)],
)
@pytest.mark.parametrize("count", [400, 10**6])
def test_most_samples_lie_outside(low: int, high: int, outside: bool, count: int) -> None:
    values = np.random.default_rng(0).integers(low, high, count)
    assert lies_outside(values, (0.0, 270.0)) is outside
    assert not lies_outside(np.full(count, math.nan), (0.0, 270.0))


def test_fills_tails_and_hot_pixels_do_not_lie_outside() -> None:
    random = np.random.default_rng(0)
    for values in ((0.0,), (0.0, 65_535.0), (-9999.0, 0.0)):
        scene = fills(random, *values)
        assert not lies_outside(scene, (28_632.0, 31_337.0))
        assert not lies_outside(np.append(scene, [65_000.0]), (28_632.0, 31_337.0))
        assert lies_outside(scene, (0.5, 4095.0))


def two_members(root: Path, *, scale: float, top: int, second: int) -> Path:
    """Runs ``m0`` and ``m1`` on images that fill 0..``top``, of which ``m1`` is told that they fill 0..``second``."""
    data = write_deep(root / "data", scale=scale)
    for seed in (0, 1):
        quick(data, root / f"m{seed}", seed=seed, epochs=1)
    meta = root / "m1" / "tlkit.json"
    content = json.loads(meta.read_text())
    assert content["ranges"] == {"uint16": [0, top]}
    meta.write_text(json.dumps({**content, "ranges": {"uint16": [0, second]}}))
    return data


def test_members_of_which_one_knows_the_values_name_the_range_of_the_other(tmp_path: Path) -> None:
    data = two_members(tmp_path, scale=257, top=65535, second=4095)
    config = EnsembleConfig(checkpoints=(tmp_path / "m0", tmp_path / "m1"), out=tmp_path / "e", rule="mean")
    tl_kit.ensemble(config)
    listener = Listener()
    tl_kit.predict(tmp_path / "e", data, reporter=listener)
    (told,) = [message for message in listener.messages if "outside the values" in message]
    assert "trained on (0..4095)" in told


def test_members_of_an_ensemble_read_images_each_over_its_own_range(tmp_path: Path) -> None:
    data = two_members(tmp_path, scale=16, top=4095, second=1023)
    members = [load_checkpoint(tmp_path / f"m{seed}").preprocessing for seed in (0, 1)]
    files = sorted(data.rglob("*.img"))[:2]
    both = FileReader(files, members).read(0, 2)
    for member in members:
        alone = FileReader(files, [member]).read(0, 2)
        assert (both[member] == alone[member]).all()
    assert not (both[members[0]] == both[members[1]]).all()
    config = EnsembleConfig(checkpoints=(tmp_path / "m0", tmp_path / "m1"), out=tmp_path / "e", rule="mean")
    tl_kit.ensemble(config)
    mean = np.mean([_probabilities(tmp_path / f"m{seed}", files) for seed in (0, 1)], axis=0)
    np.testing.assert_allclose(_probabilities(tmp_path / "e", files), mean, atol=1e-6)


def _probabilities(folder: Path, files: list[Path]) -> list[list[float]]:
    return [[found.probabilities[name] for name in CLASSES] for found in tl_kit.predict(folder, files)]


def test_folds_plan_members_and_resume_share_the_range(tmp_path: Path) -> None:
    data = write_deep(tmp_path / "data", scale=16)
    config = quick_config(data, tmp_path / "folds", policy="head", epochs=None)
    listener = Listener()
    cross_validate(config, folds=3, reporter=listener)
    assert len([message for message in listener.messages if "8 bits" in message]) == 1
    for fold in (1, 2, 3):
        assert load_checkpoint(tmp_path / "folds" / f"fold-{fold}").preprocessing.ranges == TWELVE
    listener = Listener()
    plan(replace(config, out=None), reporter=listener)
    assert [message for message in listener.messages if "0..4095" in message]


def test_an_average_of_members_keeps_their_range(tmp_path: Path) -> None:
    data = write_deep(tmp_path / "data", scale=16)
    quick(data, tmp_path / "start", epochs=1)
    start = {"weights": str(tmp_path / "start" / "model.safetensors"), "guard": UNGUARDED}
    for seed in (0, 1):
        quick(data, tmp_path / f"m{seed}", seed=seed, epochs=1, **start)
    config = EnsembleConfig(checkpoints=(tmp_path / "m0", tmp_path / "m1"), out=tmp_path / "e", rule="soup")
    tl_kit.ensemble(config)
    (average,) = [path.parent for path in (tmp_path / "e").rglob("tlkit.json")]
    assert load_checkpoint(average).preprocessing.ranges == TWELVE


def test_test_images_have_no_part_in_the_range(tmp_path: Path) -> None:
    for split, scale in {"train": 16, "val": 16, "test": 257}.items():
        write_deep(tmp_path / "data" / split, scale=scale, images=4, seed=len(split))
    head(tmp_path / "data", tmp_path / "out")
    assert load_checkpoint(tmp_path / "out").preprocessing.ranges == TWELVE


def test_deep_and_plain_images_side_by_side(tmp_path: Path) -> None:
    data = write_deep(write_images(tmp_path / "data", CLASSES), scale=16, images=4, seed=5)
    listener = Listener()
    result = head(data, tmp_path / "out", reporter=listener)
    assert result.val is not None
    assert result.val["accuracy"] > 0.9
    assert [message for message in listener.messages if message.startswith("12 images have more than 8 bits a sample")]


HOSTILE: list[Any] = [
    [],
    "uint16",
    {"uint16": None},
    {"uint16": [0]},
    {"uint16": [0, 1, 2]},
    {"uint16": [5, 5]},
    {"uint16": [9, 1]},
    {"uint16": [0, "4095"]},
    {"uint16": [False, True]},
    {"uint16": [0, 1e300]},
    {"uint16": [-(10**400), 10**400]},
    {"uint17": [0, 1]},
    {"uint16": {"low": 0, "high": 1}},
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    quick(write_images(folder / "data"), folder / "out", epochs=1)
    return folder / "out"


@pytest.mark.parametrize("ranges", HOSTILE, ids=str)
def test_a_range_that_is_none_is_refused(ranges: Any, trained: Path) -> None:
    content = json.loads((trained / "tlkit.json").read_text())
    (trained / "tlkit.json").write_text(json.dumps({**content, "ranges": ranges}))
    with pytest.raises(CheckpointError, match="ranges are not those of samples"):
        load_checkpoint(trained)
