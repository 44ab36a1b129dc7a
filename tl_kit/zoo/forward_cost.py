"""Cost of a forward pass: floating-point operations of one image, counted on torch's ``meta`` device."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import timm
import torch
from timm.data.config import resolve_model_data_config
from torch.utils.flop_counter import FlopCounterMode

from tl_kit.zoo.names import resolve
from tl_kit.zoo.silence_timm import quiet

__all__ = ["ForwardCost", "forward_cost", "takes_side"]


@dataclass(frozen=True)
class ForwardCost:
    """Operations of one image (FLOPs, two for a multiplication and its addition), parameters, and the side in px."""

    operations: float
    parameters: int
    side: int


def forward_cost(name: str, side: int | None = None, classes: int | None = None) -> ForwardCost:
    """Forward pass of one image: its operations, and the network's parameters.

    ``side``: pixels of the image; ``classes``: those of a new head; None: the network's own.
    Nothing is computed and no weight is read.

    Where the model does not run on the ``meta`` device, two operations are counted for each parameter and each patch
    of 16 x 16 pixels, as a transformer has them. Raises ConfigError or WeightsError for an unknown name.
    """
    operations, parameters, own = _counted(name, side, classes)
    height, width = own if side is None else (side, side)
    return ForwardCost(operations or 2.0 * parameters * height * width / 256, parameters, width)


def takes_side(name: str, side: int) -> bool:
    """True where a network of square images runs on those of ``side`` pixels as it is.

    One that is built for a size, as most transformers are, does not. False also where the ``meta`` device cannot run
    it. Errors as for :func:`forward_cost`.
    """
    if resolve(name).sized:
        return False
    operations, _, (height, width) = _counted(name, side, None)
    return operations > 0 and height == width


@lru_cache(maxsize=512)
def _counted(name: str, side: int | None, classes: int | None) -> tuple[float, int, tuple[int, int]]:
    """Operations of one image, 0 where the network does not run; parameters; its own height and width."""
    source = resolve(name)
    arguments: dict[str, Any] = {"img_size": side} if side is not None and source.sized else {}
    if classes is not None:
        arguments["num_classes"] = classes
    with quiet(), torch.device("meta"):
        model = timm.create_model(source.factory_name, **arguments).eval().requires_grad_(False)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        channels, height, width = resolve_model_data_config(model)["input_size"]  # type: ignore[no-untyped-call]
        counter = FlopCounterMode(display=False)
        try:
            with torch.no_grad(), counter:
                model(torch.zeros(1, channels, *((height, width) if side is None else (side, side))))
            operations = float(counter.get_total_flops())
        except Exception:  # noqa: BLE001 - timm has models of a thousand kinds, and an estimate is no reason to stop
            operations = 0.0
    return operations, parameters, (int(height), int(width))
