"""OpenVINO: an ONNX file of ours, converted; .xml has the graph and the metadata, .bin beside it the weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tl_kit.errors import ConfigError, first_line
from tl_kit.inference.exported import Classifies
from tl_kit.storage.exported_facts import INPUT

__all__ = ["open_openvino", "write_openvino"]


def write_openvino(path: Path, onnx_file: Path, *, metadata: Mapping[str, str]) -> None:
    """Write ``path`` (.xml) and the .bin beside it. Raises ConfigError for what OpenVINO cannot convert."""
    import openvino

    try:
        model = openvino.convert_model(str(onnx_file))
    except Exception as error:  # of its own classes
        raise ConfigError(f"--format openvino: it cannot convert this network ({first_line(error)[:200]})") from error
    for name, text in metadata.items():
        model.set_rt_info(text, ["tlkit", name])
    openvino.save_model(model, str(path), compress_to_fp16=False)


def open_openvino(path: Path) -> Classifies:
    """The graph on the CPU, in fp32: by default OpenVINO may compute in bf16 where the processor has it."""
    import openvino

    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = compiled({INPUT: images})[0]
        return found

    return run
