"""``tlkit export``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tl_kit.cli.command import Given, command
from tl_kit.cli.console import Console
from tl_kit.config import ExportConfig, JsonConfig

if TYPE_CHECKING:
    from tl_kit import ExportResult

__all__ = ["export"]


@command(ExportConfig, JsonConfig, usage="tlkit export CKPT")
def export(given: Given, console: Console) -> None:
    """Write a checkpoint or an ensemble as one file. Programs without tl-kit can run it.

    Resize, normalisation, members, rule and temperature are inside. The file is compared with predict before it is
    kept.
    """
    config, json = given.read(ExportConfig), given.read(JsonConfig).json
    import tl_kit

    result = tl_kit.export(config, reporter=console)
    if json:
        console.json(result.to_dict())
    else:
        _show(result, console)


def _show(result: ExportResult, console: Console) -> None:
    parity, eight = result.parity, result.int8
    sides = "height, width" if result.size is None else f"{result.size[0]}, {result.size[1]}"
    about = "of any size" if result.size is None else "resized and cropped already"
    console.line(f"input: uint8 (n, {sides}, 3), RGB, {about}")
    console.line(f"output: probabilities of {len(result.classes)} classes, whose names are in the file's metadata")
    console.line(f"checked on {parity.images:,} {parity.source}:")
    against = "predict" if parity.beside_predict is None else "predict in fp32"
    same = f"same label {100 * parity.agreement:.1f} %"
    console.line(f"  largest difference from {against} {parity.largest_difference:.1e}; {same}")
    if parity.beside_predict is not None:
        console.line(f"  predict computes in bf16 here; largest difference from that {parity.beside_predict:.1e}")
    if parity.beside_decoding is not None:
        console.line(
            "  predict decodes large JPEGs for each member's size, the file at one; largest difference from that "
            f"{parity.beside_decoding:.1e}"
        )
    if result.format == "openvino":
        console.line('  with {"INFERENCE_PRECISION_HINT": "f32"}: by default OpenVINO may compute in bf16')
    console.line(f"  {parity.rate:.0f} images a second, predict {parity.predict_rate:.0f}")
    if eight is not None:
        whose = ", by models fitted without them" if eight.held_out else ""
        console.line(
            f"int8: accuracy {100 * eight.accuracy_before:.2f} -> {100 * eight.accuracy:.2f} % "
            f"({eight.images:,} validation images{whose})"
        )
        console.line(
            f"  {eight.megabytes_before:.1f} -> {eight.megabytes:.1f} MB, {eight.rate_before:.0f} -> {eight.rate:.0f} "
            f"images a second; same label as fp32 {100 * eight.agreement:.1f} %; "
            f"calibrated on {eight.calibrated_on:,} training images"
        )
    console.entry("file", f"{result.file} ({result.megabytes:.1f} MB)")
