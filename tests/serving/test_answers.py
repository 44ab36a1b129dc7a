"""Answers of the server: those of predict for good images, and a reason for all others."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import tl_kit
from tests.exporting.checkpoints import CLASSES, photo
from tests.inference.test_exported import FACTS, write
from tests.serving.conftest import FP32, client_of
from tl_kit.config import DecodeConfig, ServeLimits
from tl_kit.errors import CheckpointError
from tl_kit.inference.predictor import Predictor

Files = dict[str, bytes]


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def turned_photo() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(photo(60, 40), "JPEG", exif=exif)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb() -> bytes:
    """A PNG of 60,000 x 60,000 pixels in its header."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


GOOD: Files = {
    "photo.jpg": saved(photo(64, 48), "JPEG"),
    "large.jpg": saved(photo(400, 300, 3), "JPEG"),
    "turned.jpg": turned_photo(),
    "deep.tif": saved(Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21), "TIFF"),
    "moving.gif": saved(photo(40, 40, 1), "GIF", save_all=True, append_images=[photo(40, 40, 2)]),
    "clear.png": saved(photo(33, 47).convert("RGBA"), "PNG"),
    "<img src=x>.png": saved(photo(50, 50, 4), "PNG"),
}
BAD: Files = {
    "text.jpg": b"not an image at all, but a text",
    "empty.png": b"",
    "cut.jpg": GOOD["large.jpg"][:3000],
    "bomb.png": bomb(),
}


def form(files: Files) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("files", (name, data, "application/octet-stream")) for name, data in files.items()]


def expected(checkpoint: Path, files: Files, folder: Path) -> list[tl_kit.Prediction]:
    paths = []
    for place, data in enumerate(files.values()):
        paths.append(folder / str(place))
        paths[-1].write_bytes(data)
    return tl_kit.predict(checkpoint, paths, decode=DecodeConfig(max_pixels=ServeLimits().pixels), runtime=FP32)


def check(rows: list[dict[str, Any]], predictions: list[tl_kit.Prediction]) -> None:
    for row, prediction in zip(rows, predictions, strict=True):
        found = {each["label"]: each["probability"] for each in row["top"]}
        assert found == pytest.approx(prediction.probabilities, abs=1e-6)  # batches of other shapes, other last bits
        assert list(found) == list(prediction.probabilities)
        assert (row["label"], row["error"]) == (prediction.label, prediction.error)
        assert row["probability"] == (row["top"][0]["probability"] if row["top"] else None)


def test_a_form_and_json_give_what_predict_gives(client: TestClient, ensemble: Path, tmp_path: Path) -> None:
    files = {**GOOD, **BAD}
    predictions = expected(ensemble, files, tmp_path)
    assert [each.error is None for each in predictions] == [True] * len(GOOD) + [False] * len(BAD)
    bare = [base64.b64encode(data).decode() for data in files.values()]
    named = [{"name": name, "data": f"data:image/png;base64,{text}"} for name, text in zip(files, bare, strict=True)]
    replies = [
        client.post("/predict?top=0", files=form(files)),
        client.post("/predict?top=0", json={"images": bare}),
        client.post("/predict?top=0", json={"images": named}),
    ]
    for reply in replies:
        assert reply.status_code == 200, reply.text
        check(reply.json()["predictions"], predictions)
    names = [[row["name"] for row in reply.json()["predictions"]] for reply in replies]
    assert names == [list(files), [f"image {place}" for place in range(len(files))], list(files)]


def test_each_members_vote(client: TestClient, ensemble: Path) -> None:
    rows = client.post("/predict?votes=true&top=2", files=form(GOOD)).json()["predictions"]
    members = tl_kit.load(ensemble, runtime=FP32)
    stack, _ = members.member_probabilities(list(GOOD.values()))
    for place, row in enumerate(rows):
        assert [vote["member"] for vote in row["members"]] == ["01-one", "02-two"]
        for vote, probabilities in zip(row["members"], stack[:, place], strict=True):
            assert vote["label"] == members.classes[int(probabilities.argmax())]
            assert vote["probability"] == pytest.approx(probabilities.max(), abs=1e-6)
            assert len(vote["top"]) == 2
    assert "members" not in client.post("/predict", files=form(GOOD)).json()["predictions"][0]


def test_several_crops(checkpoint: Path) -> None:
    crops = tl_kit.CropConfig(crops=5)
    predictions = tl_kit.load(checkpoint, crops=crops, runtime=FP32).predict(list(GOOD.values()))
    with client_of(checkpoint, crops=crops) as client:
        check(client.post("/predict?top=0", files=form(GOOD)).json()["predictions"], predictions)


