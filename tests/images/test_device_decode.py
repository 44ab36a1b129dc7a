"""JPEGs on a GPU: which files go there, and the same geometry as Pillow's. nvJPEG itself is played by Pillow here."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from tests.data.preparing import photo
from tests.helpers import told
from tl_kit.config import CropConfig, DecodeConfig, RuntimeConfig
from tl_kit.data.manifest import Sample
from tl_kit.data.pixel_store import PixelStore
from tl_kit.data.scan import scan
from tl_kit.errors import CheckpointError
from tl_kit.images import device_decode
from tl_kit.images.decode import CHANGED
from tl_kit.images.device_decode import decode_on_device, plain_jpeg, resize_on_device, suits_device
from tl_kit.images.resize_matrix import KERNELS, resize_matrix
from tl_kit.images.transforms import Preprocessing
from tl_kit.inference import decoders
from tl_kit.inference.decoders import choose_decoder
from tl_kit.inference.run_models import FileReader
from tl_kit.storage.checkpoint_schema import check_meta

CPU = torch.device("cpu")
LIMITS = DecodeConfig()
P = Preprocessing((3, 32, 32), "bicubic", 0.875, "center", (0.5,) * 3, (0.5,) * 3, decoder="nvjpeg")


def jpeg(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


PLAIN: dict[str, bytes] = {
    "as it is": jpeg(photo(60, 50)),
    "coarse": jpeg(photo(60, 50), quality=5),
    "4:4:4": jpeg(photo(60, 50), subsampling=0),
    "4:2:0": jpeg(photo(61, 53), subsampling=2),
    "restarts": jpeg(photo(60, 50), restart_marker_blocks=2),
    "grey": jpeg(photo(60, 50).convert("L")),
    "upright": jpeg(photo(60, 50), exif=turned(1)),
    "a comment": jpeg(photo(60, 50), comment=b"\xff\xda\xff\xd9 is no scan"),
}
OTHERS: dict[str, bytes] = {
    "progressive": jpeg(photo(60, 50), progressive=True),
    "CMYK": jpeg(photo(60, 50).convert("CMYK")),
    "RGB samples": jpeg(photo(60, 50), keep_rgb=True),
    "turned": jpeg(photo(60, 50), exif=turned(6)),
    "cut off": jpeg(photo(60, 50))[:-20],
    "more behind it": jpeg(photo(60, 50)) + b"more",
    "a part of a header": jpeg(photo(60, 50))[:30],
    "its first bytes": b"\xff\xd8",
    "empty": b"",
    "text": b"hello",
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_files_are_told_by_their_markers(name: str) -> None:
    width, height = Image.open(io.BytesIO(PLAIN[name])).size
    assert plain_jpeg(PLAIN[name], LIMITS) == (height, width)


@pytest.mark.parametrize("name", OTHERS)
def test_all_others_go_pillows_way(name: str) -> None:
    assert plain_jpeg(OTHERS[name], LIMITS) is None


def test_a_file_of_too_many_pixels_goes_pillows_way_which_says_so() -> None:
    assert plain_jpeg(PLAIN["as it is"], DecodeConfig(max_pixels=60 * 50 - 1)) is None


@given(data=st.binary(max_size=60), cut=st.integers(0, 700))
def test_no_bytes_whatever_are_an_error(data: bytes, cut: int) -> None:
    plain_jpeg(PLAIN["as it is"][:cut] + data, LIMITS)


@given(
    length=st.integers(1, 90),
    size=st.integers(1, 90),
    kind=st.sampled_from(sorted(KERNELS, key=lambda kind: kind.value)),
)
def test_the_matrix_is_pillows_resize(length: int, size: int, kind: Image.Resampling) -> None:
    levels = np.random.default_rng(length).integers(0, 256, (1, length), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(levels).resize((size, 1), kind), dtype=np.float64)[0]
    found = np.clip(np.rint(resize_matrix(length, size, kind) @ levels[0]), 0, 255)
    assert np.abs(found - expected).max() <= 1, "to the rounding of Pillow's weights"


@pytest.mark.parametrize("mode", ["center", "squash"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(("size", "share"), [((3, 224, 224), 0.875), ((3, 64, 96), 1.0), ((3, 300, 300), 0.95)])
def test_views_are_those_of_evaluation_to_two_levels(
    mode: str, interpolation: str, size: tuple[int, int, int], share: float
) -> None:
    p = Preprocessing(size, interpolation, share, mode, (0.5,) * 3, (0.5,) * 3)
    assert suits_device(p)
    assert p.geometry is not None
    for sides in ((400, 534), (375, 500), (640, 640), (90, 1500)):
        picture = photo(*sides, seed=1)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        for crop, expected in ((True, p.evaluate(picture)), (False, p.resize(picture))):
            (found,) = resize_on_device([pixels], p.geometry, crop=crop, most_aspect=p.most_aspect)
            assert found is not None
            assert int((found.int() - expected.int()).abs().max()) <= 2
            assert float((found.int() - expected.int()).abs().float().mean()) < 0.1


@pytest.fixture
def nvjpeg(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pillow in nvJPEG's place, on the CPU; gives how many files each call decodes."""
    calls: list[int] = []

    def decode(files: Sequence[bytes], device: torch.device) -> list[Tensor | None]:
        calls.append(len(files))
        pictures = [Image.open(io.BytesIO(file)).convert("RGB") for file in files]
        return [torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in pictures]

    monkeypatch.setattr(device_decode, "_decode", decode)
    return calls


