"""A run from images to checkpoint: what was scored is what is saved, and the seed decides everything."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import tl_kit
from tests.helpers import MODEL, UNGUARDED, Listener, interrupt, quick, same, weights, write_images
from tl_kit import AugmentConfig, CacheConfig, DataConfig, FinetuneConfig, HeadConfig, RuntimeConfig, finetune
from tl_kit.data.pixel_store import PixelStore
from tl_kit.errors import CheckpointError, ConfigError, DataError, TrainingError
from tl_kit.storage.checkpoint import load_checkpoint

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize("policy", ["head", "last:2", "full"])
def test_evaluate_gives_the_runs_figures_digit_for_digit(data: Path, tmp_path: Path, policy: str) -> None:
    options = {"epochs": None} if policy == "head" else {}
    run = quick(data, tmp_path / "run", policy=policy, **options)
    for split, scores in (("val", run.val), ("test", run.test)):
        assert tl_kit.evaluate(run.checkpoint, data, split=split).metrics == scores


@pytest.mark.parametrize("policy", ["head", "full"])
def test_timm_opens_the_checkpoint_with_the_same_logits(data: Path, tmp_path: Path, policy: str) -> None:
    run = quick(data, tmp_path / "run", policy=policy)
    ours = load_checkpoint(Path(run.checkpoint))
    theirs = timm.create_model(f"local-dir:{run.checkpoint}", pretrained=True).eval()
    images = torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(theirs(images), ours.model(images))
    config = json.loads((Path(run.checkpoint) / "config.json").read_text())
    assert config["label_names"] == ["blue", "green", "red"]
    assert tuple(config["pretrained_cfg"]["input_size"]) == (3, 32, 32)


@pytest.mark.parametrize("policy", ["head", "last:2", "full"])
def test_the_same_seed_gives_the_same_weights_bit_for_bit(data: Path, tmp_path: Path, policy: str) -> None:
    first, second, other = (
        quick(data, tmp_path / str(n), policy=policy, seed=seed) for n, seed in enumerate((3, 3, 4))
    )
    assert same(weights(first.checkpoint), weights(second.checkpoint))
    assert not same(weights(first.checkpoint), weights(other.checkpoint))
    assert (first.val, first.test) == (second.val, second.test)


def test_names_of_files_and_the_order_of_folders_change_nothing(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "renamed"
    for number, file in enumerate(sorted(data.rglob("*.png"), reverse=True)):
        target = copy / file.parent.name / f"{number:03d}-renamed.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    a, b = quick(data, tmp_path / "a"), quick(copy, tmp_path / "b")
    assert same(weights(a.checkpoint), weights(b.checkpoint))
    assert a.test == b.test


def test_the_audit_counts_what_is_frozen_and_frozen_tensors_equal_the_pretrained_ones(
    data: Path, tmp_path: Path
) -> None:
    start = quick(data, tmp_path / "start")
    begun = f"{start.checkpoint}/model.safetensors"
    run = quick(data, tmp_path / "run", policy="last:2", weights=begun, guard=UNGUARDED)
    before, after = weights(start.checkpoint), weights(run.checkpoint)
    unchanged = [name for name in before if torch.equal(before[name], after[name])]
    assert run.audit["ok"] is True
    assert run.audit["changed_tensors"] == 0
    assert 0 < run.audit["frozen_tensors"] == len(unchanged)


@pytest.mark.parametrize("policy", ["head", "full"])
def test_five_images_are_enough(tmp_path: Path, policy: str) -> None:
    data = write_images(tmp_path / "few", ("red", "green"), images=2)
    write_images(tmp_path / "few", ("red",), images=1, seed=5)
    run = quick(data, tmp_path / "run", policy=policy)
    assert run.val is not None


@pytest.mark.parametrize("images", [17, 16, 1])
def test_a_last_batch_of_one_does_not_break_batchnorm(tmp_path: Path, images: int) -> None:
    root = tmp_path / "d"
    for split, count in (("train", images), ("val", 2)):
        write_images(root / split, ("red", "green"), images=1, seed=len(split))
        write_images(root / split, ("red",), images=count - 1, seed=9 + len(split))
    run = quick(root, tmp_path / "run", batch_size=images)
    assert run.epochs == 2
    assert run.test is None


def test_broken_images_are_left_out_and_named(data: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(data, tmp_path / "copy"))
    whole = (copy / "red" / "0-0.png").read_bytes()
    (copy / "red" / "torn.png").write_bytes(whole[: len(whole) // 2])
    listener = Listener()
    config = FinetuneConfig(
        model=MODEL, data=copy, weights="none", img_size=32, policy="head", out=tmp_path / "run", batch_size=8
    )
    finetune(config, reporter=listener)
    assert any("torn.png" in text for text in listener.messages)


def test_a_rate_that_explodes_stops_with_one_line_and_leaves_no_folder(data: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="--lr"):
        quick(data, tmp_path / "run", optimizer="sgd", lr=1e30)
    assert not (tmp_path / "run").exists()


def test_ctrl_c_after_an_epoch_keeps_the_best_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, at=5)
    run = quick(data, tmp_path / "run", epochs=50)
    assert run.status == "interrupted"
    assert run.epochs == 1
    assert tl_kit.evaluate(run.checkpoint, data, split="val").metrics == run.val


def test_ctrl_c_before_the_first_epoch_leaves_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, at=0)
    with pytest.raises(KeyboardInterrupt):
        quick(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_best_epoch_is_kept_not_the_last(data: Path, tmp_path: Path) -> None:
    run = quick(data, tmp_path / "run", epochs=6, optimizer="sgd", lr=0.5, schedule="constant")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    best = max(rows, key=lambda row: (row["val_accuracy"], -row["val_nll"]))
    assert run.val is not None
    assert run.val["accuracy"] == best["val_accuracy"]
    assert run.val["nll"] == best["val_nll"]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"epochs": 0}, ConfigError, "--epochs"),
        ({"batch_size": 0}, ConfigError, "--batch-size"),
        ({"lr": -1.0}, ConfigError, "--lr"),
        ({"lr": float("nan")}, ConfigError, "--lr"),
        ({"policy": "first:2"}, ConfigError, "--policy"),
        ({"optimizer": "adamww"}, ConfigError, "adamw"),
        ({"schedule": "cosin"}, ConfigError, "cosine"),
        ({"model": "resnet81"}, ConfigError, "resnet"),
        ({"seed": -1}, ConfigError, "--seed"),
        ({"split": DataConfig(split_seed=-1)}, ConfigError, "--split-seed"),
        ({"split": DataConfig(split_seed=2**32)}, ConfigError, "--split-seed"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_folder(
    data: Path, tmp_path: Path, options: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        quick(data, tmp_path / "run", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_an_out_folder_with_something_in_it_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="not empty"):
        quick(data, tmp_path / "run")
    assert (tmp_path / "run" / "thesis.txt").read_text() == "mine"


def test_the_default_folder_is_numbered(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = FinetuneConfig(model=MODEL, data=data, weights="none", img_size=32, policy="head")
    assert [finetune(config).checkpoint for _ in range(2)] == [f"ckpts/{MODEL}-1", f"ckpts/{MODEL}-2"]


def test_no_data_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        quick(tmp_path / "nowhere", tmp_path / "run")


def test_predictions_are_named_and_agree_with_evaluate(data: Path, tmp_path: Path) -> None:
    run = quick(data, tmp_path / "run", epochs=4)
    predictor = tl_kit.load(run.checkpoint)
    files = sorted(data.rglob("*.png"))
    predictions = predictor.predict(files)
    accuracy = np.mean([p.label == f.parent.name for p, f in zip(predictions, files, strict=True)])
    assert accuracy == pytest.approx(tl_kit.evaluate(run.checkpoint, data, split="all").metrics["accuracy"], abs=1e-12)
    assert all(sum(p.probabilities.values()) == pytest.approx(1) for p in predictions)


def test_a_file_that_is_no_image_gives_an_error_row_and_the_others_their_own(data: Path, tmp_path: Path) -> None:
    run = quick(data, tmp_path / "run")
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    good = sorted(data.rglob("*.png"))[:3]
    predictor = tl_kit.load(run.checkpoint)
    mixed = predictor.predict([good[0], bad, *good[1:]])
    assert [p.error is None for p in mixed] == [True, False, True, True]
    assert mixed[1].label is None
    alone = predictor.predict(good)
    for a, b in zip(alone, [mixed[0], *mixed[2:]], strict=True):
        assert a.label == b.label
        assert list(a.probabilities.values()) == pytest.approx(list(b.probabilities.values()), abs=1e-6)


def test_without_a_cache_the_head_is_the_same_and_nothing_is_kept(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = RuntimeConfig(precision="fp32")
    cached = quick(data, tmp_path / "a", policy="head", epochs=None, runtime=exact)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = {"cache": CacheConfig(size_gb=0), "runtime": exact}
    alone = quick(data, tmp_path / "b", policy="head", epochs=None, **options)
    plain = quick(data, tmp_path / "c", policy="head", epochs=None, runtime=RuntimeConfig(mode="plain"))
    assert alone.epochs == plain.epochs == 0
    assert not (tmp_path / "cache").exists()
    for run in (alone, plain):
        for name, tensor in weights(run.checkpoint).items():
            torch.testing.assert_close(tensor, weights(cached.checkpoint)[name], rtol=0.2, atol=0.02)


@pytest.mark.parametrize("policy", ["head", "last:2"])
def test_a_second_run_computes_no_feature_and_gives_the_same_weights(
    data: Path, tmp_path: Path, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"policy": policy, "cache": CacheConfig(directory=tmp_path / "cache")}
    first = quick(data, tmp_path / "a", **options)

    def no_decoding(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(PixelStore, "fill", no_decoding)
    second = quick(data, tmp_path / "b", **options)
    assert same(weights(first.checkpoint), weights(second.checkpoint))
    assert (first.val, first.test) == (second.val, second.test)


def test_another_network_or_augmentation_does_not_take_the_wrong_rows(data: Path, tmp_path: Path) -> None:
    cache = CacheConfig(directory=tmp_path / "cache")
    for number, seed in enumerate((0, 1)):  # --weights none: the seed draws another trunk
        shared = quick(data, tmp_path / f"shared-{number}", policy="last:2", seed=seed, cache=cache)
        alone = quick(
            data,
            tmp_path / f"alone-{number}",
            policy="last:2",
            seed=seed,
            cache=CacheConfig(directory=tmp_path / f"cache-{number}"),
        )
        assert same(weights(shared.checkpoint), weights(alone.checkpoint))
    keys = len(list((tmp_path / "cache").iterdir()))
    quick(data, tmp_path / "other", policy="last:2", cache=cache, augment=AugmentConfig(flip=0.0))
    assert len(list((tmp_path / "cache").iterdir())) == keys + 1


def test_a_thousand_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(1000):
        folder = tmp_path / "many" / f"class {number}"
        folder.mkdir(parents=True)
        for image in range(2):
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / f"{image}.png")
    run = quick(
        tmp_path / "many", tmp_path / "run", policy="head", epochs=None, img_size=32, head=HeadConfig(max_iter=3)
    )
    assert len(run.classes) == 1000
    assert run.classes[2] == "class 2"
    assert run.val is not None


@pytest.mark.parametrize("policy", ["head", "last:2", "full"])
def test_broken_images_and_their_copies_leave_every_split(tmp_path: Path, policy: str) -> None:
    root = tmp_path / "d"
    for number, split in enumerate(("train", "val", "test")):
        write_images(root / split, ("red", "green"), images=4, seed=number)
        whole = (root / split / "red" / f"{number}-0.png").read_bytes()
        for name in ("a", "b"):  # two identical broken files
            (root / split / "green" / f"{name}.png").write_bytes(whole[: len(whole) // 2])
        for file in (root / split / "red").glob("*-0.png"):  # the first image of a split is broken as well
            file.write_bytes(whole[:-30])
    options = {"epochs": None} if policy == "head" else {}
    run = quick(root, tmp_path / "run", policy=policy, **options)
    result = tl_kit.evaluate(run.checkpoint, root, split="test")
    assert result.images == 7
    assert run.test is not None
    assert result.metrics["accuracy"] == run.test["accuracy"]
    assert result.metrics["nll"] == pytest.approx(run.test["nll"], abs=1e-6)


@pytest.mark.parametrize("name", ["hrnet_w18_small", "crossvit_9_240"])
def test_a_model_that_cannot_be_cut_trains_all_the_same(tmp_path: Path, name: str) -> None:
    data = write_images(tmp_path / "images", ("red", "green"), images=4)
    size = None if name.startswith("crossvit") else 64
    run = quick(data, tmp_path / "run", model=name, img_size=size, policy="last:2", epochs=1, batch_size=2)
    assert run.audit["frozen_tensors"] > 0
    assert run.audit["ok"] is True


def test_a_view_that_does_not_fit_the_cache_takes_the_plain_path(data: Path, tmp_path: Path) -> None:
    cache = CacheConfig(directory=tmp_path / "cache", size_gb=1e-6)
    run = quick(data, tmp_path / "run", policy="last:2", cache=cache)
    assert run.epochs == 2
    assert sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*") if file.is_file()) < 1000


def test_a_cache_that_cannot_be_written_is_said_and_done_without(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = quick(data, tmp_path / "run", policy="last:2", cache=CacheConfig(directory=tmp_path / "file" / "cache"))
    assert run.epochs == 2


@pytest.mark.parametrize("options", [{"schedule": "cosinee"}, {"batch_size": 4, "schedule": "cosinee"}])
def test_options_of_a_gradient_method_are_not_ignored_by_the_head(
    data: Path, tmp_path: Path, options: dict[str, object]
) -> None:
    with pytest.raises(ConfigError, match="cosine"):
        quick(data, tmp_path / "run", policy="head", epochs=None, **options)


def test_a_head_that_is_to_stop_early_has_epochs(data: Path, tmp_path: Path) -> None:
    run = quick(data, tmp_path / "run", policy="head", epochs=None, patience=1)
    assert run.epochs > 0


@pytest.mark.parametrize("options", [{"seed": 2**63}, {"cache": CacheConfig(size_gb=float("inf"))}])
def test_numbers_out_of_range_are_refused(data: Path, tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="--"):
        quick(data, tmp_path / "run", **options)