def test_an_exported_file(tmp_path: Path) -> None:
    file = write(tmp_path / "colour.onnx", FACTS.to_metadata())
    files = {**GOOD, "text.jpg": BAD["text.jpg"]}
    with client_of(file) as client:
        reply = client.post("/predict?top=0&votes=true", files=form(files))
        check(reply.json()["predictions"], expected(file, files, tmp_path))
        facts = client.get("/metadata").json()
    assert (facts["name"], facts["members"]) == ("colour.onnx", ["colour.onnx"])
    assert (facts["classes"], facts["input_sizes"]) == (["red", "green", "blue"], [[24, 32]])


@pytest.mark.parametrize(("name", "reason"), [("text.jpg", "not an image"), ("bomb.png", "too large"), ("cut.jpg", "")])
def test_without_any_image_the_reason_is_the_answer(client: TestClient, name: str, reason: str) -> None:
    reply = client.post("/predict", files=form({name: BAD[name]}))
    assert reply.status_code == 422
    content = reply.json()
    assert content["error"].startswith(f"{name}: {reason}")
    assert content["predictions"] == [
        {"name": name, "label": None, "probability": None, "top": [], "error": content["error"][len(name) + 2 :]}
    ]


def test_facts(client: TestClient) -> None:
    facts = client.get("/metadata").json()
    assert (facts["name"], facts["classes"], facts["members"]) == ("both", list(CLASSES), ["01-one", "02-two"])
    assert (facts["rule"], facts["input_sizes"], facts["version"]) == ("mean", [[32, 32]] * 2, tl_kit.__version__)
    limits = ServeLimits()
    assert facts["limits"]["files"] == limits.files
    assert facts["limits"]["image_bytes"] == limits.image_bytes
    assert client.get("/health").json() == {"status": "ok", "images_inside": 0}
    assert (client.head("/health").status_code, client.head("/health").content) == (200, b"")


