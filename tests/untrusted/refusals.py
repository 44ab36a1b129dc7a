"""What a refusal is: one line, exit code 2, nothing on stdout, nothing written."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tests.cli.helpers import tlkit


def tree(root: Path) -> dict[str, str]:
    """Every file below ``root`` and a digest of what it holds."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in root.rglob("*")
    }


def refused(root: Path, *arguments: object) -> str:
    """Run a command that must be refused, with nothing below ``root`` changed; returns its one line."""
    before = tree(root)
    done = tlkit(*arguments)
    lines = [line for line in done.err.splitlines() if "error" in line]
    assert (done.code, done.out) == (2, ""), done.err
    assert len(lines) == 1, done.err
    assert lines[0] == done.err.splitlines()[-1]
    assert lines[0].startswith("error: "), done.err
    assert "Traceback" not in done.err
    assert lines[0].isprintable(), lines[0]
    assert tree(root) == before
    return lines[0]


def every_way_in(folder: Path, images: Path) -> list[tuple[object, ...]]:
    """The commands that open a checkpoint or an ensemble."""
    return [
        ("predict", folder, images / "red"),
        ("evaluate", folder, "--data", images),
        ("ensemble", folder, folder, "--data", images, "--out", folder.parent / "out"),
    ]
