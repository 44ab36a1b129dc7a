"""Exported files predict what predict predicts, and what would not is not written."""

from __future__ import annotations

import json
import re
import shutil
import sys
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import timm
import torch
from PIL import Image
from torch.export import ExportedProgram

import tl_kit
from tests import children
from tests.exporting.checkpoints import CLASSES, write_checkpoint
from tests.exporting.saved import together, turned, variant, write
from tests.helpers import Listener, quick, write_images
from tl_kit import ExportConfig
from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.config import CropConfig, RegularizationConfig, RuntimeConfig
from tl_kit.errors import CheckpointError, ConfigError, DataError, ExportError
from tl_kit.exporting import graph_files
from tl_kit.exporting.check_images import find_images
from tl_kit.exporting.classifier import Classifier
from tl_kit.exporting.parity import Parity, check_parity
from tl_kit.inference.exported import ExportedModel, open_exported
from tl_kit.inference.predictor import Predictor

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("export") / "images")


@pytest.fixture(scope="module")
def run(data: Path) -> Path:
    """A network of 32-pixel images."""
    return Path(quick(data, data.parent / "run", epochs=1).checkpoint)


@pytest.fixture(scope="module")
def shared(run: Path) -> Path:
    """An ensemble of two heads on one trunk, one of them with its classes in another order, tempered."""
    root = run.parent
    other = turned(variant(run, root / "other", seed=1), root / "turned")
    return together(root / "shared", run, other, rule=FittedRule("logit-mean", {}, temperature=0.7))


@pytest.fixture(scope="module")
def traced_once() -> Iterator[None]:
    """The graph of an ensemble and a size is traced once for all formats, which takes half the time of an export."""
    found: dict[tuple[object, ...], ExportedProgram] = {}
    predictors: list[Predictor] = []
    build, trace = graph_files.build_classifier, graph_files.trace

    def built(predictor: Predictor, **options: Any) -> Classifier:
        predictors.append(predictor)
        return build(predictor, **options)

    def traced(classifier: Classifier, *, size: tuple[int, int] | None) -> ExportedProgram:
        key = (predictors.pop().path, size)
        if key not in found:
            found[key] = trace(classifier, size=size)
        return found[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_files, "build_classifier", built)
        patch.setattr(graph_files, "trace", traced)
        yield


@pytest.fixture(scope="module")
def file(shared: Path, traced_once: None) -> Path:
    """That ensemble as a file."""
    write(shared, shared.parent / "shared.onnx")
    return shared.parent / "shared.onnx"


def images(data: Path) -> list[Path]:
    return sorted(data.rglob("*.png"))


def rows(found: list[tl_kit.Prediction], classes: tuple[str, ...]) -> np.ndarray[Any, Any]:
    return np.array([[prediction.probabilities[name] for name in classes] for prediction in found])


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(str(path)).graph.node)


def test_an_ensemble_is_one_file_whose_trunk_stands_once(run: Path, shared: Path, file: Path) -> None:
    layers = sum(isinstance(module, torch.nn.Conv2d) for module in tl_kit.load(run).members[0].model.modules())
    assert operators(file)["Conv"] == layers
    assert file.stat().st_size < 1.5 * (run / "model.safetensors").stat().st_size
    assert [path.name for path in file.parent.glob("*shared*")] != []
    assert not list(file.parent.glob(".*tmp"))


def test_labels_and_probabilities_are_those_of_predict(data: Path, shared: Path, file: Path) -> None:
    expected = tl_kit.load(shared, runtime=RuntimeConfig(precision="fp32")).predict(images(data))
    found = tl_kit.predict(file, data)
    classes = tl_kit.load(shared).classes
    assert [prediction.source for prediction in found] == [str(path) for path in images(data)]
    assert [prediction.label for prediction in found] == [prediction.label for prediction in expected]
    assert np.abs(rows(found, classes) - rows(expected, classes)).max() < 1e-5
    assert np.ptp(rows(found, classes), axis=0).max() > 0.01  # a constant would agree too


