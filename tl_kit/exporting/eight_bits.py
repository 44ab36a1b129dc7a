"""Eight bits: a quantised file, and what it costs in accuracy on validation images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tl_kit.config import ExportConfig
from tl_kit.errors import ConfigError, DataError, ExportError
from tl_kit.exporting.check_images import CheckImages
from tl_kit.exporting.graph_files import make_file
from tl_kit.exporting.parity import probabilities_of
from tl_kit.exporting.quantization import quantize
from tl_kit.inference.exported import ExportedModel, open_session
from tl_kit.inference.held_out_heads import as_scored_on
from tl_kit.inference.predictor import Predictor
from tl_kit.reporting import Reporter

__all__ = ["EightBits", "check_eight_bit_images", "check_eight_bits", "quantized"]


@dataclass(frozen=True, kw_only=True)
class EightBits:
    """Cost and gain of 8 bits: accuracies on ``images`` validation images, sizes in 10^6 bytes, images a second.

    ``agreement``: the share of these images with the label that the file has in fp32. ``calibrated_on``: training
    images. ``held_out``: True if the accuracies are those of heads that were not fitted to validation images, unlike
    the heads of the file.
    """

    images: int
    calibrated_on: int
    accuracy_before: float
    accuracy: float
    held_out: bool
    agreement: float
    megabytes_before: float
    megabytes: float
    rate_before: float
    rate: float

    @property
    def loss(self) -> float:
        """Points of accuracy that 8 bits cost; negative where they gain."""
        return 100 * (self.accuracy_before - self.accuracy)


def check_eight_bits(config: ExportConfig) -> None:
    """Raises ConfigError for a format whose files are not quantised here."""
    if config.int8 and config.format != "onnx":
        raise ConfigError(f"--int8: goes with --format onnx, not {config.format}")


def check_eight_bit_images(images: CheckImages) -> None:
    """Raises DataError without training images, or without labels of the others."""
    if images.labels is None or not images.train:
        raise DataError(
            "--int8: needs training images to calibrate on, and labelled validation images; name the data set by --data"
        )


def quantized(
    model: ExportedModel,
    target: Path,
    exact: Predictor,
    images: CheckImages,
    config: ExportConfig,
    *,
    reporter: Reporter,
) -> EightBits:
    """Write the quantised file of ``model``. Raises ExportError where it costs too much.

    Validation images that a head was fitted to say little about a loss: nearly all of them are right by a wide margin.
    So the accuracies are then those of the models that were fitted without them, quantised in the same way.
    """
    small = _quantized(model, target, images, reporter)
    before, kept, rate_before = probabilities_of(model, images.sources, reporter=reporter)
    after, _, rate = probabilities_of(small, images.sources, reporter=reporter)
    agreement = float((before.argmax(axis=1) == after.argmax(axis=1)).mean())
    judge = as_scored_on(exact, images.samples)
    if judge is not exact:
        reporter.start("export", 1)
        judged = make_file(target.with_name("judged.onnx"), judge, model.facts, config)
        reporter.advance()
        eight = _quantized(judged, target.with_name("judged8.onnx"), images, reporter)
        before, _, _ = probabilities_of(judged, images.sources)
        after, _, _ = probabilities_of(eight, images.sources)
    assert images.labels is not None
    accuracies = [float((each.argmax(axis=1) == images.labels[kept]).mean()) for each in (before, after)]
    found = EightBits(
        images=len(kept),
        calibrated_on=len(images.train),
        accuracy_before=accuracies[0],
        accuracy=accuracies[1],
        held_out=judge is not exact,
        agreement=agreement,
        megabytes_before=model.path.stat().st_size / 1e6,
        megabytes=target.stat().st_size / 1e6,
        rate_before=rate_before,
        rate=rate,
    )
    if found.loss > config.most_loss:
        raise ExportError(
            f"--int8: is not written: it costs {found.loss:.1f} points of accuracy ({100 * accuracies[0]:.1f} -> "
            f"{100 * accuracies[1]:.1f} %, {found.images} validation images), more than --most-loss "
            f"{config.most_loss:g}; leave --int8 out, or allow more"
        )
    return found


def _quantized(model: ExportedModel, target: Path, images: CheckImages, reporter: Reporter) -> ExportedModel:
    """A quantised copy of a file, calibrated on the training images that can be decoded."""
    reporter.start("calibrate", len(images.train))

    def read() -> Iterator[NDArray[np.uint8]]:
        for sample in images.train:
            pixels = model.pixels(sample.path)
            reporter.advance()
            if isinstance(pixels, np.ndarray):
                yield pixels

    quantize(model.path, target, read())
    return ExportedModel(target, model.facts, open_session(target)[0], model.decode)
