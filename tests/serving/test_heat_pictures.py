"""Heat maps of the server: those of class_maps, over the image."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image
from starlette.testclient import TestClient
from torch.nn import functional

import tl_kit
from tests.exporting.checkpoints import write_checkpoint
from tests.exporting.saved import together
from tests.inference.test_exported import FACTS, write
from tests.serving.conftest import FP32, client_of
from tests.serving.test_answers import BAD, GOOD, form
from tl_kit.images.decode import decode
from tl_kit.images.transforms import Preprocessing, normalize
from tl_kit.inference.class_maps import class_maps
from tl_kit.serving.heat_pictures import seen_part

NAME = "large.jpg"
SIDE = 128  # the last feature map has more than one place


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("heat")
    members = [write_checkpoint(root / name, img_size=SIDE, seed=seed) for seed, name in enumerate(("one", "two"))]
    return together(root / "both", *members)


@pytest.fixture(scope="module")
def client(ensemble: Path) -> Iterator[TestClient]:
    with client_of(ensemble) as found:
        yield found


def picture(found: dict[str, Any]) -> Any:
    assert found["image"].startswith("data:image/png;base64,")
    image = Image.open(io.BytesIO(base64.b64decode(found["image"].partition(",")[2])))
    assert (image.format, image.mode) == ("PNG", "RGB")
    return np.asarray(image).astype(float)


def ask(client: TestClient, *names: str) -> list[dict[str, Any]]:
    files = {**GOOD, **BAD}
    reply = client.post("/predict?heat_map=true", files=form({name: files[name] for name in names}))
    assert reply.status_code == 200, reply.text
    return [row.get("heat_map") for row in reply.json()["predictions"]]


def test_the_mean_map_of_all_members_lies_over_what_each_sees(tmp_path: Path) -> None:
    """One member sees the middle 300 x 300 of 400 x 300 pixels times its crop, the other all of them, squashed."""
    middle = write_checkpoint(tmp_path / "middle", img_size=SIDE)
    whole = write_checkpoint(tmp_path / "whole", img_size=SIDE, crop_mode="squash", seed=1)
    folder = together(tmp_path / "both", middle, whole)
    with client_of(folder) as client:
        found = ask(client, NAME)[0]
    assert (found["members"], found["blank"], found["error"]) == (2, False, None)
    shown = picture(found)
    assert shown.shape == (300, 400, 3)
    predictor = tl_kit.load(folder, runtime=FP32)
    label = str(predictor.predict([GOOD[NAME]])[0].label)
    mean = np.zeros((300, 400))
    for member in predictor.members:
        way = member.preprocessing
        view = way.evaluate(decode(GOOD[NAME], min_side=way.min_side))
        heat = class_maps(member.model, normalize(view[None], way), [member.classes.index(label)])[0]
        height, width = (300, 400) if way.crop_mode == "squash" else (300, 300)
        height, width = (round(way.crop_pct * side) for side in (height, width))
        large = functional.interpolate(torch.tensor(heat)[None, None], size=(height, width), mode="bilinear")[0, 0]
        top, left = (300 - height) // 2, (400 - width) // 2
        mean[top : top + height, left : left + width] += large.numpy() / 2
    grey = np.asarray(Image.open(io.BytesIO(GOOD[NAME])).convert("L"))[..., None]
    wanted = 0.4 * grey + 0.6 * 255 * colormaps["inferno"](mean)[..., :3]
    assert np.abs(shown - wanted).mean() < 2  # levels; half pixels of the crop's edge are rounded in another way
    assert np.ptp(mean) > 0.5


@pytest.mark.parametrize(
    ("mode", "size", "part"),
    [
        ("center", (400, 300), (50, 0, 350, 300)),
        ("squash", (400, 300), (0, 0, 400, 300)),
        ("border", (400, 300), (0, -50, 400, 350)),
        ("center", (100, 5000), (0, 2450, 100, 2550)),
    ],
)
def test_the_part_that_a_network_sees(mode: str, size: tuple[int, int], part: tuple[int, ...]) -> None:
    way = Preprocessing((3, 64, 64), "bicubic", 1.0, mode, (0.5,) * 3, (0.5,) * 3)
    assert seen_part(*size, way) == pytest.approx(part, abs=1)


def test_only_where_asked_and_where_there_is_an_image(client: TestClient) -> None:
    found = ask(client, "text.jpg", "photo.jpg")
    assert found[0] is None
    assert found[1]["error"] is None
    rows = client.post("/predict", files=form(GOOD)).json()["predictions"]
    assert not [row for row in rows if "heat_map" in row]
    reply = client.post("/predict?heat_map=true", files=form(GOOD))
    assert (reply.status_code, reply.json()["error"]) == (
        413,
        "too many images with a heat map: at most 4 a request",
    )


def test_predictions_after_a_heat_map_are_as_before(client: TestClient) -> None:
    before = client.post("/predict?top=0", files=form(GOOD)).json()
    ask(client, NAME)
    after = client.post("/predict?top=0", files=form(GOOD)).json()
    for one, other in zip(before["predictions"], after["predictions"], strict=True):
        assert [each["probability"] for each in one["top"]] == pytest.approx(
            [each["probability"] for each in other["top"]], abs=1e-6
        )


def test_an_exported_file_says_that_it_has_none(tmp_path: Path) -> None:
    with client_of(write(tmp_path / "colour.onnx", FACTS.to_metadata())) as client:
        assert client.get("/metadata").json()["limits"]["heat_maps"] == 0
        found = ask(client, NAME)[0]
        assert ask(client, *GOOD) == [found] * len(GOOD)
    assert found == {
        "image": None,
        "members": 0,
        "blank": True,
        "error": "an exported file has no heat maps: serve its checkpoint",
    }
