"""Text in terminal cells: measured, padded, shortened and folded without breaking a figure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from rich.cells import cell_len

from tl_kit.config import CropConfig

__all__ = ["EPOCH_FIGURES", "figure", "figures", "fold", "pad", "shorten", "views_text", "width_of", "wrap"]

_ZERO_WIDTH_JOINER = "\u200d"
_SKIN_TONES = range(0x1F3FB, 0x1F400)
# The spaces inside of "93.1 %", "12.0 s" and "0.412 ± 0.003", at which no line ends.
_INNER_SPACE = re.compile(r"(?<=\d) (?=(?:[%±]|m?s\b|[kMGT]?i?B\b|M\b|million\b|points?\b|px\b))|(?<=±) (?=\d)")
_GLUE = "\0"  # shown text holds none


def width_of(text: str) -> int:
    """Cells that the text takes in a terminal: two for a wide character, none for a combining one."""
    return cell_len(text)


def pad(text: str, width: int, *, right: bool) -> str:
    """``text`` in ``width`` cells, at their right or left end."""
    spaces = " " * (width - width_of(text))
    return spaces + text if right else text + spaces


def wrap(text: str, width: int, *, long_words: bool = True) -> list[str]:
    """Lines of at most ``width`` cells, that end between words; a figure stays with its unit and its error.

    So do words between two spaces and the next two, ``val accuracy 87.1 %  lr 3.0e-02``. A word that is longer by
    itself is folded, or with ``long_words`` False left as it is. Nothing is lost but the spaces at which lines end.
    """
    if width_of(text) <= width:
        return [text]
    lines, line = list[str](), ""
    for number, word in enumerate(_words(text, width)):
        longer = f"{line} {word}" if number else word
        if width_of(longer) <= width and (line or not lines):
            line = longer
            continue
        if line.strip(" "):
            lines.append(line.rstrip(" "))
        *whole, line = fold(word, width) if long_words else [word]
        lines += whole
    return [*lines, line.rstrip(" ")] if line.strip(" ") or not lines else lines


def _words(text: str, width: int) -> list[str]:
    """Split a line into the pieces between which it may be broken."""
    text = _INNER_SPACE.sub(_GLUE, text)
    parts = text.split("  ")
    if len(parts) > 1:
        parts = [part.replace(" ", _GLUE) if width_of(part) <= width else part for part in parts]
    return [word.replace(_GLUE, " ") for word in "  ".join(parts).split(" ")]


def fold(text: str, width: int) -> list[str]:
    """Lines of at most ``width`` cells, full ones; a character stays with what combines with it."""
    lines, line, used = list[str](), "", 0
    for cluster in _clusters(text):
        needed = width_of(cluster)
        if line and used + needed > width:
            lines.append(line)
            line, used = "", 0
        line, used = line + cluster, used + needed
    return [*lines, line]


def shorten(names: Sequence[str], width: int, ellipsis: str = "…") -> list[str] | None:
    """Each name in ``width`` cells, with an ellipsis where it is too long; None where two could not be told apart.

    The ellipsis is one cell wide. Of a path the last parts stay, ``…/resnet18-1``; of another name the start and,
    longer, the end; or the other way round, where that tells the names apart.
    """
    for short in (_end_of_path, _mostly_end, _mostly_start):
        found = [name if width_of(name) <= width else short(name, width, ellipsis) for name in names]
        if len(set(found)) == len(set(names)):
            return found
    return None


def _end_of_path(name: str, width: int, ellipsis: str) -> str:
    parts = name.split("/")
    for first in range(1, len(parts)):
        end = "/".join([ellipsis, *parts[first:]])
        if parts[-1] and width_of(end) <= width:
            return end
    return _mostly_end(name, width, ellipsis)


def _mostly_end(name: str, width: int, ellipsis: str) -> str:
    return _middle(name, (width - 1) // 3, width, ellipsis)


def _mostly_start(name: str, width: int, ellipsis: str) -> str:
    return _middle(name, (width - 1) - (width - 1) // 3, width, ellipsis)


def _middle(name: str, head: int, width: int, ellipsis: str) -> str:
    """The first ``head`` cells of a name, and of its end what ``width`` leaves."""
    clusters = _clusters(name)
    start = _take(clusters, head)
    end = _take(clusters[::-1], width - 1 - sum(map(width_of, start)))
    return "".join([*start, ellipsis, *end[::-1]])


def _take(clusters: Sequence[str], width: int) -> list[str]:
    taken = list[str]()
    for cluster in clusters:
        width -= width_of(cluster)
        if width < 0:
            break
        taken.append(cluster)
    return taken


def _clusters(text: str) -> list[str]:
    """Characters, each with the accents, joiners and colours that follow it and are drawn with it."""
    found = list[str]()
    for character in text:
        if found and (_joins(character) or found[-1].endswith(_ZERO_WIDTH_JOINER)):
            found[-1] += character
        else:
            found.append(character)
    return found


def _joins(character: str) -> bool:
    if character == _ZERO_WIDTH_JOINER or ord(character) in _SKIN_TONES:
        return True
    return unicodedata.category(character) in ("Mn", "Me")


EPOCH_FIGURES = ("epoch", "loss", "val_accuracy", "val_nll", "lr", "images_per_second", "data_wait")


_SHARES = ("accuracy", "balanced_accuracy", "macro_f1", "ece", "precision", "recall", "f1", "data_wait")


def figure(name: str, value: float) -> str:
    """One figure by its name: shares in percent, rates in powers of ten, counts whole, the rest to 3 decimals."""
    short = name.removeprefix("val_").removeprefix("test_")
    if short in _SHARES:
        return f"{100 * value:.1f} %"
    if short == "lr":
        return f"{value:.1e}"
    if short in ("epoch", "support"):
        return f"{value:.0f}"
    return f"{value:.0f}" if short == "images_per_second" else f"{value:.3f}"


def figures(row: Mapping[str, float]) -> str:
    """Figures on one line: ``loss 0.412  val accuracy 87.1 %``."""
    return "  ".join(f"{name.replace('_', ' ')} {figure(name, value)}" for name, value in row.items())


def views_text(crops: CropConfig, mc_dropout: int) -> str:
    """The views averaged for each image, in words."""
    return f"{crops}, {mc_dropout} passes with dropout" if mc_dropout else str(crops)
