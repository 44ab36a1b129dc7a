"""A run is given: no step replaces a part of it, and runs made from it share the images and nothing by accident."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path

import pytest

from tests.helpers import quick, quick_config, write_images
from tl_kit.config import CropModeConfig, LoopConfig
from tl_kit.finetuning.choices.crop_mode import settle_crop_mode
from tl_kit.finetuning.choices.policy_choice import facts_of, settle_policy
from tl_kit.finetuning.closed_form import head_run
from tl_kit.finetuning.preparation import prepare
from tl_kit.finetuning.run import Run
from tl_kit.finetuning.settings import resolve
from tl_kit.freezing.policies import HEAD
from tl_kit.reporting import SILENT


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    quick(write_images(folder / "images"), folder / "run", epochs=1)
    return folder / "run"


@pytest.fixture
def run(pretrained: Path, tmp_path: Path) -> Iterator[Run]:
    data = write_images(tmp_path / "images")
    options = {"policy": "auto", "weights": str(pretrained), "loop": LoopConfig(), "epochs": None}
    found = prepare(quick_config(data, tmp_path / "run", **options), SILENT, dry=True)
    yield found
    found.cleanup.close()


def test_no_part_of_a_run_can_be_replaced(run: Run) -> None:
    for part in fields(run):
        with pytest.raises(FrozenInstanceError):
            setattr(run, part.name, getattr(run, part.name))


def test_the_choice_of_a_policy_makes_another_run(run: Run) -> None:
    settled, reason = settle_policy(run, facts_of(run))
    assert run.policy == HEAD, "where --policy auto stands until it is chosen"
    assert settled.policy != HEAD
    assert reason
    assert replace(settled, policy=HEAD) == run
    assert settled.images is run.images
    assert resolve(settled).epochs == 30


def test_the_heads_run_changes_nothing_of_the_run(run: Run) -> None:
    before = run.config
    head, _ = head_run(run, config=replace(run.config.head, c=2.0))
    assert (head.policy, head.config.policy, head.config.head.c) == (HEAD, "head", 2.0)
    assert run.config is before
    assert run.config.head.c is None
    for name in ("images", "model", "clock", "cleanup", "folder", "reporter"):
        assert getattr(head, name) is getattr(run, name), name


def test_an_image_that_one_run_cannot_decode_leaves_them_all(run: Run) -> None:
    head, _ = head_run(run)
    first = run.manifest.split("train")[0]
    whole = len(run.manifest.samples)
    first.path.write_bytes(b"no image any more")
    assert head.decode([first], crop=True, show=False) == {first.digest}
    assert first not in run.manifest.samples
    assert len(run.manifest.samples) == whole - 1
    assert run.images.content_hash() == head.images.content_hash() == run.manifest.content_hash()


def test_runs_made_before_the_crop_mode_is_settled_have_it_too(run: Run) -> None:
    squashing = replace(run, config=replace(run.config, crop_choice=CropModeConfig(hidden_from=0.0)))
    head, _ = head_run(squashing)
    choice = settle_crop_mode(squashing)
    assert choice.compared
    assert head.preprocessing is run.preprocessing is run.store.preprocessing
    assert head.preprocessing.crop_mode == choice.mode
