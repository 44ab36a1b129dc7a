"""Split settings of a run, with which ``evaluate`` makes the same splits again."""

from __future__ import annotations

from tl_kit.config import DataConfig
from tl_kit.inference.exported import ExportedModel
from tl_kit.inference.predictor import Predictor

__all__ = ["split_config"]


def split_config(predictor: Predictor | ExportedModel) -> DataConfig:
    """The split settings of the first member's run, or of the exported file: they make the same splits again.

    Checkpoints without these settings come from versions that did not yet keep near copies in one split.
    """
    if isinstance(predictor, ExportedModel):
        stored = predictor.facts.split
    else:
        stored = predictor.members[0].meta.get("config", {}).get("split", {})
    if not stored:
        return DataConfig()
    names = DataConfig.__dataclass_fields__
    return DataConfig(**{"near_images": 0, **{name: value for name, value in stored.items() if name in names}})
