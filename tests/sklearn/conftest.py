"""Images that all tests of the estimators use, and options of runs that take half a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import write_images


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of 12 images each: red, green, blue."""
    return write_images(tmp_path_factory.mktemp("estimators") / "images")


@pytest.fixture(scope="session")
def paths(folder: Path) -> list[Path]:
    """Their paths, with the classes mixed."""
    return sorted(folder.glob("*/*.png"), key=lambda path: (path.name, path.parent.name))


@pytest.fixture(scope="session")
def labels(paths: list[Path]) -> list[str]:
    return [path.parent.name for path in paths]
