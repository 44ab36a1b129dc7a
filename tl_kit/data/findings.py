"""Findings: the faults that a data set can have, by name, each with its remedy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

__all__ = ["BLOCKING", "REMEDIES", "SEVERITIES", "Finding", "Severity"]

Severity: TypeAlias = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")

BLOCKING = (
    *("class-above-split", "class-missing", "group-leak", "label-conflict", "split-leak", "split-or-class"),
    "unused-split",
)
"""Names of the errors that ``--allow`` can lift. The only other error is ``unusable``: there is nothing to train on."""

_ALIKE = "prepare the images of all classes alike (one size, one format, one place), or do not trust the accuracy"
_REMOVE = "remove one of each, or keep them on one side: --group-pattern, or a group column in a CSV"
REMEDIES = {
    "alike-names": "write them the same if they are one class",
    "border-shortcut": "if the border is no part of what the classes are, crop it, or do not trust the accuracy",
    "class-above-split": "put the split above the class (train/cat, test/cat), or name it in a CSV's column split",
    "class-missing": "add images of the class to that split, or take the class out",
    "cut-off": "nothing need be done: finetune compares --crop-mode center with squash, which shows the whole image",
    "deep-image": "nothing need be done: the range is kept with the model, and used when it predicts",
    "duplicate": "nothing need be done; remove the copies to save time",
    "excluded": "do what the reason says; repair or remove what is damaged",
    "exif-shortcut": _ALIKE,
    "few-images": "add images, or merge classes",
    "file-shortcut": _ALIKE,
    "group-leak": "give every image of a group the same split, or leave the splits to tl-kit",
    "imbalance": "nothing need be done: --balance and --select answer to it; more images of the rare class are better",
    "label-conflict": "look at them, and keep each under its right label only",
    "missing-paths": "correct the paths in the CSV",
    "near-duplicate": "nothing need be done; remove the copies to save time",
    "near-empty": "look at them, and remove those that show nothing",
    "near-label-conflict": "look at them, and correct the wrong labels",
    "near-split-leak": _REMOVE,
    "nested-classes": "if they are the classes, give a folder that holds all of them; otherwise nothing need be done",
    "note": "",
    "odd-name": "rename it, or correct the labels, unless it is meant so",
    "several-pages": "nothing need be done; save pages or frames as files of their own to use them all",
    "size-shortcut": _ALIKE,
    "small-image": "replace them by larger ones if there are any",
    "split-leak": "remove all but one of each",
    "split-or-class": "rename or move the folder, so that it is clearly a split or clearly a class",
    "unused-split": "name the column split, with the cells train, val and test",
    "unusable": "follow what it says: no training is possible before",
}


@dataclass(frozen=True)
class Finding:
    """A fault ("error", which stops training), a suspicion ("warning") or a remark ("info").

    ``code`` is its name, a key of :data:`REMEDIES`; ``sets`` groups the ``paths`` that belong together.
    """

    severity: Severity
    code: str
    message: str
    paths: tuple[Path, ...] = ()
    sets: tuple[tuple[Path, ...], ...] = ()

    @property
    def remedy(self) -> str:
        """The advice to the user; empty for a mere note."""
        return REMEDIES[self.code]
