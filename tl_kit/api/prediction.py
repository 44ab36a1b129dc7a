"""``predict``: names and probabilities for files and folders of images."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from tl_kit.ambient import undisturbed
from tl_kit.api.inputs import paths
from tl_kit.api.left_out import missed
from tl_kit.api.plain import takes_plain_values
from tl_kit.api.predictor import Prediction, load
from tl_kit.config import CropConfig, DecodeConfig, RuntimeConfig
from tl_kit.data.folders import list_files
from tl_kit.errors import DataError
from tl_kit.reporting import SILENT, Reporter
from tl_kit.training.files import csv_text

__all__ = ["csv_text", "predict"]


@undisturbed()
@takes_plain_values
def predict(
    checkpoint: Path | str,
    images: Path | str | Iterable[Path | str],
    *,
    crops: CropConfig | None = None,
    mc_dropout: int | None = None,
    decode: DecodeConfig = DecodeConfig(),
    runtime: RuntimeConfig = RuntimeConfig(),
    reporter: Reporter = SILENT,
) -> list[Prediction]:
    """Predict each file, and each file below each folder, in order; hidden files in folders are passed over.

    What does not exist and has a wildcard (``*``, ``?``, ``[``) stands for the files and folders that match it.
    Whatever cannot be read or decoded gives a Prediction with its ``error``, and so does a folder without files.
    ``crops``, ``mc_dropout`` and ``decode`` as for ``load``. Raises DataError when there is nothing to do, and
    InputError for what is no path: pixels are for the ``predict`` of what ``load`` returns.
    """
    given = [Path(path) for path in paths(images)]
    rows = [row for item in given for row in _rows(item)]
    if not rows or all(isinstance(row, Prediction) and row.error == _EMPTY for row in rows):
        raise DataError("no images to predict: give image files, or folders that hold some")
    predictor = load(checkpoint, crops=crops, mc_dropout=mc_dropout, decode=decode, runtime=runtime)
    if predictor.crops != CropConfig():
        reporter.message(f"each image: the mean of {predictor.crops}")
    if predictor.mc_dropout:
        reporter.message(f"each image: the mean of {predictor.mc_dropout} passes with dropout")
    predicted = iter(predictor.predict([row for row in rows if isinstance(row, Path)], reporter=reporter))
    return [next(predicted) if isinstance(row, Path) else row for row in rows]


_EMPTY = "folder without files"


def _rows(item: Path) -> Iterator[Path | Prediction]:
    """The files that one input stands for, and a row for each part of it that cannot be read."""
    if os.path.isdir(item):  # noqa: PTH112 - Path.is_dir raises where it may not look
        files, exclusions = list_files(item)
        unreadable = missed(exclusions)
        yield from files
        yield from (Prediction(str(exclusion.path), {}, exclusion.reason) for exclusion in unreadable)
        if not files and not unreadable:
            yield Prediction(str(item), {}, _EMPTY)
    elif glob.has_magic(str(item)) and not os.path.lexists(item):
        matches = sorted(glob.glob(str(item)))  # noqa: PTH207 - Path.glob takes no absolute pattern
        for match in matches:
            yield from _rows(Path(match))
        if not matches:
            yield Prediction(str(item), {}, "no file matches")
    else:
        yield item
