"""Heat maps of the server: those of class_maps, over what the network sees."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

import tl_kit
from tests.exporting.checkpoints import write_checkpoint
from tests.exporting.saved import together
from tests.inference.test_exported import FACTS, write
from tests.serving.conftest import FP32, client_of
from tests.serving.test_answers import BAD, GOOD, form
from tl_kit.images.decode import decode
from tl_kit.images.transforms import normalize
from tl_kit.inference.class_maps import class_maps

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


def drawn(folder: Path, data: bytes) -> Any:
    """A grey picture, tinted by the mean of the members' maps."""
    predictor = tl_kit.load(folder, runtime=FP32)
    label = predictor.classes.index(str(predictor.predict([data])[0].label))
    way = predictor.members[0].preprocessing
    view = way.evaluate(decode(data, min_side=way.min_side))
    maps = [
        class_maps(member.model, normalize(view[None], way), [member.classes.index(predictor.classes[label])])[0]
        for member in predictor.members
        if member.preprocessing == way
    ]
    share = 0.8 * np.mean(maps, axis=0)[..., None]
    grey = np.tensordot(view.permute(1, 2, 0).numpy(), (0.299, 0.587, 0.114), 1)[..., None]
    return (1 - share) * grey + share * np.array((255, 140, 0))


def test_the_mean_map_of_the_members_over_their_view(client: TestClient, ensemble: Path) -> None:
    found = ask(client, NAME)[0]
    assert (found["members"], found["blank"], found["error"]) == (2, False, None)
    shown = picture(found)
    assert shown.shape == (SIDE, SIDE, 3)
    assert np.abs(shown - drawn(ensemble, GOOD[NAME])).max() < 2  # levels
    assert np.ptp(shown[..., 0] - shown[..., 2]) > 20  # not grey everywhere


def test_members_that_see_another_part_are_left_out(ensemble: Path, tmp_path: Path) -> None:
    first, second = (ensemble.parent / name for name in ("one", "two"))
    other = write_checkpoint(tmp_path / "other", img_size=SIDE, crop_mode="squash", seed=2)
    folder = together(tmp_path / "three", first, other, second)
    with client_of(folder) as client:
        found = ask(client, NAME)[0]
    assert found["members"] == 2
    assert np.abs(picture(found) - drawn(folder, GOOD[NAME])).max() < 2


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
    assert found == {
        "image": None,
        "members": 0,
        "blank": True,
        "error": "an exported file has no heat maps: serve its checkpoint",
    }
