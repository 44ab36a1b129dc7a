"""Features at every stage: of any view, as a pass of the network itself gives them, and safe from a full cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d

from tests.helpers import MODEL, NEARLY_SQUARE, write_images
from tl_kit.config import CacheConfig, FinetuneConfig
from tl_kit.finetuning.choices.stage_rows import HEAD_INPUT, rows_of_views, stage_rows
from tl_kit.finetuning.closed_form import head_run
from tl_kit.finetuning.preparation import prepare
from tl_kit.finetuning.run import Run
from tl_kit.finetuning.trunk_reuse import EVAL, MIRRORED
from tl_kit.images.transforms import normalize
from tl_kit.reporting import SILENT

STAGES = ["act1", "layer1", "layer2", "layer3", "layer4"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), images=8, size=NEARLY_SQUARE)


def a_run(data: Path, cache: CacheConfig) -> Run:
    config = FinetuneConfig(model=MODEL, data=data, weights="none", img_size=32, policy="head", cache=cache)
    return prepare(config, SILENT, dry=True)


def test_views_are_those_of_the_network_on_plain_and_on_mirrored_images(data: Path, tmp_path: Path) -> None:
    run = a_run(data, CacheConfig(directory=tmp_path))
    head, reuse = head_run(run)
    assert reuse is not None
    kept, views = rows_of_views(head, reuse, run.manifest.split("train"), (EVAL, MIRRORED), name="train")
    pixels = torch.stack(run.store.get(list(kept), crop=True))
    assert not torch.equal(pixels, pixels.flip(3))
    run.model.eval()
    for rows, images in zip(views, (pixels, pixels.flip(3)), strict=True):
        with torch.inference_mode():
            batch = normalize(images, run.preprocessing)
            outputs = dict(zip(STAGES, run.model.forward_intermediates(batch, intermediates_only=True), strict=True))  # type: ignore[operator]
            features = run.model.forward_head(run.model.forward_features(batch), pre_logits=True)  # type: ignore[operator]
        assert list(rows) == [*STAGES, HEAD_INPUT]
        for name in STAGES:
            expected = adaptive_avg_pool2d(outputs[name], 1).flatten(1).numpy()
            np.testing.assert_allclose(rows[name], expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(rows[HEAD_INPUT], features.numpy(), rtol=1e-3, atol=1e-4)
    run.cleanup.close()


@pytest.mark.parametrize("spare", [0, 2000])
def test_a_cache_that_is_full_loses_no_row(spare: int, data: Path, tmp_path: Path) -> None:
    """Other shards of a run are evicted while it reads its own."""
    run = a_run(data, CacheConfig(directory=tmp_path / "roomy"))
    expected = stage_rows(run)
    run.cleanup.close()
    size = 96 * 4 * len(run.manifest.samples) + spare
    small = a_run(data, CacheConfig(directory=tmp_path / "small", size_gb=size / 1e9))
    found = stage_rows(small)
    small.cleanup.close()
    assert expected.keys() == found.keys()
    assert all(np.array_equal(expected[name], found[name]) for name in expected)
