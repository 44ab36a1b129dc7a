"""A run, an ensemble of two and folds on small images with hostile names."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import tl_kit
from tests.helpers import quick, quick_config, write_images

HOSTILE = {"red": "<script>alert(1)<script>", "green": "\"quotes' & אבג", "blue": "{{ 7*7 }} ünï"}
SECRET = "taken at 52.5 N 13.4 E"


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classes with hostile names; every JPEG knows where it was taken, and one file is no image."""
    root = tmp_path_factory.mktemp("report") / "images"
    plain = write_images(tmp_path_factory.mktemp("plain"), images=15)
    for colour, name in HOSTILE.items():
        (root / name).mkdir(parents=True)
        for number, path in enumerate(sorted((plain / colour).iterdir())):
            exif = Image.Exif()
            exif[0x010E] = SECRET
            Image.open(path).save(root / name / f"<b>{number} & \u202e.jpg", quality=90, exif=exif)
    (root / HOSTILE["red"] / "<img src=x onerror=alert(1)>.jpg").write_text("no image")
    return root


@pytest.fixture(scope="session")
def run(data: Path) -> Path:
    return Path(quick(data, data.parent / "run", epochs=1).checkpoint)


@pytest.fixture(scope="session")
def ensemble(data: Path, run: Path) -> Path:
    other = Path(quick(data, data.parent / "other", epochs=1, seed=1).checkpoint)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tl_kit.ensembling.output.draw_receipt", lambda _, path: path.write_bytes(b"drawn"))
        config = tl_kit.EnsembleConfig(checkpoints=(run, other), out=data.parent / "ensemble")
        return Path(tl_kit.ensemble(config).checkpoint)


@pytest.fixture(scope="session")
def folds(data: Path) -> Path:
    config = quick_config(data, data.parent / "folds", epochs=1)
    return Path(tl_kit.cross_validate(config, folds=2).folder)
