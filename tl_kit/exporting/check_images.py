"""Images that an exported file is checked with: validation images if there are any, else images given, else noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tl_kit.config import ExportConfig
from tl_kit.data.exclusions import scan_images
from tl_kit.data.folders import list_files
from tl_kit.data.listing import EXPECTED
from tl_kit.data.manifest import Sample, spread
from tl_kit.errors import DataError
from tl_kit.file_kinds import may_be_there
from tl_kit.images.decode import sniff
from tl_kit.inference.labelled import labels_for
from tl_kit.inference.made_splits import split_config
from tl_kit.inference.predictor import Predictor
from tl_kit.inference.run_models import Source
from tl_kit.reporting import Reporter

__all__ = ["CheckImages", "find_images"]

_NOISE = 16
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class CheckImages:
    """``sources`` of images that ``words`` describe. Of a data set also samples, labels (n,), and training images."""

    sources: Sequence[Source]
    words: str
    samples: Sequence[Sample] = ()
    labels: NDArray[np.int64] | None = None
    train: Sequence[Sample] = ()


def find_images(config: ExportConfig, predictor: Predictor, reporter: Reporter) -> CheckImages:
    """Images on which the file is compared: of ``config.data``, else of the run's data set, else noise.

    Raises DataError for a path without images, and for a data set with classes that the model does not know.
    """
    if len(config.data) == 1 and (found := _data_set(config.data[0], config, predictor, reporter, given=True)):
        return found
    if config.data:
        return _given(config)
    roots = dict.fromkeys(str(member.meta.get("data", {}).get("root") or "") for member in predictor.members)
    root = next(iter(roots))
    if len(roots) == 1 and root and may_be_there(root):
        found = _data_set(Path(root), config, predictor, reporter, given=False)
        if found is not None:
            return found
    reporter.message(
        "warning: the run's data set is not there, so the file is checked with noise; name photos, or the data set, by "
        "--data"
    )
    return CheckImages(sources=_noise(predictor), words="images of noise")


def _data_set(
    data: Path, config: ExportConfig, predictor: Predictor, reporter: Reporter, *, given: bool
) -> CheckImages | None:
    """Validation images of a data set, else all of its images; None for a path that holds none with labels."""
    if not may_be_there(data) or _is_image(data):
        return None
    try:
        manifest = scan_images(
            data, split_config(predictor, data), decode=config.decode, strict=False, reporter=reporter, trainable=False
        )
        samples = spread(manifest.split("val") or manifest.samples, config.check_images)
        labels = labels_for(samples, manifest, predictor, data)
    except DataError as error:
        if given and data.is_dir() and list_files(data)[0]:
            plain = f"no class folders in {data}: its images are taken without labels"
            reporter.message(plain if EXPECTED in str(error) else f"images without labels: {error}")
            return None
        if given and data.is_file():
            raise DataError(f"{error}; name others by --data") from error
        if given:
            raise
        reporter.message(f"warning: {error}")
        return None
    which = "validation images" if manifest.split("val") else "images"
    return CheckImages(
        sources=[sample.path for sample in samples],
        words=f"{which} of {data}",
        samples=samples,
        labels=labels,
        train=spread(manifest.split("train"), config.calibration_images),
    )


def _is_image(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return sniff(stream.read(16))
    except OSError:
        return False


def _given(config: ExportConfig) -> CheckImages:
    """The images at the paths given: files, and all files of folders."""
    files: list[Path] = []
    for path in config.data:
        if not path.exists():
            raise DataError(f"--data {path}: no such file or folder")
        files += list_files(path)[0] if path.is_dir() else [path]
    if not files:
        raise DataError(f"--data {config.data[0]}: holds no images")
    return CheckImages(sources=spread(files, config.check_images), words="images given")


def _noise(predictor: Predictor) -> list[Source]:
    """Random pixels in sizes around the first member's input, the same every time."""
    rng = np.random.default_rng(_SEED)
    height, width = predictor.members[0].preprocessing.input_size[1:]
    shares = rng.uniform(0.6, 2.0, (_NOISE, 2))
    return [
        rng.integers(0, 256, (max(1, round(height * tall)), max(1, round(width * wide)), 3), dtype=np.uint8)
        for tall, wide in shares
    ]
