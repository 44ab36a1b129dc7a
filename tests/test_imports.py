"""The structure of the package: imports point one way, one module prints, and the command line starts without torch."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests import children

ROOT = Path(__file__).parent.parent

# From the top to the ground. A room imports from rooms of lower floors alone; rooms of one floor know nothing of each
# other, but for the ground, whose modules may import one another.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"__main__"}),
    frozenset({"cli", "recipes", "sklearn"}),
    frozenset({"face"}),
    frozenset({"fitting"}),
    frozenset({"series", "planning", "exporting", "serving", "demonstration"}),
    frozenset({"finetuning", "ensembling", "report_page"}),
    frozenset({"inference", "reports", "tracking"}),
    frozenset({"storage", "diagnosis"}),
    frozenset({"data"}),
    frozenset({"images", "zoo", "freezing", "training", "combining"}),
    frozenset({"optimization", "machine"}),
    frozenset(
        {
            "_version",
            "class_names",
            "clock",
            "config",
            "display",
            "errors",
            "file_kinds",
            "flags",
            "html_tables",
            "metrics",
            "named_options",
            "number_ranges",
            "optional_packages",
            "options_file",
            "plain_values",
            "reporting",
            "score_kinds",
            "stopping",
            "untrusted",
        }
    ),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
GROUND = FLOORS[-1]
# The command line calls the face and prints; recipes are what a user writes.
ONLY = {"cli": GROUND - {"metrics"} | {"face"}, "recipes": frozenset({"face", "config", "errors"})}
WITHOUT_TORCH = ("combining",)
MOST_MODULES, MOST_LINES = 20, 400
FILES = sorted([*(ROOT / "tl_kit").rglob("*.py"), *(ROOT / "recipes").rglob("*.py")])


def room_of(module: str) -> str:
    """``tl_kit.zoo.hub`` -> ``zoo``, ``tl_kit`` -> ``face``, ``recipes.x`` -> ``recipes``."""
    top, _, rest = module.partition(".")
    return top if top == "recipes" else rest.partition(".")[0] or "face"


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


@cache
def imported(source: str, module: str, *, package: bool = False) -> tuple[str, ...]:
    """Every module that a file imports, wherever in it, for type checking too, by statement or ``import_module``."""
    return tuple(_imported(source, module, package))


def _imported(source: str, module: str, package: bool) -> Iterator[str]:
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


def ours(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.split(".")[0] in ("tl_kit", "recipes")]


def forbidden(source: str, module: str, *, package: bool = False) -> list[str]:
    """The imports of a file that its room must not have."""
    own = room_of(module)

    def allowed(name: str) -> bool:
        other = room_of(name)
        if other == own or {own, other} <= GROUND:
            return True
        return other in ONLY[own] if own in ONLY else other in FLOOR and FLOOR[other] > FLOOR[own]

    return [name for name in ours(imported(source, module, package=package)) if not allowed(name)]


@pytest.mark.parametrize("path", [path for path in FILES if path != ROOT / "tl_kit" / "__init__.py"], ids=module_of)
def test_imports_point_one_way(path: Path) -> None:
    assert forbidden(path.read_text(encoding="utf-8"), module_of(path), package=path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "line", "fails"),
    [
        ("tl_kit.data.scan", "from tl_kit.inference import predictor", True),
        ("tl_kit.data.scan", "from tl_kit import inference", True),
        ("tl_kit.data.scan", "from .. import inference", True),
        ("tl_kit.data.scan", "from ..storage.checkpoint import load_checkpoint", True),
        ("tl_kit.data.scan", "from . import splits", False),
        ("tl_kit.data.scan", "from tl_kit.images.decode import decode", False),
        ("tl_kit.data.scan", "import tl_kit", True),
        ("tl_kit.data.scan", "from tl_kit import finetune", True),
        ("tl_kit.zoo.hub", "def f():\n    from tl_kit.training.loop import fit", True),
        ("tl_kit.training.loop", "from importlib import import_module\nimport_module('tl_kit.finetuning.run')", True),
        ("tl_kit.training.loop", "from tl_kit.storage.atomic import write_json", True),
        ("tl_kit.training.loop", "from tl_kit.combining.rules import mean", True),
        ("tl_kit.finetuning.run", "from tl_kit.ensembling.ensemble import ensemble", True),
        ("tl_kit.ensembling.ensemble", "from tl_kit.finetuning.finetune import finetune", True),
        ("tl_kit.ensembling.ensemble", "from tl_kit.inference.predictor import load", False),
        ("tl_kit.finetuning.run", "from tl_kit.cli import main", True),
        ("tl_kit.metrics", "from tl_kit.errors import TlKitError", False),
        ("tl_kit.metrics", "from tl_kit.combining.rules import mean", True),
        ("tl_kit.cli.app", "from tl_kit.zoo.catalog import search", True),
        ("tl_kit.cli.app", "import recipes", True),
        ("tl_kit.cli.app", "import tl_kit", False),
        ("recipes.linear_probe", "from tl_kit import finetune", False),
        ("recipes.linear_probe", "from tl_kit.finetuning.finetune import finetune", True),
    ],
)
def test_the_rule_itself(module: str, line: str, fails: bool) -> None:
    assert bool(forbidden(line, module)) is fails


def test_every_room_stands_on_a_floor() -> None:
    assert {room_of(module_of(path)) for path in FILES} == set(FLOOR)


def edges() -> Mapping[str, set[str]]:
    return {
        module_of(path): set(
            ours(imported(path.read_text(encoding="utf-8"), module_of(path), package=path.name == "__init__.py"))
        )
        - {module_of(path)}
        for path in FILES
        if path != ROOT / "tl_kit" / "__init__.py"
    }


def test_there_are_no_circles() -> None:
    TopologicalSorter(edges()).prepare()


def test_a_circle_would_be_found() -> None:
    with pytest.raises(CycleError):
        TopologicalSorter({**edges(), "tl_kit.errors": {"tl_kit.cli.app"}}).prepare()


def test_each_name_on_the_face_has_its_module() -> None:
    import tl_kit

    assert all(callable(getattr(tl_kit, name)) for name in tl_kit._MODULES)
    assert {name for name in tl_kit.__all__ if name not in vars(tl_kit)} <= set(tl_kit._MODULES)


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_some_rooms_do_without_torch(room: str) -> None:
    files = (ROOT / "tl_kit" / room).glob("*.py")
    found = {name.split(".")[0] for path in files for name in imported(path.read_text("utf-8"), module_of(path))}
    assert not found & {"torch", "torchvision", "timm"}


def test_no_folder_is_crowded() -> None:
    counts = Counter(path.parent for path in FILES if path.name != "__init__.py")
    assert {str(folder): count for folder, count in counts.items() if count > MOST_MODULES} == {}


def test_no_two_modules_share_a_name() -> None:
    names = Counter(p.stem for p in FILES if p.stem != "__init__" and room_of(module_of(p)) not in ("cli", "recipes"))
    assert {name for name, count in names.items() if count > 1} == set()


def test_no_file_is_long() -> None:
    lengths = {module_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {module: length for module, length in lengths.items() if length > MOST_LINES} == {}


def test_rooms_say_what_they_are_as_the_documentation_does() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^    (\w+)/ +(.+)$", text, flags=re.MULTILINE))
    packages = (ROOT / "tl_kit").glob("*/__init__.py")
    assert told == {path.parent.name: ast.get_docstring(ast.parse(path.read_text("utf-8"))) for path in packages}


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
