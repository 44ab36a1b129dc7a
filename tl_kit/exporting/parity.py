"""Parity: the written file is run on images, and compared with what predict gives for them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tl_kit.errors import DataError, ExportError
from tl_kit.images.crops import decode_side
from tl_kit.inference.exported import ExportedModel
from tl_kit.inference.predictor import Predictor
from tl_kit.inference.run_models import Source
from tl_kit.reporting import SILENT, Reporter

__all__ = ["Parity", "check_parity", "compare", "probabilities_of"]

_WARM = 2  # images that are predicted before the clock runs


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Comparison of a file with ``predict`` on ``images``, which ``source`` describes.

    ``largest_difference`` of a probability from that of ``predict`` in fp32, and the share of images with the same
    label. ``beside_predict``: the largest difference from ``predict`` as it runs here, where that is in bf16.
    ``beside_decoding``: the same in fp32, where ``predict`` decodes large JPEGs at another size for each member; the
    images of the comparison are then decoded once, as the file asks for. The rates, of the file and of ``predict``, are
    in images a second, decoding included.
    """

    images: int
    source: str
    largest_difference: float
    agreement: float
    beside_predict: float | None
    beside_decoding: float | None = None
    rate: float
    predict_rate: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def probabilities_of(
    model: Predictor | ExportedModel, sources: Sequence[Source], *, reporter: Reporter = SILENT
) -> tuple[NDArray[np.float64], list[int], float]:
    """Probabilities (n, classes) of the images that can be decoded, their indices, and the images a second."""
    model.member_probabilities(sources[:_WARM])
    started = time.perf_counter()
    stack, failures = model.member_probabilities(sources, reporter=reporter)
    rate = len(sources) / (time.perf_counter() - started)
    kept = [index for index in range(len(sources)) if index not in failures]
    if not kept:
        first = f"{sources[0]}: {failures[0]}" if isinstance(sources[0], Path) else failures[0]
        raise DataError(f"no image that would check the file can be decoded ({first}); name others by --data")
    return model.combine(stack[:, kept]), kept, rate


def compare(
    model: ExportedModel,
    exact: Predictor,
    usual: Predictor,
    sources: Sequence[Source],
    *,
    words: str,
    reporter: Reporter,
) -> Parity:
    """Compare a file with the predictor in fp32 (``exact``) and as it runs here (``usual``, which may be the same)."""
    found, kept, rate = probabilities_of(model, sources, reporter=reporter)
    expected, _, exact_rate = probabilities_of(exact, sources, reporter=reporter)
    beside, decoding, predict_rate = None, None, exact_rate
    if _decodes_for_each(exact) and not model.facts.cropped:
        decoded = [pixels for i in kept if not isinstance(pixels := model.pixels(sources[i]), str)]
        own, expected = expected, exact.combine(exact.member_probabilities(decoded)[0])
        decoding = float(np.abs(own - expected).max())
    if usual is not exact:
        other, _, predict_rate = probabilities_of(usual, sources, reporter=reporter)
        beside = float(np.abs(found - other).max())
    return Parity(
        images=len(kept),
        source=words,
        largest_difference=float(np.abs(found - expected).max()),
        agreement=float((found.argmax(axis=1) == expected.argmax(axis=1)).mean()),
        beside_predict=beside,
        beside_decoding=decoding,
        rate=rate,
        predict_rate=predict_rate,
    )


def _decodes_for_each(predictor: Predictor) -> bool:
    """True where members decode a large JPEG at different fractions of its size."""
    return len({decode_side(member.preprocessing, predictor.crops) for member in predictor.members}) > 1


def check_parity(parity: Parity, tolerance: float, *, name: str) -> None:
    """Raises ExportError where the file's probabilities differ by more than ``tolerance``, or are not finite."""
    if not parity.largest_difference <= tolerance:
        raise ExportError(
            f"{name}: is not written: its probabilities differ from those of predict by up to "
            f"{parity.largest_difference:.2g} ({parity.images} images, {parity.source}), more than {tolerance:g}; "
            "try another --format"
        )
