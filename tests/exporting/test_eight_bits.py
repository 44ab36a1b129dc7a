"""Exported files of 8-bit weights: as good as they say, and not written where they would cost too much."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from torch import nn

import tl_kit
from tests.exporting.saved import together, variant, write
from tests.helpers import quick, write_images
from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.config import RuntimeConfig
from tl_kit.errors import ExportError
from tl_kit.exporting import eight_bits
from tl_kit.inference.exported import ExportedModel
from tl_kit.storage.checkpoint import load_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("eight") / "images")


@pytest.fixture(scope="module")
def run(data: Path) -> Path:
    """A network of 32-pixel images."""
    return Path(quick(data, data.parent / "run", epochs=1).checkpoint)


def convolutions(file: Path) -> list[onnx.NodeProto]:
    return [node for node in onnx.load(str(file)).graph.node if node.op_type == "Conv"]


def test_eight_bits(data: Path, run: Path, tmp_path: Path) -> None:
    result = write(run, tmp_path / "small.onnx", int8=True, most_loss=100.0)
    small = result.int8
    assert small is not None
    assert small.megabytes < 0.6 * small.megabytes_before
    assert small.megabytes == pytest.approx(result.megabytes)
    assert small.agreement > 0.6
    nodes = onnx.load(str(tmp_path / "small.onnx")).graph.node
    made = {name: node for node in nodes for name in node.output}
    found = convolutions(tmp_path / "small.onnx")
    assert found
    assert all(made[node.input[1]].op_type == "DequantizeLinear" for node in found)
    resizes = [node for node in nodes if node.op_type == "If"]
    assert all("Quantize" not in inner.op_type for node in resizes for a in node.attribute for inner in a.g.node)
    scored = tl_kit.evaluate(tmp_path / "small.onnx", data, split="val")
    assert scored.metrics["accuracy"] == pytest.approx(small.accuracy)


def test_eight_bits_that_cost_too_much_are_not_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ruin(model: ExportedModel, target: Path, *_: object) -> ExportedModel:
        target.write_bytes(b"")
        return ExportedModel(target, model.facts, lambda images: np.full((len(images), 3), np.float32(1 / 3)))

    monkeypatch.setattr(eight_bits, "_quantized", ruin)
    with pytest.raises(ExportError, match=r"--int8: is not written: it costs .* more than --most-loss 1;"):
        write(run, tmp_path / "small.onnx", int8=True, input="model")
    assert list(tmp_path.iterdir()) == []


def test_an_ensemble_of_eight_bits_is_one_file_with_one_trunk(data: Path, run: Path, tmp_path: Path) -> None:
    """Members that share a trunk share it in 8 bits, too, and the rule works on what they say."""
    rule = FittedRule("logit-mean", temperature=2.0)
    other = variant(run, tmp_path / "other", seed=5)
    both = together(tmp_path / "both", run, other, rule=rule)
    result = write(both, tmp_path / "both.onnx", int8=True, most_loss=100.0, input="model")
    trunk = [module for module in load_checkpoint(run).model.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions(tmp_path / "both.onnx")) == len(trunk) > 0
    assert result.int8 is not None
    assert result.int8.megabytes < 0.6 * result.int8.megabytes_before
    scored = tl_kit.evaluate(tmp_path / "both.onnx", data, split="val")
    assert scored.metrics["accuracy"] == pytest.approx(result.int8.accuracy)
    images = sorted(data.rglob("*.png"))
    exact = tl_kit.load(both, runtime=RuntimeConfig(precision="fp32")).predict(images)
    eight = tl_kit.predict(tmp_path / "both.onnx", images)
    rows = [[[each.probabilities[name] for name in result.classes] for each in found] for found in (exact, eight)]
    assert np.abs(np.subtract(*rows)).mean() < 0.05


def test_heads_fitted_to_validation_images_do_not_score_eight_bits(data: Path, tmp_path: Path) -> None:
    head = Path(quick(data, tmp_path / "run", policy="head", epochs=None).checkpoint)
    result = write(head, tmp_path / "small.onnx", int8=True, most_loss=100.0, input="model")
    assert result.int8 is not None
    assert result.int8.held_out
    expected = tl_kit.evaluate(head, data, split="val", runtime=RuntimeConfig(precision="fp32"))  # by the same heads
    assert result.int8.accuracy_before == pytest.approx(expected.metrics["accuracy"])
