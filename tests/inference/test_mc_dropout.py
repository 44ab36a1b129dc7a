"""``--mc-dropout``: with crops, in ensembles, kept in their folders, and refused where there is no dropout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tl_kit
from tests.cli.helpers import tlkit
from tests.helpers import quick, write_images
from tl_kit import CropConfig, EnsembleConfig, RegularizationConfig, metrics
from tl_kit.config import RuleFitConfig, RuntimeConfig
from tl_kit.errors import CheckpointError, ConfigError
from tl_kit.images.crops import crop_views
from tl_kit.images.decode import decode
from tl_kit.storage.checkpoint import load_checkpoint

pytestmark = pytest.mark.usefixtures("plain_pictures")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), images=12)


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("ckpts")
    dropout = RegularizationConfig(dropout=0.5)
    quick(data, root / "a", regularization=dropout)
    quick(data, root / "b", model="test_vit", img_size=48, epochs=1, seed=2, regularization=dropout)
    quick(data, root / "c", policy="head", epochs=3, weights=str(root / "a"), regularization=dropout)
    return [root / name for name in "abc"]


@pytest.fixture(scope="module")
def files(data: Path) -> list[Path]:
    return sorted(data.rglob("*.png"))[::5]


def stack(path: Path | str, files: Sequence[Path], passes: int | None, **options: Any) -> NDArray[np.float64]:
    runtime = RuntimeConfig(precision="fp32", **options)
    return tl_kit.load(path, mc_dropout=passes, runtime=runtime).member_probabilities(files)[0]


def test_the_rate_of_a_run_is_in_its_checkpoint(runs: list[Path]) -> None:
    for run in runs:
        model = load_checkpoint(run).model
        assert getattr(model, "drop_rate", None) == 0.5 or model.head_drop.p == 0.5
        assert json.loads((run / "config.json").read_text())["model_args"]["drop_rate"] == 0.5


def test_the_batch_size_the_order_and_other_images_change_nothing(runs: list[Path], files: list[Path]) -> None:
    for run in runs[:2]:
        whole = stack(run, files, 8)
        assert np.abs(whole - stack(run, files, 0)).max() > 1e-3
        assert np.array_equal(whole, stack(run, files, 8))
        for size in (1, 3):
            np.testing.assert_allclose(stack(run, files, 8, batch_size=size), whole, rtol=0, atol=1e-6)
        np.testing.assert_allclose(stack(run, files[::-1], 8)[:, ::-1], whole, rtol=0, atol=1e-6)


def test_with_crops_it_is_the_mean_over_both(runs: list[Path], files: list[Path]) -> None:
    crops = CropConfig(crops=5)
    predictor = tl_kit.load(runs[0], crops=crops, mc_dropout=6, runtime=RuntimeConfig(precision="fp32"))
    scorer = predictor.scorers[0]
    expected = []
    for file in files:
        views = crop_views(decode(file), scorer.preprocessing, crops)
        rows = [scorer(view[None])[0].numpy() for view in views]  # each crop on its own, with masks of its own
        expected.append(np.mean([metrics.softmax(row[None])[0] for row in rows], axis=0))
    np.testing.assert_allclose(predictor.member_probabilities(files)[0][0], expected, rtol=0, atol=1e-6)


def test_each_member_of_an_ensemble_averages_its_own_passes_before_the_rule(
    data: Path, runs: list[Path], files: list[Path], tmp_path: Path
) -> None:
    config = EnsembleConfig(
        checkpoints=tuple(runs), rule="logit-mean", out=tmp_path / "e", bootstrap=50, calibrate=False, mc_dropout=7
    )
    result = tl_kit.ensemble(config)
    alone = [stack(run, files, 7)[0] for run in runs]
    np.testing.assert_allclose(stack(tmp_path / "e", files, None), alone, rtol=0, atol=1e-6)
    pooled = np.exp(np.mean(np.log(alone), axis=0))
    found = tl_kit.load(tmp_path / "e").predict(files)
    for prediction, row in zip(found, pooled / pooled.sum(axis=1, keepdims=True), strict=True):
        for name, value in zip(load_checkpoint(runs[0]).classes, row, strict=True):
            assert prediction.probabilities[name] == pytest.approx(value, abs=1e-6)
    assert tl_kit.evaluate(tmp_path / "e", data, split="test").metrics == result.receipt["ensemble"]["test"]
    assert tl_kit.evaluate(tmp_path / "e", data, split="test").mc_dropout == 7
    assert result.to_dict()["mc_dropout"] == 7
    assert result.receipt["cost"] is not None
    assert result.receipt["cost"]["forward_passes"] == 3, "the bodies run once"
    np.testing.assert_allclose(
        stack(tmp_path / "e", files, 0), [stack(run, files, 0)[0] for run in runs], rtol=0, atol=1e-6
    )


def test_copies_of_one_member_equal_that_member(runs: list[Path], files: list[Path], tmp_path: Path) -> None:
    config = EnsembleConfig(checkpoints=(runs[0],) * 3, out=tmp_path / "e", bootstrap=50, mc_dropout=5)
    result = tl_kit.ensemble(config)
    assert result.receipt["gain"] is not None
    assert result.receipt["gain"]["accuracy"] == 0
    found = stack(tmp_path / "e", files, None)
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


@pytest.mark.parametrize("rule", ["soup", "greedy-soup", "wise-ft", "concat"])
def test_rules_that_make_new_weights_are_refused(runs: list[Path], tmp_path: Path, rule: str) -> None:
    config = EnsembleConfig(checkpoints=tuple(runs), rule=rule, out=tmp_path / "e", mc_dropout=3)
    with pytest.raises(ConfigError, match=f"--rule {rule}: .*--mc-dropout"):
        tl_kit.ensemble(config)


def test_auto_leaves_them_out(runs: list[Path], tmp_path: Path) -> None:
    fit = RuleFitConfig(folds=3, stack_c=(0.1,))
    config = EnsembleConfig(
        checkpoints=tuple(runs), rule="auto", out=tmp_path / "e", mc_dropout=3, bootstrap=50, fit=fit
    )
    rules = {line["rule"] for line in tl_kit.ensemble(config).receipt["comparison"]}
    assert {"mean", "stack"} <= rules
    assert rules.isdisjoint({"soup", "greedy-soup", "wise-ft", "concat"})


@pytest.mark.parametrize("value", [-1, "7", None, True, 2.5])
def test_a_broken_number_in_a_folder_is_one_line(runs: list[Path], tmp_path: Path, value: object) -> None:
    tl_kit.ensemble(EnsembleConfig(checkpoints=tuple(runs[:2]), out=tmp_path / "e", bootstrap=50))
    path = tmp_path / "e" / "ensemble.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "mc_dropout": value}))
    with pytest.raises(CheckpointError, match=r"ensemble\.json: mc_dropout is broken"):
        tl_kit.load(tmp_path / "e")
    path.write_text(json.dumps({name: value for name, value in content.items() if name != "mc_dropout"}))
    assert tl_kit.load(tmp_path / "e").mc_dropout == 0, "folders from before there was dropout"


def test_a_model_without_dropout_is_refused_before_anything_is_scored(
    data: Path, runs: list[Path], files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(data, tmp_path / "plain", epochs=1)
    monkeypatch.setattr(tl_kit.Predictor, "member_probabilities", None)
    config = EnsembleConfig(checkpoints=(runs[0], tmp_path / "plain"), out=tmp_path / "e", mc_dropout=3)
    for refused in (
        lambda: tl_kit.predict(tmp_path / "plain", files, mc_dropout=3),
        lambda: tl_kit.evaluate(tmp_path / "plain", data, mc_dropout=3),
        lambda: tl_kit.ensemble(config),
    ):
        with pytest.raises(ConfigError, match=r"plain has no active dropout; train it with --dropout"):
            refused()
    with pytest.raises(ConfigError, match="--mc-dropout -1"):
        tl_kit.predict(runs[0], files, mc_dropout=-1)


def test_the_commands_say_that_dropout_acts(data: Path, runs: list[Path], files: list[Path], tmp_path: Path) -> None:
    done = tlkit("evaluate", runs[0], "--data", data, "--mc-dropout", 4)
    assert ", 1 crop at scale 1, 4 passes with dropout: accuracy" in done.out
    assert tlkit("evaluate", runs[0], "--data", data, "--mc-dropout", 4, "--json").json["mc_dropout"] == 4
    assert "each image: the mean of 4 passes with dropout" in tlkit("predict", runs[0], files[0], "--mc-dropout", 4).err
    done = tlkit("ensemble", *runs[:2], "--mc-dropout", 4, "--out", tmp_path / "e")
    assert "each image: 1 crop at scale 1, 4 passes with dropout\n" in done.out
    quick(data, tmp_path / "plain", epochs=1)
    done = tlkit("evaluate", tmp_path / "plain", "--data", data, "--mc-dropout", 4)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("error: --mc-dropout 4: ")
