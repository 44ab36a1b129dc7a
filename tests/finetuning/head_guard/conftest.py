"""The runs that the files of this folder compare with, each made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.finetuning.head_guard.helpers import ONCE, ORDER, run_on
from tests.helpers import NEARLY_SQUARE, UNGUARDED, quick, write_images
from tl_kit.finetuning import head_guard


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = write_images(tmp_path_factory.mktemp("guard") / "images", images=13, size=NEARLY_SQUARE)
    quick(data, data.parent / "pretrained", batch_size=4)
    return data


@pytest.fixture(scope="session")
def head(data: Path) -> Path:
    """The run of the head alone, fitted to training images: the one that is compared."""
    run_on(data, data.parent / "head", policy="head", epochs=None, head=ONCE)
    return data.parent / "head"


@pytest.fixture(scope="session")
def final_head(data: Path) -> Path:
    """The same at the end, fitted to validation images too: the one that a run ends with where its head is kept."""
    run_on(data, data.parent / "final", policy="head", epochs=None)
    return data.parent / "final"


@pytest.fixture(scope="session")
def bare(data: Path) -> Callable[..., Path]:
    """The same run without the guard; of equal options one."""
    found: dict[str, Path] = {}

    def run(**options: Any) -> Path:
        key = repr(sorted(options.items()))
        if key not in found:
            found[key] = data.parent / f"bare-{len(found)}"
            run_on(data, found[key], guard=UNGUARDED, **options)
        return found[key]

    return run


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """What validation shall choose."""
    return lambda name: monkeypatch.setattr(head_guard, "choose_network", lambda *_, **__: ORDER.index(name))


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation finds two networks better than one."""
    monkeypatch.setattr(head_guard, "clearly_better", lambda *_, **__: True)
