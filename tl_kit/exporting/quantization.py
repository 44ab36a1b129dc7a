"""Static quantisation to 8 bits by onnxruntime: of the networks, not of the resize before and the rule after."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tl_kit.exporting.programs import hushed
from tl_kit.storage.exported_facts import INPUT

__all__ = ["quantize"]

_HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def quantize(source: Path, target: Path, images: Iterable[NDArray[np.uint8]]) -> None:
    """Write a quantised copy of an ONNX file, whose activations' ranges are those on ``images`` (h, w, 3), uint8.

    Activations are unsigned and asymmetric, weights signed and per channel (QDQ, Jacob et al. 2018).
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Images(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rows: Iterator[dict[str, Any]] = iter({INPUT: pixels[None]} for pixels in images)

        def get_next(self) -> dict[str, Any] | None:
            return next(self._rows, None)

    model = onnx.load(str(source))
    with hushed():  # it advises a preparation that torch's exporter has done
        quantize_static(
            model,
            str(target),
            Images(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=_network(model.graph),
        )
    found = onnx.load(str(target))
    onnx.helper.set_model_props(found, {prop.key: prop.value for prop in model.metadata_props})
    onnx.save(found, str(target))


def _network(graph: Any) -> list[str]:
    """Names of the nodes between the first and the last product with weights, and of these products."""
    import onnx

    weights = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    heavy = [node for node in graph.node if node.op_type in _HEAVY and node.input[1] in weights]
    behind = {name for node in heavy for name in node.output}
    for node in graph.node:  # in topological order
        if behind.intersection(node.input):
            behind.update(node.output)
    before = {name for node in heavy for name in node.input}
    for node in reversed(graph.node):
        if before.intersection(node.output):
            before.update(node.input)
    names = {node.name for node in heavy}
    inner = [node.name for node in graph.node if behind.intersection(node.input) and before.intersection(node.output)]
    return [*names, *(name for name in inner if name not in names)]
