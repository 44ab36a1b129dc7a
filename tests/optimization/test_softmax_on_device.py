"""The loss in torch against the same in NumPy, and who may compute it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tl_kit.config import HeadConfig
from tl_kit.optimization import softmax_on_device
from tl_kit.optimization.penalty_choice import drawn_folds, out_of_fold
from tl_kit.optimization.softmax_on_device import DevicePart, is_exact
from tl_kit.optimization.softmax_regression import Images, fit_softmax
from tl_kit.training.held_out import held_out
from tl_kit.training.logistic_regression import fit_head

CPU = torch.device("cpu")


def blobs(images: int, channels: int, classes: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    labels = np.arange(images) % classes
    x = rng.normal(size=(classes, channels))[labels] + 1.5 * rng.normal(size=(images, channels))
    return (x - x.mean(axis=0)).astype(np.float32), labels


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_value_gradient_hessian_and_spread_are_numpys(dtype: type) -> None:
    x, y = blobs(5000, 30, 4)
    weights, rng = np.random.default_rng(1).uniform(0.5, 2, size=5000), np.random.default_rng(2)
    ours, theirs = (Images(x.astype(dtype), y, 4, weights=weights, device=device) for device in (None, CPU))
    assert isinstance(theirs.parts[0], DevicePart)
    point, direction = (0.1 * rng.normal(size=(2, 4, 31))).astype(dtype)
    close = {"rtol": 1e-4, "atol": 1e-6} if dtype is np.float32 else {"rtol": 1e-10, "atol": 1e-13}
    np.testing.assert_allclose(theirs.spread, ours.spread, **close)
    (value, gradient), (expected, steepness) = theirs.parts[0].evaluate(point), ours.parts[0].evaluate(point)
    assert gradient.dtype == dtype
    assert value == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(gradient, steepness, **close)
    np.testing.assert_allclose(theirs.parts[0].product(direction), ours.parts[0].product(direction), **close)


@pytest.mark.parametrize("solver", ["lbfgs", "newton"])
def test_the_minimum_is_numpys(solver: str) -> None:
    x, y = blobs(200, 30, 4)
    options = {"strength": 10.0, "tolerance": 1e-7, "max_iter": 500, "solver": solver}
    ours, theirs = (fit_softmax(x.astype(np.float64), y, 4, device=device, **options) for device in (None, CPU))
    assert theirs.converged
    np.testing.assert_allclose(theirs.weight, ours.weight, atol=1e-5)
    np.testing.assert_allclose(theirs.bias, ours.bias, atol=1e-5)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of rows that went to a device."""
    shapes: list[tuple[int, ...]] = []

    class Noted(DevicePart):
        def __init__(self, rows: NDArray[np.float32], *rest: object) -> None:
            shapes.append(rows.shape)
            super().__init__(rows, *rest)

    monkeypatch.setattr(softmax_on_device, "DevicePart", Noted)
    return shapes


def test_much_work_is_the_devices_and_little_is_not(asked: list[tuple[int, ...]]) -> None:
    x, y = blobs(200, 30, 4)
    much, little = HeadConfig(on_device_from=x.size * 4), HeadConfig(on_device_from=x.size * 4 + 1)
    folds = drawn_folds(y, 5)
    plain = fit_head(x, y, 4, device=CPU, config=little)
    out_of_fold(x, y, 4, folds, device=CPU, config=little)
    held_out(x, y, seed=0, device=CPU, config=little)
    fit_head(x, y, 4, config=much)
    assert asked == []
    found = fit_head(x, y, 4, device=CPU, config=much)
    assert asked == [(160, 30)] * 5 + [(200, 30)]
    assert found.strength == plain.strength
    np.testing.assert_allclose(found.weight, plain.weight, atol=1e-3)
    ours, theirs = (held_out(x, y, seed=0, device=device, config=much) for device in (None, CPU))
    assert len(asked) == 11
    assert ours is not None
    assert theirs is not None
    np.testing.assert_allclose(theirs.loss, ours.loss, atol=2e-3)


def test_a_device_without_room_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("no room")

    x, y = blobs(200, 30, 4)
    monkeypatch.setattr(DevicePart, "evaluate", full)
    options = {"strength": 10.0, "tolerance": 1e-5, "max_iter": 500}
    ours, theirs = (fit_softmax(x, y, 4, device=device, **options) for device in (None, CPU))
    assert np.array_equal(ours.weight, theirs.weight)


@pytest.fixture
def rough() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


def test_tf32_is_not_used(rough: None) -> None:
    x, y = blobs(40, 6, 4)
    assert not is_exact(CPU)
    assert not isinstance(Images(x, y, 4, device=CPU).parts[0], DevicePart)


def test_apples_gpus_have_no_float64() -> None:
    assert is_exact(CPU)
    assert not is_exact(torch.device("mps"))
