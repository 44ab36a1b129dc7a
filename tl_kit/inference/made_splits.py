"""Split settings of a run, with which ``evaluate`` makes the same splits again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tl_kit.config import DataConfig
from tl_kit.inference.exported import ExportedModel
from tl_kit.inference.predictor import Predictor

__all__ = ["split_config"]


def split_config(
    predictor: Predictor | ExportedModel,
    data: Path | str | None = None,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
) -> DataConfig:
    """The split settings of the first member's run, or of the exported file: they make the same splits again.

    Columns of a table are those given, or those of the run where ``data`` is the run's own (None: it is).
    Checkpoints without these settings come from versions that did not yet keep near copies in one split.
    """
    made = _stored(predictor)
    if not (data is None or _own(predictor, data)):
        made = replace(made, image_column=None, label_column=None)
    return replace(made, image_column=image_column or made.image_column, label_column=label_column or made.label_column)


def _own(predictor: Predictor | ExportedModel, data: Path | str) -> bool:
    """True if ``data`` is the path that the first member's run recorded."""
    if isinstance(predictor, ExportedModel):
        return False
    root = predictor.members[0].meta.get("data", {}).get("root")
    return bool(root) and str(root) in (str(data), str(Path(data).absolute()))


def _stored(predictor: Predictor | ExportedModel) -> DataConfig:
    if isinstance(predictor, ExportedModel):
        stored = predictor.facts.split
    else:
        stored = predictor.members[0].meta.get("config", {}).get("split", {})
    if not stored:
        return DataConfig()
    names = DataConfig.__dataclass_fields__
    return DataConfig(**{"near_images": 0, **{name: value for name, value in stored.items() if name in names}})
