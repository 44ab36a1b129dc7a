"""Cross-validation: what is written is what the folds' checkpoints say of images that they have not seen."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

import tl_kit
from tests.helpers import MODEL, NEARLY_SQUARE, Listener, quick, quick_config, same, weights, write_images
from tl_kit import CacheConfig, CrossValidation, FinetuneConfig, cross_validate, metrics
from tl_kit.config import LoopConfig, RuntimeConfig
from tl_kit.data import pixel_store as cache
from tl_kit.data.folds import fold_manifests
from tl_kit.data.scan import scan
from tl_kit.errors import CheckpointError, ConfigError
from tl_kit.finetuning.finetune import finetune_on
from tl_kit.storage.checkpoint import digest_prefix, read_meta
from tl_kit.storage.feature_store import FeatureStore

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), size=NEARLY_SQUARE)


def settings(data: Path, out: Path, **options: Any) -> FinetuneConfig:
    """A head on a tiny network with random weights; an option of a gradient method makes it one."""
    return quick_config(data, out, **({"policy": "head", "epochs": None, "batch_size": None} | options))


FULL: dict[str, Any] = {"policy": "full", "epochs": 2, "batch_size": 8, "loop": LoopConfig(warmup_epochs=0.0)}


@pytest.fixture(scope="module")
def done(data: Path) -> CrossValidation:
    return cross_validate(settings(data, data.parent / "folds"), folds=4)


def rows_of(folder: Path | str, name: str = "out_of_fold.csv") -> list[dict[str, str]]:
    with (Path(folder) / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_image_has_one_row_in_order_of_its_path(data: Path, done: CrossValidation) -> None:
    rows = rows_of(done.folder)
    assert [row["path"] for row in rows] == sorted(str(file.relative_to(data)) for file in data.rglob("*.png"))
    assert list(rows[0]) == ["path", "label", "predicted", "fold", "p_blue", "p_green", "p_red"]
    assert all(row["label"] == row["path"].split("/")[0] for row in rows)
    assert Counter(row["fold"] for row in rows) == {str(fold): 9 for fold in range(1, 5)}


@pytest.mark.parametrize("options", [{}, FULL, FULL | {"policy": "last:2"}], ids=["head", "full", "last:2"])
def test_a_row_is_what_the_folds_checkpoint_predicts_of_the_file(
    data: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    cross_validate(settings(data, tmp_path / "run", **options), folds=3)
    for fold in range(1, 4):
        rows = [row for row in rows_of(tmp_path / "run") if row["fold"] == str(fold)]
        predictor = tl_kit.load(tmp_path / "run" / f"fold-{fold}", runtime=RuntimeConfig(precision="fp32"))
        for row, found in zip(rows, predictor.predict([data / row["path"] for row in rows]), strict=True):
            assert row["predicted"] == found.label
            for name, probability in found.probabilities.items():
                assert float(row[f"p_{name}"]) == pytest.approx(probability, abs=1e-6)


def test_no_fold_has_trained_or_selected_on_an_image_that_it_scores(data: Path, done: CrossValidation) -> None:
    for fold in done.folds:
        meta = read_meta(Path(fold.checkpoint))["data"]
        held_out = {
            hashlib.sha256((data / row["path"]).read_bytes()).hexdigest()[:16]
            for row in rows_of(done.folder)
            if row["fold"] == str(fold.fold)
        }
        assert len(held_out) == fold.images["test"] == 9
        assert not held_out & {*meta["train"], *meta["val"]}
        assert (len(meta["train"]), len(meta["val"])) == (fold.images["train"], fold.images["val"])
        assert len(meta["train"]) + len(meta["val"]) + len(held_out) == 36


def test_labels_of_held_out_images_have_no_influence_on_the_weights(data: Path, tmp_path: Path) -> None:
    """The whole path with other labels in the held-out part: the same weights, and other scores."""
    config = settings(data, tmp_path / "a")
    part = fold_manifests(scan(data), 3, config.split)[0]
    wrong = [replace(s, label=(s.label + 1) % 3) if s.split == "test" else s for s in part.samples]
    a = finetune_on(part, config)
    b = finetune_on(replace(part, samples=tuple(wrong)), replace(config, out=tmp_path / "b"))
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert a.result.val == b.result.val
    assert a.result.test != b.result.test


def test_scores_follow_from_the_rows(done: CrossValidation) -> None:
    rows = rows_of(done.folder)
    names = list(done.classes)
    probabilities = np.array([[float(row[f"p_{name}"]) for name in names] for row in rows])
    labels = np.array([names.index(row["label"]) for row in rows])
    folds = np.array([int(row["fold"]) for row in rows])
    assert metrics.summary(probabilities, labels) == done.out_of_fold
    by_fold = [metrics.summary(probabilities[folds == fold.fold], labels[folds == fold.fold]) for fold in done.folds]
    for fold, scores in zip(done.folds, by_fold, strict=True):
        assert fold.test == pytest.approx(scores, abs=1e-12)  # the order of a sum is another
    for name in done.out_of_fold:
        values = [scores[name] for scores in by_fold]
        mean = sum(values) / 4
        error = (sum((value - mean) ** 2 for value in values) / 3 / 4) ** 0.5
        assert done.mean[name] == pytest.approx(mean)
        assert done.standard_error[name] == pytest.approx(error)
    np.testing.assert_array_equal(done.predictions.probabilities, probabilities)


def test_the_summary_is_the_result_and_the_configuration(done: CrossValidation) -> None:
    summary = json.loads((Path(done.folder) / "folds.json").read_text())
    assert summary.pop("config")["policy"] == "head"
    assert summary == json.loads(json.dumps(done.to_dict()))
    assert [Path(fold["checkpoint"]).name for fold in summary["folds"]] == [f"fold-{n}" for n in range(1, 5)]
    assert summary["suspects"] == len(rows_of(done.folder, "suspects.csv"))
    assert sorted(path.name for path in Path(done.folder).iterdir()) == [
        "config.yaml",
        *(f"fold-{n}" for n in range(1, 5)),
        *("folds.json", "out_of_fold.csv", "suspects.csv"),
    ]


def test_timm_opens_every_fold(done: CrossValidation) -> None:
    for fold in done.folds:
        model = timm.create_model(f"local-dir:{fold.checkpoint}", pretrained=True)
        assert all(torch.equal(p, weights(fold.checkpoint)[name]) for name, p in model.state_dict().items())


def test_names_of_files_and_their_order_change_nothing(data: Path, done: CrossValidation, tmp_path: Path) -> None:
    copy = tmp_path / "renamed"
    for number, file in enumerate(sorted(data.rglob("*.png"), reverse=True)):
        target = copy / file.parent.name / f"{number:03d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    again = cross_validate(settings(copy, tmp_path / "run"), folds=4)
    assert again.out_of_fold == pytest.approx(done.out_of_fold, abs=1e-12)
    for a, b in zip(done.folds, again.folds, strict=True):
        assert same(weights(a.checkpoint), weights(b.checkpoint))

    def by_content(root: Path, folder: str) -> dict[bytes, list[str]]:
        return {(root / row["path"]).read_bytes(): list(row.values())[1:] for row in rows_of(folder)}

    assert by_content(data, done.folder) == by_content(copy, again.folder)


def test_wrong_labels_that_were_planted_are_the_first_suspects(tmp_path: Path) -> None:
    data = write_images(tmp_path / "images", images=20)
    for colour, number, wrong in (("red", 3, "blue"), ("green", 7, "red"), ("blue", 11, "green")):
        (data / colour / f"0-{number}.png").rename(data / wrong / f"{colour}.png")
    run = cross_validate(settings(data, tmp_path / "run"), folds=5)
    rows = rows_of(tmp_path / "run", "suspects.csv")
    first = {(row["path"], row["label"], row["suggested"]) for row in rows[:3]}
    assert first == {
        ("blue/red.png", "blue", "red"),
        ("red/green.png", "red", "green"),
        ("green/blue.png", "green", "blue"),
    }
    for row, suspect in zip(rows, run.suspects, strict=True):
        assert row == {name: str(getattr(suspect, name)) for name in row}
    margins = [float(row["margin"]) for row in rows]
    assert margins == sorted(margins)
    table = {row["path"]: row for row in rows_of(tmp_path / "run")}
    for row in rows:
        assert row["p_label"] == table[row["path"]][f"p_{row['label']}"]
        assert row["p_suggested"] == table[row["path"]][f"p_{row['suggested']}"]


def with_splits(root: Path, *splits: str) -> Path:
    for number, split in enumerate(splits):
        write_images(root / split, images=8, seed=number)
    return root


def test_a_given_test_split_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = with_splits(tmp_path / "images", "train", "val", "test")
    decoded: list[Path] = []
    original = cache.read_pixels
    monkeypatch.setattr(cache, "read_pixels", lambda path, *a, **o: decoded.append(path) or original(path, *a, **o))
    listener = Listener()
    run = cross_validate(settings(data, tmp_path / "run"), folds=3, reporter=listener)
    assert {row["path"].split("/")[0] for row in rows_of(run.folder)} == {"train", "val"}
    assert run.images == 48
    assert {path.relative_to(data).parts[0] for path in decoded} == {"train", "val"}
    assert listener.messages[0] == (
        "3 folds of training and validation images pooled: 48 images, stratified; "
        "the test split (24 images) is set aside: no fold uses it"
    )


def test_without_splits_all_images_take_part_and_nothing_else_is_said(data: Path, tmp_path: Path) -> None:
    listener = Listener()
    run = cross_validate(settings(data, tmp_path / "run"), folds=3, reporter=listener)
    assert run.images == 36
    assert listener.messages[0] == "3 folds of all 36 images, stratified"
    assert not any("set aside" in text for text in listener.messages)
    assert len(set(listener.messages)) == len(listener.messages)


def test_a_csv_file_keeps_groups_together_and_paths_as_they_are(data: Path, tmp_path: Path) -> None:
    inside = write_images(tmp_path / "inside", ("red", "green"), images=6, seed=3)
    outside = sorted(data.rglob("*.png"))
    lines = [(str(f), f.parent.name, f"g{f.stem[-1]}") for f in outside]
    lines += [(str(f.relative_to(tmp_path)), f.parent.name, "") for f in sorted(inside.rglob("*.png"))]
    file = tmp_path / "labels.csv"
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "label", "group"), *lines])
    run = cross_validate(settings(file, tmp_path / "run"), folds=3)
    rows = {row["path"]: row["fold"] for row in rows_of(run.folder)}
    assert set(rows) == {path for path, _, _ in lines}
    for group in {group for _, _, group in lines if group}:
        assert len({rows[path] for path, _, name in lines if name == group}) == 1


def test_an_image_is_decoded_once_for_all_folds_together(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: Counter[Path] = Counter()
    original = cache.read_pixels
    monkeypatch.setattr(cache, "read_pixels", lambda path, *a, **o: decoded.update([path]) or original(path, *a, **o))
    cross_validate(settings(data, tmp_path / "run", cache=CacheConfig(directory=tmp_path / "cache")), folds=4)
    assert len(decoded) == 36
    assert sum(decoded.values()) <= 36 + 8  # those on which the cut is proved


@pytest.mark.parametrize("options", [{}, FULL | {"policy": "last:2"}], ids=["head", "last:2"])
def test_what_is_frozen_is_computed_once_for_all_folds_together(
    data: Path, tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: Counter[str] = Counter()
    original = FeatureStore.add
    monkeypatch.setattr(
        FeatureStore, "add", lambda self, names, rows: (computed.update(names), original(self, names, rows))[1]
    )
    cross_validate(
        settings(data, tmp_path / "run", cache=CacheConfig(directory=tmp_path / "cache"), **options), folds=3
    )
    assert len({name.split("/")[0] for name in computed}) == 36
    assert set(computed.values()) == {1}


def test_an_image_that_cannot_be_decoded_leaves_all_folds_and_is_named_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: Counter[str] = Counter()
    original = cache.read_pixels
    monkeypatch.setattr(
        cache, "read_pixels", lambda path, *a, **o: tried.update([path.name]) or original(path, *a, **o)
    )
    copy = Path(shutil.copytree(data, tmp_path / "copy"))
    whole = (copy / "red" / "0-0.png").read_bytes()
    (copy / "red" / "torn.png").write_bytes(whole[: len(whole) // 2])
    (copy / "red" / "note.txt").write_text("no image")
    listener = Listener()
    run = cross_validate(settings(copy, tmp_path / "run"), folds=3, reporter=listener)
    assert run.images == 36
    assert "red/torn.png" not in {row["path"] for row in rows_of(run.folder)}
    for name in ("torn.png", "note.txt"):
        assert sum(name in text for text in listener.messages) == 1
    assert tried["torn.png"] == 1  # what one fold has found, the others know


def test_a_folder_with_something_in_it_is_refused_and_kept(data: Path, done: CrossValidation) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(done.folder).rglob("*")}
    with pytest.raises(CheckpointError, match="not empty"):
        cross_validate(settings(data, Path(done.folder)), folds=3)
    assert {path: path.stat().st_mtime_ns for path in Path(done.folder).rglob("*")} == before


def test_the_default_folder_is_numbered_with_those_of_single_runs(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = FinetuneConfig(model=MODEL, data=data, weights="none", img_size=32, policy="head")
    assert tl_kit.finetune(config).checkpoint == f"ckpts/{MODEL}-1"
    assert cross_validate(config, folds=2).folder == f"ckpts/{MODEL}-2"


def test_the_folder_of_all_folds_is_no_checkpoint_and_says_what_is(data: Path, done: CrossValidation) -> None:
    with pytest.raises(CheckpointError, match="give one of them, such as fold-1"):
        tl_kit.load(done.folder)
    assert tl_kit.load(done.folds[0].checkpoint).classes == done.classes


def test_copies_are_scored_by_the_same_fold(data: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(data, tmp_path / "copy"))
    for number in range(6):
        shutil.copyfile(copy / "red" / f"0-{number}.png", copy / "red" / f"copy-{number}.png")
    rows = {row["path"]: row for row in rows_of(cross_validate(settings(copy, tmp_path / "run"), folds=4).folder)}
    assert len(rows) == 42
    for number in range(6):
        one, other = rows[f"red/0-{number}.png"], rows[f"red/copy-{number}.png"]
        for name in ("label", "predicted", "fold"):
            assert one[name] == other[name]
        for name in ("p_blue", "p_green", "p_red"):  # batches of other sizes round otherwise
            assert float(one[name]) == pytest.approx(float(other[name]), rel=1e-6)


def test_a_class_that_is_too_small_for_every_fold_is_still_trained_on_in_each(tmp_path: Path) -> None:
    data = write_images(tmp_path / "images", ("red", "green"), images=12)
    write_images(tmp_path / "images", ("blue",), images=2)
    run = cross_validate(settings(data, tmp_path / "run"), folds=4)
    assert run.images == 26
    assert sum(row["label"] == "blue" for row in rows_of(run.folder)) == 2
    write_images(tmp_path / "images", ("grey",), images=1)
    with pytest.raises(ConfigError, match="class 'grey' has a single image or group"):
        cross_validate(settings(data, tmp_path / "other"), folds=4)


def test_a_single_run_is_what_it_was(data: Path, tmp_path: Path) -> None:
    """A manifest handed over is not scanned again, and equals the scan it replaces."""
    config = settings(data, tmp_path / "a")
    scanned = quick(data, tmp_path / "b", policy="head", epochs=None)
    given = finetune_on(scan(data), replace(config, data=tmp_path / "nowhere"))
    assert same(weights(scanned.checkpoint), weights(given.result.checkpoint))
    assert given.result.test == scanned.test
    assert len(given.logits["test"]) == len(given.manifest.split("test"))
    assert {digest_prefix(s) for s in given.manifest.split("train")} == set(read_meta(tmp_path / "a")["data"]["train"])
