"""``models``: which timm models there are."""

from __future__ import annotations

from tl_kit.api.plain import takes_plain_values
from tl_kit.zoo.catalog import ModelInfo, search

__all__ = ["ModelInfo", "models"]


@takes_plain_values
def models(pattern: str | None = None) -> list[ModelInfo]:
    """Models whose name fits ``pattern``, a part of a name or a shell wildcard; without one, those on this machine."""
    return search(pattern)
