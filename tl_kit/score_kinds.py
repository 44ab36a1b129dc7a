"""Kinds of scores in words: estimates for new images, and scores that are too good as an estimate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tl_kit.config import FoldsConfig
from tl_kit.display import HONEST

__all__ = ["KINDS", "OUT_OF_FOLD", "notes_on", "what_chose"]

OUT_OF_FOLD = HONEST[1]

_CHOSE = {
    "C": "the penalty C",
    "epoch": "the best epoch",
    "average": "whether averaged weights are kept",
    "head": "how much of the trained network is kept",
    "rate": "when the rate drops",
    "length": "when the run ends",
    "rule": "the rule",
    "temperature": "the temperature",
}
_NOTES = {
    "selected on": "these images chose {chose}, so that the figure is too good as an estimate",
    "trained on": "the model was trained on these images, so that this is no test",
    "mixed": "the model was trained on some of these images, or they chose {chose}, so that this is no test",
    "unknown": "the record of the model does not say what it was trained on, nor so whether these images are new",
}
KINDS = (*HONEST, *_NOTES)
"""All kinds of score."""


def what_chose(chose: Sequence[str]) -> str:
    """The choices made with images, in words: ``the best epoch and the rule``."""
    names = [_CHOSE.get(each, each) for each in chose] or ["something of the model"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def notes_on(kinds: Iterable[Mapping[str, str]], chose: Sequence[str], *, cross_validated: bool = False) -> list[str]:
    """Notes that explain a table's mark ``*``, a line for each marked split, and how to get an honest figure.

    ``kinds``: each row's kinds of scores, by split. ``chose``: the choices made with images that are ``selected on``.
    ``cross_validated``: True if there is an honest figure already.
    """
    rows = list(kinds)
    lines = []
    for split in dict.fromkeys(split for row in rows for split in row):
        found = {row[split] for row in rows if split in row}.difference(HONEST)
        if found:
            worst = found.pop() if len(found) == 1 else "mixed"
            lines.append(f"* {split} ({worst}): {_NOTES[worst].format(chose=what_chose(chose))}")
    if lines and not cross_validated and not any(set(row.values()) & set(HONEST) for row in rows):
        lines.append(
            f"there is no test split: of enough images, tlkit finetune ... --folds {FoldsConfig.folds} scores each "
            "by a model in which it had no part"
        )
    return lines
