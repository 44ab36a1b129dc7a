"""Splits of labelled images that are scored: the settings with which they are made again, and the default one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tl_kit.config import DataConfig
from tl_kit.data.manifest import Manifest, Sample
from tl_kit.inference.exported import ExportedModel
from tl_kit.inference.predictor import Predictor

__all__ = ["default_split", "may_know", "split_config", "split_of"]


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
        return _made(predictor.facts.split)
    return split_of(predictor.members[0].meta)


def split_of(meta: Mapping[str, Any]) -> DataConfig:
    """The split settings of the run with this record."""
    return _made(meta.get("config", {}).get("split", {}))


def _made(stored: Mapping[str, Any]) -> DataConfig:
    if not stored:
        return DataConfig()
    names = DataConfig.__dataclass_fields__
    return DataConfig(**{"near_images": 0, **{name: value for name, value in stored.items() if name in names}})


def may_know(predictor: Predictor | ExportedModel, samples: Sequence[Sample]) -> bool:
    """True if the model has seen one of the images; of an exported file, which does not say, it is assumed."""
    return isinstance(predictor, ExportedModel) or bool(predictor.uses.seen(samples))


def default_split(manifest: Manifest, predictor: Predictor | ExportedModel) -> str:
    """The split that is scored if none is named: test, else val; all images where the model has seen none of them."""
    if manifest.made_splits and not may_know(predictor, manifest.samples):
        return "all"
    return "test" if manifest.split("test") else "val"
