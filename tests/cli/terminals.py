"""The command line on a terminal of some width, and images whose classes have hostile names."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from tests.helpers import write_images
from tl_kit.cli import main
from tl_kit.cli.cells import width_of

WIDTHS = (40, 60, 80, 120)
NAMES = ("a very long class name, of shirts with short sleeves", "猫の服" * 6 + "👩\u200d🔬", "\x1b[31mred\u202e\nblue")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def hostile_images(root: Path) -> Path:
    data = write_images(root, ("red", "green", "blue"), images=10)
    for colour, name in zip(("red", "green", "blue"), NAMES, strict=True):
        (data / colour).rename(data / name)
    return data


def shown(monkeypatch: pytest.MonkeyPatch, columns: int, *arguments: object) -> list[str]:
    """Lines of the result on a terminal of so many columns."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "dumb")
    out, err = Terminal(), Terminal()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert end.value.code == 0, err.getvalue()
    return out.getvalue().splitlines()


def unfit(line: str, columns: int) -> str:
    """The line, if it is wider than the terminal, or holds what a terminal would obey; empty if it is sound.

    A path stands on a line by itself, whatever its length, so that it can be copied.
    """
    wide = width_of(line) > columns and not (line.startswith(("/", "tlkit ")) or " " not in line)
    return line if wide or re.search(r"[\x00-\x1f\x7f\u202e]", line) else ""
