"""Commands on data sets that are no folders: their figures are those of the folder, and later ones find the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tl_kit
from tests.data.packing import FORMS
from tests.helpers import Listener, quick, write_images
from tl_kit import EnsembleConfig, ExportConfig
from tl_kit.diagnosis.examine import report_dict
from tl_kit.exporting.check_images import find_images
from tl_kit.inference.predictor import load

pytestmark = pytest.mark.usefixtures("one_thread", "plain_pictures")

PLACES = ("set.zip", "structs.parquet", "shard.tar", "coco.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_images(tmp_path_factory.mktemp("commands") / "imgs", ("red", "green"), images=10)
    for name in PLACES:
        FORMS[name](folder.parent / name, folder)
    return folder


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, Path]:
    """A run on each form, with splits that it made, and one of another seed."""
    found = {name: quick(folder.parent / name, folder.parent / f"run-{name}", epochs=1) for name in ("imgs", *PLACES)}
    found["other"] = quick(folder, folder.parent / "other", epochs=1, seed=1)
    return {name: Path(result.checkpoint) for name, result in found.items()}


def figures(place: str, folder: Path, runs: dict[str, Path]) -> dict[str, Any]:
    data, run = folder.parent / place, runs[place]
    scored = tl_kit.evaluate(run, data)
    members = (run, runs["other"])
    receipt = tl_kit.ensemble(EnsembleConfig(checkpoints=members, data=data, out=folder.parent / f"e-{place}")).receipt
    found = report_dict(tl_kit.doctor(data))
    return {
        "scores": (scored.split, scored.images, scored.seen, scored.metrics, scored.confusion),
        "receipt": (receipt["ensemble"], receipt["gain"], receipt["images"]),
        "images": found["images"],
        "findings": [each["code"] for each in found["findings"] if "column" not in each["message"]],
    }


@pytest.fixture(scope="module")
def expected(folder: Path, runs: dict[str, Path]) -> dict[str, Any]:
    return figures("imgs", folder, runs)


@pytest.mark.parametrize("name", PLACES)
def test_scores_findings_and_receipts_are_those_of_the_folder(
    name: str, folder: Path, runs: dict[str, Path], expected: dict[str, Any]
) -> None:
    assert figures(name, folder, runs) == expected


@pytest.mark.parametrize("name", ["set.zip", "structs.parquet"])
def test_an_export_finds_the_images_of_its_run_again(name: str, folder: Path, runs: dict[str, Path]) -> None:
    """Validation images to compare the file on, training images to calibrate it with."""

    def images(place: str) -> tuple[list[str], list[str], list[int]]:
        listener = Listener()
        found = find_images(ExportConfig(checkpoint=runs[place]), load(runs[place]), listener)
        assert found.words == f"validation images of {folder.parent / place}"
        assert found.labels is not None
        assert listener.messages == []
        return [each.digest for each in found.samples], [each.digest for each in found.train], found.labels.tolist()

    assert images(name) == images("imgs")
    (folder.parent / name).rename(folder.parent / "away")
    try:
        listener = Listener()
        assert find_images(ExportConfig(checkpoint=runs[name]), load(runs[name]), listener).words == "images of noise"
        assert "the run's data set is not there" in listener.messages[0]
    finally:
        (folder.parent / "away").rename(folder.parent / name)
