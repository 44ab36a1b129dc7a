"""Features of a trunk: the cut is proved once for a network, and a proof that is damaged is made again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from tests.helpers import Listener
from tl_kit.config import CacheConfig, RuntimeConfig
from tl_kit.inference.trunk_features import TrunkFeatures, feature_place, prove_features
from tl_kit.machine.runtime import detect
from tl_kit.storage.feature_store import FeatureStore

KEY = "e" * 32
SIZE = (3, 64, 64)


class Images:
    """Random images; ``counts`` are those that were asked for."""

    def __init__(self, *, too_many: int = 99) -> None:
        self.counts: list[int] = []
        self.too_many = too_many

    def __call__(self, count: int) -> Tensor:
        self.counts.append(count)
        if count >= self.too_many:
            raise MemoryError
        return torch.randn((count, *SIZE), generator=torch.Generator().manual_seed(0))


def prove(folder: Path, images: Callable[[int], Tensor | None], cut: str = "fc") -> TrunkFeatures | None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=3).eval()
    store = FeatureStore(folder, KEY, 10**9)
    runtime = detect(RuntimeConfig(mode="plain"))
    return prove_features(model, cut, store, runtime=runtime, input_size=SIZE, images=images)


@pytest.mark.parametrize(("cut", "flat"), [("fc", True), ("layer4", False)])
def test_the_tail_makes_the_models_output_of_a_row(cut: str, flat: bool, tmp_path: Path) -> None:
    features = prove(tmp_path, Images(), cut)
    assert features is not None
    assert features.flat is flat
    images = Images()(2)
    with torch.inference_mode():
        rows = features.trunk(images)
        assert torch.equal(features.tail(rows), features.trunk.model(images))
    assert (tuple(rows[0].shape), rows[0].nbytes) == (features.row_shape, features.row_bytes)


def test_a_proof_is_kept_and_one_that_cannot_be_is_made_again(tmp_path: Path) -> None:
    images, file = Images(), tmp_path / KEY / "proof"
    first = prove(tmp_path, images)
    assert images.counts == [8]
    again = prove(tmp_path, images)
    assert images.counts == [8]
    assert first is not None
    assert again is not None
    assert (again.tail.direct, again.row_shape, again.row_bytes) == (
        first.tail.direct,
        first.row_shape,
        first.row_bytes,
    )
    sound = json.loads(file.read_text())
    for damage in ({"image_shape": [3, 10**9, 64]}, {"row_bytes": 0}, {"row_bytes": "many"}, {"row_shape": None}):
        file.write_text(json.dumps(sound | damage))
        assert prove(tmp_path, images) is not None
        assert json.loads(file.read_text()) == sound
    assert images.counts == [8] * 5


def test_where_memory_runs_out_two_images_are_enough(tmp_path: Path) -> None:
    images = Images(too_many=3)
    assert prove(tmp_path, images) is not None
    assert images.counts == [8, 2]
    with pytest.raises(MemoryError):
        prove(tmp_path / "other", Images(too_many=2))


def test_without_images_and_without_a_cut_there_are_none(tmp_path: Path) -> None:
    assert prove(tmp_path, lambda count: None) is None
    assert prove(tmp_path, Images(), "layer1.0.conv1") is None
    assert not (tmp_path / KEY).exists()


def test_rows_are_kept_in_the_cache_or_where_that_cannot_be_in_a_folder_that_goes(tmp_path: Path) -> None:
    scratch, automatic, listener = tmp_path / "scratch", RuntimeConfig(), Listener()
    cache = CacheConfig(directory=tmp_path / "cache", size_gb=2)
    assert feature_place(cache, automatic, lambda: scratch, listener) == (tmp_path / "cache", 2 * 10**9)
    for off in ((CacheConfig(directory=tmp_path, size_gb=0), automatic), (cache, RuntimeConfig(mode="plain"))):
        assert feature_place(*off, lambda: scratch, listener)[0] == scratch
    assert listener.messages == []
    (tmp_path / "file").write_text("")
    blocked = CacheConfig(directory=tmp_path / "file" / "cache")
    assert feature_place(blocked, automatic, lambda: scratch, listener)[0] == scratch
    assert [message.partition(";")[2] for message in listener.messages] == [" nothing is kept after this run"]
