"""transformers and timm open a checkpoint folder, and give what ``predict`` gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

import tl_kit
from tests.exporting.checkpoints import CLASSES, photo, write_checkpoint
from tests.helpers import quick, write_images
from tl_kit.images.transforms import normalize
from tl_kit.storage.checkpoint import load_checkpoint
from tl_kit.zoo.model_card import read_card

# Of each a small network: convolutions, attention, both, and what keeps tensors that are in no file.
FAMILIES = (
    ("test_resnet", 32),
    ("test_vit", 32),
    ("test_vit4", 48),
    ("test_efficientnet", 32),
    ("test_efficientnet_ln", 32),
    ("test_convnext", 32),
    ("test_byobnet", 32),
    ("test_nfnet", 32),
    ("test_mambaout", 32),
    ("tf_efficientnet_lite0", 32),
    ("tinynet_e", 64),
    ("regnetx_002", 32),
    ("mobilenetv3_small_050", 32),
    ("mobilenetv4_conv_small_035", 32),
    ("ghostnet_050", 32),
    ("densenet121", 32),
    ("mixer_s32_224", None),
    ("eva02_tiny_patch14_224", 56),
    ("levit_128s", None),
    ("xcit_nano_12_p16_224", 32),
    ("crossvit_tiny_240", None),
    ("mobilevitv2_050", 64),
    ("fastvit_t8", 64),
    ("repvit_m0_9", 32),
)
TOLERANCE = 1e-5
"""Of a probability, in fp32: both run the same layers on the same pixels, in batches of another layout."""


def answers(folder: Path, image: Any) -> dict[str, float]:
    """What transformers' pipeline gives for each class."""
    classify = pipeline("image-classification", str(folder), device="cpu")
    found = classify(image, top_k=classify.model.config.num_labels)
    return {row["label"]: row["score"] for row in found}


@pytest.mark.parametrize(("name", "side"), FAMILIES, ids=[name for name, _ in FAMILIES])
def test_transformers_builds_the_same_network(name: str, side: int | None, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "run", name, img_size=side)
    ours = load_checkpoint(folder).model
    theirs: Any = AutoModelForImageClassification.from_pretrained(folder).eval()
    for kind in ("parameters", "buffers"):  # also those that no file holds
        own = dict(getattr(ours, f"named_{kind}")())
        found = dict(getattr(theirs.timm_model, f"named_{kind}")())
        assert own.keys() == found.keys()
        assert all(torch.equal(tensor, found[key]) for key, tensor in own.items())
    assert tuple(theirs.config.id2label[index] for index in range(3)) == CLASSES
    assert theirs.config.label2id == {label: index for index, label in enumerate(CLASSES)}
    pixels = AutoImageProcessor.from_pretrained(folder)([photo(90, 61), photo(70, 70, seed=1)])["pixel_values"]
    with torch.inference_mode():
        logits, own = theirs(pixels).logits, ours(pixels)
    apart = (own[0] - own[1]).abs().max().item()
    assert apart > 1e-4, "two pictures have two answers"
    assert torch.allclose(logits, own, rtol=1e-5, atol=1e-3 * apart)


@pytest.mark.parametrize(
    ("name", "crop_mode"),
    [("test_resnet", "center"), ("test_resnet", "squash"), ("test_vit", "border"), ("tf_efficientnet_lite0", "center")],
)
def test_the_pipeline_gives_what_predict_gives(name: str, crop_mode: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "run", name, img_size=48, crop_mode=crop_mode)
    files = [tmp_path / f"{number}.jpg" for number in range(3)]
    for file, size in zip(files, [(90, 61), (40, 200), (20, 20)], strict=True):
        photo(*size).save(file, quality=90)
    predictions = tl_kit.load(folder).predict(files)
    preprocessing, processor = load_checkpoint(folder).preprocessing, AutoImageProcessor.from_pretrained(folder)
    for file, ours in zip(files, predictions, strict=True):
        theirs = answers(folder, str(file))
        assert theirs == pytest.approx(ours.probabilities, abs=TOLERANCE)
        assert max(theirs, key=theirs.__getitem__) == ours.label
        with Image.open(file) as image:
            pixels = processor(image)["pixel_values"]
            own = normalize(preprocessing.evaluate(image.convert("RGB"))[None], preprocessing)
        assert torch.equal(pixels, own), "the same pixels, to the last bit"


