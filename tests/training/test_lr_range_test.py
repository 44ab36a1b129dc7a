"""The range test finds the steepest fall, is bounded, and leaves nothing changed but its own optimizer."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional

from tl_kit.config import RangeTestConfig
from tl_kit.errors import TrainingError
from tl_kit.training.batch_order import even_batches
from tl_kit.training.lr_range_test import range_test, suggest
from tl_kit.training.task import Loss, Task

CONFIG = RangeTestConfig(smoothing=0.0)
RATES = np.geomspace(1e-6, 10, 100)


def fall(rate: float, *, at: float) -> float:
    """A loss that falls fastest, by log rate, at ``at``, and rises again a hundred times further on."""
    return 2 - math.tanh(math.log10(rate / at)) + max(0.0, math.log10(rate / at / 100)) ** 2


@pytest.mark.parametrize("at", [1e-4, 1e-3, 1e-2])
def test_the_steepest_fall_is_found(at: float) -> None:
    losses = [fall(rate, at=at) for rate in RATES]
    assert suggest(RATES, losses, config=CONFIG) == pytest.approx(at, rel=0.2)
    smoothed = suggest(RATES, losses, config=RangeTestConfig(smoothing=0.5))
    assert at <= smoothed <= 4 * at, "smoothing comes late, by little"


def test_what_is_not_finite_is_dropped() -> None:
    losses = [fall(rate, at=1e-3) for rate in RATES]
    with_gaps = [math.nan if number in (3, 40, 99) else loss for number, loss in enumerate(losses)]
    assert suggest(RATES, with_gaps, config=CONFIG) == pytest.approx(1e-3, rel=0.3)
    with pytest.raises(TrainingError, match="--lr auto: only 0 losses were finite"):
        suggest(RATES, [math.inf] * 100, config=CONFIG)


def a_task(optimizer: torch.optim.Optimizer, model: nn.Module, seen: list[float]) -> Task:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 5, generator=generator)
    y = (x[:, 0] > 0).long()

    def batch(indices: np.ndarray, epoch: int) -> tuple[Tensor, Tensor]:
        seen.append(optimizer.param_groups[0]["lr"])
        chosen = torch.from_numpy(indices)
        return x[chosen], y[chosen]

    return Task(
        model=model,
        optimizer=optimizer,
        order=lambda epoch: even_batches(40, 8, seed=0, epoch=epoch),
        epochs=1,
        patience=1,
        clip_norm=0.0,
        batch=batch,
        evaluate=lambda: None,
        schedule=lambda step, history: 1.0,
        set_mode=lambda size: None,
    )


def a_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 2))


def test_rates_rise_in_equal_ratios_within_their_bounds() -> None:
    model = a_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen: list[float] = []
    config = RangeTestConfig(steps=20, stop_at=math.inf)
    found = range_test(a_task(optimizer, model, seen), Accelerator(cpu=True), base=0.1, config=config)
    np.testing.assert_allclose(found.rates, np.geomspace(0.1 * config.lowest, 0.1 * config.highest, 20))
    np.testing.assert_allclose(seen, found.rates)
    assert found.suggestion in found.rates


def test_it_stops_where_the_loss_explodes() -> None:
    model = a_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    config = RangeTestConfig(steps=200, lowest=1e-3, highest=1e9)
    found = range_test(a_task(optimizer, model, []), Accelerator(cpu=True), base=1.0, config=config)
    assert len(found.rates) < 200
    assert np.isfinite(found.losses).all()


def test_losses_near_nothing_do_not_end_it() -> None:
    """A fitted head may begin without any error: four times a loss of 0 is 0, and any other is above it."""
    model = nn.Linear(5, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-1e4, 0, 0, 0, 0], [1e4, 0, 0, 0, 0]]))
        model.bias.zero_()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    task = a_task(optimizer, model, [])
    batch = task.batch

    def hard(indices: np.ndarray, step: int) -> tuple[Tensor, Tensor]:
        x, y = batch(indices, step)
        return x * (1e-9 if 3 in indices else 1.0), y  # one batch in five is not separated

    found = range_test(replace(task, batch=hard), Accelerator(cpu=True), base=1e-3, config=RangeTestConfig(steps=20))
    assert min(found.losses) == 0.0
    assert max(found.losses[:5]) == pytest.approx(math.log(2), rel=1e-3)


def test_model_and_random_state_are_put_back_bit_for_bit() -> None:
    model = a_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    range_test(a_task(optimizer, model, []), Accelerator(cpu=True), base=0.1, config=RangeTestConfig(steps=20))
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_batch_that_ends_between_its_parts_leaves_no_gradient() -> None:
    """The next step would add it to its own."""
    model = a_model()
    task = a_task(torch.optim.SGD(model.parameters(), lr=0.1), model, [])
    task.microbatch.rows = 4
    calls = []

    def objective(logits: Tensor, labels: Tensor) -> Tensor:
        calls.append(len(labels))
        return functional.cross_entropy(logits, labels) * (math.nan if len(calls) == 20 else 1.0)

    found = range_test(
        replace(task, loss=Loss(objective=objective)), Accelerator(cpu=True), base=0.1, config=RangeTestConfig()
    )
    assert len(calls) == 20
    assert len(found.losses) == 9
    assert all(parameter.grad is None for parameter in model.parameters())
