"""The wheel holds the two packages, whole, and nothing else of the repository."""

from __future__ import annotations

import shutil
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests import children
from tl_kit._version import __version__

ROOT = Path(__file__).parent.parent
PACKAGES = ("tl_kit", "recipes")
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy of the source tree, in which every other folder holds a module too."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tests", "examples", "benchmarks", "docs", "ckpts", "demo", "tests/tl_kit"):
        (source / name).mkdir()
        (source / name / "__init__.py").write_text("")
    out = tmp_path_factory.mktemp("wheel")
    done = children.run([sys.executable, "-c", BUILD, out], cwd=source)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.iterdir()
    return zipfile.ZipFile(built)


def test_it_is_exactly_the_two_packages(wheel: zipfile.ZipFile) -> None:
    names = {name for name in wheel.namelist() if not name.split("/")[0].endswith(".dist-info")}
    expected = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file()
        and (
            path.suffix == ".py"
            or path.name == "py.typed"
            or path.parent.name == "templates"
            or path.name == "page.html"
        )
    }
    assert names == expected
    assert {
        "tl_kit/py.typed",
        "recipes/py.typed",
        "tl_kit/cli/app.py",
        "tl_kit/report_page/templates/report.html",
        "tl_kit/serving/page.html",
    } <= names


def test_metadata(wheel: zipfile.ZipFile) -> None:
    folder = f"tl_kit-{__version__}.dist-info"
    assert {name.split("/")[0] for name in wheel.namelist()} == {*PACKAGES, folder}
    metadata = Parser().parsestr(wheel.read(f"{folder}/METADATA").decode())
    assert (metadata["Name"], metadata["Version"], metadata["License-Expression"]) == (
        "tl-kit",
        __version__,
        "Apache-2.0",
    )
    assert metadata["Requires-Python"] == ">=3.10"
    assert "Apache License" in wheel.read(f"{folder}/licenses/LICENSE").decode()
    assert wheel.read(f"{folder}/entry_points.txt").decode().split() == [
        "[console_scripts]",
        "tlkit",
        "=",
        "tl_kit.cli:main",
    ]