def folder_of_all(root: Path) -> Path:
    """Two classes with plain JPEGs, others, a PNG, and one that cannot be decoded."""
    for number, data in enumerate([*PLAIN.values(), *(OTHERS[name] for name in ("progressive", "CMYK", "turned"))]):
        target = root / ("even" if number % 2 else "odd")
        target.mkdir(parents=True, exist_ok=True)
        picture = photo(60 + number, 50 + 7 * number, seed=number)  # no two files alike
        (target / f"{number}.jpg").write_bytes(data if number > 7 else jpeg(picture, quality=60 + number))
    photo(40, 60, seed=99).save(root / "odd" / "one.png")
    (root / "odd" / "broken.jpg").write_bytes(jpeg(photo(90, 80, seed=77))[:900])
    return root


def test_a_reader_joins_both_ways_in_the_images_order(tmp_path: Path, nvjpeg: list[int]) -> None:
    files = sorted(folder_of_all(tmp_path).rglob("*.*"))
    with_gpu, without = FileReader(files, [P], device=CPU), FileReader(files, [P])
    found, expected = (reader.read(0, len(files))[P].int() for reader in (with_gpu, without))
    assert sum(nvjpeg) == 8
    assert int((found - expected).abs().max()) <= 2
    assert not torch.equal(found, torch.zeros_like(found))
    assert with_gpu.failures == without.failures != {}
    two = [P, replace(P, decoder="pillow")]
    both = FileReader(files, two, device=CPU).read(3, 9)
    assert torch.equal(both[two[0]].int(), found[3:9])
    assert torch.equal(both[two[1]].int(), expected[3:9])


def test_a_reader_of_several_crops_or_of_pixels_asks_pillow(tmp_path: Path, nvjpeg: list[int]) -> None:
    files = sorted(folder_of_all(tmp_path).rglob("*.jpg"))
    FileReader(files, [P], CropConfig(crops=5), device=CPU).read(0, 4)
    FileReader([photo(40, 40), np.zeros((40, 40, 3), np.uint8)], [P], device=CPU).read(0, 2)
    assert nvjpeg == []


@pytest.mark.parametrize("crop", [True, False])
def test_the_store_takes_both_ways(tmp_path: Path, nvjpeg: list[int], crop: bool) -> None:
    samples = scan(folder_of_all(tmp_path)).samples
    with_gpu, without = PixelStore(P, device=CPU), PixelStore(P)
    failed = [[e.path for e in store.fill(samples, crop=crop)] for store in (with_gpu, without)]
    assert failed[0] == failed[1] == [tmp_path / "odd" / "broken.jpg"]
    good = [sample for sample in samples if sample.path not in failed[0]]
    assert sum(nvjpeg) == 8
    for a, b in zip(with_gpu.get(good, crop=crop), without.get(good, crop=crop), strict=True):
        assert a.shape == b.shape
        assert int((a.int() - b.int()).abs().max()) <= 2


