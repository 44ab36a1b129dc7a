"""JPEGs decoded and resized on a GPU, by nvJPEG (through torchvision) and by two products of matrices.

Only plain baseline files go there: RGB or grey, 8 bits, upright. All others are decoded by Pillow, file by file.
nvJPEG rounds, and makes up colours between samples, in another way than the library behind Pillow: on 150 photos its
levels differed by 0.35 in the mean, and by up to 78 at the edges of saturated colours. So the decoder belongs to a
model's preprocessing.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch import Tensor

from tl_kit.config import DecodeConfig
from tl_kit.images.geometry import Geometry
from tl_kit.images.resize_matrix import KERNELS, resize_matrix
from tl_kit.images.transforms import Preprocessing
from tl_kit.machine.hush import hush

__all__ = ["DECODERS", "decode_on_device", "has_nvjpeg", "plain_jpeg", "resize_on_device", "suits_device"]

DECODERS = ("pillow", "nvjpeg")
_MOST_PIXELS = 2**27  # of the photos that are decoded or resized at a time
_BASELINE = (0xC0, 0xC1)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers of a picture's size; the three are tables
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a segment
_RGB_NAMES = b"RGB"
# Since 0.29 torchvision says that its decoders will go one day; without them Pillow decodes all.
_DEPRECATED = "The image decoding and encoding capabilities of TorchVision are deprecated"


@lru_cache(maxsize=4)
def has_nvjpeg(device: torch.device) -> bool:
    """True if a small JPEG can be decoded on the device, to about the pixels that Pillow gives."""
    if device.type != "cuda":
        return False
    picture = Image.fromarray(np.arange(48 * 48 * 3, dtype=np.int64).reshape(48, 48, 3).astype(np.uint8) // 4 + 64)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=95)
    found = _decode([stream.getvalue()], device)[0]
    expected = torch.from_numpy(np.array(Image.open(stream).convert("RGB"))).permute(2, 0, 1)
    return found is not None and float((found.cpu().float() - expected.float()).abs().mean()) < 8


def plain_jpeg(data: bytes, config: DecodeConfig) -> tuple[int, int] | None:
    """Height and width of a JPEG that nvJPEG and Pillow read alike; None for any other file.

    It has one scan of one baseline frame, of grey or YCbCr samples of 8 bits; it ends where its picture ends, has no
    more pixels than are allowed, and needs no turn.
    """
    try:
        found = _frame_of(data)
    except IndexError:
        return None
    if found is None or data[-2:] != b"\xff\xd9" or data.count(b"\xff\xda", found[2]) != 1:
        return None
    height, width, _ = found
    return (height, width) if 0 < height * width <= config.max_pixels else None


def _frame_of(data: bytes) -> tuple[int, int, int] | None:
    """Height, width, and the place of the picture's scan. Raises IndexError where the file ends before it."""
    if data[:2] != b"\xff\xd8":
        return None
    at, size, colours = 2, (0, 0), 0
    while True:
        marker = data[at + 1]
        if data[at] != 0xFF or marker in _ALONE:
            return None
        if marker == 0xFF:  # a byte that fills up
            at += 1
            continue
        if marker == 0xDA:
            return (*size, at) if colours and data[at + 4] == colours else None
        length = data[at + 2] << 8 | data[at + 3]
        if marker in _FRAMES:
            colours = data[at + 9]
            named = bytes(data[at + 10 + 3 * number] for number in range(colours))
            if marker not in _BASELINE or data[at + 4] != 8 or colours not in (1, 3) or named == _RGB_NAMES:
                return None
            size = (data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8])
        elif not _harmless(marker, data[at + 4 : at + 2 + length]):
            return None
        at += 2 + length


def _harmless(marker: int, segment: bytes) -> bool:
    """False for metadata that turn the picture, or say that its samples are no YCbCr."""
    if marker == 0xE1 and segment.startswith(b"Exif\0\0"):
        exif = Image.Exif()
        try:
            exif.load(segment)
            return int(exif.get(ExifTags.Base.Orientation, 1)) == 1
        except Exception:  # noqa: BLE001 - broken metadata: Pillow's way decides
            return False
    return not (marker == 0xEE and segment.startswith(b"Adobe") and segment[11:12] != b"\x01")


