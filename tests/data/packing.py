"""Packers: one set of class folders in every form in which data sets come."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import datasets
import pyarrow as pa
from pyarrow import parquet


def images_of(folder: Path) -> list[tuple[str, Path]]:
    """Class and file of each image in class folders."""
    return sorted((file.parent.name, file) for file in folder.glob("*/*") if file.is_file())


def classes_of(folder: Path) -> list[str]:
    return sorted({name for name, _ in images_of(folder)})


def tar(file: Path, members: Iterable[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(file, mode) as archive:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return file


def zipped(file: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file


def flag_all(file: Path, byte: int, change: Callable[[int], int]) -> None:
    """Changes one of the two bytes of flags in both headers of each member of a zip file."""
    data = bytearray(file.read_bytes())
    for magic, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(magic)
        while at >= 0:
            data[at + place + byte] = change(data[at + place + byte])
            at = data.find(magic, at + 4)
    file.write_bytes(data)


def class_folders(folder: Path, *, under: str = "") -> list[tuple[str, bytes]]:
    return [(f"{under}{name}/{file.name}", file.read_bytes()) for name, file in images_of(folder)]


def pairs(folder: Path, label: Callable[[str], tuple[str, object]]) -> list[tuple[str, bytes]]:
    """``key.png`` and a label: ``label(class)`` is its ending and its content."""
    found = []
    for number, (name, file) in enumerate(images_of(folder)):
        ending, content = label(name)
        text = content if isinstance(content, str) else json.dumps(content)
        found += [(f"{number:06d}.png", file.read_bytes()), (f"{number:06d}.{ending}", text.encode())]
    return found


def hub_metadata(classes: list[str]) -> dict[bytes, bytes]:
    features = {"image": {"_type": "Image"}, "label": {"names": classes, "_type": "ClassLabel"}}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def structs(file: Path, folder: Path) -> Path:
    """As the library datasets writes Parquet."""
    images, classes = images_of(folder), classes_of(folder)
    columns = {
        "image": [{"bytes": each.read_bytes(), "path": each.name} for _, each in images],
        "label": [classes.index(name) for name, _ in images],
    }
    parquet.write_table(pa.table(columns).replace_schema_metadata(hub_metadata(classes)), file)
    return file


def binaries(file: Path, folder: Path) -> Path:
    images = images_of(folder)
    columns = {"jpg": [each.read_bytes() for _, each in images], "class": [name for name, _ in images]}
    parquet.write_table(pa.table(columns), file, row_group_size=7)
    return file


def paths(file: Path, folder: Path) -> Path:
    images = images_of(folder)
    columns = {
        "file_name": [str(each.relative_to(file.parent)) for _, each in images],
        "category": pa.array([name for name, _ in images]).dictionary_encode(),
    }
    parquet.write_table(pa.table(columns), file)
    return file


def saved(place: Path, folder: Path) -> Path:
    """As ``save_to_disk`` writes it."""
    images, classes = images_of(folder), classes_of(folder)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=classes)})
    columns = {"image": [str(each) for _, each in images], "label": [classes.index(name) for name, _ in images]}
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(place))
    return place


def coco(file: Path, folder: Path) -> Path:
    images, classes = images_of(folder), classes_of(folder)
    content = {
        "images": [{"id": i, "file_name": str(each.relative_to(folder))} for i, (_, each) in enumerate(images)],
        "categories": [{"id": 10 + i, "name": name} for i, name in enumerate(classes)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 10 + classes.index(name)} for i, (name, _) in enumerate(images)
        ],
    }
    file.write_text(json.dumps(content))
    return file


def label_studio(file: Path, folder: Path) -> Path:
    """Images in one folder, under names with the digits that its server adds."""
    tasks = []
    for number, (name, each) in enumerate(images_of(folder)):
        result = [{"type": "choices", "value": {"choices": [name]}}]
        source = f"/data/local-files/?d=imgs/{folder.name}/{name}/{each.name}"
        tasks.append({"id": number, "data": {"image": source}, "annotations": [{"result": result}]})
    file.write_text(json.dumps(tasks))
    return file


def cvat(file: Path, folder: Path) -> Path:
    rows = [
        f'<image id="{i}" name="{each.relative_to(folder)}" width="8" height="8"><tag label="{name}"/></image>'
        for i, (name, each) in enumerate(images_of(folder))
    ]
    file.write_text(f'<?xml version="1.0"?>\n<annotations><version>1.1</version>{"".join(rows)}</annotations>')
    return file


def semicolons(file: Path, folder: Path) -> Path:
    rows = [f"{each.relative_to(file.parent)};{name}" for name, each in images_of(folder)]
    file.write_text("\ufeffImage Path;Class\n" + "\n".join(rows), encoding="utf-8")
    return file


FORMS: dict[str, Callable[[Path, Path], Path]] = {
    "set.zip": lambda file, folder: zipped(file, class_folders(folder)),
    "wrapped.zip": lambda file, folder: zipped(file, class_folders(folder, under="a/b/")),
    "set.tar": lambda file, folder: tar(file, class_folders(folder)),
    "set.tar.gz": lambda file, folder: tar(file, class_folders(folder), "w:gz"),
    "structs.parquet": structs,
    "binaries.parquet": binaries,
    "paths.parquet": paths,
    "shard.tar": lambda file, folder: tar(file, pairs(folder, lambda name: ("cls", name))),
    "json.tar": lambda file, folder: tar(file, pairs(folder, lambda name: ("json", {"Class": name, "x": [1]}))),
    "txt.tar": lambda file, folder: tar(file, pairs(folder, lambda name: ("txt", name))),
    "saved": saved,
    "coco.json": coco,
    "tasks.json": label_studio,
    "cvat.xml": cvat,
    "semicolons.csv": semicolons,
}
