"""The scan: turns a data set in any form into a Manifest; every file that is left out has a reason."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from tl_kit.class_names import is_missing, looks_like
from tl_kit.config import DataConfig, DecodeConfig
from tl_kit.data.findings import Finding
from tl_kit.data.forms.reading import list_data, place_of
from tl_kit.data.grouping import check_matches, group_by_name
from tl_kit.data.layout import layout_faults
from tl_kit.data.listing import EXPECTED, Candidate, Listing, name_some, natural_key
from tl_kit.data.manifest import SPLITS, UNMISSED, Exclusion, Manifest, Sample, check_trainable, in_order, shown_path
from tl_kit.data.near_copies import link_near_copies
from tl_kit.data.splits import assign_splits
from tl_kit.errors import DataError, ImageError
from tl_kit.images.decode import in_few, open_header, read_file
from tl_kit.images.deep import deep_kind
from tl_kit.reporting import SILENT, Reporter

__all__ = ["scan"]

_DEFAULT = DataConfig()
_DEFAULT_DECODE = DecodeConfig()
_NO_IMAGES = "class folder without images"
_TOLD = 16  # files, after which progress is told
_Found = tuple[Candidate, str, str | None]  # a file that begins like an image, its digest, and its kind if it is deep


def scan(
    path: Path,
    config: DataConfig = _DEFAULT,
    *,
    decode: DecodeConfig = _DEFAULT_DECODE,
    progress: Callable[[int, int], None] | None = None,
    trainable: bool = True,
    link: Callable[[Sequence[Sample]], bool] = lambda samples: True,
    reporter: Reporter = SILENT,
) -> Manifest:
    """Read every file below ``path`` once, and return the manifest.

    ``path`` is a folder of class folders, a folder of split folders, a table, or of another form that
    :func:`list_data` reads. Classes are in natural order ("2" before "10"). Missing splits are made
    (:func:`assign_splits`) and noted; if train and val are given, no test split is made. Headers are checked here,
    pixels when they are decoded; pass images that fail then to :meth:`Manifest.without`. ``progress(done, total)``
    counts files, and is called in the calling thread; ``reporter`` shows how far a local copy is. Where
    ``link(samples)`` is False, near copies are not looked for, for which every image is decoded: the splits that
    are made are then of no interest.

    Raises :class:`DataError` if the form is none of these, if a given train split lacks a class of another one,
    or if there is nothing to train on (:func:`check_trainable`); with ``trainable`` False, for scoring, neither of the
    last two. Raises ConfigError for a ``group_pattern`` that is not a regular expression, and, to train on, for one
    that matches no name. :func:`check_discipline` reports other
    faults of the data.
    """
    root = place_of(path)
    listing = list_data(path, config, decode, reporter)
    found, unreadable = _read_all(listing.candidates, decode, progress)
    copied = dict(listing.copied)
    left_out = [*listing.exclusions, *unreadable, *_empty_folders(listing, found)]
    exclusions = [replace(each, path=shown_path(each.path, copied)) for each in left_out]
    classes = sorted({candidate.label for candidate, *_ in found}, key=natural_key)
    if len(classes) < (2 if trainable else 1):
        raise DataError(_too_few_classes(root, [each for each, *_ in found], classes, exclusions, table=listing.table))
    if trainable:
        _check_agreement(root, found, exclusions, table=listing.table)
    found, empty = _without_empty_groups(found)
    samples = _samples(found, classes)
    grouped, groups = group_by_name(samples, config.group_pattern)
    if trainable:
        check_matches(samples, grouped, config.group_pattern)
    samples, notes = _complete_splits(grouped, config if link(grouped) else replace(config, near_images=0), decode)
    manifest = Manifest(
        root=root,
        classes=tuple(classes),
        samples=in_order(samples),
        exclusions=tuple(sorted(exclusions, key=lambda exclusion: str(exclusion.path))),
        notes=(*listing.notes, *empty, *groups, *notes),
        made_splits=_made_splits(found),
        faults=(
            *listing.faults,
            *layout_faults([each for each, *_ in found], table=listing.table),
            *_lost_splits(listing.candidates, found),
        ),
        copied=copied,
    )
    if trainable:
        _check_usable(manifest, config)
    return manifest


def _check_usable(manifest: Manifest, config: DataConfig) -> None:
    """:func:`check_trainable`; where no image can be set aside, the error names the pattern of the groups."""
    try:
        check_trainable(manifest)
    except DataError as error:
        if config.group_pattern is None or manifest.split("val"):
            raise
        raise DataError(f"{error}; the groups are those of --group-pattern {config.group_pattern}") from error


def _lost_splits(candidates: Iterable[Candidate], found: Iterable[_Found]) -> list[Finding]:
    """A given split none of whose files can be read; nothing else would tell that it is gone."""
    left = {candidate.split for candidate, *_ in found}
    files = Counter(candidate.split for candidate in candidates)
    return [
        Finding("warning", "excluded", f"the {split} split is lost: none of its {files[split]:,} files can be read")
        for split in SPLITS
        if files[split] and split not in left
    ]


def _read_all(
    candidates: list[Candidate], config: DecodeConfig, progress: Callable[[int, int], None] | None
) -> tuple[list[_Found], list[Exclusion]]:
    found: list[_Found] = []
    exclusions: list[Exclusion] = []
    for done, result in enumerate(in_few(partial(_read, config=config), candidates), start=1):
        if isinstance(result, Exclusion):
            exclusions.append(result)
        else:
            found.append(result)
        if progress is not None and (done % _TOLD == 0 or done == len(candidates)):
            progress(done, len(candidates))
    return found, exclusions


def _read(candidate: Candidate, config: DecodeConfig) -> _Found | Exclusion:
    """Digest and header of one file. A file that does not begin like an image is not read further."""
    try:
        data = read_file(candidate.path, config)
        deep = deep_kind(open_header(data, config=config))
    except ImageError as error:
        return Exclusion(candidate.path, str(error))
    return candidate, hashlib.sha256(data).hexdigest(), deep


def _empty_folders(listing: Listing, found: Iterable[_Found]) -> list[Exclusion]:
    filled = {(candidate.split, candidate.label) for candidate, *_ in found}
    known = {exclusion.path for exclusion in listing.exclusions}
    return [
        Exclusion(folder, _NO_IMAGES)
        for folder, key in listing.class_folders.items()
        if key not in filled and folder not in known
    ]


def _too_few_classes(
    root: Path, found: Iterable[Candidate], classes: Sequence[str], exclusions: Sequence[Exclusion], *, table: bool
) -> str:
    what = f"only one class has images, '{classes[0]}'" if classes else "no image was found"
    inner = sorted({candidate.inside[0] for candidate in found if candidate.inside}, key=natural_key)
    if len(inner) > 1 and not table:
        what += f", and holds the folders {name_some(inner)}: if these are the classes, name the folder they lie in"
    return f"{root}: {what}{_left_out(exclusions)}; {EXPECTED}"


def _left_out(exclusions: Iterable[Exclusion]) -> str:
    """The likely reason for missing images, in brackets; hidden files do not count."""
    missed = [exclusion for exclusion in exclusions if exclusion.reason not in UNMISSED]
    if not missed:
        return ""
    first = next((exclusion for exclusion in missed if exclusion.reason != _NO_IMAGES), missed[0])
    return f" ({len(missed)} files or folders were left out, the first: {first.path}: {first.reason})"


def _check_agreement(root: Path, found: Iterable[_Found], exclusions: Iterable[Exclusion], *, table: bool) -> None:
    """Raise DataError unless a given train split has the classes of the other splits."""
    classes: dict[str, set[str]] = defaultdict(set)
    for candidate, *_ in found:
        if candidate.split is not None:
            classes[candidate.split].add(candidate.label)
    if classes and "train" not in classes:
        names = name_some(list(classes))
        what = f"{names} has images, but train has none" if table else f"there is {names} but no train folder"
        raise DataError(f"{root}: {what}{_left_out(exclusions)}; {EXPECTED}")
    every = set().union(*classes.values())
    if every == classes["train"]:
        return
    lacks = [
        f"{split} lacks {name_some(sorted(every - classes[split], key=natural_key))}"
        for split in SPLITS
        if split in classes and every - classes[split]
    ]
    raise DataError(f"{root}: the splits disagree on classes: {'; '.join(lacks)}{_alike(every)}{_left_out(exclusions)}")


def _alike(names: Iterable[str]) -> str:
    """A hint at names that look alike, if there are any."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names, key=natural_key):
        groups[looks_like(name)].append(name)
    alike = next((group for group in groups.values() if len(group) > 1), None)
    return f"; {name_some(alike)} look alike: write them the same" if alike else ""


