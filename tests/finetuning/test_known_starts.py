"""Runs that start from a checkpoint which has trained on the images that are to score them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import tl_kit
from tests.helpers import NEARLY_SQUARE, Listener, quick, write_images
from tl_kit.data.scan import scan
from tl_kit.storage.checkpoint import WEIGHTS, digest_prefix, read_meta


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("starts") / "images", images=16, size=NEARLY_SQUARE)


@pytest.fixture(scope="module")
def again(data: Path) -> Path:
    """A run whose final head was fitted to validation images too."""
    quick(data, data.parent / "again", policy="head", epochs=None)
    assert read_meta(data.parent / "again")["refit"]
    return data.parent / "again"


@pytest.mark.parametrize("how", ["folder", "file", "model"])
def test_a_start_from_a_checkpoint_that_has_learnt_what_scores_the_run_is_told(
    how: str, data: Path, again: Path, tmp_path: Path
) -> None:
    """Images that trained it, by another split; and those that its final head was fitted to."""
    start: dict[str, Any] = {
        "folder": {"weights": str(again)},
        "file": {"weights": str(again / WEIGHTS)},
        "model": {"model": f"local-dir:{again}", "weights": "auto"},
    }[how]
    learnt = set(read_meta(again)["data"]["train"]) | set(read_meta(again)["data"]["val"])
    for seed in (0, 1):
        split = tl_kit.DataConfig(split_seed=seed)
        manifest = scan(data, split)
        known = sum(digest_prefix(s) in learnt for name in ("val", "test") for s in manifest.split(name))
        listener = Listener()
        quick(data, tmp_path / str(seed), reporter=listener, split=split, epochs=1, **start)
        (line,) = [each for each in listener.messages if "which this run starts from" in each]
        assert f"was trained on {known} of the " in line


def test_a_start_from_weights_of_others_is_not_commented_on(data: Path, again: Path, tmp_path: Path) -> None:
    shutil.copy(again / WEIGHTS, tmp_path / WEIGHTS)
    listener = Listener()
    quick(data, tmp_path / "run", reporter=listener, epochs=1, weights=str(tmp_path / WEIGHTS))
    assert not any("which this run starts from" in each for each in listener.messages)
