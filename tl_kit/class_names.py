"""Class names: their Unicode form (NFC), and names that a reader cannot distinguish."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

__all__ = ["is_missing", "looks_like", "name_problems", "nfc", "nfc_names", "visible"]

_ONE = "one class an image is needed, and each of these counts as a class of its own"
_MISSING = {"", "nan", "none", "null", "nil", "n/a", "na", "<na>", "#n/a", "nat", "undefined", "unnamed", "missing"}
# Some data sets have the classes "train" and "valid": vehicles, checks.
_SPLITS = {"training", "val", "validation", "test", "testing", "holdout"}
# Persian, Indian scripts and emoji use joiners between two non-ASCII characters.
_JOINED = re.compile("(?<=[^\x00-\x7f])[\u200c\u200d](?=[^\x00-\x7f])")
# Letters of other scripts that look like a Latin one and that NFKC and casefolding do not change.
_DRAWN_ALIKE = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u04bb\u0501\u051b\u051d\u0432\u043a\u043c\u043d\u0442"
    "\u03bf\u03b1\u03bd\u03c1\u03c4\u03c7\u03ba\u03b9\u03b2\u03b5\u03b7\u03bc\u03b6\u03c5",
    "aeopcyxijshdqwbkmht" + "oavptxkibenmzy",
)


def nfc(name: str) -> str:
    """A name in Unicode's composed form, so that names from a Mac's file system equal those from other systems."""
    return unicodedata.normalize("NFC", name)


def nfc_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names in composed form, or unchanged if two of them would become equal."""
    found = tuple(map(nfc, names))
    return found if len(set(found)) == len(set(names)) else tuple(names)


def visible(name: str) -> str:
    """A name without format characters that no font draws (zero-width space and joiners, byte order marks)."""
    return "".join(c for c in name if unicodedata.category(c) != "Cf")


def looks_like(name: str) -> str:
    """Normal form of a name, equal for names that look alike: one case, width and form, no invisible blanks.

    Hyphens and underscores count as blanks, "7.0" and "007" as "7", and letters of other scripts as the Latin letters
    that they look like.
    """
    plain = unicodedata.normalize("NFKC", visible(unicodedata.normalize("NFKC", name)).casefold()).strip()
    number = re.fullmatch(r"([+-]?)0*([0-9]+)(?:[.,]0*)?", plain)
    if number is not None:
        return number[1].replace("+", "") + number[2]
    words = " ".join(re.split(r"[\s_\-\u2010-\u2015]+", plain)).strip()
    return (words or plain).translate(_DRAWN_ALIKE)


def is_missing(name: str) -> bool:
    """True if programs write this name for an empty cell."""
    return visible(name).strip().casefold() in _MISSING


def name_problems(classes: Sequence[str]) -> list[tuple[str, str]]:
    """Odd class names of one data set: pairs of a finding's name and its text.

    ``alike-names``: names that look alike. ``odd-name``: blanks or invisible characters around or inside a name, a name
    that stands for an empty cell or a split, decimal fractions, which are measurements, or several names in one.
    """
    found = []
    groups: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        groups[looks_like(name)].append(name)
    for alike in groups.values():
        if len(alike) > 1:
            found.append(("alike-names", f"{len(alike)} classes whose names look alike: {_shown(alike)}"))
    for name in classes if len(classes) > 1 else ():
        if name.strip().casefold() in _SPLITS:
            found.append(("odd-name", f"the class '{name}' is named as a split: are its images to be tested on?"))
    for name in classes:
        how = _oddity(name)
        if how:
            found.append(("odd-name", f"the class {_shown([name])} {how}"))
    found += [("odd-name", text) for text in (*_numbers(classes), *_lists(classes))]
    return found


def _oddity(name: str) -> str:
    if is_missing(name):
        return "is named as programs write an empty cell: are its labels missing?"
    if visible(_JOINED.sub("", name)) != _JOINED.sub("", name):
        return "holds a character that is not seen"
    if name != name.strip():
        return "begins or ends with a blank"
    if re.search(r"\s{2}|[^\S ]", name):
        return "holds two blanks in a row, or one that is no plain blank"
    return ""


def _numbers(classes: Sequence[str]) -> list[str]:
    kinds = Counter(kind for name in classes if (kind := _number(name)))
    texts = []
    if "-1" in classes and len(classes) > 2 and all(re.fullmatch(r"-1|[0-9]+", name) for name in classes):
        texts.append("the class '-1' is named as many data sets mark an image without a label: are its labels missing?")
    if kinds["fraction"]:
        named = _shown([name for name in classes if _number(name) == "fraction"])
        texts.append(f"{kinds['fraction']} classes are decimal fractions ({named}): measurements, not classes?")
    if kinds["decimal"]:
        named = _shown([name for name in classes if _number(name) == "decimal"])
        texts.append(f"{kinds['decimal']} classes are whole numbers written as decimals ({named})")
    return texts


def _lists(classes: Sequence[str]) -> Iterator[str]:
    """Classes that are several labels of an image, in one of the forms in which tables hold them."""
    lists = [name for name in classes if re.fullmatch(r"\[.*\]|\(.*,.*\)|\{.*\}", name.strip())]
    others = sorted(set(classes).difference(lists))
    if lists:
        yield f"{_count(lists)} written as a list ({_shown(lists)}): {_ONE}"
    for sign in ",;|":
        parts = {name: {part.strip() for part in name.split(sign)} - {""} for name in others}
        names = Counter(part for found in parts.values() for part in found)
        joined = [name for name, found in parts.items() if len(found) > 1 and all(names[part] > 1 for part in found)]
        if joined:
            yield f"{_count(joined)} made of names that others have too ({_shown(joined)}): {_ONE}"


def _count(names: Sequence[str]) -> str:
    return "1 class is" if len(names) == 1 else f"{len(names)} classes are"


def _number(name: str) -> str:
    if re.fullmatch(r"[+-]?[0-9]+\.0*", name):
        return "decimal"
    return "fraction" if re.fullmatch(r"[+-]?[0-9]*\.[0-9]+(?:[eE][+-]?[0-9]+)?", name) else ""


def _shown(names: Sequence[str], limit: int = 5) -> str:
    """Names in quotes, with invisible characters written as their codes."""
    shown = ", ".join(f"'{_spelled(name)}'" for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def _spelled(name: str) -> str:
    odd = {c for c in name if unicodedata.category(c) in ("Cf", "Cc", "Zs") and c != " "}
    odd |= {c for c in name if ord(c) > 127 and looks_like(c) != c.casefold()}
    return "".join(f"\\u{ord(c):04x}" if c in odd else c for c in name)