def test_the_script_of_the_documentation_needs_no_tl_kit(data: Path, shared: Path, file: Path, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    script = re.search(r"```python\n(.+?)```", text, flags=re.DOTALL)
    assert script is not None
    assert len([line for line in script[1].splitlines() if line]) <= 12
    large = noise_photo(tmp_path / "large.jpg", (700, 500), turned=True)
    small = noise_photo(tmp_path / "small.jpg", (30, 90))
    given = [*images(data)[::6], large, small]
    blocked = "import sys\nsys.modules['tl_kit'] = None\n" + script[1]
    done = children.run([sys.executable, "-c", blocked, file, *given], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = tl_kit.load(shared, runtime=RuntimeConfig(precision="fp32")).predict(given)
    lines = [line.rsplit(" ", 2) for line in done.stdout.splitlines()]
    assert [(name, label) for name, label, _ in lines] == [(each.source, each.label) for each in expected]
    for (_, label, probability), prediction in zip(lines, expected, strict=True):
        assert float(probability) == pytest.approx(prediction.probabilities[label], abs=1e-4)


def noise_photo(path: Path, size: tuple[int, int], *, turned: bool = False) -> Path:
    pixels = np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8)
    exif = Image.Exif()
    if turned:
        exif[274] = 6
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def places_in(file: Path) -> list[bytes]:
    """Folders of this machine that the file's bytes name; of a .pt2, which is a zip, those of what it holds."""
    data = [file.read_bytes()]
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            data += [archive.read(name) for name in archive.namelist()]
    packages = [str(Path(package.__file__ or "").parent).encode() for package in (tl_kit, timm, torch)]
    return [place for place in (*packages, str(file.parent).encode(), b'.py", line') for each in data if place in each]


def test_the_file_says_what_it_takes_and_what_it_knows(shared: Path, file: Path) -> None:
    model = onnx.load(str(file))
    facts = {prop.key: prop.value for prop in model.metadata_props}
    assert json.loads(facts["classes"]) == list(tl_kit.load(shared).classes)
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {"images": ["batch", "height", "width", 3], "probabilities": ["batch", 3]}
    assert not places_in(file)  # nothing of the user's machine


def test_a_batch_is_its_images(file: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 50, 41, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(str(file))
    together = session.run(None, {"images": pixels})[0]
    alone = np.concatenate([session.run(None, {"images": pixels[n : n + 1]})[0] for n in range(5)])
    assert np.abs(together - alone).max() < 1e-6
    assert np.abs(together.sum(axis=1) - 1).max() < 1e-5


def test_evaluate_takes_the_file(data: Path, shared: Path, file: Path) -> None:
    expected = tl_kit.evaluate(shared, data, split="test", runtime=RuntimeConfig(precision="fp32"))
    found = tl_kit.evaluate(file, data)
    assert (found.split, found.images) == ("test", expected.images)
    assert found.confusion == expected.confusion
    assert found.metrics["nll"] == pytest.approx(expected.metrics["nll"], abs=1e-5)
    assert found.kind == "unknown"  # the file does not list the images that it was trained on


@pytest.mark.usefixtures("traced_once")
@pytest.mark.parametrize("form", ["torch", "openvino"])
def test_other_formats(data: Path, shared: Path, tmp_path: Path, form: str) -> None:
    ending = {"torch": ".pt2", "openvino": ".xml"}[form]
    result = write(shared, tmp_path / f"file{ending}", format=form, data=(data,))
    assert result.parity.largest_difference < 1e-5
    assert result.parity.source.startswith("validation images")
    written = {"torch": ["file.pt2"], "openvino": ["file.bin", "file.xml"]}[form]
    assert sorted(path.name for path in tmp_path.iterdir()) == written
    assert not any(places_in(path) for path in tmp_path.iterdir())
    assert result.size == (None if form == "torch" else (32, 32))
    if form == "openvino":
        cropped = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
        model = openvino.Core().read_model(str(tmp_path / "file.xml"))
        assert json.loads(model.get_rt_info(["tlkit", "classes"]).astype(str)) == list(result.classes)
        found = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})({"images": cropped})[0]
        assert np.abs(found.sum(axis=1) - 1).max() < 1e-5
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about its own files
            program = torch.export.load(str(tmp_path / "file.pt2"))
        layers = sum(isinstance(m, torch.nn.Conv2d) for m in tl_kit.load(shared).members[0].model.modules())
        targets = Counter(str(node.target) for node in program.graph.nodes)
        assert sum(count for name, count in targets.items() if "conv" in name and "." in name) == layers


