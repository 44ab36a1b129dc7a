"""Ambiguous layouts: splits inside classes, splits beside classes, classes inside classes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from tl_kit.class_names import nfc
from tl_kit.data.findings import Finding
from tl_kit.data.listing import SPLIT_NAMES, Candidate, name_some, natural_key, split_of

__all__ = ["layout_faults"]

_NEARLY = 0.75  # of difflib: "vaild" is 0.8 like "valid"


def layout_faults(candidates: Sequence[Candidate], *, table: bool) -> list[Finding]:
    """Layout faults found from the images' folders; ``table``: the folders come from the paths in a CSV file.

    ``class-above-split`` (error): folders named as splits are inside classes, or in the paths of a table without a
    split column, so that images of several splits would be mixed. ``split-or-class`` (error): a class is named as a
    split and contains folders, or all classes are named nearly so and contain the same folders. ``nested-classes``:
    folders inside a class may be the intended classes.
    """
    if table:
        return list(_splits_in_paths(candidates))
    by_class: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        by_class[candidate.label].append(candidate)
    found = [*_class_above_split(candidates), *_split_or_class(by_class), *_nearly_splits(by_class)]
    return found or list(_nested(by_class))


def _class_above_split(candidates: Iterable[Candidate]) -> Iterator[Finding]:
    placed: dict[tuple[str | None, str | None], dict[str, Path]] = defaultdict(dict)
    for candidate in candidates:
        word = next((name for name in reversed(candidate.inside) if split_of(name)), None)
        places = placed[candidate.split, split_of(word) if word else None]
        places.setdefault(f"{candidate.label}/{word}" if word else candidate.label, candidate.path)
    odd = {key: places for key, places in placed.items() if key[1] is not None and key[0] != key[1]}
    mixed = len({within for given, within in placed if given is None}) > 1
    odd = {key: places for key, places in odd.items() if key[0] is not None or mixed}
    if odd:
        names = [name for places in odd.values() for name in places]
        text = (
            f"folders named as splits lie inside of the classes: {name_some(sorted(names, key=natural_key))}; their "
            "images would be mixed, so that test images are trained on; put the split above the class: train/cat, "
            "test/cat"
        )
        yield Finding("error", "class-above-split", text, tuple(p for places in odd.values() for p in places.values()))


def _splits_in_paths(candidates: Sequence[Candidate]) -> Iterator[Finding]:
    if any(candidate.split is not None for candidate in candidates):
        return
    shared = _shared([candidate.inside for candidate in candidates])
    placed: dict[str, tuple[str, Path]] = {}
    for candidate in candidates:
        folders = [name for name in candidate.inside[shared:] if nfc(name) != candidate.label]
        word = next((name for name in reversed(folders) if split_of(name)), None)
        if word is not None:
            placed.setdefault(split_of(word) or "", (word, candidate.path))
    if len(placed) > 1:
        words = [word for word, _ in placed.values()]
        text = (
            f"its paths lie in folders named as splits ({name_some(sorted(words))}), but it has no split column: their "
            "images would be mixed, so that test images are trained on; write one export or "
            "table of each split, or a CSV with a column split"
        )
        yield Finding("error", "class-above-split", text, tuple(path for _, path in placed.values()))


def _shared(paths: Sequence[tuple[str, ...]]) -> int:
    """The number of leading folders that all paths have in common."""
    if not paths:
        return 0
    first, last = min(paths), max(paths)
    return next((i for i, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))


def _split_or_class(by_class: dict[str, list[Candidate]]) -> Iterator[Finding]:
    for name, members in by_class.items():
        if split_of(name) is None:
            continue
        nested = sorted({nfc(member.inside[0]) for member in members if member.inside}, key=natural_key)
        if nested:
            text = (
                f"the folder '{name}' holds folders ({name_some(nested)}) and stands beside class folders: it would be "
                "taken for a class; if it is a split, put the others into a train folder; if it is a class, rename it"
            )
            yield Finding("error", "split-or-class", text, (members[0].path,))


def _nearly_splits(by_class: dict[str, list[Candidate]]) -> Iterator[Finding]:
    """Folders that are called "01_train" and "02_test", or "traning" and "vaild", and hold the same folders."""
    inner = [{nfc(member.inside[0]) if member.inside else "" for member in members} for members in by_class.values()]
    shared = set.intersection(*inner) if inner else set()
    meant = {_nearly_split(name) for name in by_class}
    if len(meant) < 2 or None in meant or not shared or any("" in found for found in inner):
        return
    text = (
        f"the folders {name_some(sorted(by_class))} are named nearly as splits and hold the same folders "
        f"({name_some(sorted(shared, key=natural_key))}): they would be taken for the classes; if they are splits, "
        "name them train, val and test"
    )
    yield Finding("error", "split-or-class", text, tuple(members[0].path for members in by_class.values()))


def _nearly_split(name: str) -> str | None:
    """The split that a folder's name holds as a word, or that its only word is nearly; None for other names."""
    words = [word for word in re.split(r"[\W\d_]+", name.lower()) if word]
    if len(words) != 1:
        return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)
    near = get_close_matches(words[0], SPLIT_NAMES, n=1, cutoff=_NEARLY)
    return SPLIT_NAMES[near[0]] if near else None


def _nested(by_class: dict[str, list[Candidate]]) -> Iterator[Finding]:
    inner = {name: {nfc(m.inside[0]) for m in members if m.inside} for name, members in by_class.items()}
    strange = [(name, other) for name, found in inner.items() for other in sorted(found & by_class.keys() - {name})]
    if strange:
        name, other = strange[0]
        text = (
            f"'{name}' holds a folder named as another class, '{other}', whose images are taken for '{name}' "
            f"({len(strange)} such folders): move it out if it was put there by mistake"
        )
        yield Finding("warning", "nested-classes", text, tuple(_paths(by_class, strange)))
    several = {name: found for name, found in inner.items() if len(found) > 1}
    if not several or strange:
        return
    name, found = next(iter(sorted(several.items())))
    counts = sum(map(len, inner.values()))
    apart = counts == len(set().union(*inner.values())) and not any(n.isdigit() for n in set().union(*inner.values()))
    pure = all(member.inside for members in by_class.values() for member in members)
    text = (
        f"'{name}' is made of the images of its folders {name_some(sorted(found, key=natural_key))} "
        f"({len(several)} such classes): if these are the classes, give a folder that holds them all"
    )
    yield Finding(
        "warning" if apart and pure else "info", "nested-classes", text, tuple(by_class[n][0].path for n in several)
    )


def _paths(by_class: dict[str, list[Candidate]], pairs: Iterable[tuple[str, str]]) -> Iterator[Path]:
    for name, other in pairs:
        yield next(m.path for m in by_class[name] if m.inside and nfc(m.inside[0]) == other)
