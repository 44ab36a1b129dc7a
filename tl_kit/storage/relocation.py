"""Relocation: finds the paths of a run that is resumed from another folder, or after it was moved."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tl_kit.config import FinetuneConfig
from tl_kit.errors import DataError
from tl_kit.file_kinds import address_of
from tl_kit.machine.runtime import present_device
from tl_kit.reporting import Reporter
from tl_kit.zoo.names import FOLDER_PREFIX, HUB_PREFIX

__all__ = ["birthplace", "relocated"]


def birthplace(folder: Path) -> dict[str, str]:
    """The folders that a run in ``folder`` records at its start: the folder of its relative paths, and its own."""
    return {"from": str(Path.cwd()), "run": str(folder.absolute())}


def relocated(config: FinetuneConfig, born: object, folder: Path, reporter: Reporter) -> FinetuneConfig:
    """The options of the run in ``folder``, with paths valid from the current folder; ``born``: its :func:`birthplace`.

    A relative path is searched first where it was relative to the run, then in the folder where the run began, then in
    the current folder. Raises DataError, naming the places, if the images are in none of them.
    """
    noted = born if isinstance(born, Mapping) else {}
    data = _found(config.data, noted, folder)
    if data is None:
        looked = ", ".join(map(str, dict.fromkeys(_places(Path(config.data), noted, folder))))
        raise DataError(f"--resume {folder}: the images of the run are gone (looked at {looked}); put them back there")
    if data != Path(config.data):
        reporter.message(f"images: {data}")
        config = replace(config, data=data)
    runtime, line = present_device(config.runtime)
    if line is not None:
        reporter.message(line)
    return replace(config, runtime=runtime, **_other_paths(config, noted, folder))


def _other_paths(config: FinetuneConfig, born: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Paths of pretrained weights, model folder, teacher and cache; a path that is not found stays unchanged."""
    changes: dict[str, Any] = {}
    if config.weights not in ("auto", "none") and not config.weights.startswith(HUB_PREFIX):
        changes["weights"] = str(_found(config.weights, born, folder) or config.weights)
    if config.model.startswith(FOLDER_PREFIX):
        name = config.model.removeprefix(FOLDER_PREFIX)
        changes["model"] = f"{FOLDER_PREFIX}{_found(name, born, folder) or name}"
    if config.distill is not None:
        teacher = _found(config.distill.teacher, born, folder) or config.distill.teacher
        changes["distill"] = replace(config.distill, teacher=teacher)
    if config.cache.directory is not None and not config.cache.directory.is_absolute():
        first = next(iter(_places(config.cache.directory, born, folder)))
        changes["cache"] = replace(config.cache, directory=_found(config.cache.directory, born, folder) or first)
    return changes


def _found(written: Path | str, born: Mapping[str, Any], folder: Path) -> Path | None:
    """The first place where a path of the run exists; the unchanged path if it leads to the same place."""
    path = Path(written)
    if address_of(path) is not None:
        return path
    place = next((each for each in _places(path, born, folder) if _is_there(each)), None)
    return path if place is not None and _is_there(path) and place.samefile(path) else place


def _is_there(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises where it may not look


def _places(path: Path, born: Mapping[str, Any], folder: Path) -> Iterator[Path]:
    begun, run = born.get("from"), born.get("run")
    moved = None
    if isinstance(begun, str) and isinstance(run, str) and Path(begun).anchor == Path(run).anchor:
        moved = Path(os.path.normpath(folder.absolute() / os.path.relpath(Path(begun) / path, run)))
    if path.is_absolute():
        yield path
        if moved is not None:
            yield moved
        return
    if moved is not None and isinstance(begun, str):
        yield moved
        yield Path(begun) / path
    yield path.absolute()
    if moved is None:  # a run of an earlier version: it may have begun in one of its parent folders
        yield from (parent / path for parent in folder.absolute().parents)