def test_of_a_large_photo_the_pixels_decide(tmp_path: Path) -> None:
    """tl-kit decodes a large JPEG at a fraction of its size: the network gets other pixels, as the card says."""
    folder = write_checkpoint(tmp_path / "run")
    photo(900, 700).save(tmp_path / "large.jpg", quality=90)
    predictor, theirs = tl_kit.load(folder), answers(folder, str(tmp_path / "large.jpg"))
    with Image.open(tmp_path / "large.jpg") as image:
        (whole,) = predictor.predict(np.asarray(image))
    assert theirs == pytest.approx(whole.probabilities, abs=TOLERANCE)
    (reduced,) = predictor.predict(tmp_path / "large.jpg")
    assert theirs != pytest.approx(reduced.probabilities, abs=TOLERANCE)
    assert theirs == pytest.approx(reduced.probabilities, abs=0.05)
    assert "decode them whole" in (folder / "README.md").read_text()


def test_a_photo_that_lies_on_its_side_is_turned_by_both(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "run")
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(90, 50).save(tmp_path / "turned.jpg", exif=exif)
    (ours,) = tl_kit.load(folder).predict(tmp_path / "turned.jpg")
    assert answers(folder, str(tmp_path / "turned.jpg")) == pytest.approx(ours.probabilities, abs=TOLERANCE)
    photo(90, 50).save(tmp_path / "lying.jpg")
    (lying,) = tl_kit.load(folder).predict(tmp_path / "lying.jpg")
    assert lying.probabilities != pytest.approx(ours.probabilities, abs=100 * TOLERANCE)


def test_a_run_from_images_opens_in_both(tmp_path: Path) -> None:
    classes = ("red", "green", "blue")
    data = write_images(tmp_path / "images", classes)
    for colour, name in zip(classes, CLASSES[:2], strict=False):
        (data / colour).rename(data / name)
    run = Path(quick(data, tmp_path / "run", epochs=1).checkpoint)
    image = next((data / CLASSES[0]).iterdir())
    predictor = tl_kit.load(run)
    (ours,) = predictor.predict(image)
    assert set(predictor.classes) == {*CLASSES[:2], "blue"}
    assert answers(run, str(image)) == pytest.approx(ours.probabilities, abs=TOLERANCE)
    model = timm.create_model(f"local-dir:{run}", pretrained=True).eval()
    own, pixels = load_checkpoint(run).model, torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(model(pixels), own(pixels))
    assert tuple(model.pretrained_cfg["label_names"]) == predictor.classes


def test_checkpoints_of_earlier_versions_still_open(tmp_path: Path) -> None:
    """They have the number of classes among the model's arguments too, on which transformers fails."""
    folder = write_checkpoint(tmp_path / "run")
    photo(50, 50).save(tmp_path / "photo.png")
    before = tl_kit.load(folder).predict(tmp_path / "photo.png")
    config = json.loads((folder / "config.json").read_text())
    assert "num_classes" not in config["model_args"]
    config["model_args"]["num_classes"] = len(CLASSES)
    (folder / "config.json").write_text(json.dumps(config))
    assert read_card(folder / "config.json", error=tl_kit.TlKitError) == config
    assert tl_kit.load(folder).predict(tmp_path / "photo.png") == before
    assert timm.create_model(f"local-dir:{folder}", pretrained=True).num_classes == len(CLASSES)
    with pytest.raises(TypeError, match="num_classes"):
        AutoModelForImageClassification.from_pretrained(folder)
