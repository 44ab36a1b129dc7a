"""``predict``: class names and probabilities for files, folders, lists and archives of images."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeAlias, get_args

import torch

from tl_kit._version import __version__
from tl_kit.config import CropConfig, DecodeConfig, FetchConfig, RowFormat, RuntimeConfig, StreamConfig
from tl_kit.errors import CheckpointError, ConfigError, DataError
from tl_kit.inference.exported import ExportedModel, open_classifier
from tl_kit.inference.inputs import paths
from tl_kit.inference.prediction import Prediction, Predictions
from tl_kit.inference.predictor import Predictor
from tl_kit.inference.streaming.groups import Predicted, predict_groups
from tl_kit.inference.streaming.inputs_by_name import ByName
from tl_kit.inference.streaming.marks import InputDigests, mark_of, marked
from tl_kit.inference.streaming.named import Named
from tl_kit.inference.streaming.parquet_rows import check_parquet
from tl_kit.inference.streaming.path_list import PathList
from tl_kit.inference.streaming.row_journal import Journal, State
from tl_kit.inference.streaming.row_texts import holds_rows
from tl_kit.machine.ambient import undisturbed
from tl_kit.plain_values import takes_plain_values
from tl_kit.reporting import SILENT, UNKNOWN, Reporter
from tl_kit.storage.atomic import check_writable, csv_text
from tl_kit.untrusted import sha256

_Classifier: TypeAlias = Predictor | ExportedModel
_END = object()

__all__ = [
    "Inputs",
    "PredictedFile",
    "PredictionStream",
    "csv_text",
    "format_of",
    "predict",
    "predict_stream",
    "predict_to_file",
]

Inputs: TypeAlias = Path | str | PathList | Iterable[Path | str | PathList]
"""Files, folders, patterns, archives, addresses, and lists of paths in an open file."""


@undisturbed()
@takes_plain_values
def predict(
    checkpoint: Path | str,
    images: Inputs,
    *,
    crops: CropConfig | None = None,
    mc_dropout: int | None = None,
    decode: DecodeConfig = DecodeConfig(),
    fetch: FetchConfig = FetchConfig(),
    image_column: str | None = None,
    runtime: RuntimeConfig = RuntimeConfig(),
    reporter: Reporter = SILENT,
) -> list[Prediction]:
    """Predict each file, and each file below each folder, in order; hidden files in folders are skipped.

    ``checkpoint`` is a checkpoint, an ensemble, or an ONNX file that ``export`` wrote (which takes neither ``crops``
    nor ``mc_dropout``).

    A path that does not exist and has a wildcard (``*``, ``?``, ``[``, ``**``) stands for the files and folders that
    match it (:func:`expand`). A file that is named several times is predicted as often; a file found through folders or
    patterns is predicted once. A tar or zip archive stands for the images in it; a CSV or Parquet file for those in its
    column of images (``image_column``, where that has no usual name); a :class:`PathList` for those whose paths it
    gives, which are neither patterns nor folders; an address, with ``fetch.urls``, for the image behind it.

    An image that cannot be read or decoded gives a Prediction with its ``error``, and so does a folder without files.
    ``crops``, ``mc_dropout`` and ``decode`` as for ``load``. Raises DataError without any input, and for a pattern
    without a match; InputError for anything but paths (the predictor that ``load`` returns accepts pixels).
    """
    return Predictions(
        predict_stream(
            checkpoint,
            images,
            crops=crops,
            mc_dropout=mc_dropout,
            decode=decode,
            fetch=fetch,
            image_column=image_column,
            runtime=runtime,
            reporter=reporter,
        )
    )


@takes_plain_values
def predict_stream(
    checkpoint: Path | str,
    images: Inputs,
    *,
    crops: CropConfig | None = None,
    mc_dropout: int | None = None,
    decode: DecodeConfig = DecodeConfig(),
    fetch: FetchConfig = FetchConfig(),
    image_column: str | None = None,
    runtime: RuntimeConfig = RuntimeConfig(),
    reporter: Reporter = SILENT,
) -> PredictionStream:
    """:func:`predict`, with each Prediction once its batch is computed; memory holds a few batches.

    Mistakes in the arguments are raised by the call itself, those in what lists name when it comes to them.
    """
    inputs = ByName(paths(images), fetch=fetch, decode=decode, column=image_column)
    items, total = _begun(inputs)
    with undisturbed():
        classifier = open_classifier(checkpoint, crops=crops, mc_dropout=mc_dropout, decode=decode, runtime=runtime)
    _tell(classifier, reporter)
    return PredictionStream(classifier.classes, _predictions(classifier, inputs, items, total, reporter))


class PredictionStream(Iterator[Prediction]):
    """Predictions as they are computed, and the model's ``classes``. ``close`` ends the work before its end."""

    def __init__(self, classes: tuple[str, ...], found: Generator[Prediction, None, None]) -> None:
        self.classes, self._found = classes, found

    def __next__(self) -> Prediction:
        return next(self._found)

    def close(self) -> None:
        """Stop predicting; nothing more comes."""
        self._found.close()


def _begun(inputs: ByName) -> tuple[Iterator[Named | None], int]:
    """The inputs, nothing of them fetched, and their number if it is known. Raises DataError if there are none.

    Files and folders are all looked for first; of lists and archives, the first image.
    """
    items = inputs.images()
    if not inputs.streamed:
        found = list(items)
        return iter(found), len(found)
    return chain([next(items)], items), UNKNOWN


def _tell(classifier: _Classifier, reporter: Reporter) -> None:
    if classifier.crops != CropConfig():
        reporter.message(f"each image: the mean of {classifier.crops}")
    if classifier.mc_dropout:
        reporter.message(f"each image: the mean of {classifier.mc_dropout} passes with dropout")


def _predictions(
    classifier: _Classifier, inputs: ByName, items: Iterator[Named | None], total: int, reporter: Reporter
) -> Generator[Prediction, None, None]:
    reporter.start("predict", total)
    for predicted in predict_groups(classifier, inputs.fetched(items), timed=inputs.timed, reporter=reporter):
        yield from predicted.predictions


@dataclass(frozen=True)
class PredictedFile:
    """A file of predictions: its ``path``, its number of ``rows``, and how many of them have an error."""

    path: Path
    rows: int
    failed: int


@undisturbed()
@takes_plain_values
def predict_to_file(
    checkpoint: Path | str,
    images: Inputs,
    out: Path | str,
    *,
    format: RowFormat | None = None,
    top: int = 3,
    resume: bool = False,
    crops: CropConfig | None = None,
    mc_dropout: int | None = None,
    decode: DecodeConfig = DecodeConfig(),
    fetch: FetchConfig = FetchConfig(),
    image_column: str | None = None,
    runtime: RuntimeConfig = RuntimeConfig(),
    stream: StreamConfig = StreamConfig(),
    reporter: Reporter = SILENT,
) -> PredictedFile:
    """Write the predictions of :func:`predict_stream` to the file ``out``, which is complete once it is there.

    ``format`` None: as the name ends (.csv, .jsonl, .parquet). Until it is complete the file is ``OUT.partial``, beside
    which ``OUT.partial.json`` says how far it is. With ``resume``, the rows that are secured there are kept, and their
    inputs passed over; the file becomes the one that a run without interruption writes, byte for byte. ``top`` classes
    an image are written. Raises ConfigError or DataError if another model, other options or other inputs made the part.
    """
    out, form = Path(out), format_of(Path(out), format)
    if top < 1:
        raise ConfigError(f"--top {top}: must be at least 1")
    _check_place(out, form)
    inputs = ByName(paths(images), fetch=fetch, decode=decode, column=image_column, config=stream)
    _check_replaced(out, inputs, checkpoint)
    items, total = _begun(inputs)
    classifier = open_classifier(checkpoint, crops=crops, mc_dropout=mc_dropout, decode=decode, runtime=runtime)
    _tell(classifier, reporter)
    made_by = _made_by(classifier, runtime, fetch, form=form, top=top)
    journal = Journal(out, form, min(top, len(classifier.classes)), made_by, config=stream)
    try:
        begun = journal.begin(resume=resume)
        seen, marks = _pass_over(items, begun, journal), deque[str]()
        if begun.rows:
            reporter.message(f"{journal.partial}: goes on after {begun.rows:,} rows")
        reporter.start("predict", total if total == UNKNOWN else total - begun.rows)
        found = predict_groups(
            classifier,
            inputs.fetched(marked(items, marks)),
            begun=begun.rows > 0,
            place=begun.place,
            timed=inputs.timed,
            reporter=reporter,
            config=stream,
        )
        state = _write(found, journal, begun, seen, marks, always=inputs.timed)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{journal.partial} has {journal.state.rows:,} rows; --resume goes on") from None
    finally:
        journal.close()
    return PredictedFile(out, state.rows, state.failed)


def _check_place(out: Path, form: RowFormat) -> None:
    """Raises ConfigError or CheckpointError where no file of this form can be written."""
    if out.is_dir():
        raise ConfigError(f"--out {out}: is a folder; name a file")
    if form == "parquet":
        check_parquet(f"--out {out}")
    if not out.parent.exists():
        raise ConfigError(f"--out {out}: its folder does not exist; make it, or name a file in another one")
    check_writable(out.parent)


def _check_replaced(out: Path, inputs: ByName, checkpoint: Path | str) -> None:
    """Raises ConfigError for a file that is there and is an input, or holds no predictions."""
    if inputs.holds(out) or (out.exists() and Path(checkpoint).exists() and out.samefile(checkpoint)):
        raise ConfigError(f"--out {out}: is an input, which the predictions would replace; name another file")
    if out.exists() and not holds_rows(out):
        raise ConfigError(f"--out {out}: is there already, and holds no predictions; name another file, or remove it")


def _pass_over(items: Iterator[Named | None], begun: State, journal: Journal) -> InputDigests:
    """Skip the inputs whose rows are on disk already, and return the digests of their names and files.

    Raises DataError where these are others, or files that changed.
    """
    seen, left = InputDigests(), begun.rows
    while left and (item := next(items, _END)) is not _END:
        if isinstance(item, Named):
            seen.add(item.name, mark_of(item))
            left -= 1
    if left or (seen.names, seen.marks) != (begun.names, begun.marks):
        other = "names among them changed" if seen.names != begun.names else "files of them changed since"
        few = f"there are {begun.rows - left:,} now" if left else other
        raise DataError(
            f"--resume: {journal.partial} holds rows of {begun.rows:,} inputs, and {few}; give the same inputs, or "
            "remove it to begin again"
        )
    return seen


def _write(
    found: Iterator[Predicted], journal: Journal, state: State, seen: InputDigests, marks: deque[str], *, always: bool
) -> State:
    """Write all rows, complete the file and return its final state. ``marks``: the marks of the inputs still to come.

    Where batches are not filled up ``always``, a part that ends within one could not be continued with the same bits.
    """
    for predicted in found:
        journal.add(predicted.predictions)
        for prediction in predicted.predictions:
            seen.add(prediction.source, marks.popleft())
        failed = sum(prediction.error is not None for prediction in predicted.predictions)
        state = State(
            rows=state.rows + len(predicted.predictions),
            failed=state.failed + failed,
            place=predicted.place,
            names=seen.names,
            marks=seen.marks,
        )
        if always or predicted.place == 0:
            journal.secure(state)
    journal.finish()
    return state


def format_of(out: Path, given: str | None) -> RowFormat:
    """The format of a file: the one that is given, or else as its name ends. Raises ConfigError for any other."""
    known: tuple[RowFormat, ...] = get_args(RowFormat)
    name = given or {f".{each}": each for each in known}.get(out.suffix.lower())
    if name not in known:
        said = f"--format {given}" if given else f"--out {out}"
        raise ConfigError(f"{said}: a file is csv, jsonl or parquet; give --format, or a name that ends so")
    return name


def _made_by(
    classifier: _Classifier, runtime: RuntimeConfig, fetch: FetchConfig, *, form: str, top: int
) -> dict[str, str]:
    """All that decides the rows besides the inputs, by the word that a message has for it."""
    precision, device = "fp32", "cpu"
    if isinstance(classifier, Predictor):
        first = classifier.scorers[0].runtime
        precision = ", ".join(scorer.runtime.precision for scorer in classifier.scorers)
        device = first.device.type
    return {
        "model": _digest(classifier.path),
        "format": form,
        "--top": str(top),
        "choice of crops": str(classifier.crops),
        "--mc-dropout": str(classifier.mc_dropout),
        "--max-pixels": str(classifier.decode.max_pixels),
        "--urls": str(fetch.urls),
        "runtime": runtime.mode,
        "batch size": str(classifier.per_batch),
        "device": device,
        "precision": precision,
        "version": f"tl-kit {__version__}, torch {torch.__version__}",
    }


def _digest(path: Path) -> str:
    """SHA-256 of an exported file, or of all weights and descriptions in a folder."""
    files = [path]
    if path.is_dir():
        files = sorted(file for ending in ("*.json", "*.safetensors") for file in path.rglob(ending))
    digest = hashlib.sha256()
    for file in files:
        name = os.fsencode(file.relative_to(path))
        digest.update(name + b"\0" + bytes.fromhex(sha256(file, error=CheckpointError)))
    return digest.hexdigest()
