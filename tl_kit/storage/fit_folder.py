"""A fit's folder on disk: its ``fit.json`` names the best result so far, a folder beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tl_kit.errors import CheckpointError
from tl_kit.storage.atomic import write_json
from tl_kit.storage.cards.recorded_scores import Score, mapping, score_of
from tl_kit.untrusted import check_inside, is_plain_relative, read_json

__all__ = ["FIT", "best_of", "fit_scores", "is_fit", "read_fit", "write_fit"]

FIT = "fit.json"
FORMAT = 1


def is_fit(folder: Path) -> bool:
    """True if ``write_fit`` described the folder."""
    return (folder / FIT).is_file()


def best_of(folder: Path) -> Path:
    """The checkpoint or ensemble that a fit's folder stands for; any other folder stands for itself.

    Raises CheckpointError if the fit has no result yet, or if its file is damaged.
    """
    if not is_fit(folder):
        return folder
    best = read_fit(folder).get("best")
    if best is None:
        raise CheckpointError(f"{folder}: has no result yet; tlkit fit --resume {folder} goes on")
    if not isinstance(best, str) or not is_plain_relative(best):
        raise CheckpointError(f"{folder / FIT}: best {best!r} lies outside the folder")
    check_inside(folder / best, folder, error=CheckpointError)
    return folder / best


def read_fit(folder: Path) -> dict[str, Any]:
    """The content of ``fit.json``. Raises CheckpointError if it is broken or of another format."""
    content = read_json(folder / FIT, error=CheckpointError)
    if content.get("format") != FORMAT:
        raise CheckpointError(f"{folder / FIT}: format {content.get('format')!r} is not {FORMAT}; another version's")
    return content


def fit_scores(content: Mapping[str, Any]) -> list[Score]:
    """The scores of the best result, from the content of a finished fit's ``fit.json``; empty where it has none."""
    kinds, images = mapping(content.get("kinds")), mapping(content.get("images"))
    found = [score_of(split, content.get(split), kinds.get(split), images.get(split)) for split in ("test", "val")]
    return [score for score in found if score is not None]


def write_fit(folder: Path, content: Mapping[str, object]) -> None:
    """Describe the folder, in one atomic step: from then on it stands for ``content["best"]``."""
    write_json(folder / FIT, {"format": FORMAT, **content})