def _decode(files: Sequence[bytes], device: torch.device) -> list[Tensor | None]:
    """RGB pixels, uint8 (3, h, w) on the device, of each file; all are None where one of them cannot be decoded."""
    try:
        from torchvision.io import ImageReadMode, decode_jpeg

        hush(_DEPRECATED)
        data = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
        return list(decode_jpeg(data, mode=ImageReadMode.RGB, device=device))
    except (ImportError, RuntimeError, ValueError):  # no nvJPEG here, or a damaged file
        return [None] * len(files)


def decode_on_device(
    files: Sequence[bytes | None],
    preprocessing: Preprocessing,
    *,
    crop: bool,
    scale: float = 1.0,
    device: torch.device,
    limits: DecodeConfig,
) -> list[Tensor | None]:
    """Images as :func:`tl_kit.data.pixel_store.read_pixels` gives them, uint8 (3, h, w) on the device.

    None for those that go Pillow's way, and for a file that is None.
    """
    aim = preprocessing if crop else preprocessing.scaled(scale)
    found: list[Tensor | None] = [None] * len(files)
    if aim.geometry is None or not suits_device(preprocessing):
        return found
    sizes = {n: size for n, file in enumerate(files) if file is not None and (size := plain_jpeg(file, limits))}
    for turn in _in_turns(sizes):
        decoded = _decode([file for n in turn if (file := files[n]) is not None], device)
        there = [(n, image) for n, image in zip(turn, decoded, strict=True) if image is not None]
        images = [image for _, image in there]
        views = resize_on_device(images, aim.geometry, crop=crop, most_aspect=aim.most_aspect)
        for (n, _), view in zip(there, views, strict=True):
            found[n] = view
    return found


def suits_device(preprocessing: Preprocessing) -> bool:
    """True where resizes of this kind are known on a device, without a border around the image."""
    geometry = preprocessing.geometry
    return geometry is not None and geometry.resample in KERNELS and preprocessing.crop_mode != "border"


def _in_turns(sizes: Mapping[int, tuple[int, int]]) -> Iterator[list[int]]:
    """The keys of images (height, width), as many together as the device has room for."""
    turn: list[int] = []
    held = 0
    for key, (height, width) in sizes.items():
        if turn and held + height * width > _MOST_PIXELS:
            yield turn
            turn, held = [], 0
        turn.append(key)
        held += height * width
    if turn:
        yield turn


def resize_on_device(
    images: Sequence[Tensor], geometry: Geometry, *, crop: bool, most_aspect: float
) -> list[Tensor | None]:
    """Images (3, h', w') after the resize and, with ``crop``, the crop: uint8 (3, h, w), on their device.

    None for those longer than ``most_aspect`` times their width, for a kind of interpolation that is not known here,
    and where the image would have to be padded: these go Pillow's way.
    """
    found: list[Tensor | None] = [None] * len(images)
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for position, image in enumerate(images):
        groups[image.shape[1], image.shape[2]].append(position)
    for (height, width), positions in groups.items():
        box = geometry.box(width, height, crop=crop)
        within = max(height, width) <= most_aspect * min(height, width)
        if box is None or not within or geometry.resample not in KERNELS:
            continue
        views = _resized([images[position] for position in positions], geometry, box)
        for position, view in zip(positions, views, strict=True):
            found[position] = view
    return found


def _resized(images: list[Tensor], geometry: Geometry, box: tuple[int, int, int, int]) -> Iterator[Tensor]:
    """Images of one size, resized; ``box`` (left, top, right, bottom) is cut out of the resized image."""
    _, height, width = images[0].shape
    columns, rows = geometry.size(width, height)
    left, top, right, bottom = box
    device, name = images[0].device, geometry.resample
    across = _on_device(width, columns, name.value, left, right, device)
    down = _on_device(height, rows, name.value, top, bottom, device)
    step = max(1, _MOST_PIXELS // (height * width))
    for start in range(0, len(images), step):
        pixels = torch.stack(images[start : start + step]).to(across.dtype)
        wide = torch.matmul(pixels, across.T).round_().clamp_(0, 255)  # Pillow resizes rows first, and rounds between
        yield from torch.matmul(down, wide).round_().clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=512)
def _on_device(length: int, size: int, resample: int, start: int, stop: int, device: torch.device) -> Tensor:
    """Rows ``start`` to ``stop`` of :func:`resize_matrix`: float16 on a GPU, whose sums are of float32."""
    matrix: NDArray[np.float64] = resize_matrix(length, size, Image.Resampling(resample))[start:stop]
    with torch.inference_mode(False):
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        return torch.from_numpy(matrix).to(device, dtype)
