"""Files of a classifier in each format, and each format's runtime for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tl_kit.config import ExportConfig
from tl_kit.errors import ConfigError
from tl_kit.exporting.classifier import build_classifier
from tl_kit.exporting.onnx_file import write_onnx
from tl_kit.exporting.openvino_file import open_openvino, write_openvino
from tl_kit.exporting.programs import open_program, trace, write_program
from tl_kit.inference.exported import ExportedModel, open_session
from tl_kit.inference.predictor import Predictor
from tl_kit.optional_packages import check_packages
from tl_kit.storage.exported_facts import ExportedFacts

__all__ = ["ENDINGS", "check_format", "make_file"]

ENDINGS: Mapping[str, str] = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
_ONNX = ("onnx", "onnxscript", "onnxruntime")
_NEEDS: Mapping[str, tuple[str, ...]] = {"onnx": _ONNX, "openvino": (*_ONNX, "openvino"), "torch": ()}


def check_format(form: str) -> None:
    """Raises ConfigError, with the command that helps, if a package for this format is not installed."""
    extra = "export,openvino" if form == "openvino" else "export"
    check_packages(f"--format {form}", *_NEEDS[form], extra=extra, error=ConfigError)


def make_file(file: Path, predictor: Predictor, facts: ExportedFacts, config: ExportConfig) -> ExportedModel:
    """Write ``file``, which has its format's ending, and open it. Raises ConfigError for what cannot be written."""
    classifier = build_classifier(predictor, resizes=not facts.cropped)
    program = trace(classifier, size=facts.size)
    if config.format == "torch":
        write_program(file, program, metadata=facts.to_metadata())
        return ExportedModel(file, facts, open_program(file), config.decode)
    onnx_file = file.with_suffix(ENDINGS["onnx"])
    write_onnx(onnx_file, program, metadata=facts.to_metadata())
    if config.format == "onnx":
        return ExportedModel(file, facts, open_session(file)[0], config.decode)
    write_openvino(file, onnx_file, metadata=facts.to_metadata())
    onnx_file.unlink()
    return ExportedModel(file, facts, open_openvino(file), config.decode)
