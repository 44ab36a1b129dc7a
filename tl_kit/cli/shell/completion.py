"""Shell completion: names that a shell offers for an option's value, found without torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

__all__ = ["completion"]

_FOLDERS = ("ckpts", "ensembles", "fits")
_MARKS = ("tlkit.json", "ensemble.json", "fit.json")


def completion(
    what: tuple[str, ...] | Literal["models", "checkpoints"],
) -> Callable[[str], list[str]] | None:
    """A function from the beginning of a value to the values that a shell offers; None if there are none to offer."""
    if what == "models":
        return _models
    if what == "checkpoints":
        return _checkpoints
    return (lambda incomplete: [text for text in what if text.startswith(incomplete)]) if what else None


def _models(incomplete: str) -> list[str]:
    """timm's names; with a tag once the name is complete, since there are several for most."""
    from tl_kit import known_models

    names = ["auto", *known_models()]
    found = [name for name in names if name.startswith(incomplete)]
    short = [name for name in found if "." not in name]
    return found if "." in incomplete or len(short) <= 1 else short


def _checkpoints(incomplete: str) -> list[str]:
    """Folders with a checkpoint, an ensemble or a fit: beside what is typed, and where commands write them."""
    beside = incomplete[: incomplete.rfind("/") + 1]
    found = {
        f"{start}{path.name}"
        for start in (beside, *(f"{name}/" for name in _FOLDERS))
        if Path(start).is_dir()
        for path in Path(start).glob("*/")
        if any((path / mark).is_file() for mark in _MARKS)
    }
    return sorted(path for path in found if path.startswith(incomplete))
