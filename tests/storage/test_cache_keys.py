"""The cache's keys: whatever changes a value changes its key, and rows are of the very bytes that they are named by."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image

from tests.helpers import NEARLY_SQUARE, Listener, quick, same, weights, write_images
from tl_kit import evaluate
from tl_kit.config import CacheConfig, DecodeConfig, RuntimeConfig
from tl_kit.data.manifest import Sample
from tl_kit.data.pixel_store import PixelStore
from tl_kit.freezing.train_mode import forward_order
from tl_kit.images.transforms import Preprocessing
from tl_kit.inference.run_models import FileReader
from tl_kit.machine.runtime import Runtime
from tl_kit.storage import cache_keys
from tl_kit.storage.cache_keys import cache_key, derived_key
from tl_kit.storage.feature_cache import cache_report

P = Preprocessing((3, 32, 32), "bicubic", 0.875, "center", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
CPU = Runtime(device=torch.device("cpu"), channels_last=True, batch_size=8)
CHANGED = "the file changed since the scan"


def key(model: torch.nn.Module, cut: str = "head.fc", **options: Any) -> str:
    given: dict[str, Any] = {"preprocessing": P, "runtime": CPU, "decode": DecodeConfig(), "more": {"rows": "test"}}
    return cache_key(model, cut, **(given | options))


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    found: torch.nn.Module = timm.create_model("test_resnet", num_classes=3).eval()
    return found


PREPROCESSINGS = {
    "input_size": (3, 64, 64),
    "interpolation": "bilinear",
    "crop_pct": 0.8750001,
    "crop_mode": "squash",
    "mean": (0.5, 0.5, 0.5000001),
    "std": (0.25, 0.25, 0.2500001),
}
RUNTIMES = {"precision": "bf16", "batch_size": 16, "channels_last": False}


def test_every_input_of_a_row_is_in_its_key(model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    assert key(model) == key(model)
    found = [key(model), key(model, "layer4"), derived_key(key(model), "stages", "a"), derived_key(key(model), "b")]
    found += [key(model, preprocessing=replace(P, **{name: value})) for name, value in PREPROCESSINGS.items()]
    found += [key(model, runtime=replace(CPU, **{name: value})) for name, value in RUNTIMES.items()]
    found += [key(model, decode=DecodeConfig(max_pixels=1000)), key(model, more={"rows": "other"})]
    with monkeypatch.context() as patch:
        patch.setattr(cache_keys, "_versions", lambda: ["another"])
        found.append(key(model))
    with monkeypatch.context() as patch:
        patch.setattr(cache_keys, "device_name", lambda device: "another processor")
        found.append(key(model))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 77)
        found.append(key(model))
    assert len(set(found)) == len(found)
    assert all(len(each) == 32 for each in found)


def test_fields_that_come_later_are_in_it_too(model: torch.nn.Module) -> None:
    """Each field of a preprocessing, whatever fields it will have, is one whose change is told here or by its name."""
    for entry in fields(Preprocessing):
        other = replace(P)
        object.__setattr__(other, entry.name, "something else")
        assert key(model, preprocessing=other) != key(model), entry.name


def test_what_comes_from_the_cut_on_is_not() -> None:
    found = []
    first = timm.create_model("test_resnet", num_classes=3)
    trunk = {name: tensor for name, tensor in first.state_dict().items() if not name.startswith("fc.")}
    for classes, seed in ((3, 0), (3, 1), (7, 2)):
        model = timm.create_model("test_resnet", num_classes=classes).eval()
        model.load_state_dict(trunk, strict=False)
        order = forward_order(model, torch.zeros(2, 3, 32, 32))
        torch.manual_seed(seed)
        torch.nn.init.normal_(model.get_submodule("fc").weight)
        found.append((key(model, "fc"), key(model, "fc", order=order), key(model, "layer4", order=order)))
        with torch.no_grad():
            model.get_submodule("layer4.0.conv1").weight.add_(seed)
        assert key(model, "layer4", order=order) == found[-1][2]
    assert found[0][2] == found[1][2] == found[2][2]
    assert found[0][1] == found[1][1] == found[2][1]
    assert found[0][0] == found[1][0] == found[2][0]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("keys") / "images", images=6, size=NEARLY_SQUARE)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    out = tmp_path_factory.mktemp("pretrained") / "run"
    quick(data, out, epochs=1, cache=CacheConfig(size_gb=0))
    return out


def head(data: Path, out: Path, folder: Path, cache: Path, **options: Any) -> Any:
    given = {"policy": "head", "epochs": None, "weights": "auto", "img_size": None}
    return quick(
        data,
        out,
        model=f"local-dir:{folder}",
        **(given | options),
        crop_mode="center",
        cache=CacheConfig(directory=cache),
    )


def card(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a model folder's config.json in place."""
    content = json.loads((folder / "config.json").read_text())
    change(content)
    (folder / "config.json").write_text(json.dumps(content))


CARDS: dict[str, Callable[[dict[str, Any]], None]] = {
    "global_pool": lambda c: c["model_args"].update(global_pool="max"),
    "activation": lambda c: c["model_args"].update(act_layer="silu"),
    "stride": lambda c: c["model_args"].update(output_stride=16),
    "crop_pct": lambda c: c["pretrained_cfg"].update(crop_pct=0.5),
    "interpolation": lambda c: c["pretrained_cfg"].update(interpolation="nearest"),
    "mean": lambda c: c["pretrained_cfg"].update(mean=[0.1, 0.2, 0.3]),
}


