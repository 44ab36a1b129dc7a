"""``predict``: class names and probabilities for files and folders of images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tl_kit.config import CropConfig, DecodeConfig, RuntimeConfig
from tl_kit.data.exclusions import missed
from tl_kit.data.folders import list_files
from tl_kit.data.patterns import expand
from tl_kit.errors import DataError
from tl_kit.inference.exported import open_classifier
from tl_kit.inference.inputs import paths
from tl_kit.inference.predictor import Prediction, Predictions
from tl_kit.machine.ambient import undisturbed
from tl_kit.plain_values import takes_plain_values
from tl_kit.reporting import SILENT, Reporter
from tl_kit.storage.atomic import csv_text

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
    """Predict each file, and each file below each folder, in order; hidden files in folders are skipped.

    ``checkpoint`` is a checkpoint, an ensemble, or an ONNX file that ``export`` wrote (which takes neither ``crops``
    nor ``mc_dropout``).

    A path that does not exist and has a wildcard (``*``, ``?``, ``[``, ``**``) stands for the files and folders that
    match it (:func:`expand`). A file that is named several times is predicted as often; a file found through folders or
    patterns is predicted once. A file that cannot be read or decoded gives a Prediction with its ``error``, and so does
    a folder without files. ``crops``, ``mc_dropout`` and ``decode`` as for ``load``. Raises DataError without any
    input, and for a pattern without a match; InputError for anything but paths (the predictor that ``load`` returns
    accepts pixels).
    """
    given = [item if isinstance(item, str) else Path(item) for item in paths(images)]
    rows = list(_rows(given))
    if not rows or all(isinstance(row, Prediction) and row.error == _EMPTY for row in rows):
        raise DataError("no images to predict: give image files, or folders that hold some")
    predictor = open_classifier(checkpoint, crops=crops, mc_dropout=mc_dropout, decode=decode, runtime=runtime)
    if predictor.crops != CropConfig():
        reporter.message(f"each image: the mean of {predictor.crops}")
    if predictor.mc_dropout:
        reporter.message(f"each image: the mean of {predictor.mc_dropout} passes with dropout")
    predicted = iter(predictor.predict([row for row in rows if isinstance(row, Path)], reporter=reporter))
    return Predictions(next(predicted) if isinstance(row, Path) else row for row in rows)


_EMPTY = "folder without files"


def _rows(given: Sequence[Path | str]) -> Iterator[Path | Prediction]:
    """The files that the inputs stand for, and a Prediction with an error for each input that cannot be read."""
    seen = _Seen()
    for item in given:
        for path in expand(item):
            if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where it may not look
                yield from (row for row in _files(path) if isinstance(row, Prediction) or seen.first(row))
            elif seen.first(path) or path == Path(item):
                yield path


def _files(folder: Path) -> Iterator[Path | Prediction]:
    files, exclusions = list_files(folder)
    unreadable = missed(exclusions)
    yield from files
    yield from (Prediction(str(exclusion.path), {}, exclusion.reason) for exclusion in unreadable)
    if not files and not unreadable:
        yield Prediction(str(folder), {}, _EMPTY)


class _Seen:
    """Files seen so far, by real folder and name: a linked folder holds the same files, a linked file is another."""

    def __init__(self) -> None:
        self._files: set[tuple[str, str]] = set()
        self._folders: dict[Path, str] = {}

    def first(self, path: Path) -> bool:
        """True if the file comes for the first time."""
        folder = self._folders.get(path.parent)
        if folder is None:
            folder = self._folders[path.parent] = os.path.realpath(path.parent)
        known = len(self._files)
        self._files.add((folder, path.name))
        return len(self._files) > known
