"""Averaged weights: exponential (Polyak & Juditsky 1992) and uniform averages of a run's parameters, and of states."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from tl_kit.training.stateful import TensorState
from tl_kit.training.task import Callback

__all__ = ["UniformAverage", "WeightAverage", "average_weights"]


class WeightAverage(Callback):
    """``a = d a + (1 - d) w`` after each step, over all floating tensors of a model; integers are copied.

    In step t (from 1) ``d = min(decay, 1 - t^(-2/3))``: in a short run, the first weights would outlive a decay close
    to 1. The average itself is timm's. Its state has the tensors of ``names``; None: all.
    """

    def __init__(self, model: nn.Module, *, decay: float, names: Collection[str] | None = None) -> None:
        self.model = model
        self._average = ModelEmaV3(model, decay=decay, use_warmup=True)
        self._state = TensorState(self.module, model.state_dict() if names is None else names)

    @property
    def module(self) -> nn.Module:
        """The model that holds the average."""
        held: nn.Module = self._average.module
        return held

    def on_step(self, step: int) -> None:
        self._average.update(self.model, step=step)

    def state(self) -> dict[str, Tensor]:
        return self._state.state()

    def load_state(self, state: Any) -> None:
        self._state.load_state(state)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the model holds the average; after it, its own weights again."""
        own = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self._load(self._average.module.state_dict())
        try:
            yield
        finally:
            self._load(own)

    @torch.no_grad()
    def _load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for name, tensor in self.model.state_dict().items():
            tensor.copy_(tensors[name])


class UniformAverage:
    """``a = (w_1 + ... + w_k) / k`` over the parameters at k moments, each counted once (SWA, Izmailov et al. 2018).

    Buffers are those of the last moment, integers with their type: BatchNorm's statistics belong to the weights they
    were gathered under, and are to be estimated anew under the average. The average itself is torch's.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._average = AveragedModel(model)

    @property
    def count(self) -> int:
        """Number of moments in the average."""
        return int(self._average.n_averaged)

    def update(self) -> None:
        """Take in the weights as they are now."""
        self._average.update_parameters(self.model)

    def load(self) -> None:
        """Give the model the average."""
        self.model.load_state_dict(self._average.module.state_dict())

    def state(self) -> dict[str, Tensor]:
        """The average and its count, as tensors; for :meth:`load_state`."""
        return dict(self._average.state_dict())

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state. Raises RuntimeError if it is that of another model."""
        self._average.load_state_dict(dict(state))


def average_weights(states: Iterable[Mapping[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    """Σ_j w_j θ_j / Σ_j w_j for every tensor name, summed in float64 and cast back to the first state's types.

    Tensors of integers (BatchNorm's count of batches) keep their type: the largest values are taken. States are read
    one after the other, and none is changed; beside the sum no more than one need be in memory. The result is on the
    CPU.

    Args:
        states: of equal names and shapes.
        weights: one a state, not negative, not all 0.
    """
    total: dict[str, Tensor] = {}
    types: dict[str, torch.dtype] = {}
    for state, weight in zip(states, weights, strict=True):
        for name, tensor in state.items():
            value = tensor.detach().cpu()
            types.setdefault(name, value.dtype)
            if not value.is_floating_point():
                total[name] = torch.maximum(total[name], value) if name in total else value.clone()
            elif name in total:
                total[name].add_(value.double(), alpha=weight)
            else:
                total[name] = value.double() * weight
    scale = sum(weights)
    return {n: (t / scale).to(types[n]) if t.is_floating_point() else t for n, t in total.items()}
