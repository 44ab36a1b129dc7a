"""Averaged weights: the exponential moving average of a run's parameters (Polyak & Juditsky 1992)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import nn

__all__ = ["WeightAverage"]


class WeightAverage:
    """``a = d a + (1 - d) w`` after each step, over all floating tensors of a model; integers are copied.

    In step t (from 1) ``d = min(decay, 1 - t^(-2/3))``: in a short run, the first weights would outlive a decay close
    to 1. The average itself is timm's.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.model = model
        self._average = ModelEmaV3(model, decay=decay, use_warmup=True)

    @property
    def module(self) -> nn.Module:
        """The model that holds the average."""
        held: nn.Module = self._average.module
        return held

    def update(self, step: int) -> None:
        """Take in the weights after step ``step``, from 1."""
        self._average.update(self.model, step=step)

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
