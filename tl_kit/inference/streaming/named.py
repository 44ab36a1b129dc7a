"""An input with its name: what a row of predictions is made from."""

from __future__ import annotations

from dataclasses import dataclass

from tl_kit.inference.run_models import Attempt
from tl_kit.inference.streaming.addresses import Address

__all__ = ["Named"]


@dataclass(frozen=True)
class Named:
    """An image and its name in the rows; or ``error``, the reason of an input that stands for no image."""

    name: str
    source: Attempt | Address | None
    error: str | None = None
