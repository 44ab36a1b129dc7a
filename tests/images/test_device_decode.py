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
from tl_kit.errors import CheckpointError, ConfigError
from tl_kit.images import device_decode
from tl_kit.images.decode import CHANGED
from tl_kit.images.device_decode import decode_on_device, plain_jpeg, resize_on_device, suits_device
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


def twice_exif(data: bytes) -> bytes:
    """The same file with its Exif segment again behind it."""
    start = data.index(b"\xff\xe1")
    end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    return data[:end] + data[start:end] + data[end:]


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
    "turned by XMP": jpeg(photo(60, 50), xmp=b'<x:xmpmeta><a tiff:Orientation="6"/></x:xmpmeta>'),
    "two Exif parts": twice_exif(jpeg(photo(60, 50), exif=turned(1))),
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


@pytest.mark.parametrize("mode", ["center", "squash"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
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
            assert float((found.int() - expected.int()).abs().float().mean()) < 0.3, "Pillow rounds twice"


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


@pytest.fixture
def torchvision_decodes(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], Exception | None]], list[int]]:
    """Pillow in the place of torchvision's decoder; an error may be raised by the number of files. Gives these."""

    def install(error: Callable[[int], Exception | None]) -> list[int]:
        calls: list[int] = []

        def decode(data: list[Tensor], *, mode: object, device: torch.device) -> list[Tensor]:
            calls.append(len(data))
            if (found := error(len(data))) is not None:
                raise found
            pictures = [Image.open(io.BytesIO(bytes(each.numpy()))) for each in data]
            if any(picture.size == (61, 53) for picture in pictures):
                raise RuntimeError("a damaged file")
            return [torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1) for picture in pictures]

        monkeypatch.setattr("torchvision.io.decode_jpeg", decode)
        return calls

    return install


def test_without_nvjpeg_nothing_is_decoded_and_nothing_raised(torchvision_decodes: Any) -> None:
    torchvision_decodes(lambda count: RuntimeError("Not compiled with nvJPEG"))
    assert device_decode._decode([PLAIN["as it is"], PLAIN["grey"]], CPU) == [None, None]


def test_a_damaged_file_costs_the_others_nothing(torchvision_decodes: Any) -> None:
    """Else the pixels of an image would depend on those beside it."""
    torchvision_decodes(lambda count: None)
    files = [PLAIN["as it is"], PLAIN["4:2:0"], PLAIN["grey"]]  # the second is of the size that is refused
    together = decode_on_device(files, P, crop=True, device=CPU, limits=LIMITS)
    assert [view is None for view in together] == [False, True, False]
    for number in (0, 2):
        (alone,) = decode_on_device([files[number]], P, crop=True, device=CPU, limits=LIMITS)
        assert alone is not None
        assert torch.equal(together[number], alone)


@pytest.mark.parametrize("most", [3, 1, 0])
def test_where_a_gpu_has_no_room_fewer_are_decoded_at_a_time(most: int, torchvision_decodes: Any) -> None:
    calls = torchvision_decodes(lambda count: torch.OutOfMemoryError("CUDA out of memory") if count > most else None)
    found = decode_on_device([PLAIN["as it is"]] * 7, P, crop=True, device=CPU, limits=LIMITS)
    assert [view is None for view in found] == [most == 0] * 7
    assert calls[0] == 7
    told_lines = told()
    assert bool(told_lines) is (most == 0)
    assert not most or max(calls[1:]) <= 7 // 2 + 1


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
    assert choose_decoder(replace(P, interpolation="lanczos"), CPU, auto) == "pillow"
    gpu(False)
    assert choose_decoder(P, CPU, auto, recorded="nvjpeg") == "pillow"


@pytest.mark.parametrize(
    ("there", "changed", "mode"), [(False, {}, "auto"), (True, {"crop_mode": "border"}, "auto"), (True, {}, "plain")]
)
def test_a_decoder_that_is_asked_for_and_cannot_be_had_is_refused(
    gpu: Callable[[bool], None], there: bool, changed: dict[str, Any], mode: Any
) -> None:
    gpu(there)
    with pytest.raises(ConfigError, match="decoder nvjpeg: needs a CUDA GPU"):
        choose_decoder(replace(P, **changed), CPU, RuntimeConfig(decoder="nvjpeg", mode=mode))


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
    assert tl_kit.load(run, crops=CropConfig(crops=5)).members[0].preprocessing.decoder == "pillow"
    assert [line for line in told() if "here they are by pillow" in line], "several crops are always Pillow's"
    with pytest.raises(CheckpointError, match="decoder is not one of images"):
        check_meta(record | {"decoder": "magic"}, run / "tlkit.json")
