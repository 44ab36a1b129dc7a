"""``--lr auto``: a learning-rate range test (Smith 2017), bounded in steps and in rates, that leaves no trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator

from tl_kit.config import RangeTestConfig
from tl_kit.errors import TrainingError
from tl_kit.machine.random_state import restored_random_state
from tl_kit.optimization.schedules import set_lr
from tl_kit.training.late_losses import check_loss
from tl_kit.training.loop import share_of, train_step
from tl_kit.training.microbatches import settle_parts
from tl_kit.training.task import Task

__all__ = ["RangeTest", "range_test", "suggest"]


@dataclass(frozen=True)
class RangeTest:
    """The rates tried, ascending, the training loss before each step, and the rate chosen."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float


def range_test(
    task: Task,
    accelerator: Accelerator,
    *,
    base: float,
    config: RangeTestConfig,
    on_step: Callable[[], object] = lambda: None,
) -> RangeTest:
    """Train for ``config.steps`` steps while the rate rises, in equal ratios, from ``lowest`` to ``highest`` x base.

    ``base`` is the rate with which the task's optimizer was made. It ends early where the loss is not finite (that one
    is dropped) or ``stop_at`` times the lowest or ``least_loss``. The model's tensors and the random state are put back
    exactly; the task's optimizer is spent: make another. Raises TrainingError where too few losses were finite.
    """
    state = {name: tensor.detach().clone() for name, tensor in task.model.state_dict().items()}
    rates: list[float] = []
    losses: list[float] = []
    per_epoch = len(task.order(0))
    batches = [batch for epoch in range(math.ceil(config.steps / per_epoch)) for batch in task.order(epoch)]
    shares = [share_of(batch, accelerator) for batch in batches[: max(config.steps, per_epoch)]]
    task.set_mode(min(map(len, shares[:per_epoch])))
    with restored_random_state(accelerator.device):
        try:
            for step, ratio in enumerate(np.geomspace(config.lowest, config.highest, config.steps)):
                set_lr(task.optimizer, float(ratio))
                inputs, labels = task.batch(shares[step], 0)
                settle_parts(task, accelerator, inputs, labels)
                loss = float(train_step(task, accelerator, inputs, labels, step=step))
                check_loss(loss, step)
                losses.append(loss)
                rates.append(base * float(ratio))
                on_step()
                if losses[-1] > config.stop_at * max(min(losses), config.least_loss):
                    break
        except TrainingError:
            pass  # not finite: the rates up to here decide
        finally:
            task.optimizer.zero_grad(set_to_none=True)  # a batch taken in parts may have ended between them
            with torch.no_grad():
                for name, tensor in task.model.state_dict().items():
                    tensor.copy_(state[name])
    return RangeTest(tuple(rates), tuple(losses), suggest(rates, losses, config=config))


def suggest(rates: Sequence[float], losses: Sequence[float], *, config: RangeTestConfig = RangeTestConfig()) -> float:
    """The rate at which the smoothed loss falls fastest, by the logarithm of the rate, before its lowest point.

    Losses are smoothed by an exponential average without bias, l = s l + (1 - s) loss, divided by 1 - s^t; those that
    are not finite are dropped. Raises TrainingError for fewer than ``trim`` finite ones.
    """
    kept = [(rate, loss) for rate, loss in zip(rates, losses, strict=True) if math.isfinite(loss)]
    if len(kept) < config.trim:
        raise TrainingError(f"--lr auto: only {len(kept)} losses were finite; give a rate with --lr")
    smooth, average = [], 0.0
    for count, (_, loss) in enumerate(kept, start=1):
        average = config.smoothing * average + (1 - config.smoothing) * loss
        smooth.append(average / (1 - config.smoothing**count))
    lowest = max(int(np.argmin(smooth)), 2)
    logs = np.log([rate for rate, _ in kept])
    slopes = np.gradient(smooth[: lowest + 1], logs[: lowest + 1])
    return float(kept[int(np.argmin(slopes))][0])
