"""Defaults of the export: what is written, how closely it must agree, and what int8 may cost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tl_kit.config.data_settings import DecodeConfig
from tl_kit.config.shared_flags import CHECKPOINT
from tl_kit.flags import Flag
from tl_kit.number_ranges import AT_LEAST_ONE, POSITIVE, Range

__all__ = ["ExportConfig"]

_POINTS = Range("from 0 to 100", lambda value: 0 <= value <= 100)


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """One exported file of a checkpoint or an ensemble.

    ``out`` None: the folder's name and the format's ending, in the current folder. ``data``: a data set, whose
    validation images check the file; or images. Empty: the data set of the run. Probabilities may differ by
    ``tolerance`` from those of ``predict`` in fp32, on at most ``check_images`` images. ``int8`` is calibrated on at
    most ``calibration_images`` training images.
    """

    checkpoint: Annotated[Path, CHECKPOINT]
    format: Annotated[
        Literal["onnx", "openvino", "torch"],
        Flag(
            panel="Output",
            help="onnx: one file for onnxruntime; openvino: .xml and .bin; torch: .pt2, for torch.export.load.",
        ),
    ] = "onnx"
    int8: Annotated[
        bool, Flag(panel="Output", help="Quantise the network to 8 bits, calibrated on training images (onnx).")
    ] = False
    most_loss: Annotated[
        float,
        _POINTS,
        Flag(
            panel="Output",
            metavar="POINTS",
            help="--int8 is refused where it costs more points of validation accuracy.",
        ),
    ] = 1.0
    input: Annotated[
        Literal["any", "model"],
        Flag(
            panel="Output",
            help="any: images of any size, resized inside; model: only the model's size, for which it is faster.",
        ),
    ] = "any"
    out: Annotated[
        Path | None, Flag(panel="Output", metavar="FILE", help="File to write (default: the folder's name).")
    ] = None
    data: Annotated[
        tuple[Path, ...],
        Flag(
            panel="Data",
            metavar="PATH",
            help="Data set, or images, to check the file with (default: the run's own data set).",
        ),
    ] = ()
    tolerance: Annotated[float, POSITIVE] = 1e-4
    check_images: Annotated[int, AT_LEAST_ONE] = 400
    calibration_images: Annotated[int, AT_LEAST_ONE] = 128
    decode: DecodeConfig = DecodeConfig()
