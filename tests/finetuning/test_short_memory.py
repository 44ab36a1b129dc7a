"""Runs on a machine whose memory is short: the same weights, the same figures, and a line that says what was done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import tl_kit
from tests.cli.helpers import tlkit
from tests.helpers import Listener, write_images
from tl_kit import FinetuneConfig, RuntimeConfig
from tl_kit.config import CacheConfig, LoopConfig
from tl_kit.data import pixel_store as cache

CONFIG = FinetuneConfig(
    model="test_vit",
    data=Path(),
    weights="none",
    img_size=48,
    policy="full",
    epochs=2,
    batch_size=13,
    runtime=RuntimeConfig(precision="fp32"),
    loop=LoopConfig(warmup_epochs=0.0),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@contextmanager
def memory_for(images: int) -> Iterator[list[int]]:
    """No layer takes more images than this; gives the sizes of the batches that were tried."""
    seen: list[int] = []

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if type(module).__name__ == "Block" and isinstance(inputs[0], Tensor):
            seen.append(len(inputs[0]))
            if len(inputs[0]) > images:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    handle = nn.modules.module.register_module_forward_pre_hook(before)
    try:
        yield seen
    finally:
        handle.remove()


@pytest.mark.parametrize(
    "changes",
    [
        {"policy": "full"},
        {"policy": "full", "balance": "loss"},
        {"policy": "last:2"},
        {"policy": "last:2", "cache": CacheConfig(size_gb=0)},
        {"policy": "head"},
    ],
    ids=str,
)
def test_the_weights_and_the_figures_are_those_of_a_larger_machine(
    changes: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    config = replace(CONFIG, data=data, **changes)
    if "cache" not in changes:
        config = replace(config, cache=CacheConfig(directory=tmp_path / "cache"))
    if config.policy == "head":
        config = replace(config, epochs=None, batch_size=None, loop=LoopConfig())
    large = tl_kit.finetune(replace(config, out=tmp_path / "large"))
    if config.cache.size_gb:
        config = replace(config, cache=CacheConfig(directory=tmp_path / "another cache"))
    listener = Listener()
    with memory_for(4) as seen:
        small = tl_kit.finetune(replace(config, out=tmp_path / "small"), reporter=listener)
        assert max(seen) > 4
        evaluated = tl_kit.evaluate(tmp_path / "small", data, split="val").metrics
    found, expected = (safetensors.torch.load_file(tmp_path / n / "model.safetensors") for n in ("small", "large"))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    assert small.val == pytest.approx(large.val, abs=1e-4)
    assert evaluated == pytest.approx(small.val, abs=1e-6)
    assert any("memory ran out with" in line for line in listener.messages)
    assert len([line for line in listener.messages if "memory ran out" in line]) <= 8, "not a line for every batch"


@pytest.mark.parametrize("images", [0, 1])
def test_a_machine_that_cannot_take_two_images_ends_in_a_line(images: int, data: Path, tmp_path: Path) -> None:
    command = ("finetune", "test_vit", "--data", data, "--weights", "none", "--policy", "full", "--epochs", 1)
    with memory_for(images):
        done = tlkit(*command, "--out", tmp_path / "run")
    assert (done.code, done.out) == (2, "")
    assert "memory ran out" in done.err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_a_run_that_cannot_keep_its_images_ends_with_the_same_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, data=data)
    tl_kit.finetune(replace(config, out=tmp_path / "large"))
    readings = iter([10**9] * 5)
    monkeypatch.setattr(cache, "free_memory", lambda: next(readings, 10))
    config = replace(config, store=replace(config.store, check_seconds=0.0))
    listener = Listener()
    tl_kit.finetune(replace(config, out=tmp_path / "small"), reporter=listener)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("large", "small")]
    assert weights[0] == weights[1]
    assert any("memory is short: of " in line for line in listener.messages)
