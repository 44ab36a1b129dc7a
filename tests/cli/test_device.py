"""``--device``: every command that computes takes it, and says where the machine has no such device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.cli.helpers import tlkit
from tests.helpers import quick, quick_config, write_images
from tl_kit.config import RuntimeConfig
from tl_kit.errors import ConfigError
from tl_kit.finetuning import preparation
from tl_kit.finetuning.preparation import prepare
from tl_kit.reporting import SILENT


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("device") / "images")


@pytest.fixture(scope="module")
def checkpoint(data: Path) -> Path:
    quick(data, data.parent / "run")
    return data.parent / "run"


def commands(data: Path, checkpoint: Path, out: Path) -> dict[str, tuple[object, ...]]:
    run = ("test_resnet", "--data", data, "--weights", "none", "--img-size", 32, "--policy", "head")
    return {
        "finetune": (*run, "--out", out / "run"),
        "plan": run,
        "evaluate": (checkpoint, "--data", data),
        "predict": (checkpoint, data),
        "ensemble": (checkpoint, checkpoint, "--out", out / "ensemble"),
        "demo": ("--out", out / "demo"),
    }


@pytest.mark.parametrize("name", ["finetune", "plan", "evaluate", "predict", "ensemble", "demo"])
def test_a_device_that_is_not_there_is_one_line(
    name: str, data: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = tlkit(name, *commands(data, checkpoint, tmp_path)[name], "--device", "cuda")
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith("error: --device cuda: torch finds no CUDA GPU here")
    assert "Traceback" not in done.err


@pytest.mark.parametrize("name", ["finetune", "plan", "evaluate", "predict", "ensemble"])
def test_the_cpu_may_be_named(name: str, data: Path, checkpoint: Path, tmp_path: Path) -> None:
    done = tlkit(name, *commands(data, checkpoint, tmp_path)[name], "--device", "cpu")
    assert done.code == 0, done.err


class Group:
    """What accelerate says in one of so many processes."""

    is_main_process = True

    def __init__(self, size: int) -> None:
        self.num_processes, self.device = size, torch.device("cpu", 0)


def test_a_process_of_a_group_takes_a_device_of_its_own(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = quick_config(data, tmp_path / "run", runtime=RuntimeConfig(device="cpu"))
    for size, expected in ((1, torch.device("cpu")), (2, torch.device("cpu", 0))):
        monkeypatch.setattr(preparation, "join", lambda size=size, **_: Group(size))
        assert prepare(config, SILENT, dry=True).runtime.device == expected
    for name in ("is_available", "is_bf16_supported"):
        monkeypatch.setattr(torch.cuda, name, lambda **_: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    config = quick_config(data, tmp_path / "run", runtime=RuntimeConfig(device="cuda:1"))
    with pytest.raises(ConfigError, match=r"each of the 2 processes takes a GPU of its own; use --device cuda$"):
        prepare(config, SILENT, dry=True)
