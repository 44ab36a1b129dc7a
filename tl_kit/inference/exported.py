"""Exported files as classifiers: an ONNX file that tlkit export wrote, run by onnxruntime."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tl_kit.config import CropConfig, DecodeConfig, RuntimeConfig
from tl_kit.errors import CheckpointError, ConfigError, ImageError, first_line
from tl_kit.images.decode import decode_as, in_pool, read_sample
from tl_kit.images.deep import Deep, outside_warning, unknown_warning
from tl_kit.inference.inputs import Given, named_sources, sources
from tl_kit.inference.prediction import Prediction, Predictions, prediction_of
from tl_kit.inference.predictor import Predictor, load
from tl_kit.inference.run_models import Attempt
from tl_kit.inference.streaming.groups import stream
from tl_kit.machine.runtime import available_cores
from tl_kit.optional_packages import check_packages
from tl_kit.reporting import SILENT, Reporter
from tl_kit.storage.exported_facts import EXPORTED, INPUT, OUTPUT, ExportedFacts
from tl_kit.storage.seen_images import Uses

__all__ = ["Classifies", "ExportedModel", "is_exported", "open_classifier", "open_exported", "open_session"]

_AT_ONCE = 32  # images that are decoded together
_MOST_PIXELS = 2**21  # of images that run together


class Classifies(Protocol):
    """A runtime with the graph of an exported file: uint8 images (n, h, w, 3) -> probabilities (n, classes)."""

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class ExportedModel:
    """An exported file, used as a :class:`Predictor` is: its members, rule and temperature are inside its graph."""

    path: Path
    facts: ExportedFacts
    run: Classifies
    decode: DecodeConfig = DecodeConfig()

    @property
    def classes(self) -> tuple[str, ...]:
        return self.facts.classes

    @property
    def crops(self) -> CropConfig:
        """One crop: if there are several, they are inside the graph."""
        return CropConfig()

    @property
    def mc_dropout(self) -> int:
        return 0

    @property
    def uses(self) -> Uses:
        """Unknown: the file does not name the images that it was trained on."""
        return Uses(unknown=(str(self.path),))

    @property
    def per_batch(self) -> int:
        """Images that are decoded together."""
        return _AT_ONCE

    @property
    def at_once(self) -> int:
        """Images that a stream predicts together."""
        return _AT_ONCE

    def member_probabilities(
        self,
        sources: Sequence[Attempt],
        *,
        digests: Sequence[str] = (),
        before: int = 0,
        filled: bool = False,
        deep: Counter[Deep] | None = None,
        reporter: Reporter = SILENT,
    ) -> tuple[NDArray[np.float64], dict[int, str]]:
        """The file's probabilities as one member's, (1, n, classes), and the images that cannot be decoded.

        In place of a batch that is filled up or was begun before (``filled``, ``before``), each image runs alone.
        ``deep`` counts images of more than 8 bits, in place of a warning.
        """
        counted = Counter[Deep]() if deep is None else deep
        found = np.zeros((1, len(sources), len(self.classes)))
        failures: dict[int, str] = {}
        reporter.start("predict", len(sources))
        for start in range(0, len(sources), _AT_ONCE):
            some = range(start, min(start + _AT_ONCE, len(sources)))
            sizes: dict[tuple[int, ...], list[tuple[int, NDArray[np.uint8]]]] = defaultdict(list)
            given = [(sources[index], digests[index] if digests else None) for index in some]
            for index, (read, facts) in zip(some, in_pool(lambda pair: self._read(*pair), given), strict=True):
                if facts is not None:
                    counted[facts] += 1
                if isinstance(read, str):
                    failures[index] = read
                else:
                    sizes[read.shape].append((index, read))
            for (height, width, _), rows in sizes.items():
                together = 1 if filled or before else max(1, _MOST_PIXELS // (height * width))
                for first in range(0, len(rows), together):
                    batch = rows[first : first + together]
                    places = [index for index, _ in batch]
                    found[0, places] = self.run(np.stack([pixels for _, pixels in batch]))
            reporter.advance(len(some))
        if deep is None:
            self.tell_deep(counted, reporter)
        return found, failures

    def combine(self, stack: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities (n, classes) from those of :meth:`member_probabilities`."""
        probabilities: NDArray[np.float64] = stack[0]
        return probabilities

    def tell_deep(self, deep: Counter[Deep], reporter: Reporter) -> None:
        """Warn about deep images that lie outside the ranges that the file holds, or for which it has none."""
        for text in (outside_warning(deep), unknown_warning(deep, [self.facts.ranges])):
            if text is not None:
                reporter.message(text)

    def stream(self, images: Given | Iterable[Given], *, reporter: Reporter = SILENT) -> Iterator[Prediction]:
        """As :meth:`Predictor.stream`."""
        return stream(self, named_sources(images, self.decode), reporter=reporter)

    def predict(self, images: Given | Iterable[Given], *, reporter: Reporter = SILENT) -> list[Prediction]:
        """As :meth:`Predictor.predict`."""
        found, names = sources(images, self.decode)
        stack, failures = self.member_probabilities(found, reporter=reporter)
        return Predictions(
            prediction_of(name, row, self.classes, failures.get(index))
            for index, (name, row) in enumerate(zip(names, self.combine(stack), strict=True))
        )

    def pixels(self, source: Attempt, digest: str | None = None) -> NDArray[np.uint8] | str:
        """An image as the graph takes it, (h, w, 3); the reason where it cannot be decoded.

        ``digest``: the SHA-256 that a file must have.
        """
        return self._read(source, digest)[0]

    def _read(self, source: Attempt, digest: str | None) -> tuple[NDArray[np.uint8] | str, Deep | None]:
        """:meth:`pixels`, and the facts of an image of more than 8 bits."""
        try:
            if isinstance(source, ImageError):
                raise source
            given = Image.fromarray(source) if isinstance(source, np.ndarray) else source
            if digest is not None and isinstance(given, Path):
                given = read_sample(given, digest, self.decode)
            side, ranges = self.facts.decode_side, self.facts.ranges
            image, deep = decode_as(given, min_side=side, config=self.decode, ranges=ranges)
            if not self.facts.cropped:
                return np.asarray(image), deep
            preprocessing = self.facts.preprocessings[0]
            pixels = np.empty(preprocessing.input_size, np.uint8)
            preprocessing.evaluate_into(image, pixels)
            return np.ascontiguousarray(pixels.transpose(1, 2, 0)), deep
        except ImageError as error:
            return str(error), None
        except MemoryError:
            return "too large: not enough memory for it", None


