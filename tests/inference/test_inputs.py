"""What ``predict`` takes: the same pixels give the same probabilities in any form, and the rest is refused in time."""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor
from torchvision.tv_tensors import Image as TvImage

import tl_kit
from tests.helpers import quick, write_images
from tl_kit import Predictor, TlKitError
from tl_kit.config import DecodeConfig, RuntimeConfig
from tl_kit.errors import InputError
from tl_kit.inference import predictor as predictor_module

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
GREY = PHOTO[..., 0].copy()
CUTOUT = np.dstack([PHOTO, np.tile(np.arange(48, dtype=np.uint8) * 5, (40, 1))])


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    root = tmp_path_factory.mktemp("inputs")
    run = quick(write_images(root / "images"), root / "run", epochs=1)
    return tl_kit.load(run.checkpoint, runtime=RuntimeConfig(precision="fp32"))


@pytest.fixture
def png(tmp_path: Path) -> Path:
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def probabilities(predictor: Predictor, given: Any) -> dict[str, float]:
    (found,) = predictor.predict(given)
    assert found.error is None
    return found.probabilities


class Place(os.PathLike[str]):
    """A path of somebody else's kind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


class Stream:
    """Has read, and nothing else of a file."""

    def __init__(self, content: bytes) -> None:
        self.read = io.BytesIO(content).read


def channels_first(pixels: np.ndarray[Any, Any]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


FORMS: dict[str, Callable[[Path], Any]] = {
    "str": str,
    "another path": Place,
    "NumPy's str": lambda path: np.str_(path),
    "an array of one path": lambda path: np.array(str(path)),
    "bytes": lambda path: path.read_bytes(),
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "BytesIO": lambda path: io.BytesIO(path.read_bytes()),
    "a stream": lambda path: Stream(path.read_bytes()),
    "Pillow, from the file": Image.open,
    "Pillow": lambda path: Image.fromarray(PHOTO),
    "array": lambda path: PHOTO,
    "array, upside down in memory": lambda path: PHOTO[::-1].copy()[::-1],
    "array, BGR in memory": lambda path: PHOTO[..., ::-1].copy()[..., ::-1],
    "array, column by column": lambda path: np.asfortranarray(PHOTO),
    "array that nobody may write": lambda path: np.frombuffer(PHOTO.tobytes(), np.uint8).reshape(PHOTO.shape),
    "a batch of one": lambda path: PHOTO[None],
    "tensor": lambda path: channels_first(PHOTO),
    "tensor, channels last in memory": lambda path: torch.from_numpy(PHOTO).permute(2, 0, 1),
    "tensor of torchvision's": lambda path: pil_to_tensor(Image.open(path)),
    "tv_tensor": lambda path: TvImage(channels_first(PHOTO)),
    "a batch of one tensor": lambda path: channels_first(PHOTO)[None],
    "parameter": lambda path: torch.nn.Parameter(channels_first(PHOTO), requires_grad=False),
    "list": lambda path: [PHOTO],
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_pixels_give_the_same_numbers(form: str, predictor: Predictor, png: Path) -> None:
    assert probabilities(predictor, FORMS[form](png)) == probabilities(predictor, png)


@pytest.mark.parametrize("pixels", [GREY, CUTOUT], ids=["grey", "alpha"])
def test_grey_and_transparent_ones_are_as_from_a_file(
    pixels: np.ndarray[Any, Any], predictor: Predictor, tmp_path: Path
) -> None:
    Image.fromarray(pixels).save(tmp_path / "x.png")
    expected = probabilities(predictor, tmp_path / "x.png")
    assert expected != probabilities(predictor, PHOTO)
    deep = pixels if pixels.ndim == 3 else pixels[..., None]
    forms = [pixels, deep, deep[None], channels_first(deep), channels_first(deep)[None], Image.fromarray(pixels)]
    forms += [torch.from_numpy(pixels)] if pixels.ndim == 2 else []
    for form in forms:
        assert probabilities(predictor, form) == expected


def test_open_files_are_read_from_where_they_stand(predictor: Predictor, png: Path, tmp_path: Path) -> None:
    expected = probabilities(predictor, png)
    (tmp_path / "behind").write_bytes(b"four" + png.read_bytes())
    with (tmp_path / "behind").open("rb") as file:
        file.seek(4)
        assert probabilities(predictor, file) == expected
        with pytest.raises(InputError, match=r"read to its end.*seek\(0\)"):
            predictor.predict(file)
    with tempfile.SpooledTemporaryFile() as spooled, png.open("rb", buffering=0) as raw:
        spooled.write(png.read_bytes())
        spooled.seek(0)
        found = predictor.predict([spooled, raw])
    assert [each.probabilities for each in found] == [expected] * 2
    (empty,) = predictor.predict(io.BytesIO())
    assert empty.error == "empty file"


class Column:
    """What a pandas Series is to predict: an iterable with keys and one dimension."""

    ndim = 1

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def keys(self) -> range:
        return range(len(self.values))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values)


SEVERAL: dict[str, Callable[[list[Path]], Any]] = {
    "list": list,
    "tuple": tuple,
    "generator": lambda paths: (path for path in paths),
    "glob": lambda paths: sorted(paths[0].parent.glob("*.png")),
    "scandir": lambda paths: sorted(os.scandir(paths[0].parent), key=lambda entry: entry.name),
    "keys": lambda paths: dict.fromkeys(paths).keys(),
    "array of texts": lambda paths: np.array([str(path) for path in paths]),
    "array of paths": lambda paths: np.array(paths),
    "a column of a table": lambda paths: Column([str(path) for path in paths]),
    "mixed": lambda paths: [str(paths[0]), paths[1].read_bytes(), Image.open(paths[2])],
    "arrays": lambda paths: [np.asarray(Image.open(path)) for path in paths],
    "an array of n images": lambda paths: np.stack([np.asarray(Image.open(path)) for path in paths]),
    "an array of objects": lambda paths: _objects([np.asarray(Image.open(path)) for path in paths]),
    "a tensor of n images": lambda paths: torch.stack([pil_to_tensor(Image.open(path)) for path in paths]),
}


def _objects(items: list[Any]) -> np.ndarray[Any, Any]:
    found = np.empty(len(items), dtype=object)
    found[:] = items
    return found


@pytest.mark.parametrize("form", SEVERAL)
def test_several_come_back_in_order(form: str, predictor: Predictor, tmp_path: Path) -> None:
    paths = []
    for number in range(3):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(np.roll(PHOTO, 40 * number) // (number + 1)).save(paths[-1])
    expected = [each.probabilities for each in predictor.predict(paths)]
    assert len({tuple(row.items()) for row in expected}) == 3
    assert [each.probabilities for each in predictor.predict(SEVERAL[form](paths))] == expected
    unordered = {each.source: each.probabilities for each in predictor.predict(set(paths))}
    assert unordered == dict(zip(map(str, paths), expected, strict=True))


def test_none_and_sources(predictor: Predictor, png: Path) -> None:
    for empty in ([], (), iter(()), np.empty((0, 8, 8, 3), np.uint8), torch.empty((0, 3, 8, 8), dtype=torch.uint8)):
        assert predictor.predict(empty) == []
    found = predictor.predict([png, PHOTO, Image.fromarray(GREY), png.read_bytes(), channels_first(PHOTO)])
    names = [str(png), "image 1 (ndarray)", "image 2 (Image)", "image 3 (bytes)", "image 4 (Tensor)"]
    assert [each.source for each in found] == names


class Asynchronous:
    """An upload of an asynchronous server."""

    async def read(self, size: int = -1) -> bytes:
        return b""


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "None": (lambda: None, "this is None"),
    "a number": (lambda: 3, "this is an int"),
    "an address": (lambda: "https://example.com/photo.jpg", r"https://example\.com/photo\.jpg: an address.*download"),
    "an address as a path": (lambda: Path("https://example.com/a.jpg"), "an address.*download"),
    "an address in a list": (lambda: [PHOTO, "s3://bucket/a.jpg"], "image 1 is s3://bucket/a.jpg: an address"),
    "a data URL": (lambda: "data:image/png;base64," + "A" * 9000, "an address"),
    "an empty text": (lambda: " ", "an empty path"),
    "floats": (lambda: PHOTO / 255, r"ndarray of float64 \(40, 48, 3\): .*numpy.rint"),
    "a float tensor": (lambda: channels_first(PHOTO) / 255, r"Tensor of float32 \(3, 40, 48\): .*torch.uint8"),
    "bfloat16": (lambda: channels_first(PHOTO).bfloat16(), "bfloat16"),
    "int64": (lambda: PHOTO.astype(np.int64), r"ndarray of int64 \(40, 48, 3\)"),
    "uint16": (lambda: PHOTO.astype(np.uint16), "uint16.*16-bit PNG"),
    "bool": (lambda: GREY > 9, "ndarray of bool"),
    "a mask": (lambda: np.ma.masked_array(GREY, GREY > 9), "MaskedArray of uint8"),
    "bytes in an array": (lambda: np.array([b"a", b"b"]), "ndarray of"),
    "encoded bytes in an array": (lambda: np.zeros(99, np.uint8), r"uint8 \(99,\): .*bytes"),
    "channels first in an array": (lambda: PHOTO.transpose(2, 0, 1), r"\(3, 40, 48\): channels come last"),
    "channels last in a tensor": (lambda: torch.from_numpy(PHOTO), r"\(40, 48, 3\): channels come first"),
    "a batch with channels first": (lambda: PHOTO.transpose(2, 0, 1)[None], r"transpose\(0, 2, 3, 1\)"),
    "a batch with channels last": (lambda: torch.from_numpy(PHOTO)[None], r"permute\(0, 3, 1, 2\)"),
    "two channels": (lambda: PHOTO[..., :2], r"\(40, 48, 2\)"),
    "five dimensions": (lambda: PHOTO[None, None], r"\(1, 1, 40, 48, 3\)"),
    "no pixels": (lambda: PHOTO[:0], "without pixels"),
    "no dimension": (lambda: np.uint8(3), "this is an? uint8"),
    "objects": (lambda: np.array([[1, None]], dtype=object), "ndarray of object"),
    "an object": (lambda: np.array(None), "ndarray of object"),
    "sparse": (lambda: torch.from_numpy(GREY).to_sparse(), "Tensor of uint8"),
    "without storage": (lambda: torch.empty((3, 8, 8), dtype=torch.uint8, device="meta"), "Tensor of uint8"),
    "a dictionary": (lambda: {"a": PHOTO}, "this is a dict"),
    "a table": (lambda: type("DataFrame", (Column,), {"ndim": 2})([1]), "this is a DataFrame"),
    "numbers in a list": (lambda: GREY.tolist(), "image 0 is a list"),
    "pairs": (lambda: [(PHOTO, 1)], "image 0 is a tuple: of images and labels give the images"),
    "a hole in a list": (lambda: [PHOTO, None], "image 1 is None"),
    "a hole in a generator": (lambda: (x for x in [PHOTO, 3.5]), "image 1 is a float"),
    "a batch in a list": (lambda: [PHOTO[None]], "image 0 is .*: a batch among other images"),
    "a file opened as text": (lambda: io.StringIO("x"), "StringIO, opened as text.*'rb'"),
    "a closed file": (lambda: _closed_file(), "cannot be read: .*closed"),
    "a file of texts": (lambda: type("Odd", (), {"read": lambda self, size: "text"})(), r"read\(\) gives str"),
    "an asynchronous file": (Asynchronous, r"read\(\) gives coroutine"),
}


def _closed_file() -> io.BytesIO:
    file = io.BytesIO(b"x")
    file.close()
    return file


@pytest.mark.parametrize("case", REFUSED)
def test_the_rest_is_refused_before_a_model_runs(
    case: str, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, message = REFUSED[case]
    monkeypatch.setattr(predictor_module, "run_probabilities", lambda *_, **__: pytest.fail("a model ran"))
    with pytest.raises(InputError, match=message) as caught:
        predictor.predict(make())
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, TlKitError)
    assert "\n" not in str(caught.value)
    if not re.search("address|read", message):
        assert "predict takes a path" in str(caught.value)
    assert len(str(caught.value)) < 700


def test_a_stream_without_an_end_is_refused(predictor: Predictor) -> None:
    endless = type("Endless", (), {"read": lambda self, size: bytes(size)})()
    small = predictor_module.replace(predictor, decode=DecodeConfig(max_pixels=1))
    with pytest.raises(InputError, match="too large"):
        small.predict(endless)


def test_a_path_that_looks_like_an_address_and_is_there(
    predictor: Predictor, png: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(png.parent)
    Path("https:").mkdir()
    odd = png.rename("https:/photo.png")
    assert predictor.predict(odd)[0].error is None
    assert predictor.predict("https://photo.png")[0].error is None


def test_predict_with_a_checkpoint_takes_paths_alone(predictor: Predictor) -> None:
    for empty in ("", ["x.png", ""]):
        with pytest.raises(InputError, match="an empty path is given"):
            tl_kit.predict(predictor.path, empty)
    for given in (None, 3, PHOTO, [PHOTO], {"a": 1}, [None]):
        with pytest.raises(InputError, match=r"tl_kit\.load"):
            tl_kit.predict(predictor.path, given)
