"""torch's own export of a classifier: one graph, in which equal operations on equal tensors stand once."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram
from torch.fx.passes.dialect.common.cse_pass import CSEPass

from tl_kit.errors import ConfigError, first_line
from tl_kit.exporting.classifier import Classifier
from tl_kit.inference.exported import Classifies

__all__ = ["hushed", "open_program", "trace", "write_program"]

_BLANK = (48, 64)  # of an image of any size


def trace(classifier: Classifier, *, size: tuple[int, int] | None) -> ExportedProgram:
    """The graph for uint8 images (n, h, w, 3): of any number, and of ``size`` or, None, of any.

    What members have in common, a trunk above all, is computed once in it. Raises ConfigError for a network that torch
    cannot trace.
    """
    example = torch.zeros((2, *(size or _BLANK), 3), dtype=torch.uint8)
    dynamic = torch.export.Dim.DYNAMIC
    axes = {0: dynamic} if size else {0: dynamic, 1: dynamic, 2: dynamic}
    with hushed():
        try:
            program: ExportedProgram = torch.export.export(classifier, (example,), dynamic_shapes=(axes,), strict=False)
            if len(classifier.members) == 1:
                return _without_places(program)
            program = program.run_decompositions({})  # none of whose operations changes its input
        except Exception as error:  # of many classes, by the operator that it cannot trace
            raise ConfigError(f"torch.export cannot trace this network ({first_line(error)[:200]})") from error
        shared = CSEPass()(program.graph_module)
        assert shared is not None
        program.graph_module.graph = shared.graph_module.graph
        program.graph_module.recompile()
    return _without_places(program)


def _without_places(program: ExportedProgram) -> ExportedProgram:
    """The program without the source files and lines that made each of its nodes: they name this machine's folders."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    return program


def write_program(path: Path, program: ExportedProgram, *, metadata: Mapping[str, str]) -> None:
    """Write a ``.pt2`` file, which ``torch.export.load`` opens; ``extra_files`` of that call gives the metadata."""
    with hushed():
        torch.export.save(program, str(path), extra_files=dict(metadata))


def open_program(path: Path) -> Classifies:
    """The graph of a ``.pt2`` file, as torch runs it on the CPU."""
    with hushed():
        module = torch.export.load(str(path)).module()

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = module(torch.from_numpy(images)).numpy()
        return found

    return run


@contextmanager
def hushed() -> Iterator[None]:
    """Without the warnings and the log of exporters, which speak of their own code."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "root")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