def test_two_ways_into_the_square_and_two_scales(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A graph with both orders of the resize is that of the tests above, and takes twice as long to trace.
    monkeypatch.setattr("tl_kit.exporting.resample.pillow_may_begin_with_rows", lambda: False)
    squashed = variant(run, tmp_path / "squash", seed=2, crop_mode="squash", interpolation="bilinear")
    folder = together(tmp_path / "both", run, squashed, crops=CropConfig(scales=(1.0, 1.25)))
    result = write(folder, tmp_path / "both.onnx")
    assert result.parity.largest_difference < 1e-5
    with pytest.raises(ConfigError, match="its members see different crops"):
        write(folder, tmp_path / "one.onnx", input="model")


def test_members_that_decode_at_different_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A JPEG of 800 pixels is decoded at an eighth of its size for 32 pixels, and at a quarter for 96."""
    monkeypatch.setattr("tl_kit.exporting.resample.pillow_may_begin_with_rows", lambda: False)
    random = np.random.default_rng(0)
    for number in range(4):
        pixels = random.integers(0, 256, (800, 800, 3), dtype=np.uint8)
        (tmp_path / "images" / CLASSES[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "images" / CLASSES[number % 2] / f"{number}.jpg", quality=95)
    members = [write_checkpoint(tmp_path / f"m{side}", seed=side, img_size=side) for side in (32, 96)]
    result = write(together(tmp_path / "both", *members), tmp_path / "both.onnx", data=(tmp_path / "images",))
    assert result.parity.largest_difference < 1e-5
    assert result.parity.beside_decoding is not None
    assert result.parity.beside_decoding > 1e-5


@pytest.mark.parametrize("asked", ["any", "model"])
def test_images_of_the_models_size_alone(run: Path, tmp_path: Path, asked: str) -> None:
    """Because the user asks for it, or because the graph does not know the resize."""
    lanczos = variant(run, tmp_path / "run", seed=2, interpolation="lanczos")
    listener = Listener()
    config = ExportConfig(checkpoint=lanczos, out=tmp_path / "f.pt2", format="torch", input=asked)
    result = tl_kit.export(config, reporter=listener)
    assert result.size == (32, 32)
    assert result.parity.largest_difference < 1e-5
    assert any("model's own size" in text and "lanczos" in text for text in listener.messages) is (asked == "any")


def test_what_disagrees_is_not_written(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = ExportedModel.combine
    monkeypatch.setattr(ExportedModel, "combine", lambda self, stack: original(self, stack) + 2e-4)
    with pytest.raises(ExportError, match=r"f.pt2: is not written: .* 0.0002 .* more than 0.0001"):
        write(run, tmp_path / "f.pt2", format="torch", input="model")
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_finite_disagrees() -> None:
    parity = Parity(
        images=1, source="", largest_difference=np.nan, agreement=1, beside_predict=None, rate=1, predict_rate=1
    )
    with pytest.raises(ExportError, match="is not written"):
        check_parity(parity, 1e-4, name="f.onnx")


def test_without_photos_it_is_checked_with_noise_and_says_so(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(run, alone)
    meta = json.loads((alone / "tlkit.json").read_text())
    meta["data"]["root"] = str(tmp_path / "gone")
    (alone / "tlkit.json").write_text(json.dumps(meta))
    predictor, listener = tl_kit.load(alone), Listener()
    found = find_images(ExportConfig(checkpoint=alone), predictor, listener)
    assert found.words == "images of noise"
    assert found.labels is None
    assert any("checked with noise" in text and "--data" in text for text in listener.messages)
    photo = noise_photo(tmp_path / "photo.jpg", (60, 50))
    given = find_images(ExportConfig(checkpoint=alone, data=(photo, photo)), predictor, listener)
    assert (list(given.sources), given.words) == ([photo, photo], "images given")
    with pytest.raises(DataError, match="no such file"):
        find_images(ExportConfig(checkpoint=alone, data=(tmp_path / "no",)), predictor, listener)
    (tmp_path / "plain").mkdir()
    shutil.copy(photo, tmp_path / "plain" / "photo.png")
    find_images(ExportConfig(checkpoint=alone, data=(tmp_path / "plain",)), predictor, listener)
    assert listener.messages[-1] == f"no class folders in {tmp_path}/plain: its images are taken without labels"
    monkeypatch.setattr("tl_kit.exporting.export.make_file", None)  # nothing is made in vain
    with pytest.raises(DataError, match="--int8: needs training images"):
        write(alone, tmp_path / "i.onnx", int8=True, input="model", data=(photo,))


def test_images_that_cannot_check_the_file_are_named(
    shared: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tl_kit.exporting.export.make_file", lambda *_: open_exported(file))
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match=rf"{re.escape(str(tmp_path / 'notes.txt'))}: .+; name others by --data"):
        write(shared, tmp_path / "f.onnx", data=(tmp_path / "notes.txt",))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"out": "f.onnx", "format": "torch"}, ConfigError, "ends in .pt2"),
        ({"out": "there.onnx"}, CheckpointError, "there.onnx: is there already"),
        ({"out": "there.onnx/f.onnx"}, CheckpointError, "there.onnx: is a file, not a folder; choose another folder"),
        ({"out": "f.pt2", "format": "torch", "int8": True}, ConfigError, "--int8: goes with --format onnx"),
        ({"out": "f.onnx", "most_loss": 101.0}, ConfigError, "--most-loss 101.0: must be from 0 to 100"),
    ],
)
def test_options_are_checked_first(
    run: Path,
    tmp_path: Path,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tl_kit.exporting.export.load", None)  # nothing is opened before
    (tmp_path / "there.onnx").write_bytes(b"")
    with pytest.raises(error, match=re.escape(message)):
        tl_kit.export(ExportConfig(checkpoint=run, **{**options, "out": tmp_path / options["out"]}))
    assert [path.name for path in tmp_path.iterdir()] == ["there.onnx"]


def test_dropout_at_test_time_is_refused(data: Path, tmp_path: Path) -> None:
    dropped = Path(quick(data, tmp_path / "run", epochs=1, regularization=RegularizationConfig(dropout=0.2)).checkpoint)
    folder = together(tmp_path / "e", dropped, variant(dropped, tmp_path / "b", seed=1), passes=3)
    with pytest.raises(ConfigError, match="averages 3 passes with dropout"):
        write(folder, tmp_path / "f.onnx")


def test_without_the_packages_the_command_that_installs_them_is_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tl_kit.optional_packages.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'onnx, onnxscript and onnxruntime; run pip install "tl-kit\[export\]"'):
        write(run, tmp_path / "f.onnx")
