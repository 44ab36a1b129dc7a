"""What only a GPU can show: the same numbers as on a CPU to a tolerance, and the same ones each time. Skipped without.

pytest tests/machine/test_on_gpu.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import tl_kit
from tests.data.preparing import photo, preprocessing
from tests.helpers import write_images
from tests.images.test_batched import CONFIGS, images
from tl_kit.config import RuntimeConfig, StoreConfig
from tl_kit.images.augmentation import TrainTransform, augment
from tl_kit.images.batched import vary
from tl_kit.images.device_decode import has_nvjpeg
from tl_kit.metrics import softmax
from tl_kit.storage.checkpoint import WEIGHTS
from tl_kit.training.logistic_regression import fit_head

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), images=30)


def trained(data: Path, out: Path, **changes: object) -> bytes:
    """The weights of a short run, as the file has them."""
    options = {"policy": "full", "epochs": 2, "batch_size": 16, "img_size": 64, **changes}
    tl_kit.finetune(tl_kit.FinetuneConfig(model="resnet18", data=data, weights="none", out=out, **options))
    return (out / WEIGHTS).read_bytes()


def packed(images: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """Images as views of one buffer on the device."""
    buffer = torch.cat([image.flatten() for image in images]).to(device)
    ends = np.cumsum([image.numel() for image in images]).tolist()
    return [buffer[e - i.numel() : e].view(i.shape) for e, i in zip(ends, images, strict=True)]


@pytest.mark.parametrize("name", list(CONFIGS))
@pytest.mark.parametrize("resident", [True, False])
def test_a_view_is_that_of_the_cpu_to_some_levels(name: str, resident: bool) -> None:
    device, config = torch.device("cuda"), CONFIGS[name]
    given, keys = images(config, 24), [str(number) for number in range(24)]
    transform = TrainTransform(preprocessing(), config)
    expected = augment(given, transform, seed=1, epoch=2, keys=keys).int()
    there = packed(given, device) if resident else given
    found = vary(there, transform, seed=1, epoch=2, keys=keys, device=device)
    assert found.is_cuda
    apart = (found.cpu().int() - expected).abs()
    assert int(apart.max()) <= 5
    assert float(apart.float().mean()) < 0.1


def test_the_same_seed_gives_the_same_weights_bit_for_bit(data: Path, tmp_path: Path) -> None:
    assert trained(data, tmp_path / "a") == trained(data, tmp_path / "b")


def test_images_on_the_device_or_beside_it_train_the_same(data: Path, tmp_path: Path) -> None:
    resident, beside = (
        trained(data, tmp_path / str(share), store=StoreConfig(device_share=share)) for share in (0.3, 0.0)
    )
    assert resident == beside


def test_a_prediction_does_not_depend_on_how_many_images_are_asked_for(data: Path, tmp_path: Path) -> None:
    trained(data, tmp_path / "a")
    predictor = tl_kit.load(tmp_path / "a")
    paths = sorted(data.rglob("*.png"))[:40] or sorted(data.rglob("*.jpg"))[:40]
    together = [p.probabilities for p in predictor.predict(paths)]
    assert [predictor.predict(path)[0].probabilities for path in paths[:7]] == together[:7]
    assert [p.probabilities for p in predictor.predict(paths[:33])] == together[:33]


def test_gpu_and_cpu_predict_the_same_to_some_thousandths(data: Path, tmp_path: Path) -> None:
    trained(data, tmp_path / "a")
    scores = []
    for device in ("cuda", "cpu"):
        predictor = tl_kit.load(tmp_path / "a", runtime=RuntimeConfig(device=device, precision="fp32"))
        stack, _ = predictor.member_probabilities(sorted(data.rglob("*.*"))[:30])
        scores.append(stack)
    np.testing.assert_allclose(*scores, atol=5e-3)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 60 JPEGs of several sizes."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(120):
        folder = root / ("even" if number % 2 else "odd")
        folder.mkdir(exist_ok=True)
        photo(180 + 7 * (number % 5), 240, seed=number).save(folder / f"{number}.jpg", quality=80 + number % 3)
    return root


def test_nvjpeg_is_recorded_and_predicts_about_what_pillow_does(photos: Path, tmp_path: Path) -> None:
    if not has_nvjpeg(torch.device("cuda")):
        pytest.skip("this torchvision has no nvJPEG")
    trained(photos, tmp_path / "a")
    assert json.loads((tmp_path / "a" / "tlkit.json").read_text())["decoder"] == "nvjpeg"
    paths = sorted(photos.rglob("*.jpg"))
    found = []
    for decoder in ("auto", "pillow"):
        predictor = tl_kit.load(tmp_path / "a", runtime=RuntimeConfig(decoder=decoder))
        found.append(predictor.member_probabilities(paths)[0])
    assert not np.array_equal(*found)
    assert np.abs(found[0] - found[1]).max() < 0.1
    assert trained(photos, tmp_path / "b") == (tmp_path / "a" / WEIGHTS).read_bytes(), "the same pixels each time"


def test_a_gpu_fits_a_large_head_to_the_same_optimum(photos: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(6000) % 40
    features = (rng.normal(size=(40, 1000))[labels] * 0.15 + rng.normal(size=(6000, 1000))).astype(np.float32)
    heads = [fit_head(features, labels, 40, device=device) for device in (None, torch.device("cuda"))]
    assert heads[0].strength == heads[1].strength
    logits = [features @ head.weight.T + head.bias for head in heads]
    assert np.abs(softmax(logits[0]) - softmax(logits[1])).max() < 0.01