def is_exported(path: Path) -> bool:
    """True for the name of an ONNX file."""
    return path.suffix.lower() == EXPORTED and not path.is_dir()


def open_classifier(
    path: Path | str,
    *,
    crops: CropConfig | None,
    mc_dropout: int | None,
    decode: DecodeConfig,
    runtime: RuntimeConfig,
) -> Predictor | ExportedModel:
    """Open an exported file, or else as :func:`load`. Raises ConfigError for options that an exported file has not."""
    if not is_exported(Path(path)):
        return load(path, crops=crops, mc_dropout=mc_dropout, decode=decode, runtime=runtime)
    for option, given in (("--crops and --scales", crops), ("--mc-dropout", mc_dropout)):
        if given is not None:
            raise ConfigError(f"{option}: {path} is an exported file, whose crops and passes are fixed; leave them out")
    if runtime.device not in ("auto", "cpu"):
        raise ConfigError(f"--device {runtime.device}: {path} is an exported file, and runs on the CPU here")
    return open_exported(Path(path), decode=decode)


def open_exported(path: Path, *, decode: DecodeConfig = DecodeConfig()) -> ExportedModel:
    """Open an ONNX file that tlkit export wrote. Raises CheckpointError for any other file."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give a file that tlkit export wrote")
    session, metadata = open_session(path)
    facts = ExportedFacts.from_metadata(metadata, path)
    return ExportedModel(path, facts, session, decode)


def open_session(path: Path) -> tuple[Classifies, Mapping[str, str]]:
    """The graph of an ONNX file on the CPU, and the file's metadata. Raises CheckpointError if it is no ONNX file."""
    check_packages(str(path), "onnxruntime", extra="export", error=ConfigError)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cores()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waits would take cores from others
    options.log_severity_level = 3  # errors; its warnings speak of the graph's inner nodes
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        metadata = dict(session.get_modelmeta().custom_metadata_map)
    except Exception as error:  # of its own classes
        raise CheckpointError(f"{path}: onnxruntime cannot open it ({first_line(error)[:100]})") from error

    def run(images: NDArray[np.uint8]) -> Any:
        return session.run([OUTPUT], {INPUT: images})[0]

    return run, metadata
