"""The closed-form head's cross-validated scores: honest, reproducible, and left out where they do not belong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import NEARLY_SQUARE, Listener, quick, quick_config, write_images
from tl_kit import cross_validate, finetune
from tl_kit.config import HeadConfig
from tl_kit.finetuning.preparation import prepare
from tl_kit.reporting import SILENT

HEAD = {"policy": "head", "epochs": None}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("head-folds") / "images", size=NEARLY_SQUARE)


def random_labels(root: Path, *, images: int, copies: int = 1) -> Path:
    """Noise in two classes; of each image so many copies, under other names and in the same class."""
    rng = np.random.default_rng(0)
    for number in range(images):
        folder = root / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (40, 40, 3)).astype(np.uint8)
        for copy in range(copies):
            Image.fromarray(pixels).save(folder / f"{number}-{copy}.png")
    return root


def test_separable_classes_score_well_and_the_record_has_it(data: Path, tmp_path: Path) -> None:
    run = quick(data, tmp_path / "run", **HEAD)
    found = run.cross_validated
    assert found is not None
    assert found["folds"] == 5
    manifest = prepare(quick_config(data, tmp_path / "dry", **HEAD), SILENT, dry=True).manifest
    assert found["images"] == len(manifest.split("train")) + len(manifest.split("val"))
    assert found["accuracy"] > 0.9
    assert set(found) - {"folds", "images"} == set(run.val or ())
    assert json.loads((tmp_path / "run" / "tlkit.json").read_text())["cross_validated"] == found
    assert run.to_dict()["cross_validated"] == found


@pytest.mark.parametrize("copies", [1, 4])
def test_random_labels_score_as_chance(tmp_path: Path, copies: int) -> None:
    """Copies of an image stay on one side: or they would be recognised."""
    run = quick(random_labels(tmp_path / "images", images=100, copies=copies), tmp_path / "run", **HEAD)
    found = run.cross_validated
    assert found is not None
    assert found["accuracy"] == pytest.approx(0.5, abs=0.16)  # three standard errors of 80 images
    assert found["nll"] > 0.65


def test_the_same_command_gives_the_same_bits(data: Path, tmp_path: Path) -> None:
    runs = [quick(data, tmp_path / name, **HEAD) for name in "ab"]
    assert runs[0].cross_validated == runs[1].cross_validated


def test_uneven_classes_are_weighted_as_in_the_run(tmp_path: Path) -> None:
    root = write_images(tmp_path / "images", images=24)
    for path in sorted((root / "red").iterdir())[6:]:
        path.unlink()
    run = quick(root, tmp_path / "run", balance="loss", **HEAD)
    assert run.cross_validated is not None
    assert run.cross_validated["balanced_accuracy"] > 0.8


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"head": HeadConfig(cross_validate_below=10)}, "--folds does it"),
        ({"split": "few", "allow": ("class-missing",)}, "too few images"),
    ],
)
def test_it_is_left_out_with_a_word(tmp_path: Path, change: dict[str, object], says: str) -> None:
    root = tmp_path / "images"
    if change.get("split") == "few":
        write_images(root / "train", images=1)
        write_images(root / "val", classes=("red",), images=1, seed=1)
    else:
        write_images(root)
    options = {name: value for name, value in change.items() if name != "split"}
    listener = Listener()
    config = quick_config(root, tmp_path / "run", **HEAD, **options)
    run = finetune(config, reporter=listener)
    assert run.cross_validated is None
    assert any("not cross-validated" in line and says in line for line in listener.messages)


def test_other_policies_and_folds_have_none(data: Path, tmp_path: Path) -> None:
    assert quick(data, tmp_path / "lp", policy="lp-ft", epochs=1).cross_validated is None
    assert quick(data, tmp_path / "gradient", policy="head", epochs=1).cross_validated is None
    cross_validate(quick_config(data, tmp_path / "folds", **HEAD), folds=2)
    meta = json.loads((tmp_path / "folds" / "fold-1" / "tlkit.json").read_text())
    assert meta["cross_validated"] is None
