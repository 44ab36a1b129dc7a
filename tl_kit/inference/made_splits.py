"""Splits that a run made, made again for the same data."""

from __future__ import annotations

from tl_kit.config import DataConfig
from tl_kit.inference.predictor import Predictor

__all__ = ["split_config"]


def split_config(predictor: Predictor) -> DataConfig:
    """Split settings of the first member's run, with which the same data falls into the same splits.

    Checkpoints without these settings were made before near copies were kept on one side.
    """
    stored = predictor.members[0].meta.get("config", {}).get("split", {})
    if not stored:
        return DataConfig()
    names = DataConfig.__dataclass_fields__
    return DataConfig(**{"near_images": 0, **{name: value for name, value in stored.items() if name in names}})
