"""One head on all members' features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

import tl_kit
from tests.ensembling.weight_rules.helpers import FP32, around, combine, images_of
from tests.helpers import quick, weights
from tl_kit import CacheConfig, CropConfig
from tl_kit.config import HeadConfig
from tl_kit.data.scan import scan
from tl_kit.ensembling import member_features
from tl_kit.errors import MemberError
from tl_kit.metrics import softmax
from tl_kit.optimization.feature_scaling import fit_scaling
from tl_kit.storage.checkpoint import load_checkpoint

pytestmark = pytest.mark.usefixtures("plain_pictures")


def features_of(folder: Path, images: Tensor) -> Tensor:
    """The inputs of the classifier, in float64."""
    model = load_checkpoint(folder).model.double()
    with torch.inference_mode():
        return model.forward_head(model.forward_features(images.double()), pre_logits=True)


@pytest.mark.parametrize("cached", [True, False])
def test_concat_equals_one_head_on_the_features_side_by_side(
    data: Path, runs: dict[str, Path], tmp_path: Path, cached: bool
) -> None:
    """z = mean_j z_j of the stored classifiers, on features that are computed here."""
    vit = Path(quick(data, tmp_path / "vit", model="test_vit", img_size=32, epochs=1).checkpoint)
    members = [runs["a"], vit]
    cache = CacheConfig(directory=tmp_path / "cache", size_gb=1.0 if cached else 0.0)
    result = combine(members, tmp_path / "e", "concat", calibrate=False, cache=cache)
    logits = []
    for member, made in zip(members, sorted((tmp_path / "e" / "members").iterdir()), strict=True):
        images, paths = images_of(data, member, "test")
        head = load_checkpoint(made).model.get_classifier().double()
        with torch.inference_mode():
            logits.append(head(features_of(member, images)).numpy())
        kept, new = weights(member), weights(made)
        assert {name for name in kept if not torch.equal(kept[name], new[name])} <= {
            *("fc.weight", "fc.bias", "head.weight", "head.bias")
        }
    expected = softmax(np.mean(logits, axis=0))
    classes = load_checkpoint(members[0]).classes
    found = tl_kit.load(result.checkpoint, runtime=FP32).predict(paths)
    np.testing.assert_allclose([[p.probabilities[name] for name in classes] for p in found], expected, atol=1e-4)
    assert (tmp_path / "cache").exists() is cached


def test_concat_s_head_is_the_regression_on_the_training_images(
    data: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    head = HeadConfig(c=0.01, fine=1e-6)
    result = combine([runs["a"], runs["b"]], tmp_path / "e", "concat", calibrate=False, head=head)
    assert result.receipt["derived"] is not None
    assert result.receipt["derived"]["c"] == pytest.approx(0.01)
    joint = {}
    for split in ("train", "test"):
        images, paths = images_of(data, runs["a"], split)
        joint[split] = np.concatenate([features_of(runs[name], images).numpy() for name in "ab"], axis=1)
    labels = [sample.path.parent.name for sample in scan(data, tl_kit.DataConfig()).split("train")]
    scaling = fit_scaling(joint["train"], blocks=[part // 2 for part in (joint["train"].shape[1],) * 2])
    model = LogisticRegression(C=0.01, max_iter=5000, tol=1e-8).fit(scaling(joint["train"]), labels)
    expected = model.predict_proba(scaling(joint["test"]))
    found = tl_kit.load(result.checkpoint, runtime=FP32).predict(paths)
    rows = [[p.probabilities[name] for name in model.classes_] for p in found]
    np.testing.assert_allclose(rows, expected, atol=5e-3)


def test_concat_with_crops_scores_what_it_predicts(data: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    crops = CropConfig(crops=5)
    result = combine([runs["a"], runs["b"]], tmp_path / "e", "concat", crops=crops, calibrate=False)
    assert (
        tl_kit.evaluate(result.checkpoint, data, split="test", runtime=FP32).metrics
        == (result.receipt["ensemble"]["test"])
    )
    head = HeadConfig(strengths=(0.01,))  # nothing to choose: the score is that of these members themselves
    result = combine([runs["a"], runs["b"]], tmp_path / "f", "concat", crops=crops, calibrate=False, head=head)
    scored = tl_kit.evaluate(result.checkpoint, data, split="val", runtime=FP32).metrics
    assert scored == pytest.approx(result.receipt["ensemble"]["val"], abs=1e-4)


def test_features_of_one_trunk_are_computed_once_and_kept(
    data: Path, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    run = member_features.run_models

    def counted(found: Any, *arguments: Any, **options: Any) -> Any:
        passes.append(len(found))
        return run(found, *arguments, **options)

    monkeypatch.setattr(member_features, "run_models", counted)
    members = around(runs["a"], tmp_path, spread=0.3, only="fc")
    options: dict[str, Any] = {"cache": CacheConfig(directory=tmp_path / "cache")}
    first = combine(members, tmp_path / "x", "concat", **options)
    assert passes == [1, 1], "train and val, one pass for both members"
    again = combine(members, tmp_path / "y", "concat", **options)
    assert passes == [1, 1]
    assert first.receipt["ensemble"] == again.receipt["ensemble"]


def test_members_of_other_architectures_are_joined(data: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    other = Path(quick(data, tmp_path / "other", model="test_byobnet", epochs=1).checkpoint)
    config = json.loads((other / "config.json").read_text())
    assert config["architecture"] == "test_byobnet"
    convolution = Path(quick(data, tmp_path / "conv", model="mobilenetv3_small_050", epochs=1).checkpoint)
    assert combine([runs["a"], other], tmp_path / "fine", "concat").receipt["derived"] is not None
    assert combine([runs["a"], convolution], tmp_path / "fine too", "concat").receipt["derived"] is not None


def test_a_classifier_that_is_no_linear_layer_is_refused(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member_features, "linear_classifier", lambda _: None)  # as of a 1x1 convolution
    with pytest.raises(MemberError, match="classifier") as caught:
        combine([runs["a"], runs["b"]], tmp_path / "e", "concat")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "e").exists()
