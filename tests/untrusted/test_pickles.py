"""A pickle with code in it is never executed, whatever it is wrapped in and whatever it is called."""

from __future__ import annotations

import contextlib
import pickle
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cli.helpers import tlkit
from tests.untrusted.conftest import Watch
from tests.untrusted.payloads import CONTAINERS, NAMES, PAYLOADS, Call, as_archive, as_legacy
from tests.untrusted.refusals import every_way_in, refused
from tl_kit.errors import TlKitError, WeightsError
from tl_kit.storage.feature_store import FeatureStore
from tl_kit.zoo.build_model import build_model
from tl_kit.zoo.state_dict_files import read_state_dict


def runs(raw: bytes, canary: Path) -> bool:
    """Whether Python's own unpickler executes the payload."""
    canary.unlink(missing_ok=True)
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore", ResourceWarning)
        pickle.loads(raw)
    return canary.exists()


@pytest.mark.parametrize("shape", PAYLOADS)
def test_no_payload_is_executed(shape: str, tmp_path: Path, watch: Watch) -> None:
    canary = tmp_path / "canary"
    raw = PAYLOADS[shape](canary)
    for number, (container, wrap) in enumerate(CONTAINERS.items()):
        for name in (NAMES[number % len(NAMES)], "w.safetensors"):
            path = tmp_path / name
            path.write_bytes(wrap(raw))
            with pytest.raises(WeightsError) as caught:
                read_state_dict(path)
            assert not canary.exists(), (container, name)
            assert str(path) in str(caught.value)
            assert str(caught.value).isprintable(), container
            assert "weights_only" not in str(caught.value), "no advice on how to run it all the same"
    watch.on = False
    assert runs(raw, canary), "a payload that does nothing proves nothing"


def test_there_are_enough_of_them() -> None:
    assert len(PAYLOADS) >= 20


@pytest.mark.parametrize("shape", ["os.system", "eval", "persistent id", "pickle in a storage"])
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.ckpt"])
def test_as_weights_of_a_run(shape: str, name: str, tmp_path: Path, images: Path, watch: Watch) -> None:
    canary, path = tmp_path / "canary", tmp_path / name
    path.write_bytes(as_archive(PAYLOADS[shape](canary)))
    out = tmp_path / "run"
    line = refused(tmp_path, "finetune", "test_resnet", "--data", images, "--weights", path, "--out", out)
    assert str(path) in line
    assert not canary.exists()


@pytest.mark.parametrize("wrap", [as_archive, as_legacy])
@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tlkit.json"])
def test_in_place_of_a_checkpoints_files(
    file: str, wrap: type, checkpoint: Path, images: Path, tmp_path: Path, watch: Watch
) -> None:
    canary = tmp_path / "canary"
    (checkpoint / file).write_bytes(wrap(PAYLOADS["os.system"](canary)))
    for command in every_way_in(checkpoint, images):
        assert str(checkpoint / file) in refused(tmp_path, *command)
    assert not canary.exists()


def test_in_place_of_an_ensembles_files(ensemble: Path, images: Path, tmp_path: Path, watch: Watch) -> None:
    canary = tmp_path / "canary"
    raw = as_archive(PAYLOADS["os.system"](canary))
    read = {path for path in ensemble.rglob("*") if path.is_file() and path.name not in ("README.md", "config.yaml")}
    for file in sorted(read):
        kept = file.read_bytes()
        file.write_bytes(raw)
        for command in every_way_in(ensemble, images):
            assert str(file) in refused(tmp_path, *command)
        file.write_bytes(kept)
    assert not canary.exists()


@pytest.mark.parametrize("file", ["pytorch_model.bin", "pytorch_model.pth", "model.pth", "model.safetensors"])
def test_in_a_model_folder_of_timms_form(
    file: str, checkpoint: Path, images: Path, tmp_path: Path, watch: Watch
) -> None:
    canary = tmp_path / "canary"
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / file).write_bytes(as_archive(PAYLOADS["exec"](canary)))
    for model, weights in ((f"local-dir:{checkpoint}", "auto"), ("test_resnet", str(checkpoint))):
        with pytest.raises(TlKitError):
            build_model(model, 3, weights=weights, seed=0)
    assert not canary.exists()


def test_beside_the_files_that_are_read_it_does_nothing(
    checkpoint: Path, images: Path, tmp_path: Path, watch: Watch
) -> None:
    """timm itself would take ``pytorch_model.bin`` where it finds no safetensors."""
    canary = tmp_path / "canary"
    for name in ("pytorch_model.bin", "model.pth", "optimizer.pt", "training_args.bin"):
        (checkpoint / name).write_bytes(as_archive(PAYLOADS["os.system"](canary)))
    assert tlkit("predict", checkpoint, images / "red").code == 0
    assert not canary.exists()


@pytest.mark.parametrize("kind", ["pickle", "npz", "object array"])
def test_in_the_feature_cache(kind: str, tmp_path: Path, watch: Watch) -> None:
    """Its arrays are read without pickles; what is no array of ours is computed again."""
    canary, key = tmp_path / "canary", "0" * 32
    FeatureStore(tmp_path / "cache", key, 10**9).add(["a", "b"], iter([torch.randn(2, 3)]))
    array = next((tmp_path / "cache" / key).glob("*.npy"))
    raw = PAYLOADS["os.system"](canary)
    if kind == "pickle":
        array.write_bytes(raw)
    elif kind == "npz":
        np.savez(tmp_path / "x.npz", a=np.zeros(2))
        shutil.move(tmp_path / "x.npz", array)
    else:
        np.save(array, np.array([Call(Path.touch, canary)] * 2, dtype=object), allow_pickle=True)
    assert FeatureStore(tmp_path / "cache", key, 10**9).missing(["a", "b"]) == [0, 1]
    assert not canary.exists()
