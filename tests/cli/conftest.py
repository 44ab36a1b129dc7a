"""One small story for all tests of the command line: images, two checkpoints, their ensemble."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.helpers import MODEL, TINY, Outcome, tlkit
from tests.helpers import write_images

# Markup, an escape sequence and numbers that sort differently as text: nothing of it may change anything.
CLASSES = ("2", "10", "[red]b\x1b[31m")


@dataclass(frozen=True)
class Story:
    data: Path
    classes: tuple[str, ...]
    first: Outcome
    second: Outcome
    ensemble: Outcome

    @property
    def checkpoint(self) -> str:
        return str(self.first.json["checkpoint"])


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = write_images(tmp_path_factory.mktemp("cli") / "images", ("red", "green", "blue"), images=10)
    for colour, name in zip(("red", "green", "blue"), CLASSES, strict=True):
        (data / colour).rename(data / name)
    return data


@pytest.fixture(scope="session")
def story(images: Path) -> Story:
    out = images.parent
    with pytest.MonkeyPatch.context() as patch:  # others have the same images, in batches that round otherwise
        patch.setenv("XDG_CACHE_HOME", str(out / "cache"))
        first = tlkit("finetune", MODEL, "--data", images, *TINY, "--policy", "head", "--out", out / "a", "--json")
    options = ("--policy", "full", "--epochs", 2, "--batch-size", 8, "--out", out / "b", "--json")
    second = tlkit("finetune", "test_vit", "--data", images, "--weights", "none", "--img-size", 48, *options)
    ensemble = tlkit("ensemble", out / "a", out / "b", "--out", out / "both", "--no-calibrate", "--json")
    return Story(images, CLASSES, first, second, ensemble)
