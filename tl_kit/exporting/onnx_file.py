"""ONNX: a traced classifier as one file with its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from tl_kit.errors import ConfigError, ResourceError, first_line
from tl_kit.exporting.programs import hushed
from tl_kit.storage.exported_facts import INPUT, OUTPUT

__all__ = ["write_onnx"]

_AXES = ("batch", "height", "width")
_LARGEST = 2_000_000_000  # bytes; a file of protobuf ends at 2 GiB


def write_onnx(path: Path, program: ExportedProgram, *, metadata: Mapping[str, str]) -> None:
    """Write one file, whose input is ``images`` and whose output is ``probabilities``.

    Raises ConfigError for a network with operators that ONNX lacks, and ResourceError for more than 2 GB.
    """
    import onnx

    weights = sum(tensor.nbytes for tensor in program.state_dict.values())
    if weights > _LARGEST:
        raise ResourceError(
            f"{path.name}: the weights take {weights / 1e9:.1f} GB, and an ONNX file ends at 2 GB; use --format torch"
        )
    with hushed():
        try:
            found = torch.onnx.export(program, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], verbose=False)
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            raise ConfigError(
                f"--format onnx: torch cannot translate this network ({first_line(error)[:200]}); try --format torch"
            ) from error
    assert found is not None
    model = found.model_proto
    _name_axes(model.graph)
    for node in (*model.graph.node, *(node for function in model.functions for node in function.node)):
        del node.metadata_props[:]  # torch's notes on its origin, with source files and folders of this machine
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.save(model, str(path))


def _name_axes(graph: Any) -> None:
    """Name the axes of any length; torch numbers them."""
    axes = graph.input[0].type.tensor_type.shape.dim
    names = {axis.dim_param: name for axis, name in zip(axes, _AXES, strict=False) if axis.dim_param}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in names:
                axis.dim_param = names[axis.dim_param]