def test_the_interface_describes_itself(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {"/predict", "/health", "/metadata"}
    asked = schema["paths"]["/predict"]["post"]
    assert set(asked["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    assert {"200", "413", "415", "422", "429"} <= set(asked["responses"])
    assert {each["name"] for each in asked["parameters"]} == {"top", "votes", "heat_map"}


JSON = {"content-type": "application/json"}
FORM_PART = b'\r\n--abc\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n'

REFUSED: list[tuple[str, dict[str, Any], int, str]] = [
    ("text", {"content": b"abc", "headers": {"content-type": "text/plain"}}, 415, "text/plain is not taken"),
    ("no type", {"content": b"abc"}, 415, "(none) is not taken"),
    ("no JSON", {"content": b"{", "headers": JSON}, 422, "cannot be read as JSON"),
    ("deep JSON", {"content": b"[" * 3_000, "headers": JSON}, 422, "cannot be read as JSON"),
    ("not UTF-8", {"content": b'{"images": ["\xff"]}', "headers": JSON}, 422, "cannot be read as JSON"),
    ("a list", {"json": ["abc"]}, 422, 'an object with "images" alone'),
    (
        "addresses",
        {"json": {"urls": ["http://127.0.0.1/"]}},
        403,
        "fetches no addresses (it was started without --urls)",
    ),
    ("both", {"json": {"images": ["QQ=="], "name": "x"}}, 422, 'an object with "images" alone'),
    ("no list", {"json": {"images": {"data": "QQ=="}}}, 422, 'an object with "images" alone'),
    ("empty", {"json": {}}, 422, 'an object with "images" alone'),
    ("numbers", {"json": {"images": [1]}}, 422, "image 0 is no base64 text"),
    ("none", {"json": {"images": []}}, 422, "no image in the request"),
    ("many", {"json": {"images": ["QQ=="] * 65}}, 413, "at most 64 a request"),
    ("many files", {"files": form({f"{n}.png": b"x" for n in range(65)})}, 413, "at most 64 a request"),
    ("a field", {"files": form(GOOD), "data": {"a": "b"}}, 422, "a field that is no file"),
    ("no boundary", {"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 422, "form cannot be read"),
    (
        "a damaged form",
        {"content": b"x" * 50, "headers": {"content-type": "multipart/form-data; boundary=abc"}},
        422,
        "",
    ),
    (
        "a form cut off in its second file",
        {
            "content": b"".join(FORM_PART % name + GOOD["large.jpg"][:2000] for name in (b"a.jpg", b"b.jpg")),
            "headers": {"content-type": "multipart/form-data; boundary=abc"},
        },
        422,
        "the form is cut off",
    ),
]


@pytest.mark.parametrize(
    ("options", "status", "text"), [each[1:] for each in REFUSED], ids=[each[0] for each in REFUSED]
)
def test_refused_bodies(client: TestClient, options: dict[str, Any], status: int, text: str) -> None:
    reply = client.post("/predict", **options)
    assert (reply.status_code, list(reply.json())) == (status, ["error"])
    assert text in reply.json()["error"]


def test_base64_in_lines(client: TestClient) -> None:
    text = base64.encodebytes(GOOD["large.jpg"]).decode()
    assert text.count("\n") > 10
    given = [text, text.replace("\n", "\r\n"), f"data:image/jpeg;base64,{text}", text.replace("\n", "")]
    rows = client.post("/predict", json={"images": given}).json()["predictions"]
    assert [row["error"] for row in rows] == [None] * 4
    assert len({row["label"] for row in rows}) == 1


def test_base64_that_is_none(client: TestClient) -> None:
    reply = client.post("/predict", json={"images": ["not base64!"]})
    assert (reply.status_code, reply.json()["error"]) == (422, "image 0: is no base64 text")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
        ("GET", "/page.html", 404),
        ("GET", "/docs", 404),
        ("GET", "/predict", 405),
        ("POST", "/predict/", 404),
        ("DELETE", "/health", 405),
        ("POST", "/predict?top=-1", 422),
        ("POST", "/predict?top=many", 422),
        ("POST", "/predict?heatmap=true", 422),
    ],
)
def test_addresses_that_are_none(client: TestClient, method: str, path: str, status: int) -> None:
    reply = client.request(method, path, follow_redirects=False)
    assert (reply.status_code, list(reply.json())) == (status, ["error"])
    assert reply.headers.get("allow") == ({"/predict": "POST", "/health": "GET"}[path] if status == 405 else None)


def test_too_large_a_file(ensemble: Path) -> None:
    with client_of(ensemble, limits=ServeLimits(image_bytes=1000)) as client:
        reply = client.post("/predict", files=form({"large.jpg": GOOD["large.jpg"]}))
        encoded = client.post("/predict", json={"images": [base64.b64encode(GOOD["large.jpg"]).decode()]})
        assert client.post("/predict", files=form({"small.jpg": BAD["text.jpg"]})).status_code == 422
    assert reply.status_code == encoded.status_code == 413
    assert reply.json()["error"].startswith("large.jpg: too large")


def test_too_many_pixels(ensemble: Path) -> None:
    with client_of(ensemble, limits=ServeLimits(pixels=64 * 48)) as client:
        rows = client.post("/predict", files=form(GOOD)).json()["predictions"]
    assert [row["name"] for row in rows if row["error"] is None] == [
        name for name, data in GOOD.items() if np.prod(Image.open(io.BytesIO(data)).size) <= 64 * 48
    ]


def test_a_failure_of_ours_is_a_line_for_us_and_no_secret(ensemble: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def fail(*_: object) -> None:
        raise CheckpointError("/secret/folder: outputs are not finite")

    with client_of(ensemble, tell=told.append) as client:
        with monkeypatch.context() as patch:
            patch.setattr(Predictor, "read_probabilities", fail)
            reply = client.post("/predict", files=form(GOOD))
        assert reply.status_code == 500
        assert "secret" not in reply.text
        assert "Traceback" not in reply.text
        assert told == ["POST '/predict' failed: CheckpointError: /secret/folder: outputs are not finite"]
        assert client.post("/predict", files=form(GOOD)).status_code == 200


def test_odd_names_stay_text(client: TestClient) -> None:
    reply = client.post("/predict", headers=JSON, content=rb'{"images": [{"name": "\ud800</script>", "data": ""}]}')
    assert (reply.status_code, reply.headers["content-type"]) == (422, "application/json")
    long = client.post("/predict", json={"images": [{"name": "x" * 9999, "data": ""}]})
    assert len(json.loads(long.text)["predictions"][0]["name"]) == 255


@pytest.mark.parametrize(
    ("parameter", "boundary"),
    [
        ('boundary="<abc>"', b"<abc>"),
        ("boundary=x; boundary=abc", b"abc"),
        ('boundary="a b c"', b"a b c"),
        ("BOUNDARY=abc", b"abc"),
    ],
)
def test_a_whole_form_is_read_whatever_its_boundary_is(client: TestClient, parameter: str, boundary: bytes) -> None:
    part = FORM_PART.replace(b"--abc", b"--" + boundary) % b"a.jpg" + GOOD["large.jpg"] + b"\r\n--" + boundary
    headers = {"content-type": f"multipart/form-data; {parameter}"}
    reply = client.post("/predict", content=part + b"--\r\nan epilogue", headers=headers)
    assert (reply.status_code, reply.json()["predictions"][0]["error"]) == (200, None)
    reply = client.post("/predict", content=part, headers=headers)
    assert (reply.status_code, reply.json()["error"][:23]) == (422, "the form is cut off: th")


@pytest.mark.parametrize(
    "parameter", ["boundary*=idna''abc", "boundary*=a''a; boundary*0=b", "boundary*=undefined''abc"]
)
def test_no_boundary_is_an_error_of_the_server(client: TestClient, parameter: str) -> None:
    headers = {"content-type": f"multipart/form-data; {parameter}"}
    assert client.post("/predict", content=b"--abc--", headers=headers).status_code == 422
