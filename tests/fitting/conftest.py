"""Two tiny networks that ``fit`` may choose, and what its tests do without, where it is not in question."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import quick, write_images
from tl_kit.fitting import climb, speed
from tl_kit.fitting.speed import Speed


@pytest.fixture
def same_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every network is said to be as fast as the others: to measure it takes as long as to fit its head."""
    monkeypatch.setattr(speed, "measure_speed", lambda *_: Speed(latency=1.0, row=0.001))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of three colours, and two tiny networks that were trained on others like them."""
    root = tmp_path_factory.mktemp("fit")
    data = write_images(root / "images", images=20)
    other = write_images(root / "other", ("red", "green", "blue", "grey"), seed=1)
    for name, model in (("a", "test_resnet"), ("b", "test_vit3")):
        quick(other, root / name, model=model, epochs=3)
    return data


@pytest.fixture(scope="module")
def short_runs() -> Iterator[None]:
    """Two epochs at most: these tests are about the steps, not about what training reaches."""
    original = climb.finetune_on

    def short(manifest: Any, options: Any, **more: Any) -> Any:
        epochs = None if options.epochs is None else min(2, options.epochs)
        return original(manifest, replace(options, epochs=epochs), **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(climb, "finetune_on", short)
        yield
