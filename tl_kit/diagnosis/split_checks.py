"""Split checks: faults that the scan finds, and whether a run may start in spite of them."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace

from tl_kit.class_names import name_problems
from tl_kit.data.findings import Finding, Severity
from tl_kit.data.listing import name_some
from tl_kit.data.manifest import Manifest, Sample
from tl_kit.errors import DataError

__all__ = ["check_discipline", "doubts", "known_faults", "of_sets"]

_DOUBTS = ("alike-names", "excluded", "missing-paths", "nested-classes", "odd-name")


def known_faults(manifest: Manifest) -> list[Finding]:
    """Faults of layout and class names, classes missing from a split, groups and copies across splits or labels.

    They are found from names, counts, groups and digests; no file is opened. Splits made by tl-kit never divide copies
    or groups. If such a split lacks a class of one or two images, this is only a warning.
    """
    samples = manifest.samples
    return [*manifest.faults, *_names(manifest), *_missing(manifest), *_groups(samples), *_copies(samples)]


def doubts(manifest: Manifest) -> list[str]:
    """The warnings of :func:`known_faults` that matter for training: about the layout and the class names."""
    found = (*manifest.faults, *_names(manifest))
    return [finding.message for finding in found if finding.code in _DOUBTS and finding.severity == "warning"]


def _names(manifest: Manifest) -> list[Finding]:
    return [Finding("warning", code, text) for code, text in name_problems(manifest.classes)]


def check_discipline(manifest: Manifest, *, allow: Collection[str] = (), pooled: bool = False) -> list[str]:
    """Raise DataError, in one line, for the errors of :func:`known_faults` whose names are not in ``allow``.

    ``pooled``: splits will be made again with copies and groups kept together, so only labels and layout matter.
    Returns a line for each allowed error, and for each split that was made here without an image of some class.
    """
    if pooled:
        manifest = replace(manifest, samples=tuple(replace(s, split="train") for s in manifest.samples))
    found_here = known_faults(manifest)
    errors = [finding for finding in found_here if finding.severity == "error"]
    unscored = [each.message for each in found_here if each.code == "class-missing" and each.severity == "warning"]
    stopping = [finding for finding in errors if finding.code not in allow]
    if stopping:
        found = "; ".join(f"{finding.code}: {finding.message}{_first(finding, manifest)}" for finding in stopping)
        flags = " ".join(f"--allow {finding.code}" for finding in stopping)
        command = f"tlkit doctor --data {shlex.quote(str(manifest.root))}"
        raise DataError(f"{manifest.root}: {found}; correct it ({command} lists all), or add {flags}")
    return [
        *(f"allowed: {finding.code}: {finding.message}" for finding in errors),
        *(f"{message}: too few images or groups to divide; scores there say nothing of it" for message in unscored),
    ]


def _first(finding: Finding, manifest: Manifest) -> str:
    """The first two files of a finding in brackets, as paths relative to the data folder or the CSV file's folder."""
    folder = manifest.root if manifest.root.is_dir() else manifest.root.parent
    paths = [manifest.shown(path) for path in (finding.sets[0][:2] if finding.sets else ())]
    shown = ", ".join(str(path.relative_to(folder) if path.is_relative_to(folder) else path) for path in paths)
    return f" (the first: {shown})" if shown else ""


def _missing(manifest: Manifest) -> Iterator[Finding]:
    for split, table in manifest.counts().items():
        lacking = [name for name, count in table.items() if count == 0]
        if lacking:
            severity: Severity = "warning" if split in manifest.made_splits else "error"
            yield Finding(severity, "class-missing", f"{split} has no image of {name_some(lacking)}")


def _groups(samples: Iterable[Sample]) -> list[Finding]:
    groups = _together([sample for sample in samples if sample.group is not None], lambda sample: sample.group)
    torn = [members for members in groups if len({sample.split for sample in members}) > 1]
    return of_sets("error", "group-leak", "{} images are in a group that spans splits: scores will be too good", torn)


def _copies(samples: Iterable[Sample]) -> Iterator[Finding]:
    leaks, conflicts, copies = [], [], []
    for twins in _together(samples, lambda sample: sample.digest):
        labels, splits = ({getattr(sample, name) for sample in twins} for name in ("label", "split"))
        if len(labels) > 1:
            conflicts.append(twins)
        if len(splits) > 1:
            leaks.append(twins)
        if len(labels) == len(splits) == 1:
            copies.append(twins)
    leak = "{} files are identical to a file of another split: scores will be too good"
    yield from of_sets("error", "label-conflict", "{} files are identical to a file of another class", conflicts)
    yield from of_sets("error", "split-leak", leak, leaks)
    yield from of_sets("info", "duplicate", "{} files are identical to another of the same class and split", copies)


def _together(samples: Iterable[Sample], key: Callable[[Sample], str | None]) -> list[list[Sample]]:
    found: dict[str | None, list[Sample]] = defaultdict(list)
    for sample in samples:
        found[key(sample)].append(sample)
    return [members for members in found.values() if len(members) > 1]


def of_sets(severity: Severity, code: str, text: str, sets: Iterable[Iterable[Sample]]) -> list[Finding]:
    """A finding on these sets, or none without sets; ``{}`` in ``text`` becomes the number of their images."""
    paths = tuple(tuple(sample.path for sample in members) for members in sets)
    flat = tuple(path for members in paths for path in members)
    return [Finding(severity, code, text.format(f"{len(flat):,}"), flat, paths)] if flat else []
