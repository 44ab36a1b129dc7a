"""Exports of labelling tools: COCO, Label Studio (JSON) and CVAT (XML), where they label whole images."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse
from xml.etree import ElementTree

from tl_kit.class_names import nfc
from tl_kit.data.forms.named_files import NamedFiles
from tl_kit.data.listing import Candidate, Listing, name_some, named_split, split_of
from tl_kit.data.manifest import Exclusion
from tl_kit.errors import DataError

__all__ = ["EXPORTS", "is_export", "list_export"]

EXPORTS = (".json", ".xml")
_LARGEST = 2_000_000_000  # bytes
_HEAD = 4096
_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")  # Label Studio puts eight digits before the names of uploaded files
_CONVERT = "convert it to class folders or to a CSV with the columns path and label"


def is_export(file: Path) -> bool:
    """True for a file that begins like one of the exports; it need not be complete."""
    try:
        with file.open("rb") as stream:
            head = stream.read(_HEAD).decode("utf-8-sig", errors="replace").lstrip()
    except OSError:
        return False
    if file.suffix.lower() == ".xml":
        return "<annotations" in head
    return head.startswith("[") or any(f'"{word}"' in head for word in ("images", "annotations", "categories", "info"))


def list_export(file: Path, config_root: Path | None = None) -> Listing:
    """Candidates of an export; images are looked for by path and by name below the file's folder (``config_root``).

    COCO: an image's class is the category of its annotations, of which there may be several of one category. Label
    Studio: the choice of the annotations that are not cancelled, which must agree. CVAT for images: its one tag. Images
    without class become exclusions. CVAT's subsets are splits if they have names of splits; ``default`` is none.

    Raises DataError for an image of several classes, for boxes without a class of the whole image, and for anything
    else that is none of the three.
    """
    root = config_root or file.parent
    rows = list(_cvat(file) if file.suffix.lower() == ".xml" else _json(file))
    listing, files = Listing(table=True), NamedFiles(root, lambda: [(name, *_uploaded(name)) for name, _, _ in rows])
    splits = _splits({word for _, _, word in rows if word is not None}, file, listing.notes)
    taken: dict[Path, str] = {}
    for name, labels, word in rows:
        path = files.moved(name, *_uploaded(name))
        if isinstance(path, str):
            raise DataError(f"{file}: {path}")
        if taken.setdefault(path, name) != name:
            raise DataError(f"{file}: {taken[path]} and {name} would be one file, {path}: one of them is not there")
        if len(set(labels)) > 1:
            two = " and ".join(f"'{label}'" for label in sorted(set(labels))[:2])
            raise DataError(
                f"{file}: {name} has several classes, {two}: these are labels of objects, or of several kinds; "
                f"{_CONVERT}, one class an image"
            )
        if not labels or not path.is_file():
            listing.exclusions.append(Exclusion(path, "no label" if path.is_file() else "no such file"))
            continue
        inside = PurePosixPath(name.replace("\\", "/")).parts[:-1]
        listing.candidates.append(Candidate(path, nfc(labels[0]), splits.get(word), inside=inside))
    if files.elsewhere:
        listing.notes.append(files.elsewhere_note(len(rows), file.name))
    if not listing.candidates:
        missing = f": {rows[0][0]}, for one, is not below {root}" if rows and rows[0][1] else ""
        raise DataError(f"{file}: names no image with a class that is there{missing}")
    return listing


def _splits(words: set[str], file: Path, notes: list[str]) -> dict[str | None, str | None]:
    """The split that each word names. If none names one, they are other parts of a data set, which is noted."""
    found: dict[str | None, str | None] = {word: split_of(word) for word in sorted(words)}
    unknown = [word for word in sorted(words) if found[word] is None]
    if unknown and len(unknown) < len(found):
        raise DataError(f"{file}: unknown split {name_some(unknown)} (use train, val or test)")
    if unknown:
        notes.append(
            f"the subsets {name_some(unknown)} of {file.name} name no splits (train, val or test); "
            "their images are used, and splits are made"
        )
    return found


def _subset(word: str) -> str | None:
    """The name of a CVAT subset; None for images outside all subsets."""
    return None if word.strip().lower() in ("", "default") else word


def _uploaded(name: str) -> list[str]:
    """The name of a file before Label Studio put digits in front of it, in a list; empty for other names."""
    found = _UPLOADED.fullmatch(PurePosixPath(name.replace("\\", "/")).name)
    return [found[1]] if found else []


def _json(file: Path) -> Iterator[tuple[str, list[str], str | None]]:
    content = _loaded(file)
    try:
        if isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys():
            yield from _coco(content, file)
            return
        if isinstance(content, list) and content and isinstance(content[0], dict):
            yield from (_label_studio(task, file) for task in content)
            return
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: is damaged, or of a version that is not known ({error!r})") from error
    raise DataError(f"{file}: neither COCO (images, annotations, categories) nor an export of Label Studio; {_CONVERT}")


def _coco(content: dict[str, Any], file: Path) -> Iterator[tuple[str, list[str], str | None]]:
    names: dict[Any, str] = {}
    for entry in content["categories"]:
        if names.setdefault(entry["id"], str(entry["name"])) != str(entry["name"]):
            raise DataError(f"{file}: two categories have the id {entry['id']}, so labels are unknown")
    found: dict[Any, list[str]] = defaultdict(list)
    for entry in content["annotations"]:
        category = entry["category_id"]
        if category not in names:
            raise DataError(f"{file}: the category {category} of an annotation has no name")
        found[entry["image_id"]].append(names[category])
    files: dict[Any, str] = {}
    for entry in content["images"]:
        if files.setdefault(entry["id"], str(entry["file_name"])) != str(entry["file_name"]):
            raise DataError(f"{file}: two images have the id {entry['id']}, so labels are unknown")
        yield str(entry["file_name"]), found.get(entry["id"], []), None


def _label_studio(task: dict[str, Any], file: Path) -> tuple[str, list[str], str | None]:
    if "annotations" not in task and "data" not in task:  # the export JSON-MIN
        choice = task.get("choice", next((task[key] for key in task if key in ("label", "class")), None))
        return _local(str(task["image"])), _choices(choice), named_split(task.get("split"), str(file))
    data = task["data"]
    image = data.get("image", data.get("img", data.get("url")))
    if image is None:
        raise DataError(f"{file}: a task's data has no image; there are {', '.join(map(repr, sorted(data)))}")
    kept = [entry for entry in task.get("annotations", []) if not entry.get("was_cancelled")]
    labels = [
        str(choice)
        for entry in kept
        for result in entry["result"]
        if result.get("type", "choices") == "choices"
        for choice in result["value"]["choices"]
    ]
    return _local(str(image)), labels, named_split(data.get("split"), str(file))


def _choices(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = value.get("choices", [])
    if isinstance(value, list):
        return [str(each) for each in value]
    return [] if value in (None, "") else [str(value)]


def _local(text: str) -> str:
    """The path in Label Studio's address of an image, such as ``/data/local-files/?d=imgs/a.jpg``."""
    address = urlparse(text)
    inner = parse_qs(address.query).get("d")
    return unquote(inner[0] if inner else address.path) if address.scheme or address.query else unquote(text)


def _cvat(file: Path) -> Iterator[tuple[str, list[str], str | None]]:
    text = _bytes(file)
    if b"<!DOCTYPE" in text[:_HEAD] or b"<!ENTITY" in text:
        raise DataError(f"{file}: has a document type, which CVAT's files have not")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DataError(f"{file}: is no XML ({error})") from error
    images = root.findall("image")
    if root.tag != "annotations" or not images:
        raise DataError(f"{file}: is no export 'CVAT for images'; {_CONVERT}")
    if not any(image.find("tag") is not None for image in images):
        raise DataError(f"{file}: has no tags of whole images, only shapes; {_CONVERT}")
    for image in images:
        tags = [tag.get("label", "") for tag in image.findall("tag")]
        yield image.get("name", ""), [tag for tag in tags if tag], _subset(image.get("subset", ""))


def _loaded(file: Path) -> Any:
    try:
        return json.loads(_bytes(file).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: is no JSON ({error})") from error


def _bytes(file: Path) -> bytes:
    try:
        if file.stat().st_size > _LARGEST:
            raise DataError(f"{file}: larger than {_LARGEST:,} bytes; {_CONVERT}")
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
