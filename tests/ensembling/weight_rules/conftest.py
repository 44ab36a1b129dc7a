"""Three runs from the same weights, for all tests of the rules that make new weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import NEARLY_SQUARE, UNGUARDED, quick, write_images
from tl_kit.config import HeadConfig
from tl_kit.storage.checkpoint import WEIGHTS


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), images=20, size=NEARLY_SQUARE)


@pytest.fixture(scope="session")
def origin(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights to start from."""
    out = tmp_path_factory.mktemp("origin") / "run"
    quick(data, out, epochs=2, lr=0.1)
    return out / WEIGHTS


@pytest.fixture(scope="session")
def runs(data: Path, origin: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two fine-tuned runs and a head, from the same weights."""
    root = tmp_path_factory.mktemp("ckpts")
    quick(data, root / "a", guard=UNGUARDED, weights=str(origin), batchnorm="train", augment="none")
    quick(data, root / "b", guard=UNGUARDED, weights=str(origin), batchnorm="train", augment="none", seed=1)
    quick(data, root / "head", weights=str(origin), policy="head", epochs=None, head=HeadConfig(refit=False))
    return {name: root / name for name in ("a", "b", "head")}
