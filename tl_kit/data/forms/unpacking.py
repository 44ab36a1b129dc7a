"""Unpacking of zip and tar archives, safe against names that lead out, links, devices and bombs."""

from __future__ import annotations

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from tl_kit.data.forms.local_copies import Room
from tl_kit.errors import DataError, first_line
from tl_kit.file_kinds import HEAD, TAR_ENDINGS, ZIP_ENDINGS, kind_of
from tl_kit.reporting import SILENT, Reporter
from tl_kit.untrusted import is_plain_relative

__all__ = ["archive_kind", "lacks_end", "member_name", "members_of", "unpack"]

_CHUNK = 1 << 20
_LONGEST = 255  # bytes of one name, in all common file systems
_MOST_RATIO, _FROM = 200, 200_000_000  # images hardly shrink: from so many bytes on, this is a bomb
_UTF8, _ENCRYPTED = 0x800, 0x1  # flags of a member of a zip file
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, OSError)


@dataclass(frozen=True)
class _Member:
    """A file in an archive: its name as written, and its open stream; without one, the reason why it is left out."""

    name: str
    stream: IO[bytes] | None
    reason: str = ""


def archive_kind(file: Path) -> str | None:
    """ "zip" or "tar" for an archive that can be unpacked, by its first bytes or its ending; None for other files."""
    try:
        with file.open("rb") as stream:
            kind = kind_of(stream.read(HEAD))
    except OSError:
        return None
    name = file.name.lower()
    if kind in ("zip", "tar"):
        return kind
    if kind in ("gzip", "bzip2", "xz"):
        return "tar"  # or a single file, which unpacking finds out
    if kind is None and name.endswith(ZIP_ENDINGS):
        return "zip"
    return "tar" if kind is None and name.endswith(TAR_ENDINGS) else None


def members_of(file: Path) -> int | None:
    """The number of files in a zip archive; None for a tar archive, which tells it at its end, and a damaged one."""
    if archive_kind(file) != "zip":
        return None
    with suppress(*_BROKEN), zipfile.ZipFile(file) as archive:
        return sum(not entry.is_dir() for entry in archive.infolist())
    return None


def unpack(file: Path, folder: Path, *, room: Room, shown: str, reporter: Reporter = SILENT) -> list[tuple[str, str]]:
    """Write the files of an archive below ``folder``, and return name and reason of each member that is left out.

    Each file is told to ``reporter``.
    Left out are members whose name leads out of the folder, links, devices and pipes. Files get no permissions and no
    owner from the archive. Raises DataError for an encrypted, damaged or empty archive, for two files of one name, for
    an archive that grows beyond 200 times its size, and beyond the bounds of ``room``.
    """
    left_out: list[tuple[str, str]] = []
    made: set[Path] = set()
    written, bound = 0, max(_FROM, _MOST_RATIO * file.stat().st_size)
    for member in _members(file, shown):
        parts = _parts(member.name)
        if member.stream is None or parts is None:
            left_out.append((member.name, member.reason or "its name leads out of the archive, or is too long"))
            continue
        target = folder.joinpath(*parts)
        if target in made:
            raise DataError(f"{shown}: holds two files named {'/'.join(parts)}; remove or rename one")
        made.add(target)
        room.file()
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            output = target.open("xb")
        except (FileExistsError, NotADirectoryError) as error:
            raise DataError(f"{shown}: holds a file and a folder of one name, {'/'.join(parts)}") from error
        with output:
            while chunk := _read(member, shown):
                written += len(chunk)
                if written > bound:
                    raise DataError(f"{shown}: unpacks to more than {_MOST_RATIO} times its size; no images do that")
                room.take(len(chunk))
                output.write(chunk)
        reporter.advance()
    if not made:
        reason = f": {left_out[0][0]}: {left_out[0][1]}" if left_out else ""
        raise DataError(f"{shown}: is an archive without files{reason}")
    return left_out


def _read(member: _Member, shown: str) -> bytes:
    assert member.stream is not None
    with _sound(f"{shown}: {member.name}"):
        return member.stream.read(_CHUNK)


def _members(file: Path, shown: str) -> Iterator[_Member]:
    return _zipped(file, shown) if archive_kind(file) == "zip" else _taped(file, shown)


def _zipped(file: Path, shown: str) -> Iterator[_Member]:
    with _sound(shown):
        archive = zipfile.ZipFile(file)
    with archive:
        for entry in archive.infolist():
            name = member_name(entry)
            if entry.is_dir() or name.endswith("/"):
                continue
            mode = entry.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                yield _Member(name, None, "a link, or no regular file")
                continue
            if entry.flag_bits & _ENCRYPTED:
                raise DataError(f"{shown}: is encrypted; unpack it with its password, and name the folder")
            with _sound(f"{shown}: {name}"):
                stream = archive.open(entry)
            with stream:
                yield _Member(name, stream)


def member_name(entry: zipfile.ZipInfo) -> str:
    """The name of a member of a zip archive.

    Many programs write UTF-8 without saying so, and those of Windows write backslashes.
    """
    name = entry.filename
    if not entry.flag_bits & _UTF8:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/")


def _taped(file: Path, shown: str) -> Iterator[_Member]:
    try:
        archive = tarfile.open(file, "r:*")  # noqa: SIM115 - closed below, after the check
    except (tarfile.ReadError, EOFError) as error:
        raise DataError(f"{shown}: is compressed, but no tar archive, or damaged ({first_line(error)})") from error
    with archive:
        entries = iter(archive)
        while True:
            with _sound(shown):
                entry = next(entries, None)
            if entry is None:
                if lacks_end(archive):
                    raise DataError(f"{shown}: is damaged: it was cut off, since the mark of its end is missing")
                return
            if entry.isdir():
                continue
            with _sound(f"{shown}: {entry.name}"):
                stream = archive.extractfile(entry) if entry.isreg() else None
            yield _Member(entry.name, stream, "" if stream else "a link, or no regular file")


def lacks_end(archive: tarfile.TarFile) -> bool:
    """True for a tar, read to its last member, that was cut off there: tarfile takes a missing end mark for the end."""
    file = archive.fileobj
    return file is None or file.tell() - archive.offset < tarfile.BLOCKSIZE


def _parts(name: str) -> tuple[str, ...] | None:
    """The folders and the file of a member's name; None if it is absolute, leads up, or cannot be a file's name."""
    if not name or "\0" in name or not is_plain_relative(name):
        return None
    parts = PurePosixPath(name).parts
    fits = all(len(part.encode(errors="surrogateescape")) <= _LONGEST for part in parts)
    return parts if parts and fits else None


@contextmanager
def _sound(where: str) -> Iterator[None]:
    """Turn what a damaged archive brings about into a DataError."""
    try:
        yield
    except RuntimeError as error:  # zipfile's for a password
        raise DataError(f"{where}: cannot be unpacked ({first_line(error)})") from error
    except _BROKEN as error:
        raise DataError(f"{where}: is damaged, or packed in a way that is not known ({first_line(error)})") from error
