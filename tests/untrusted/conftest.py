"""A watch over what a process does, and small checkpoints to be spoilt."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import timm
from huggingface_hub import constants

from tests.helpers import write_images
from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.config import CropConfig
from tl_kit.images.transforms import Preprocessing
from tl_kit.storage.checkpoint import save_config, save_meta, save_weights
from tl_kit.storage.ensemble_folder import write_ensemble

_FORBIDDEN = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.startfile", "subprocess.Popen", "pty.spawn")
_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request")


@dataclass
class Watch:
    """What happened while it was on: audit events (PEP 578) that start programs or reach the network, files opened."""

    on: bool = False
    seen: list[str] = field(default_factory=list)
    opened: set[str] = field(default_factory=set)

    def hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in _FORBIDDEN or event in _NETWORK:
            self.seen.append(f"{event} {arguments}")
            if event in _NETWORK:
                raise OSError("the network is blocked")
        elif event == "open":
            self.opened.add(str(arguments[0]))


_WATCH = Watch()


@pytest.fixture(scope="session")
def audited() -> None:
    """Python never takes a hook away: from the first test that needs it on, it is called thousands of times a run."""
    sys.addaudithook(_hear)


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if _WATCH is not None and _WATCH.on:  # None at the interpreter's end; a plain function takes half the time
        _WATCH.hear(event, arguments)


@pytest.fixture
def watch(audited: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """On for the test; at its end nothing may have been started, and nobody asked for. The hub is not switched off."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    _WATCH.on, _WATCH.seen, _WATCH.opened = True, [], set()
    try:
        yield _WATCH
    finally:
        _WATCH.on = False
    assert _WATCH.seen == []


CLASSES = ("blue", "green", "red")


def write_checkpoint(folder: Path, name: str = "test_resnet", classes: tuple[str, ...] = CLASSES) -> Path:
    folder.mkdir(parents=True)
    model = timm.create_model(name, num_classes=len(classes))
    card = dict(model.pretrained_cfg) | {"input_size": (3, 32, 32)}
    model.pretrained_cfg = model.default_cfg = card
    save_config(folder, model, classes, Preprocessing.from_model(model))
    save_weights(folder, model)
    save_meta(folder, classes, config={"model": name}, precision="fp32")
    return folder


@pytest.fixture(scope="module")
def original_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("originals")
    members = [write_checkpoint(root / name) for name in ("a", "b")]
    (root / "both").mkdir()
    write_ensemble(root / "both", members, classes=CLASSES, rule=FittedRule(), crops=CropConfig())
    write_images(root / "images", images=3)
    return root


@pytest.fixture
def checkpoint(original_folders: Path, tmp_path: Path) -> Path:
    """A sound checkpoint of a tiny network, to be spoilt."""
    return Path(shutil.copytree(original_folders / "a", tmp_path / "checkpoint"))


@pytest.fixture
def ensemble(original_folders: Path, tmp_path: Path) -> Path:
    """A sound ensemble of two, to be spoilt."""
    return Path(shutil.copytree(original_folders / "both", tmp_path / "ensemble"))


@pytest.fixture(scope="module")
def images(original_folders: Path) -> Path:
    """Class folders."""
    return original_folders / "images"
