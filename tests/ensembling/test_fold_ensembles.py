"""An ensemble of folds: scored on images apart, its members out of fold, and nothing fitted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tl_kit
from tests.cli.helpers import tlkit
from tests.helpers import Listener, quick, quick_config, write_images
from tl_kit import CrossValidation, EnsembleConfig, EnsembleResult
from tl_kit.ensembling.fold_ensembles import are_folds
from tl_kit.errors import ConfigError, DataError, MemberError
from tl_kit.storage.checkpoint import load_checkpoint

FOLDS = 3


def folds_of(data: Path, out: Path) -> CrossValidation:
    return tl_kit.cross_validate(quick_config(data, out), folds=FOLDS)


def members(found: CrossValidation) -> tuple[Path, ...]:
    return tuple(Path(fold.checkpoint) for fold in found.folds)


def combine(paths: tuple[Path, ...], out: Path, **options: Any) -> EnsembleResult:
    return tl_kit.ensemble(EnsembleConfig(checkpoints=paths, out=out, bootstrap=100, **options))


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No splits: all images take part, and none is apart."""
    return write_images(tmp_path_factory.mktemp("pool") / "images", images=9)


@pytest.fixture(scope="module")
def whole(pool: Path) -> CrossValidation:
    return folds_of(pool, pool.parent / "folds")


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A test split that is set aside, one image of it a copy of one that the folds train on."""
    root = tmp_path_factory.mktemp("split") / "images"
    for number, (name, images) in enumerate((("train", 8), ("val", 3), ("test", 7))):
        write_images(root / name, images=images, seed=number)
    (root / "test" / "red" / "copy.png").write_bytes(next((root / "train" / "red").iterdir()).read_bytes())
    return root


@pytest.fixture(scope="module")
def aside(split: Path) -> CrossValidation:
    return folds_of(split, split.parent / "folds")


def test_without_images_apart_it_is_written_and_only_single_members_have_scores(
    pool: Path, whole: CrossValidation, tmp_path: Path
) -> None:
    listener = Listener()
    config = EnsembleConfig(checkpoints=members(whole), out=tmp_path / "e", bootstrap=100)
    result = tl_kit.ensemble(config, reporter=listener).to_dict()
    plain = json.loads(json.dumps(result, allow_nan=False))
    assert plain == {**result, "scales": list(result["scales"])}
    assert result["ensemble"] == {"val": None, "test": None}
    assert (result["rule"], result["calibration"]["temperature"]) == ("mean", 1.0)
    outside = result["out_of_fold"]
    assert outside["images"] == 27
    assert outside["scores"] == pytest.approx(whole.out_of_fold, abs=1e-5)
    for fold, member, own in zip(whole.folds, result["members"], outside["members"], strict=True):
        assert own["images"] == fold.images["test"]
        assert own["scores"] == pytest.approx(fold.test, abs=1e-5)
        assert (member["val"], member["test"]) == (None, None)
    assert not (tmp_path / "e" / "receipt.png").exists()
    assert any("every image was seen by a member" in text for text in listener.messages)
    files = sorted(pool.rglob("*.png"))[::6]
    alone = [tl_kit.load(path).predict(files) for path in members(whole)]
    for index, prediction in enumerate(tl_kit.load(tmp_path / "e").predict(files)):
        for name, value in prediction.probabilities.items():
            assert value == pytest.approx(np.mean([rows[index].probabilities[name] for rows in alone]), abs=1e-9)


def test_a_test_split_that_was_set_aside_scores_the_ensemble(
    split: Path, aside: CrossValidation, tmp_path: Path
) -> None:
    result = combine(members(aside), tmp_path / "e")
    receipt = result.to_dict()
    assert receipt["images"] == {"val": None, "test": 21}, "the copy of a training image is left out"
    assert receipt["out_of_fold"]["images"] == 33
    assert receipt["ensemble"]["val"] is None
    assert Path(result.picture).read_bytes().startswith(b"\x89PNG")
    (split / "test" / "red" / "copy.png").rename(split.parent / "copy.png")
    try:
        assert tl_kit.evaluate(tmp_path / "e", split, split="test").metrics == pytest.approx(
            receipt["ensemble"]["test"], abs=1e-9
        )
        tests = [tl_kit.evaluate(path, split, split="test").metrics for path in members(aside)]
    finally:
        (split.parent / "copy.png").rename(split / "test" / "red" / "copy.png")
    for found, expected in zip(receipt["members"], tests, strict=True):
        assert found["test"] == pytest.approx(expected, abs=1e-6)
    for name in ("accuracy", "nll"):
        gain = receipt["ensemble"]["test"][name] - np.mean([scores[name] for scores in tests])
        assert receipt["gain_over_mean_member"][name] == pytest.approx(gain, abs=1e-6)
    assert receipt["gain"] is None


def test_images_apart_may_be_named(whole: CrossValidation, tmp_path: Path) -> None:
    fresh = write_images(tmp_path / "fresh", images=4, seed=77)
    result = combine(members(whole), tmp_path / "e", data=fresh, rule="logit-mean").to_dict()
    assert result["images"] == {"val": None, "test": 12}
    assert result["rule"] == "logit-mean"
    assert tl_kit.evaluate(tmp_path / "e", fresh).metrics == pytest.approx(result["ensemble"]["test"], abs=1e-9)
    assert result["out_of_fold"]["images"] == 27


def test_the_order_of_folds_changes_nothing_and_an_ensemble_of_them_is_one_member(
    split: Path, aside: CrossValidation, tmp_path: Path
) -> None:
    first = combine(members(aside), tmp_path / "a").to_dict()
    second = combine(members(aside)[::-1], tmp_path / "b").to_dict()
    again = combine((tmp_path / "a",), tmp_path / "c").to_dict()
    for other in (second, again):
        assert other["ensemble"]["test"] == pytest.approx(first["ensemble"]["test"], abs=1e-9)
        assert other["out_of_fold"]["scores"] == pytest.approx(first["out_of_fold"]["scores"], abs=1e-9)


@pytest.mark.parametrize("rule", ["weighted", "greedy", "stack", "auto"])
def test_what_is_fitted_is_refused_before_anything_is_predicted(
    whole: CrossValidation, tmp_path: Path, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tl_kit.Predictor, "member_probabilities", None)
    with pytest.raises(ConfigError, match=f"--rule {rule}: is fitted .*; use mean, logit-mean or vote"):
        combine(members(whole), tmp_path / "e", rule=rule)
    assert not (tmp_path / "e").exists()


def test_some_of_the_folds_are_refused_as_before(pool: Path, whole: CrossValidation, tmp_path: Path) -> None:
    with pytest.raises(MemberError, match=r"different images or splits: .*of a cross-validation, give every fold"):
        combine(members(whole)[:2], tmp_path / "e")
    with pytest.raises(MemberError, match="was trained or selected on"):
        combine(members(whole)[:2], tmp_path / "e", data=pool)


def test_folds_that_are_given_twice_are_told(whole: CrossValidation, tmp_path: Path) -> None:
    """By an ensemble of them, so that no path is named twice; each image then has two predictions."""
    once = combine(members(whole), tmp_path / "once")
    listener = Listener()
    config = EnsembleConfig(checkpoints=(*members(whole), Path(once.checkpoint)), out=tmp_path / "twice", bootstrap=100)
    twice = tl_kit.ensemble(config, reporter=listener).to_dict()
    told = [line for line in listener.messages if "predicts exactly what" in line]
    assert len(told) == FOLDS
    assert all(str(fold) in " ".join(told) for fold in members(whole))
    assert twice["out_of_fold"]["images"] == 2 * once.to_dict()["out_of_fold"]["images"]
    shown = tlkit("ensemble", *members(whole), tmp_path / "once", "--out", tmp_path / "shown").out
    assert f"One member, out of fold, {twice['out_of_fold']['images']} predictions" in shown


def test_members_that_share_their_splits_are_no_folds(pool: Path, whole: CrossValidation, tmp_path: Path) -> None:
    alike = [quick(pool, tmp_path / str(seed), epochs=1, seed=seed).checkpoint for seed in (0, 1)]
    assert not are_folds([load_checkpoint(Path(path)) for path in alike])
    other = quick(pool, tmp_path / "other", epochs=1, split=tl_kit.DataConfig(split_seed=3)).checkpoint
    assert not are_folds([load_checkpoint(Path(path)) for path in (alike[0], other)])
    assert are_folds([load_checkpoint(path) for path in members(whole)])


def test_a_member_that_has_seen_all_images_is_none_of_the_folds(whole: CrossValidation) -> None:
    folds = [load_checkpoint(path) for path in members(whole)]
    data = folds[0].meta["data"]
    known = sorted({digest for fold in folds for split in ("train", "val") for digest in fold.meta["data"][split]})
    everything = replace(folds[0], meta={**folds[0].meta, "data": {**data, "train": known, "val": []}})
    assert are_folds(folds)
    assert not are_folds([*folds, everything])


def test_where_the_images_are_gone_others_must_be_named(tmp_path: Path) -> None:
    data = write_images(tmp_path / "images", images=9)
    found = folds_of(data, tmp_path / "folds")
    data.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"no longer there.*--data"):
        combine(members(found), tmp_path / "e")
    fresh = write_images(tmp_path / "fresh", images=4, seed=77)
    result = combine(members(found), tmp_path / "e", data=fresh).to_dict()
    assert (result["out_of_fold"], result["images"]["test"]) == (None, 12)
    assert tlkit("ensemble", *members(found), "--data", fresh, "--out", tmp_path / "f").code == 0


def test_what_the_command_shows(whole: CrossValidation, aside: CrossValidation, tmp_path: Path) -> None:
    done = tlkit("ensemble", *members(whole), "--out", tmp_path / "e")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].endswith("  out of fold ece")
    assert [line.split()[-1] for line in lines if line.startswith("ensemble (mean)")] == ["none"]
    assert f"out of fold, 27 predictions: accuracy {100 * whole.out_of_fold['accuracy']:.1f} %" in done.out
    assert "The ensemble on val and test: none, every image was seen by a member" in done.out
    assert "picture:" not in done.out
    done = tlkit("ensemble", *members(aside), "--out", tmp_path / "f")
    assert "test accuracy" in done.out.splitlines()[0]
    assert "Gain over the mean member: " in done.out
    assert "No temperature: " in done.out
    assert f"picture: {tmp_path / 'f' / 'receipt.png'}\n" in done.out
    done = tlkit("ensemble", *members(whole), "--rule", "stack", "--out", tmp_path / "g")
    assert (done.code, done.err.count("\n")) == (2, 1)
