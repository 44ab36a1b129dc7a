"""JPEGs decoded on a GPU by nvJPEG (through torchvision), and resized there by torch.

Only plain baseline files go there: RGB or grey, 8 bits, upright. All others are decoded by Pillow, file by file.
nvJPEG rounds, and makes up colours between samples, in another way than the library behind Pillow: on 150 photos its
levels differed by 0.35 in the mean, and by up to 78 at the edges of saturated colours. So the decoder belongs to a
model's preprocessing.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache, partial

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor
from torch.nn import functional

from tl_kit.config import DecodeConfig
from tl_kit.images.geometry import Geometry
from tl_kit.images.transforms import Preprocessing
from tl_kit.machine.hush import hush
from tl_kit.machine.memory import in_halves, in_portions
from tl_kit.reporting import note

__all__ = ["DECODERS", "decode_on_device", "has_nvjpeg", "plain_jpeg", "resize_on_device", "suits_device"]

DECODERS = ("pillow", "nvjpeg")
_MODES = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}
_MOST_PIXELS = 2**27  # of the photos that are decoded and resized at a time
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
    at, size, colours, exifs = 2, (0, 0), 0, 0
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
        exifs += data[at + 4 : at + 8] == b"Exif"
        if exifs > 1:  # Pillow joins them
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
    if marker == 0xE1 and b"Orientation" in segment:  # XMP, which Pillow reads too
        return False
    return not (marker == 0xEE and segment.startswith(b"Adobe") and segment[11:12] != b"\x01")


def _decode(files: Sequence[bytes], device: torch.device) -> list[Tensor | None]:
    """RGB pixels, uint8 (3, h, w) on the device, of each file; None for one that cannot be decoded there.

    Raises OutOfMemoryError where the device has no room.
    """
    try:
        from torchvision.io import ImageReadMode, decode_jpeg

        hush(_DEPRECATED)
        data = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
        return list(decode_jpeg(data, mode=ImageReadMode.RGB, device=device))
    except torch.OutOfMemoryError:
        raise
    except (ImportError, RuntimeError, ValueError):  # no nvJPEG here, or a damaged file, which must not cost the others
        return [None] if len(files) == 1 else [image for file in files for image in _decode([file], device)]


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
    plain = {n: size for n, file in enumerate(files) if file is not None and (size := plain_jpeg(file, limits))}
    pixels = {n: height * width for n, (height, width) in plain.items()}
    work = partial(_views, geometry=aim.geometry, crop=crop, most_aspect=aim.most_aspect, device=device)
    for turn in in_portions(pixels, _MOST_PIXELS):
        there = [file for n in turn if (file := files[n]) is not None]
        for n, view in zip(turn, in_halves(work, there), strict=True):
            found[n] = view
    return found


def _views(
    files: Sequence[bytes], *, geometry: Geometry, crop: bool, most_aspect: float, device: torch.device
) -> list[Tensor | None]:
    """Decoded and resized. Raises OutOfMemoryError where the device has no room; a single file is left to Pillow."""
    try:
        decoded = _decode(files, device)
        there = [image for image in decoded if image is not None]
        views = iter(resize_on_device(there, geometry, crop=crop, most_aspect=most_aspect))
        return [None if image is None else next(views) for image in decoded]
    except torch.OutOfMemoryError:
        if len(files) > 1:
            raise
    note("the GPU has no room to decode some photos: Pillow decodes them, whose levels differ a little")
    return [None]


def suits_device(preprocessing: Preprocessing) -> bool:
    """True where resizes of this kind are known on a device, without a border around the image."""
    geometry = preprocessing.geometry
    return geometry is not None and geometry.resample in _MODES and preprocessing.crop_mode != "border"


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
        if box is None or not within or geometry.resample not in _MODES:
            continue
        views = _resized([images[position] for position in positions], geometry, box)
        for position, view in zip(positions, views, strict=True):
            found[position] = view
    return found


def _resized(images: list[Tensor], geometry: Geometry, box: tuple[int, int, int, int]) -> Sequence[Tensor]:
    """Images of one size, resized; ``box`` (left, top, right, bottom) is cut out of the resized image.

    torch's kernels are Pillow's, but for rounding: Pillow rounds between columns and rows as well.
    """
    _, height, width = images[0].shape
    columns, rows = geometry.size(width, height)
    left, top, right, bottom = box
    pixels = torch.stack(images).float()
    mode = _MODES[geometry.resample]
    wide = functional.interpolate(pixels, (rows, columns), mode=mode, antialias=True)[..., top:bottom, left:right]
    return wide.round_().clamp_(0, 255).to(torch.uint8).unbind()
