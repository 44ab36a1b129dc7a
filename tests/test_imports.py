"""Imports point one way, one module prints, and the command line starts without torch."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import children

ROOT = Path(__file__).parent.parent
BASE = {"_process", "_version", "config", "display", "errors", "measurement", "metrics", "precision", "reporting"}
BASE |= {"_forks", "ambient", "forward", "memory", "processor", "runtime", "stopping", "untrusted", "user_cache"}
PARTS = {"data", "freezing", "optimization", "zoo"}
WORK = {"ensembling", "inference", "training"}

# What the files of a part may import from tl_kit, besides their own part. "" is the package's root, tl_kit itself.
ALLOWED: dict[str, set[str]] = {
    "recipes": {""},
    "cli": {"api"} | BASE,
    "api": WORK | PARTS | BASE,
    "ensembling": {"training"} | PARTS | BASE,
    "training": PARTS | BASE,
    "inference": PARTS | BASE,
    **dict.fromkeys(PARTS, BASE),
    "": {"api", "config", "errors", "user_cache", "_forks", "_process", "_version"},
    **{name: {"config"} for name in ("_forks", "_process")},
    "measurement": {"config", "errors", "memory", "precision", "runtime"},
    "precision": {"config", "processor", "runtime"},
    "metrics": {"errors"},
    "runtime": {"_forks", "config", "errors"},
    "untrusted": {"config", "errors"},
    "user_cache": {"errors", "reporting"},
    "forward": {"errors", "memory", "reporting"},
    **{name: set() for name in ("_version", "ambient", "config", "display", "errors", "memory")},
    **{name: set() for name in ("processor", "reporting", "stopping")},
}
FILES = sorted([*(ROOT / "tl_kit").rglob("*.py"), *(ROOT / "recipes").rglob("*.py")])


def part_of(module: str) -> str:
    """``tl_kit.zoo.hub`` -> ``zoo``, ``tl_kit`` -> ``""``, ``recipes.x`` -> ``recipes``."""
    top, _, rest = module.partition(".")
    return top if top == "recipes" else rest.partition(".")[0]


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imported(source: str, module: str, *, package: bool) -> Iterator[str]:
    """Every module of ours that a file imports, wherever in it, by statement or by ``import_module``."""
    here = module.split(".") if package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{origin}.{alias.name}"
                yield inner if origin.split(".")[0] in ("tl_kit", "recipes") and is_module(inner) else origin
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in (
            "__import__",
            "import_module",
        ):
            argument = node.args[0]
            assert isinstance(argument, ast.Constant), f"{module}: imports a module by a computed name"
            yield str(argument.value)


def forbidden(source: str, module: str, *, package: bool = False) -> list[str]:
    own = part_of(module)
    allowed = ALLOWED[own] | {own}
    ours = [name for name in imported(source, module, package=package) if name.split(".")[0] in ("tl_kit", "recipes")]
    return [name for name in ours if part_of(name) not in allowed]


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_point_one_way(path: Path) -> None:
    assert forbidden(path.read_text(encoding="utf-8"), module_of(path), package=path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "line", "fails"),
    [
        ("tl_kit.data.scan", "from tl_kit.zoo import hub", True),
        ("tl_kit.data.scan", "from tl_kit import zoo", True),
        ("tl_kit.data.scan", "from .. import zoo", True),
        ("tl_kit.data.scan", "from ..zoo.hub import download", True),
        ("tl_kit.data.scan", "from . import decode", False),
        ("tl_kit.data.scan", "import tl_kit.api", True),
        ("tl_kit.data.scan", "from tl_kit import finetune", True),
        ("tl_kit.zoo.weights", "def f():\n    from tl_kit.training.loop import fit", True),
        ("tl_kit.training.loop", "from importlib import import_module\nimport_module('tl_kit.api')", True),
        ("tl_kit.training.loop", "from tl_kit.data.scan import scan", False),
        ("tl_kit.training.loop", "from tl_kit.ensembling.rules import mean", True),
        ("tl_kit.ensembling.rules", "from tl_kit.training.files import write_json", False),
        ("tl_kit.api.run", "from tl_kit.cli import main", True),
        ("tl_kit.cli.app", "from tl_kit.zoo.catalog import search", True),
        ("tl_kit.cli.app", "import recipes", True),
        ("recipes.linear_probe", "from tl_kit import finetune", False),
        ("recipes.linear_probe", "from tl_kit.api import finetune", True),
    ],
)
def test_the_rule_itself(module: str, line: str, fails: bool) -> None:
    assert bool(forbidden(line, module)) is fails


def test_every_part_has_a_rule() -> None:
    assert {part_of(module_of(path)) for path in FILES} == set(ALLOWED)


def prints(source: str) -> list[str]:
    """The ways of writing to the terminal that a file uses."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            found.append("print")
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [name for name in names if name.split(".")[0] == "rich" and name != "rich.cells"]  # measures text
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = f"{node.value.id}.{node.attr}"
            if name in ("sys.stdout", "sys.stderr", "typer.echo", "typer.secho", "typer.style"):
                found.append(name)
    return found


@pytest.mark.parametrize("path", [path for path in FILES if path.name != "console.py"], ids=module_of)
def test_only_the_console_prints(path: Path) -> None:
    assert prints(path.read_text(encoding="utf-8")) == []


def test_the_console_does_print() -> None:
    assert "sys.stdout" in prints((ROOT / "tl_kit/cli/console.py").read_text(encoding="utf-8"))


@pytest.mark.parametrize("statement", ["import tl_kit", "import tl_kit.cli", "from tl_kit import FinetuneConfig"])
def test_starts_without_the_heavy_libraries(statement: str) -> None:
    code = f"{statement}\nimport sys\nprint(sorted({{'torch', 'timm', 'sklearn', 'numpy', 'PIL'}} & set(sys.modules)))"
    done = children.run([sys.executable, "-c", code], cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [["--help"], ["finetune", "--help"], ["--version"], ["nonsense"]])
def test_help_does_not_wait_for_torch(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom tl_kit.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    )
    done = children.run([sys.executable, "-c", code], cwd=ROOT)
    assert done.returncode == 0, done.stderr
