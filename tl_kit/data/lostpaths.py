"""Missing paths of a CSV file: their form (web address, Windows path ...) and the remedy."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

__all__ = ["explain", "other_form"]

_SEARCHED = 50_000  # entries below the CSV file's folder that are searched
_ENDINGS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".webp", ".bmp", ".tif", ".tiff", ".gif")


def other_form(path: Path) -> Path:
    """The path; if it does not exist, its composed or decomposed Unicode form, if that exists."""
    text = str(path)
    if text.isascii():
        return path
    try:
        for form in (text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)):
            if os.path.lexists(form):
                return Path(form)
    except ValueError:  # a null character
        pass
    return path


def explain(text: str, base: Path) -> str:
    """The form of a path that does not exist below ``base``, and the correct way to write it."""
    what, parts = _form(text)
    if what.startswith("a web address"):
        return f"'{text}' is {what}: download the images, and write their paths"
    remedy = _elsewhere(text, parts, base)
    return f"'{text}' is {what}, and nothing is there" + (f"; {remedy}" if remedy else "")


def _form(text: str) -> tuple[str, tuple[str, ...]]:
    """The kind of a path in words, and its parts without drive and root."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", text)
    if scheme is not None and scheme[1].lower() != "file":
        return f"a web address ({scheme[1]}://)", ()
    if scheme is not None:
        return "a file:// address", PurePosixPath(text[len(scheme[0]) :].lstrip("/")).parts
    if re.match(r"[A-Za-z]:[\\/]|\\\\", text):
        return "an absolute path of a Windows machine", PureWindowsPath(text).parts[1:]
    if "\\" in text:
        return "written with Windows' backslashes", PureWindowsPath(text).parts
    if text.startswith("~"):
        return "written with ~, which is not expanded", PurePosixPath(text).parts[1:]
    if "$" in text or "%" in text:
        return "written with a variable, which is not expanded, or a percent sign", PurePosixPath(text).parts
    if text.startswith("/"):
        return "an absolute path, perhaps of another machine", PurePosixPath(text).parts[1:]
    return "relative to the CSV file's folder", PurePosixPath(text).parts


def _elsewhere(text: str, parts: tuple[str, ...], base: Path) -> str:
    """Advice based on where the file is found nearby."""
    if not parts or "\0" in text:
        return ""
    here = Path.cwd().joinpath(*parts)
    if not Path(text).is_absolute() and here.is_file() and Path.cwd() != base:
        return f"it exists relative to the current folder: move the CSV file to {Path.cwd()}, or write the paths anew"
    for ending in _ENDINGS:
        if base.joinpath(*parts[:-1], parts[-1] + ending).is_file():
            return f"with the ending {ending} it exists: add it to the paths"
    found = _nearest(parts, base)
    if found is None:
        return f"no file of that name was found below {base}"
    written = found.relative_to(base).as_posix()
    wanted = "/".join(parts)
    if written == wanted:
        return f"write it as {written}"
    if written.endswith(f"/{wanted}") and text == wanted:
        return f"it is at {written}: put {written[: -len(wanted)]} before each path"
    if wanted.endswith(f"/{written}"):
        slashes = ", and write / for \\" if "\\" in text else ""
        return f"it is at {written}: take {text[: -len(written)]} from each path{slashes}"
    return f"it exists as {written}: write the paths like that"


def _nearest(parts: tuple[str, ...], base: Path) -> Path | None:
    """The file whose last parts match these best, ignoring case; the result does not depend on the listing's order."""
    wanted = [_plain(part) for part in reversed(parts)]
    best: tuple[int, int, str] | None = None
    for file in _files(base):
        own = [_plain(part) for part in reversed(file.relative_to(base).parts)]
        names = {own[0], PurePosixPath(own[0]).stem} if "." not in wanted[0] else {own[0]}
        if wanted[0] not in names:
            continue
        common = next((i for i, (a, b) in enumerate(zip(own[1:], wanted[1:], strict=False)) if a != b), len(own) - 1)
        key = (-common, len(own), str(file))
        best = key if best is None else min(best, key)
    return None if best is None else Path(best[2])


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _files(base: Path) -> Iterator[Path]:
    """Files below a folder, sorted by name; links to folders are not followed, and the number of entries is limited."""
    count = 0
    for folder, inner, names in os.walk(base):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(names):
            yield Path(folder) / name
        count += len(names) + len(inner)
        if count > _SEARCHED:
            return
