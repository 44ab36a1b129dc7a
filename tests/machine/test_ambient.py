"""torch's and NumPy's switches as a caller may have set them: the numbers are the same, and the switches stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

import tl_kit
from tests.helpers import quick, same, weights, write_images
from tl_kit.config import EnsembleConfig, RuntimeConfig
from tl_kit.machine.ambient import undisturbed


@contextmanager
def no_gradients() -> Iterator[None]:
    """For all that follows, as a script for inference begins."""
    before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    try:
        yield
    finally:
        torch.set_grad_enabled(before)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SWITCHES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "set_grad_enabled(False)": no_gradients,
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "a device without memory": lambda: default_device("meta"),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "deterministic": deterministic,
    "seterr(all=raise)": lambda: np.errstate(all="raise"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), images=5)


@pytest.fixture(scope="module")
def plain(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return work(data, tmp_path_factory.mktemp("plain"))


def work(data: Path, out: Path) -> dict[str, object]:
    """Everything that computes, once: by gradient and in closed form, together, and what they say."""
    quick(data, out / "full", epochs=1)
    quick(data, out / "head", policy="head", epochs=None)
    config = EnsembleConfig(checkpoints=(out / "full", out / "head"), data=data, out=out / "both")
    tl_kit.ensemble(config)
    predictor = tl_kit.load(out / "full", runtime=RuntimeConfig(precision="fp32"))
    return {
        "full": weights(out / "full"),
        "head": weights(out / "head"),
        "predictions": predictor.predict(sorted(data.rglob("*.png"))[:3]),
        "score": tl_kit.evaluate(out / "both", data, split="all").metrics,
    }


@pytest.mark.parametrize("switch", SWITCHES)
def test_the_numbers_are_the_same(switch: str, data: Path, plain: dict[str, object], tmp_path: Path) -> None:
    with SWITCHES[switch]():
        before = _switches()
        found = work(data, tmp_path)
        assert _switches() == before, "they are put back"
    for name in ("full", "head"):
        assert same(found.pop(name), plain[name])
    assert found == {name: plain[name] for name in found}


def _switches() -> tuple[object, ...]:
    flags = (torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"))
    kinds = (torch.get_default_dtype(), torch.empty(0).device, torch.are_deterministic_algorithms_enabled())
    return (*flags, *kinds, *sorted(np.geterr().items()))


def test_what_was_loaded_under_inference_mode_works_outside_and_the_other_way(data: Path, tmp_path: Path) -> None:
    quick(data, tmp_path / "run", epochs=1)
    config = RuntimeConfig(precision="fp32")
    photo = next(data.rglob("*.png"))
    with torch.inference_mode():
        inside = tl_kit.load(tmp_path / "run", runtime=config)
    outside = tl_kit.load(tmp_path / "run", runtime=config)
    with torch.inference_mode():
        expected = outside.predict(photo)
    assert inside.predict(photo) == expected


def test_switches_are_put_back_after_an_error() -> None:
    def fail() -> None:
        raise ValueError("on purpose")

    with default_dtype(torch.float64), torch.inference_mode():
        before = _switches()
        with pytest.raises(ValueError, match="on purpose"):
            undisturbed()(fail)()
        assert _switches() == before
