"""``predict``: names and probabilities for files and folders of images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tl_kit.api.predictor import Prediction, load
from tl_kit.config import CropConfig, RuntimeConfig
from tl_kit.data.folders import list_files
from tl_kit.errors import DataError
from tl_kit.reporting import SILENT, Reporter

__all__ = ["predict"]


def predict(
    checkpoint: Path | str,
    images: Path | str | Iterable[Path | str],
    *,
    crops: CropConfig | None = None,
    mc_dropout: int | None = None,
    runtime: RuntimeConfig = RuntimeConfig(),
    reporter: Reporter = SILENT,
) -> list[Prediction]:
    """Predict each file, and each file below each folder, in order; hidden files in folders are passed over.

    A file that cannot be decoded gives a Prediction with its ``error``. ``crops`` and ``mc_dropout`` as for ``load``.
    Raises DataError when there is nothing to do.
    """
    paths: list[Path] = []
    for item in map(Path, [images] if isinstance(images, (str, Path)) else images):
        paths.extend(list_files(item)[0] if item.is_dir() else [item])
    if not paths:
        raise DataError("no images to predict: give image files, or folders that hold some")
    predictor = load(checkpoint, crops=crops, mc_dropout=mc_dropout, runtime=runtime)
    if predictor.crops != CropConfig():
        reporter.message(f"each image: the mean of {predictor.crops}")
    if predictor.mc_dropout:
        reporter.message(f"each image: the mean of {predictor.mc_dropout} passes with dropout")
    return predictor.predict(paths, reporter=reporter)
