"""``ImageFeatures``: what a timm network's classifier is given, and its use in scikit-learn's pipelines."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import FeatureUnion, make_pipeline
from timm.data import create_transform, resolve_model_data_config

from tests.sklearn.helpers import SMALL, features
from tl_kit.errors import ConfigError, InputError, SamplesError, WeightsError
from tl_kit.freezing.trunk import Trunk
from tl_kit.storage.checkpoint import load_checkpoint
from tl_kit.zoo.heads import classifier_names

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("model", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"])
def test_features_are_those_of_timm(model: str, paths: list[Path], tmp_path: Path) -> None:
    """timm opens the kept network, without its classifier, and prepares images by its own transform."""
    found = features(model=model, img_size=None if model == "test_vit" else 64).fit(paths)
    network = timm.create_model(f"local-dir:{found._kept.write(tmp_path / 'kept')}", pretrained=True, num_classes=0)
    transform = create_transform(**resolve_model_data_config(network), is_training=False)
    with torch.inference_mode():
        expected = network.eval()(torch.stack([transform(Image.open(path)) for path in paths]))
    rows = found.transform(paths)
    assert rows.shape == (len(paths), network.num_features)
    assert rows.dtype == np.float32
    half = model == "test_efficientnet"  # whose trunk runs in bf16 where the processor has it
    np.testing.assert_allclose(rows, expected.numpy(), atol=0.02 * float(expected.abs().max()) if half else 1e-5)


@pytest.mark.parametrize("model", ["test_resnet", "test_vit"])
def test_features_are_what_the_head_is_fitted_to(model: str, paths: list[Path], tmp_path: Path) -> None:
    found = features(model=model, img_size=None).fit(paths)
    kept = load_checkpoint(found._kept.write(tmp_path / "kept"))
    batch = torch.rand(3, *kept.preprocessing.input_size)
    with torch.inference_mode():
        expected = Trunk(kept.model, classifier_names(kept.model)[0])(batch)
        network: Any = kept.model
        assert torch.equal(network.forward_head(network.forward_features(batch), pre_logits=True), expected)


def test_images_in_batches_in_order(paths: list[Path]) -> None:
    """More than a batch of 32: each row is that of its image."""
    found = features().fit(paths)
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    rows = found.transform(paths)
    assert np.array_equal(found.transform(pixels), rows)
    alone = np.concatenate([found.transform([path]) for path in paths])
    np.testing.assert_allclose(rows, alone, atol=1e-6)
    assert len(np.unique(rows, axis=0)) == len(paths)


def test_in_pipelines(paths: list[Path], labels: list[str]) -> None:
    steps = make_pipeline(features(), LogisticRegression(C=100, max_iter=2000))
    assert cross_val_score(steps, paths, labels, cv=3, error_score="raise").mean() > 0.9
    fitted = pickle.loads(pickle.dumps(steps.fit(paths, labels)))
    assert np.array_equal(fitted.predict_proba(paths), steps.predict_proba(paths))
    both = FeatureUnion([("whole", features()), ("small", features(img_size=16))]).fit(paths)
    assert both.transform(paths).shape == (len(paths), len(both.get_feature_names_out()))


def test_names_and_parameters(paths: list[Path]) -> None:
    found = features().fit(paths)
    assert found.get_feature_names_out().tolist() == [f"imagefeatures{k}" for k in range(96)]
    assert clone(found).get_params() == found.get_params() == {**SMALL, "crop_mode": None, "device": "auto", "seed": 0}


def test_crop_mode_and_size_count(paths: list[Path]) -> None:
    usual = features().fit_transform(paths)
    assert not np.allclose(usual, features(crop_mode="squash").fit_transform(paths), atol=1e-4)
    assert not np.allclose(usual, features(img_size=40).fit_transform(paths), atol=1e-4)


def test_deep_images_are_read_over_the_range_that_fit_saw() -> None:
    rng = np.random.default_rng(0)
    eight = rng.integers(0, 256, (6, 20, 20), dtype=np.uint8)
    twelve = eight.astype(np.uint16) << 4
    found = features().fit(twelve)
    assert np.array_equal(found.transform(twelve), features().fit_transform(eight))
    assert np.array_equal(found.transform(twelve[:2]), found.transform(twelve)[:2]), "not over its own range"
    wide = features().fit(np.concatenate([twelve, eight.astype(np.uint16) << 8]))
    assert not np.allclose(wide.transform(twelve), found.transform(twelve), atol=1e-4)


def test_mistakes(paths: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(paths[0].read_bytes()[:300])
    with pytest.raises(SamplesError, match=r"X\[1\] \(.*broken.png\): truncated"):
        features().fit(paths).transform([paths[0], broken])
    with pytest.raises(InputError, match="X is one PosixPath"):
        features().fit(paths[0])
    with pytest.raises(ConfigError, match="crop_mode nonsense: known are None, center"):
        features(crop_mode="nonsense").fit(paths)
    with pytest.raises(ConfigError, match="img_size 'large': must be a whole number, or None"):
        features(img_size="large").fit(paths)
    with pytest.raises(ConfigError, match="seed 'a': must be a whole number"):
        features(seed="a").fit(paths)
    with pytest.raises(WeightsError, match="resnet18"):
        features(model="resnet18", weights="auto").fit(paths)