@pytest.mark.parametrize("case", CARDS)
def test_a_changed_card_gives_another_key(pretrained: Path, tmp_path: Path, case: str) -> None:
    def of_folder() -> str:
        found = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        return key(found, "fc", preprocessing=Preprocessing.from_model(found))

    folder = tmp_path / "model"
    shutil.copytree(pretrained, folder)
    before = of_folder()
    assert of_folder() == before
    card(folder, CARDS[case])
    assert of_folder() != before


@pytest.mark.parametrize("case", ["global_pool", "crop_pct"])
def test_a_changed_card_of_the_same_folder_gets_its_own_features(
    data: Path, pretrained: Path, tmp_path: Path, case: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(pretrained, folder)
    head(data, tmp_path / "before", folder, tmp_path / "cache")
    card(folder, CARDS[case])
    again = head(data, tmp_path / "again", folder, tmp_path / "cache")
    alone = head(data, tmp_path / "alone", folder, tmp_path / "fresh")
    assert (again.val, again.test) == (alone.val, alone.test)
    assert same(weights(again.checkpoint), weights(alone.checkpoint))
    assert len(cache_report(tmp_path / "cache").entries) == 2


def test_another_seed_another_folder_and_dropout_share_the_rows(data: Path, pretrained: Path, tmp_path: Path) -> None:
    head(data, tmp_path / "a", pretrained, tmp_path / "cache")
    before = cache_report(tmp_path / "cache")
    shutil.copytree(pretrained, tmp_path / "moved")
    head(data, tmp_path / "b", tmp_path / "moved", tmp_path / "cache", seed=1)
    after = cache_report(tmp_path / "cache")
    assert [(e.key, e.rows) for e in after.entries] == [(e.key, e.rows) for e in before.entries]
    assert len(after.entries) == 1


def replaced(path: Path) -> None:
    """Another sound image under the same name, as a download that starts over would leave it."""
    Image.new("RGB", (48, 40), (1, 250, 130)).save(path.with_suffix(".tmp.png"))
    path.with_suffix(".tmp.png").replace(path)


def replacing_before_decoding(patch: pytest.MonkeyPatch, splits: tuple[str, ...]) -> list[Path]:
    """Of each split the first image that is to be decoded is replaced just before; returns which."""
    done: dict[str, Path] = {}
    fill = PixelStore.fill

    def late(store: PixelStore, samples: Any, **options: Any) -> Any:
        for sample in samples:
            if sample.split in splits and sample.split not in done:
                done[sample.split] = sample.path
                replaced(sample.path)
        found.extend(path for path in done.values() if path not in found)
        return fill(store, samples, **options)

    found: list[Path] = []
    patch.setattr(PixelStore, "fill", late)
    return found


@pytest.mark.parametrize("policy", ["head", "last:1", "auto"])
def test_a_file_replaced_between_scan_and_decoding_is_left_out_and_poisons_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    data = write_images(tmp_path / "images", images=5)
    shutil.copytree(data, tmp_path / "kept")
    alone_in_its_batch = RuntimeConfig(batch_size=1)  # batches of other sizes round otherwise
    epochs = {"head": None, "auto": 2}.get(policy, 1)
    options: dict[str, Any] = {"policy": policy, "epochs": epochs, "runtime": alone_in_its_batch}
    with monkeypatch.context() as patch:
        gone = replacing_before_decoding(patch, ("train", "val"))
        heard, cache = Listener(), CacheConfig(directory=tmp_path / "cache")
        quick(data, tmp_path / "torn", reporter=heard, cache=cache, **options)
    assert len(gone) == 2
    for path in gone:
        assert f"left out: {path}: {CHANGED}" in heard.messages
    for path in gone:
        shutil.copyfile(tmp_path / "kept" / path.relative_to(data), path)
    later = quick(data, tmp_path / "later", cache=cache, **options)
    alone = quick(data, tmp_path / "alone", cache=CacheConfig(directory=tmp_path / "fresh"), **options)
    assert (later.val, later.test) == (alone.val, alone.test)
    assert same(weights(later.checkpoint), weights(alone.checkpoint))


def test_evaluate_leaves_out_what_changed_since_its_scan(
    data: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(data, tmp_path / "images")
    read = FileReader.read
    first: list[Path] = []

    def late(reader: FileReader, start: int, stop: int) -> Any:
        if not first:
            first.append(Path(str(reader.sources[0])))
            replaced(first[0])
        return read(reader, start, stop)

    monkeypatch.setattr(FileReader, "read", late)
    heard = Listener()
    found = evaluate(pretrained, tmp_path / "images", split="all", reporter=heard)
    assert f"left out: {first[0]}: {CHANGED}" in heard.messages
    assert found.images == 17
    assert found.left_out == [{"path": str(first[0]), "reason": CHANGED}]


def test_a_store_takes_no_other_bytes_than_those_that_were_scanned(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    shutil.copyfile(next(data.rglob("*.png")), path)
    sample = Sample(path, 0, "train", hashlib.sha256(path.read_bytes()).hexdigest())
    store = PixelStore(P)
    assert store.fill([sample], crop=True) == []
    replaced(path)
    assert len(store.get([sample], crop=True)) == 1, "what was decoded in time is kept"
    (failure,) = PixelStore(P).fill([sample], crop=False)
    assert (failure.path, failure.reason) == (path, CHANGED)
    with pytest.raises(Exception, match=f"a.png: {CHANGED}$"):
        PixelStore(P).get([sample], crop=True)
    path.write_bytes(b"no image any more")
    with pytest.raises(Exception, match=f"a.png: {CHANGED}$"):
        PixelStore(P).get([sample], crop=True)
    path.unlink()
    with pytest.raises(Exception, match=f"a.png: cannot be read: No such file or directory; {CHANGED}$"):
        PixelStore(P).get([sample], crop=True)