def _samples(found: Iterable[_Found], classes: list[str]) -> list[Sample]:
    """The samples; if no split is given, it is ""."""
    index = {name: label for label, name in enumerate(classes)}
    return [
        Sample(candidate.path, index[candidate.label], candidate.split or "", digest, candidate.group, deep)
        for candidate, digest, deep in found
    ]


def _without_empty_groups(found: Sequence[_Found]) -> tuple[list[_Found], list[str]]:
    """Images whose group has the name that programs write for an empty cell ("nan") are in no group; and a note."""
    names = Counter(candidate.group for candidate, *_ in found if candidate.group and is_missing(candidate.group))
    kept = [(replace(c, group=None) if c.group in names else c, digest, deep) for c, digest, deep in found]
    return kept, [
        f"{count:,} images have the group '{name}', as programs write an empty cell: they are in no group"
        for name, count in names.items()
    ]


def _made_splits(found: Iterable[_Found]) -> tuple[str, ...]:
    given = {candidate.split for candidate, *_ in found}
    if "val" in given:
        return ()
    return ("val",) if "test" in given else ("val", "test")


def _complete_splits(samples: list[Sample], config: DataConfig, decode: DecodeConfig) -> tuple[list[Sample], list[str]]:
    given = {sample.split for sample in samples} - {""}
    if "val" in given:  # without "train", there are images to score alone
        whole = "train" in given and "test" not in given
        return samples, ["no test split is given, and none is made: train and val are kept whole"] if whole else []
    test_fraction = 0.0 if "test" in given else config.test_fraction
    pool = [sample for sample in samples if sample.split in ("", "train")]
    linked, near_notes = link_near_copies(pool, config=config, decode=decode)
    splits = _assigned(linked, config, test_fraction)
    if "val" not in splits and linked != pool:
        linked, near_notes = (
            pool,
            ["near copies may be in different splits: otherwise there would be no validation images"],
        )
        splits = _assigned(linked, config, test_fraction)
    pool = linked
    made = [replace(sample, split=split) for sample, split in zip(pool, splits, strict=True)]
    notes = [
        _set_aside(name, fraction, splits.count(name), len(pool))
        for name, fraction in (("val", config.val_fraction), ("test", test_fraction))
        if fraction > 0
    ]
    return made + [sample for sample in samples if sample.split == "test"], notes + near_notes


def _set_aside(name: str, fraction: float, count: int, images: int) -> str:
    """A sentence on a split that was made; one far from the share that was asked for has its own share in it."""
    if not count:
        return f"no {name} split is given, and none is made: the classes have too few images or groups to separate"
    if abs(count / images - fraction) <= fraction / 2:
        return f"no {name} split is given: {fraction:.0%} of each class set aside ({count} images)"
    return (
        f"no {name} split is given: {count} of {images} images set aside ({count / images:.0%}, not {fraction:.0%}: "
        "groups and copies stay together, and every class is to be in it)"
    )


def _assigned(pool: Sequence[Sample], config: DataConfig, test_fraction: float) -> list[str]:
    return assign_splits(
        [sample.label for sample in pool],
        [sample.digest for sample in pool],
        [sample.group for sample in pool],
        [sample.near for sample in pool],
        val_fraction=config.val_fraction,
        test_fraction=test_fraction,
        seed=config.split_seed,
    )
