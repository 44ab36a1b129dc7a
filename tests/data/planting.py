"""Made photos, and data sets of them in which something is wrong: what the doctor is to find."""

from __future__ import annotations

from pathlib import Path

from PIL import ExifTags, Image

from tests.data.images import encoded, noise

__all__ = ["copied", "photo", "write_given_away", "write_photos"]


def photo(seed: int, *, width: int = 160, height: int = 120) -> Image.Image:
    """Soft shapes, as in a photo: most of what there is to see is large."""
    small = Image.fromarray(noise(seed, height=9, width=12))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def copied(image: Image.Image, how: str, *, size: tuple[int, int] = (96, 72), quality: int = 40) -> bytes:
    """The same picture in another JPEG file."""
    if how == "mirrored":
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return encoded(image.resize(size, Image.Resampling.LANCZOS), "JPEG", quality=quality)


def write_photos(root: Path, *, seed: int = 0) -> Path:
    """Three given splits of two classes, eight photos each, in which nothing is wrong."""
    for position, split in enumerate(("train", "val", "test")):
        for label in (0, 1):
            for index in range(8):
                file = root / split / "ab"[label] / f"{index}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(encoded(photo(seed + 1000 * position + 100 * label + index), "JPEG", quality=95))
    return root


def write_given_away(root: Path, kind: str, *, seed: int = 0) -> Path:
    """Two classes of photos of nothing in particular, told apart by one thing beside them."""
    for index in range(40):
        label = index % 2
        file = root / "ab"[label] / f"{index}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        image, options = photo(seed + index), {"quality": 90}
        if kind == "size" and label:
            image = photo(seed + index, width=120, height=160)
        if kind == "file":
            options = {"quality": 60 if label else 90}
        if kind == "exif" and label:
            exif = Image.Exif()
            exif[ExifTags.Base.Make] = "A camera"
            options["exif"] = exif
        if kind == "border" and label:
            image.paste("black", (0, 0, 160, 6))
            image.paste("black", (0, 0, 6, 120))
        file.write_bytes(encoded(image, "JPEG", **options))
    return root
