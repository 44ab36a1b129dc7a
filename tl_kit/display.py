"""Display of untrusted text (class names, paths, names of tensors), of figures, and the mark of some scores."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping

__all__ = [
    "EPOCH_FIGURES",
    "HONEST",
    "class_figures",
    "drawable",
    "figure",
    "figures",
    "is_marked",
    "marked",
    "step_number",
    "visible",
]

HONEST = ("test", "out of fold")
"""Kinds of score that estimate the score on new images: no image had a part in the model that it scored."""

EPOCH_FIGURES = ("epoch", "loss", "val_accuracy", "val_nll", "lr", "images_per_second", "data_wait")
"""Figures of an epoch, in the order in which they are shown."""

_SHARES = ("accuracy", "balanced_accuracy", "macro_f1", "ece", "precision", "recall", "f1", "data_wait")
_JOINERS = "\u200c\u200d"  # used in Persian and Indic names, and in emoji


def visible(text: str) -> str:
    r"""``text`` on one line, with terminal control characters as ``\x1b``, ``\n``, ``\u202e``.

    This covers Unicode's control, format, surrogate and separator characters; class names and paths are untrusted.
    """
    return "".join(_escaped(c) if _is_hidden(c) else c for c in text)


def drawable(text: str) -> str:
    """:func:`visible` text for a picture, escaped so that matplotlib does not read it as a formula."""
    return visible(text).replace("$", r"\$")


def is_marked(split: str, kinds: Iterable[Mapping[str, str]]) -> bool:
    """True if, in any of several rows, the scores on a split are too good as an estimate."""
    return any(row[split] not in HONEST for row in kinds if split in row)


def marked(split: str, kinds: Iterable[Mapping[str, str]]) -> str:
    """The name of a split for a table: ``val*`` if it is marked; a line below the table explains the mark."""
    return f"{split}*" if is_marked(split, kinds) else split


def figure(name: str, value: float) -> str:
    """A figure as text by its name: shares in percent, rates in powers of ten, counts whole, others to 3 decimals."""
    short = name.removeprefix("val_").removeprefix("test_")
    if short in _SHARES:
        return f"{100 * value:.1f} %"
    if short == "lr":
        return f"{value:.1e}"
    if short in ("epoch", "support"):
        return f"{value:.0f}"
    return f"{value:.0f}" if short == "images_per_second" else f"{value:.3f}"


def class_figures(scores: Mapping[str, float]) -> list[str]:
    """The figures of one class; without an image its recall is undefined, and not 0."""
    empty = not scores.get("support", 1)
    return ["–" if empty and name == "recall" else figure(name, value) for name, value in scores.items()]


def figures(row: Mapping[str, float]) -> str:
    """Figures on one line: ``loss 0.412  val accuracy 87.1 %``."""
    return "  ".join(f"{name.replace('_', ' ')} {figure(name, value)}" for name, value in row.items())


def step_number(name: str) -> str:
    """The number of a fit's step, with which the name of its run begins: ``2`` of ``02-resnet18-full``."""
    return name.partition("-")[0].lstrip("0")


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in _JOINERS


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
