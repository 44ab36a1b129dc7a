"""Features of every stage are means over positions, whatever the layout; probes are scikit-learn's cross-validation."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from sklearn.linear_model import LogisticRegression

from tl_kit.config import ProbeConfig
from tl_kit.freezing.probes import probe_stages, stage_features, stage_names
from tl_kit.optimization.feature_scaling import fit_scaling
from tl_kit.optimization.penalty_choice import drawn_folds


def built(name: str, side: int) -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3).eval()
    return model, torch.randn(3, 3, side, side)


@pytest.mark.parametrize(
    ("name", "side"),
    [("test_resnet", 64), ("test_vit", 160), ("test_convnext", 64), ("swin_tiny_patch4_window7_224", 224)],
)
def test_each_stage_is_the_mean_of_timms_own_intermediate(name: str, side: int) -> None:
    model, images = built(name, side)
    names = stage_names(model, most=99)
    with torch.inference_mode():
        output, found = stage_features(model, names, images)
        maps = model.forward_intermediates(images, intermediates_only=True, norm=False)
        torch.testing.assert_close(output, model(images))
    assert list(found) == names or set(found) == set(names)
    assert len(maps) == len(names)
    for stage, expected in zip(names, maps, strict=True):
        if name == "test_vit":  # timm leaves the class token out of its maps; the mean here is over all tokens
            assert found[stage].shape == expected.shape[:2]
        else:
            torch.testing.assert_close(found[stage], expected.mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_no_more_stages_than_asked_for_and_always_the_last() -> None:
    model, _ = built("test_vit", 160)
    names = stage_names(model, most=4)
    assert len(names) == 4
    assert (names[0], names[-1]) == ("blocks.0", "blocks.5")
    assert stage_names(torch.nn.Linear(2, 2), most=4) == []


def test_a_batch_run_as_two_keeps_its_own_rows() -> None:
    model, images = built("test_resnet", 64)
    names = stage_names(model, most=9)
    with torch.inference_mode():
        _, whole = stage_features(model, names, images)
        twice = stage_features(model, names, images, call=lambda x: model(torch.cat([x, x]))[:3])[1]
    for name in names:
        torch.testing.assert_close(twice[name], whole[name])


def blobs(classes: int, each: int, *, apart: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    centres = rng.normal(size=(classes, 6)) * apart
    return (centres[labels] + rng.normal(size=(len(labels), 6))).astype(np.float32), labels


def test_a_probe_is_a_logistic_regression_cross_validated_by_hand() -> None:
    values, labels = blobs(3, 20, apart=1.0, seed=0)
    config = ProbeConfig(strengths=(6.0,), folds=4, rough=1e-6)
    (found,) = probe_stages({"stage": values}, labels, config=config, seed=7)
    numbers = drawn_folds(labels, 4, units=np.random.default_rng(7).permutation(60)).numbers
    scaled, scores = fit_scaling(values)(values), []
    for number in range(4):
        train, held_out = numbers != number, numbers == number
        model = LogisticRegression(C=6.0 / 45, tol=1e-8, max_iter=1000).fit(scaled[train], labels[train])
        scores.append(model.score(scaled[held_out], labels[held_out]))
    assert found.accuracy == pytest.approx(np.mean(scores))
    assert found.error == pytest.approx(np.std(scores, ddof=1) / 2)
    assert (found.stage, found.channels, found.strength) == ("stage", 6, 6.0)


def test_stages_whose_fit_does_not_converge_are_left_out() -> None:
    values, labels = blobs(3, 20, apart=1.0, seed=0)
    assert probe_stages({"stage": values}, labels, config=ProbeConfig(max_iter=1), seed=0) == []


def test_the_stage_that_separates_the_classes_is_seen() -> None:
    near, labels = blobs(4, 15, apart=0.1, seed=0)
    far, _ = blobs(4, 15, apart=4.0, seed=1)
    first, second = probe_stages({"early": near, "late": far}, labels, config=ProbeConfig(), seed=0)
    assert second.accuracy - first.accuracy > 5 * (first.error + second.error)


def test_chance_is_chance() -> None:
    values, labels = blobs(4, 30, apart=0.0, seed=0)
    (found,) = probe_stages({"noise": values}, labels, config=ProbeConfig(), seed=0)
    assert abs(found.accuracy - 0.25) < 0.12, "a fit scored on its own images would be far above"


def test_a_class_of_one_image_cannot_be_cross_validated() -> None:
    values, labels = blobs(3, 5, apart=1.0, seed=0)
    assert probe_stages({"stage": values[:11]}, labels[:11], config=ProbeConfig(), seed=0) == []
    assert len(probe_stages({"stage": values[:12]}, labels[:12], config=ProbeConfig(), seed=0)) == 1