def test_a_file_that_has_changed_is_no_image_of_the_store(tmp_path: Path, nvjpeg: list[int]) -> None:
    samples = scan(folder_of_all(tmp_path)).samples
    changed: Sample = next(sample for sample in samples if sample.path.name == "3.jpg")
    changed.path.write_bytes(jpeg(photo(33, 44, seed=5)))
    failures = PixelStore(P, device=CPU).fill([changed], crop=True)
    assert [failure.reason for failure in failures] == [CHANGED]


def test_a_border_is_pillows(nvjpeg: list[int]) -> None:
    border = replace(P, crop_mode="border")
    assert not suits_device(border)
    found = decode_on_device([PLAIN["as it is"]], border, crop=False, device=CPU, limits=LIMITS)
    assert found == [None]
    assert nvjpeg == []


def test_large_photos_are_decoded_in_turns(monkeypatch: pytest.MonkeyPatch, nvjpeg: list[int]) -> None:
    monkeypatch.setattr(device_decode, "_MOST_PIXELS", 2 * 60 * 50)
    files = [PLAIN["as it is"], None, *[PLAIN["coarse"]] * 4, OTHERS["progressive"]]
    found = decode_on_device(files, P, crop=True, device=CPU, limits=LIMITS)
    assert nvjpeg == [2, 2, 1]
    assert [view is None for view in found] == [False, True, False, False, False, False, True]


@pytest.mark.parametrize("name", ["as it is", "text"])
def test_without_nvjpeg_nothing_is_decoded_and_nothing_raised(name: str) -> None:
    assert device_decode._decode([{**PLAIN, **OTHERS}[name]], torch.device("cuda")) == [None]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Says whether the device has nvJPEG."""
    return lambda there: monkeypatch.setattr(decoders, "has_nvjpeg", lambda device: there)


def test_the_decoder_follows_from_device_preprocessing_and_record(gpu: Callable[[bool], None]) -> None:
    auto, plain = RuntimeConfig(), RuntimeConfig(mode="plain")
    gpu(True)
    assert choose_decoder(P, CPU, auto) == "nvjpeg"
    assert choose_decoder(P, CPU, plain) == choose_decoder(P, CPU, RuntimeConfig(decoder="pillow")) == "pillow"
    assert choose_decoder(P, CPU, auto, recorded="pillow") == "pillow"
    assert choose_decoder(replace(P, crop_mode="border"), CPU, auto) == "pillow"
    assert choose_decoder(replace(P, interpolation="nearest"), CPU, auto) == "pillow"
    gpu(False)
    assert choose_decoder(P, CPU, auto, recorded="nvjpeg") == "pillow"


def test_a_record_of_another_decoder_is_told_and_an_unknown_one_refused(
    tmp_path: Path, gpu: Callable[[bool], None], nvjpeg: list[int]
) -> None:
    import json

    import tl_kit
    from tests.helpers import quick, write_images

    data = write_images(tmp_path / "images")
    run = Path(quick(data, tmp_path / "run", epochs=1).checkpoint)
    record = json.loads((run / "tlkit.json").read_text())
    assert record["decoder"] == "pillow"
    (run / "tlkit.json").write_text(json.dumps(record | {"decoder": "nvjpeg"}))
    gpu(False)
    assert tl_kit.load(run).members[0].preprocessing.decoder == "pillow"
    (line,) = [line for line in told() if "nvjpeg" in line]
    assert line.startswith(f"{run}: the JPEGs of its training were decoded by nvjpeg, here they are by pillow")
    gpu(True)
    assert tl_kit.load(run).members[0].preprocessing.decoder == "nvjpeg"
    assert not [line for line in told() if "nvjpeg" in line]
    with pytest.raises(CheckpointError, match="decoder is not one of images"):
        check_meta(record | {"decoder": "magic"}, run / "tlkit.json")
