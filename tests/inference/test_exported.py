"""ONNX files in predict and evaluate: those of tlkit export are classifiers, all others are refused in a line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

import tl_kit
from tests.cli.helpers import tlkit
from tests.helpers import COLOURS, write_images
from tl_kit.config import CropConfig, RuntimeConfig
from tl_kit.errors import CheckpointError, ConfigError
from tl_kit.images.deep import SampleRanges
from tl_kit.images.transforms import Preprocessing
from tl_kit.inference.exported import open_exported
from tl_kit.storage.exported_facts import ExportedFacts

CLASSES = ("red", "green", "blue")
WAY = Preprocessing((3, 24, 32), "bicubic", 0.9, "squash", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
FACTS = ExportedFacts(classes=CLASSES, decode_side=32, preprocessings=(WAY,))


def write(path: Path, metadata: Mapping[str, str]) -> Path:
    """A graph whose probabilities are the softmax of an image's mean colour, in tenths of a level."""
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "sides"], ["levels"], keepdims=0),
        helper.make_node("Mul", ["levels", "tenth"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "colour",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", "h", "w", 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 3])],
        [
            helper.make_tensor("sides", TensorProto.INT64, [2], [1, 2]),
            helper.make_tensor("tenth", TensorProto.FLOAT, [1], [0.1]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, dict(metadata))
    onnx.save(model, str(path))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "colour.onnx", FACTS.to_metadata())


def expected(
    pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    logits = pixels.reshape(-1, 3).mean(axis=0) / 10
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())


@pytest.mark.parametrize("cropped", [False, True])
def test_images_of_all_sizes_in_order(tmp_path: Path, cropped: bool) -> None:
    facts = replace(FACTS, cropped=cropped)
    model = open_exported(write(tmp_path / "f.onnx", facts.to_metadata()))
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in ((9, 7), (40, 30)) * 20]
    found = model.predict(photos)
    assert [prediction.source for prediction in found[:2]] == ["image 0 (ndarray)", "image 1 (ndarray)"]
    for prediction, pixels in zip(found, photos, strict=True):
        seen = WAY.evaluate(Image.fromarray(pixels)).permute(1, 2, 0).numpy() if cropped else pixels
        assert [prediction.probabilities[name] for name in CLASSES] == pytest.approx(expected(seen), abs=1e-6)
        assert list(prediction.probabilities.values()) == sorted(prediction.probabilities.values(), reverse=True)


def test_facts_survive_the_file(tmp_path: Path) -> None:
    facts = ExportedFacts(
        classes=("é", "b"),
        decode_side=7,
        preprocessings=(WAY, replace(WAY, crop_mode="border")),
        cropped=True,
        ranges=SampleRanges.of({"uint16": (0, 4095)}),
        split={"seed": 3},
        about={"rule": "mean", "temperature": 1.5},
    )
    path = write(tmp_path / "f.onnx", facts.to_metadata())
    assert open_exported(path).facts == facts
    assert facts.size == (24, 32)


def test_predict_names_images_and_those_that_it_cannot_read(file: Path, tmp_path: Path) -> None:
    photos = write_images(tmp_path / "photos", images=2)
    (photos / "red" / "broken.png").write_bytes(b"no image")
    done = tlkit("predict", file, photos, "--format", "csv", "--top", 1)
    assert done.code == 1
    rows = [line.split(",") for line in done.out.splitlines()[1:]]
    assert len(rows) == 7
    for path, label, _, error in rows:
        assert (Path(path).parent.name == label) is (not error)


def test_evaluate_scores_the_test_split_and_says_what_it_does_not_know(file: Path, tmp_path: Path) -> None:
    photos = write_images(tmp_path / "photos")
    done = tlkit("evaluate", file, "--data", photos, "--json")
    assert done.json["metrics"]["accuracy"] == 1.0
    assert (done.json["split"], done.json["kind"]) == ("test", "unknown")
    assert "no record of the images" in done.err
    every = tlkit("evaluate", file, "--data", photos, "--json", "--split", "all").json
    assert every["images"] == 36


def test_classes_that_the_file_does_not_know(file: Path, tmp_path: Path) -> None:
    done = tlkit("evaluate", file, "--data", write_images(tmp_path / "photos", tuple(COLOURS)))
    assert done.code == 2
    assert "grey" in done.err


def change(**entries: str) -> dict[str, str]:
    return {**FACTS.to_metadata(), **entries}


RECORD = FACTS.to_metadata()["tlkit"]
CARD = FACTS.to_metadata()["preprocessing"]
BROKEN: dict[str, tuple[dict[str, str], str]] = {
    "nothing": ({}, "was not written by tlkit export"),
    "other metadata": ({"classes": '["a"]'}, "was not written by tlkit export"),
    "no JSON": (change(tlkit="{"), "'tlkit' is broken"),
    "nested": (change(tlkit="[" * 100_000), "'tlkit' is broken"),
    "a list": (change(tlkit="[]"), "'tlkit' is broken"),
    "later": (change(tlkit=RECORD.replace('"format": 1', '"format": 9')), "written by a later tl-kit"),
    "no classes": (change(classes="[]"), "no class names"),
    "two of a name": (change(classes='["a", "a"]'), "class names must differ"),
    "side": (change(decode_side="-3"), "'decode_side' is broken"),
    "sides": (change(decode_side="9" * 30), "'decode_side' is broken"),
    "no preprocessing": (change(preprocessing="[]"), "'preprocessing' is broken"),
    "huge": (change(preprocessing=CARD.replace("[3, 24, 32]", "[3, 24, 1000000]")), "'preprocessing' is broken"),
    "zero": (change(preprocessing=CARD.replace('"std": [0.5', '"std": [0')), "'preprocessing' is broken"),
    "kind": (change(preprocessing=CARD.replace("bicubic", "__class__")), "'preprocessing' is broken"),
    "tiny crop": (change(preprocessing=CARD.replace('"crop_pct": ', '"crop_pct": 0.0')), "'preprocessing' is broken"),
    "mode": (change(preprocessing=CARD.replace('"squash"', "[1]")), "'preprocessing' is broken"),
    "cropped": (change(tlkit=RECORD.replace("false", "3")), "'preprocessing' is broken"),
    "split": (change(tlkit=RECORD.replace('"split": {}', '"split": []')), "split"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_files_of_others_and_broken_ones_are_refused(tmp_path: Path, name: str) -> None:
    metadata, message = BROKEN[name]
    done = tlkit("predict", write(tmp_path / "f.onnx", metadata), tmp_path)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") <= 2


def test_what_is_no_onnx_file_or_is_missing(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", images=1)
    (tmp_path / "text.onnx").write_text("hello")
    for name, message in (("text.onnx", "onnxruntime cannot open it"), ("no.onnx", "no such file")):
        done = tlkit("predict", tmp_path / name, tmp_path / "photos")
        assert (done.code, done.out) == (2, "")
        assert message in done.err


def test_options_that_a_file_does_not_have(file: Path, tmp_path: Path) -> None:
    photos = write_images(tmp_path / "photos", images=1)
    with pytest.raises(ConfigError, match=r"--crops and --scales: .* leave them out"):
        tl_kit.predict(file, photos, crops=CropConfig(crops=5))
    with pytest.raises(ConfigError, match="--mc-dropout: "):
        tl_kit.evaluate(file, photos, mc_dropout=3)
    with pytest.raises(ConfigError, match=r"--device cuda: .* runs on the CPU"):
        tl_kit.predict(file, photos, runtime=RuntimeConfig(device="cuda"))


def test_of_other_formats_the_line_names_the_one_that_is_run(tmp_path: Path) -> None:
    for name in ("a.pt2", "a.xml", "a.bin"):
        (tmp_path / name).touch()
        with pytest.raises(CheckpointError, match=f"{name}: is a file, not a checkpoint; of exported files .* onnx"):
            tl_kit.predict(tmp_path / name, [tmp_path])


def test_where_a_folder_is_needed_the_line_says_so(file: Path) -> None:
    with pytest.raises(CheckpointError, match="predict and evaluate take an exported file; here give the folder"):
        tl_kit.load(file)


def test_without_onnxruntime(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tl_kit.optional_packages.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'needs onnxruntime; run pip install "tl-kit\[export\]"'):
        tl_kit.predict(file, write_images(tmp_path / "photos", images=1))


def test_images_of_more_bits_than_the_file_knows_are_told(file: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (24, 32), dtype=np.uint16)
    Image.fromarray(pixels).save(tmp_path / "deep.png")
    done = tlkit("predict", file, tmp_path / "deep.png")
    assert "warning: 1 image has more than 8 bits a sample, and the model knows no range for them" in done.err
    ranges = SampleRanges.of({"uint16": (0, 4095)})
    write(tmp_path / "f.onnx", replace(FACTS, ranges=ranges).to_metadata())
    assert "warning" not in tlkit("predict", tmp_path / "f.onnx", tmp_path / "deep.png").err


def test_more_classes_than_there_are_make_no_columns(file: Path, tmp_path: Path) -> None:
    photos = write_images(tmp_path / "photos", images=1)
    done = tlkit("predict", file, photos, "--format", "csv", "--top", 5000)
    header = done.out.splitlines()[0]
    assert header == "path,label,probability,label_2,probability_2,label_3,probability_3,error"
    assert tlkit("predict", file, photos, "--top", 5000, "--out", tmp_path / "found.csv").code == 0
    assert (tmp_path / "found.csv").read_text().splitlines()[0] == header
