"""What pyproject.toml declares is what is imported, and its lower bounds are the versions in tests/lowest.txt."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
OURS = {"tl_kit", "recipes", "tests"}
MODULES = {
    "axe-playwright-python": "axe_playwright_python",
    "ipython": "IPython",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}
NOT_IMPORTED = {
    "requests": "fsspec asks for it too before it reads https://",
    "opt_einsum": "torch looks for it: without it a step of the optimizer kron takes minutes and gigabytes",
    "mkdocs-material": "a program, and the look of the site",
    "mkdocstrings-python": "the site's page on Python",
    "ipykernel": "runs the example notebooks",
    "ipywidgets": "tqdm draws its bars in notebooks with it",
    "mypy": "a program",
    "httpx2": "the test client of starlette needs it",
    "onnxscript": "torch's exporter to ONNX needs it",
    "ruff": "a program",
    "python-multipart": "starlette reads forms with it",
    "pytest-xdist": "a plugin of pytest",
    "setuptools": "builds the wheel",
}
EXTRAS = {
    "starter": "wheels that hold weights: files, not modules",
    "export": "files for programs without tl-kit",
    "openvino": "one format of these files",
    "peft": "low-rank adapters",
    "track": "one experiment tracker",
    "notebook": "progress bars and tables in notebooks",
    "data": "forms in which data sets come",
    "serve": "a page and an HTTP interface",
}

ON_DEMAND = (
    *("IPython", "aiohttp", "datasets", "fastapi", "fsspec", "onnx", "onnxruntime", "openvino", "peft", "pyarrow"),
    *("starlette", "tqdm", "uvicorn"),
)
BY_OTHERS = {"tensorboard": "torch writes its files with it, and tests read them"}


def project() -> dict[str, Any]:
    content: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return content


def bounds(requirements: list[str]) -> dict[str, str]:
    """``["numpy>=1.26"]`` -> ``{"numpy": "1.26"}``; fails where a requirement is written otherwise."""
    found = [re.fullmatch(r"([\w-]+)>=([\d.]+)(?:; .*)?", requirement) for requirement in requirements]
    assert all(found), requirements
    return {match[1]: match[2] for match in found if match}


def declared() -> tuple[dict[str, str], dict[str, str]]:
    """Of the package, and of its tests."""
    content = project()["project"]
    extras = content["optional-dependencies"]
    assert set(extras) == {"dev", *EXTRAS}
    return bounds(content["dependencies"]), bounds(extras["dev"])


def imports(*folders: str) -> set[str]:
    """Top-level names of all modules that files there import, Python's own and ours left out."""
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    found = {name.partition(".")[0] for path in files for name in _imports(path.read_text(encoding="utf-8"))}
    return found - OURS - sys.stdlib_module_names - {"tomllib"}  # from 3.11 on


def _imports(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (str(argument.value) for argument in node.args if isinstance(argument, ast.Constant))


def modules(names: dict[str, str]) -> set[str]:
    return {MODULES.get(name, name) for name in names if name not in NOT_IMPORTED}


def test_the_package_declares_what_it_imports_and_no_more() -> None:
    """What only an extra brings is imported where it is used, and is tested in the version that the extra names."""
    extras = project()["project"]["optional-dependencies"]
    brought = {name: bound for extra in EXTRAS if extra != "starter" for name, bound in bounds(extras[extra]).items()}
    assert imports("tl_kit", "recipes") == modules(declared()[0]) | set(ON_DEMAND)
    assert modules(brought) == {*ON_DEMAND, *BY_OTHERS}
    assert brought.items() <= declared()[1].items()


def test_the_tests_declare_what_they_import_and_no_more() -> None:
    package, dev = declared()
    assert imports("tests") - modules(package) == modules(dev)


def test_what_is_excused_is_declared() -> None:
    package, dev = declared()
    assert set(NOT_IMPORTED) <= {*package, *dev}


def numbers(version: str) -> tuple[int, ...]:
    """``"1.26"`` and ``"1.26.0"`` alike."""
    found = [int(part) for part in version.split(".")]
    return tuple([*found, 0, 0, 0][:3])


def test_the_lower_bounds_are_those_that_are_tried() -> None:
    ours, _, _ = (ROOT / "tests" / "lowest.txt").read_text(encoding="utf-8").partition("\n\n")
    tried = dict(line.split("==") for line in ours.splitlines() if not line.startswith("#"))
    package, dev = declared()
    assert {name: numbers(version) for name, version in tried.items()} == {
        name: numbers(version) for name, version in {**package, **dev}.items()
    }


def test_the_pythons_that_are_named_agree() -> None:
    content = project()
    named = [line.rpartition(" ")[2] for line in content["project"]["classifiers"] if " :: Python :: 3." in line]
    assert named, "no Python is named"
    assert content["project"]["requires-python"] == f">={named[0]}"
    assert content["tool"]["mypy"]["python_version"] == named[0]
    assert content["tool"]["ruff"]["target-version"] == f"py{named[0].replace('.', '')}"


@pytest.mark.parametrize(("source", "found"), [("import a.b, c", ["a.b", "c"]), ("from a.b import c", ["a.b"])])
def test_imports_are_found(source: str, found: list[str]) -> None:
    assert list(_imports(f"def f():\n    {source}\n")) == found
