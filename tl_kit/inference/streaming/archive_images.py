"""Images in tar and zip archives, such as WebDataset's shards: read one after another, never unpacked to disk."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from tl_kit.config import DecodeConfig
from tl_kit.data.forms.unpacking import lacks_end, member_name
from tl_kit.errors import ImageError
from tl_kit.file_kinds import IMAGE_ENDINGS, TAR_ENDINGS, ZIP_ENDINGS
from tl_kit.images.decode import sniff
from tl_kit.images.limits import most_bytes
from tl_kit.inference.streaming.named import Named

__all__ = ["ARCHIVE_ENDINGS", "images_of"]

ARCHIVE_ENDINGS = (*TAR_ENDINGS, *ZIP_ENDINGS)

_IMAGES = {*IMAGE_ENDINGS, ".heic", ".ppm", ".jp2", ".ico"}
_OTHERS = {".txt", ".cls", ".json", ".csv", ".tsv", ".xml", ".md", ".html", ".npy", ".pth", ".pyd", ".index", ".idx"}
_LITTER = ("__MACOSX",)
_HEAD = 16
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError)


def images_of(file: Path, limits: DecodeConfig) -> Iterator[Named]:
    """Every image of an archive, in the archive's order, named as if the archive were a folder.

    Members are images if their names end like one, or if they begin like one and their names end otherwise than those
    of labels and texts do. Hidden ones are left out. Where the archive is damaged, the last item says so; a member that
    cannot be read, or has more bytes than an image may have, says so in its place.
    """
    members = _of_zip if file.name.lower().endswith(ZIP_ENDINGS) else _of_tar
    count = 0
    try:
        for item in members(file, most_bytes(limits)):
            count += 1
            yield item
    except _DAMAGED as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        after = f"after {count:,} images" if count else "as an archive"
        yield Named(str(file), None, f"cannot be read {after}: {reason}")
        return
    if not count:
        yield Named(str(file), None, "archive without images")


def _of_tar(file: Path, most: int) -> Iterator[Named]:
    with tarfile.open(file, "r|*") as archive:
        while (info := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # which it would all keep
            if info.isreg() and _may_be_image(info.name) and (stream := archive.extractfile(info)) is not None:
                found = _image(stream, info.name, info.size, most)
                if isinstance(found, bytes) and len(found) < info.size:
                    raise tarfile.ReadError(f"it ends in the middle of {info.name}")
                if found is not None:
                    yield Named(f"{file}/{info.name}", found)
        if lacks_end(archive):
            raise tarfile.ReadError("the mark of its end is missing: it was cut off")


def _of_zip(file: Path, most: int) -> Iterator[Named]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            name = member_name(info)
            if info.is_dir() or not _may_be_image(name):
                continue
            found: bytes | ImageError | None
            try:
                with archive.open(info) as stream:
                    found = _image(stream, name, info.file_size, most)
            except RuntimeError as error:  # it needs a password, or a method that zipfile lacks
                found = ImageError(f"cannot be read: {error.args[0] if error.args else error}"[:100])
            except _DAMAGED as error:
                found = ImageError(f"damaged: {error}"[:100])
            if found is not None:
                yield Named(f"{file}/{name}", found)


def _may_be_image(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any((part.startswith(".") and part not in (".", "..")) or part in _LITTER for part in path.parts)
    return not hidden and path.suffix.lower() not in _OTHERS


def _image(stream: IO[bytes], name: str, size: int, most: int) -> bytes | ImageError | None:
    """A member's bytes; None for one that is no image."""
    head = stream.read(_HEAD)
    if PurePosixPath(name).suffix.lower() not in _IMAGES and not sniff(head):
        return None
    if size > most:
        return ImageError(f"too large: {size} bytes, at most {most} are read")
    rest = stream.read(most + 1 - len(head))
    if len(head) + len(rest) > most:  # more than its header says
        return ImageError(f"too large: at most {most} bytes are read")
    return head + rest
