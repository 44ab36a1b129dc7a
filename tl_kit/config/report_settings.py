"""Defaults of the report: which result, which images, how many of them, and how large the file may be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tl_kit.config.data_settings import DecodeConfig
from tl_kit.config.machine_settings import RuntimeConfig
from tl_kit.config.shared_flags import DEVICE_ONLY
from tl_kit.flags import NO_FLAGS, Flag
from tl_kit.number_ranges import AT_LEAST_ONE, AT_LEAST_TWO, SHARE

__all__ = ["ReportAtEndConfig", "ReportConfig", "ReportLimits"]


@dataclass(frozen=True, kw_only=True)
class ReportLimits:
    """Bounds on a report: ``shown`` images a section, ``of_pair`` of a pair of confused classes, ``pairs`` of these.

    Thumbnails have at most ``side`` pixels a side and JPEG quality ``quality``, and all of them together at most
    ``image_bytes`` bytes. Of more than ``matrix`` classes the matrix shows those with most errors, of more than
    ``classes`` their table does, of lists in the record the first ``listed`` items are shown, of a
    text in it the first ``text`` characters. ``bins`` of
    confidence make a reliability diagram, ``steps`` and ``chance`` random maps a deletion score, of at most
    ``deleted`` images. The doctor looks at data sets of at most ``examined`` images. At most ``weak`` classes are named
    that are worse than the others beyond chance; of all that could be, a share of at most ``false_weak`` is so by
    chance. More images are asked for where the interval of the accuracy is wider than ``wide``. ``map_strength``: how
    much of a pixel's colour the map covers where it is 1. A wrong image is confidently wrong from the probability
    ``sure`` on, and an image is doubtful if its two highest probabilities differ by less than ``close``. ``points`` of
    the curve of accuracy against the share answered are kept, and ``left_out`` files are listed.
    """

    shown: Annotated[int, AT_LEAST_ONE] = 12
    sure: Annotated[float, SHARE] = 0.5
    close: Annotated[float, SHARE] = 0.2
    pairs: Annotated[int, AT_LEAST_ONE] = 6
    of_pair: Annotated[int, AT_LEAST_ONE] = 3
    side: Annotated[int, AT_LEAST_ONE] = 176
    quality: Annotated[int, AT_LEAST_ONE] = 80
    image_bytes: Annotated[int, AT_LEAST_ONE] = 3_000_000
    matrix: Annotated[int, AT_LEAST_TWO] = 24
    classes: Annotated[int, AT_LEAST_TWO] = 200
    listed: Annotated[int, AT_LEAST_ONE] = 100
    text: Annotated[int, AT_LEAST_ONE] = 300
    weak: Annotated[int, AT_LEAST_ONE] = 5
    false_weak: Annotated[float, SHARE] = 0.05
    wide: Annotated[float, SHARE] = 0.2
    bins: Annotated[int, AT_LEAST_ONE] = 10
    steps: Annotated[int, AT_LEAST_TWO] = 8
    chance: Annotated[int, AT_LEAST_ONE] = 3
    chance_grid: Annotated[int, AT_LEAST_TWO] = 7
    deleted: Annotated[int, AT_LEAST_TWO] = 16
    examined: Annotated[int, AT_LEAST_ONE] = 20_000
    left_out: Annotated[int, AT_LEAST_ONE] = 50
    map_strength: Annotated[float, SHARE] = 0.65
    points: Annotated[int, AT_LEAST_TWO] = 60


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """One report. ``data`` None: the images of the run; ``out`` None: ``report.html`` in the result's folder.

    ``images`` False: no image, no map and no file name of one; nothing but figures and class names.
    """

    result: Annotated[
        Path,
        Flag(
            panel="Prediction",
            name="RESULT",
            complete="checkpoints",
            help="A folder of finetune (also with --folds), ensemble or fit.",
        ),
    ]
    data: Annotated[
        Path | None, Flag(panel="Data", metavar="PATH", help="Images to score (default: those of the run).")
    ] = None
    out: Annotated[
        Path | None, Flag(panel="Output", metavar="FILE", help="File to write (default: report.html in RESULT).")
    ] = None
    images: Annotated[
        bool, Flag(panel="Output", name="--images/--no-images", help="Show images; --no-images for private data.")
    ] = True
    limits: Annotated[ReportLimits, NO_FLAGS] = ReportLimits()
    decode: DecodeConfig = DecodeConfig()
    runtime: Annotated[RuntimeConfig, DEVICE_ONLY] = RuntimeConfig()


@dataclass(frozen=True, kw_only=True)
class ReportAtEndConfig:
    """A report at the end of a run: ``report.html`` in the folder that the run wrote."""

    report: Annotated[
        bool, Flag(panel="Output", name="--report", help="Write report.html into the result's folder at the end.")
    ] = False
