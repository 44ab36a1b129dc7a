"""Data doctor: it finds the faults of a data set before training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tl_kit.config import DataConfig, DecodeConfig, DoctorConfig
from tl_kit.data.findings import SEVERITIES, Finding, Severity
from tl_kit.data.forms.reading import place_of
from tl_kit.data.listing import name_some
from tl_kit.data.manifest import OWN, UNMISSED, Exclusion, Manifest, Sample, check_trainable
from tl_kit.data.ranges import measure_ranges, range_note
from tl_kit.data.scan import scan
from tl_kit.data.splits import keys_of
from tl_kit.diagnosis.near_duplicates import likenesses
from tl_kit.diagnosis.shortcuts import KINDS, Traits, border_colour, find_shortcuts, has_pages, read_traits
from tl_kit.diagnosis.split_checks import known_faults
from tl_kit.errors import DataError, ImageError
from tl_kit.images.decode import decode, decode_pool, read_file
from tl_kit.images.deep import SampleRanges
from tl_kit.images.perceptual_hash import thumbnail
from tl_kit.machine.ambient import undisturbed
from tl_kit.plain_values import takes_plain_values
from tl_kit.reporting import SILENT, Reporter

__all__ = ["Finding", "Report", "doctor", "examine", "report_dict"]

_DEFAULT = DataConfig()
_DEFAULT_LIMITS = DoctorConfig()
_DEFAULT_DECODE = DecodeConfig()


@dataclass(frozen=True)
class Report:
    """All findings, errors first. ``manifest`` contains the usable images, or is ``None`` if the scan failed."""

    root: Path
    manifest: Manifest | None
    findings: tuple[Finding, ...]

    @property
    def blocks(self) -> bool:
        """True if training would stop on this data."""
        return any(finding.severity == "error" for finding in self.findings)


@dataclass(frozen=True, slots=True)
class _Look:
    """Measurements of one image: short side, share of its pixels outside a centre crop, spread of levels, thumbnail
    (32, 32), traits, and if it has several pages.

    A JPEG's short side is exact if it is below the limit; otherwise it is some value above the limit.
    """

    side: int
    outside: float
    spread: float
    grey: NDArray[np.uint8]
    traits: Traits
    pages: bool


def examine(
    path: Path,
    config: DataConfig = _DEFAULT,
    *,
    limits: DoctorConfig = _DEFAULT_LIMITS,
    decoding: DecodeConfig = _DEFAULT_DECODE,
    progress: Callable[[int, int], None] | None = None,
    reporter: Reporter = SILENT,
) -> Report:
    """Scan ``path``, decode every image completely, and search for faults that spoil training or its scores.

    Bad data raises no error; the findings report it. ``progress(done, total)`` counts decoded images; ``reporter``
    shows how far a local copy is.
    """
    root = place_of(path)
    try:
        scanned = scan(path, config, decode=decoding, reporter=reporter)
    except DataError as error:
        return Report(root, None, (Finding("error", "unusable", str(error)),))
    scanned = replace(
        scanned, ranges=measure_ranges([s for s in scanned.samples if s.split != "test"], decode=decoding)
    )
    looks, failures = _look_at_all(scanned, limits, decoding, progress)
    manifest = scanned.without(failures)
    seen = [looks[sample.path] for sample in manifest.samples]
    findings = [
        *(Finding("info", "note", note) for note in manifest.notes),
        *_exclusions(manifest.exclusions),
        *_deep_images(manifest),
        *_pages(manifest.samples, seen),
        *_untrainable(manifest),
        *known_faults(manifest),
        *_balance(manifest, limits),
        *_odd_images(manifest.samples, seen, limits),
        *_cut_off(manifest.samples, seen, limits),
        *_likenesses(manifest.samples, seen, limits),
        *_shortcuts(manifest, seen, limits),
    ]
    findings = [_named(finding, manifest) for finding in findings]
    return Report(root, manifest, tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))))


def _named(finding: Finding, manifest: Manifest) -> Finding:
    """The finding, in which files of a local copy have the names of what it is a copy of."""
    sets = tuple(tuple(map(manifest.shown, members)) for members in finding.sets)
    return replace(finding, paths=tuple(map(manifest.shown, finding.paths)), sets=sets)


def _look_at_all(
    manifest: Manifest,
    limits: DoctorConfig,
    decoding: DecodeConfig,
    progress: Callable[[int, int], None] | None,
) -> tuple[dict[Path, _Look], list[Exclusion]]:
    """The measurements of each image by path, and the images that cannot be decoded."""

    def look(sample: Sample) -> _Look | ImageError:
        try:
            return _look(sample.path, limits, decoding, manifest.ranges)
        except ImageError as error:
            return error

    looks, failures, samples = {}, [], manifest.samples
    for done, (sample, found) in enumerate(zip(samples, decode_pool().map(look, samples), strict=True), start=1):
        if isinstance(found, ImageError):
            failures.append(Exclusion(sample.path, str(found)))
        else:
            looks[sample.path] = found
        if progress is not None:
            progress(done, len(samples))
    return looks, failures


def _look(path: Path, limits: DoctorConfig, decoding: DecodeConfig, ranges: SampleRanges | None) -> _Look:
    """Measure one file. Raises ImageError if it cannot be decoded."""
    data = read_file(path, decoding)
    # a JPEG decoded at this scale is above the limit anyway
    image = decode(data, min_side=limits.min_side, config=decoding, ranges=ranges)
    pixels = thumbnail(image)
    low, high = np.percentile(pixels, [1, 99], axis=(0, 1))
    return _Look(
        side=min(image.size),
        outside=1 - min(image.size) / max(image.size),
        spread=float((high - low).max()),
        grey=np.rint(pixels @ np.array([0.299, 0.587, 0.114])).astype(np.uint8),
        traits=read_traits(data, suffix=path.suffix, border=border_colour(pixels)),
        pages=has_pages(data),
    )


def _exclusions(exclusions: Iterable[Exclusion]) -> Iterator[Finding]:
    by_reason: dict[str, list[Path]] = defaultdict(list)
    for exclusion in exclusions:
        by_reason[exclusion.reason].append(exclusion.path)
    for reason, paths in by_reason.items():
        severity: Severity = "info" if reason in UNMISSED else "warning"
        code = "note" if reason == OWN else "excluded"
        yield Finding(severity, code, f"{len(paths)} left out: {reason}", tuple(paths))


def _deep_images(manifest: Manifest) -> Iterator[Finding]:
    note = range_note(manifest)
    if note is not None:
        yield Finding("info", "deep-image", note, tuple(s.path for s in manifest.samples if s.deep is not None))


def _pages(samples: Sequence[Sample], looks: Sequence[_Look]) -> Iterator[Finding]:
    several = tuple(sample.path for sample, look in zip(samples, looks, strict=True) if look.pages)
    if several:
        text = f"{len(several)} images hold several pictures, pages or frames: the first of each is taken"
        yield Finding("info", "several-pages", text, several)


def _untrainable(manifest: Manifest) -> Iterator[Finding]:
    try:
        check_trainable(manifest)
    except DataError as error:
        yield Finding("error", "unusable", str(error))


def _balance(manifest: Manifest, limits: DoctorConfig) -> Iterator[Finding]:
    counts = manifest.counts()
    total = {name: sum(split[name] for split in counts.values()) for name in manifest.classes}
    few = [name for name, count in total.items() if count < limits.min_images]
    if few:
        yield Finding("warning", "few-images", f"fewer than {limits.min_images} images: {name_some(few)}")
    train = counts.get("train", {})
    if train and max(train.values()) > limits.max_imbalance * max(1, min(train.values())):
        most, least = max(train, key=lambda name: train[name]), min(train, key=lambda name: train[name])
        text = f"in train, class '{most}' has {train[most]} images and class '{least}' has {train[least]}"
        yield Finding("warning", "imbalance", text)


def _odd_images(samples: Sequence[Sample], looks: Sequence[_Look], limits: DoctorConfig) -> Iterator[Finding]:
    small = tuple(s.path for s, look in zip(samples, looks, strict=True) if look.side < limits.min_side)
    if small:
        text = f"{len(small)} images have a side of less than {limits.min_side} pixels"
        yield Finding("warning", "small-image", text, small)
    empty = tuple(s.path for s, look in zip(samples, looks, strict=True) if look.spread < limits.empty_levels)
    if empty:
        yield Finding("warning", "near-empty", f"{len(empty)} images are of one colour, or almost", empty)


def _cut_off(samples: Sequence[Sample], looks: Sequence[_Look], limits: DoctorConfig) -> Iterator[Finding]:
    outside = float(np.mean([look.outside for look in looks])) if looks else 0.0
    if outside >= limits.max_cut_off:
        long = tuple(s.path for s, look in zip(samples, looks, strict=True) if look.outside >= limits.max_cut_off)
        text = (
            f"{len(long)} images are far from square: the centre crop that most models take hides {outside:.0%} of all "
            "pixels"
        )
        yield Finding("info", "cut-off", text, long)


def _likenesses(samples: Sequence[Sample], looks: Sequence[_Look], limits: DoctorConfig) -> list[Finding]:
    """Near duplicates among images that are not blank; blank images would all be duplicates."""
    kept = [(s, look.grey) for s, look in zip(samples, looks, strict=True) if look.spread >= limits.empty_levels]
    return likenesses([sample for sample, _ in kept], [grey for _, grey in kept], config=limits.likeness)


def _shortcuts(manifest: Manifest, looks: Sequence[_Look], limits: DoctorConfig) -> Iterator[Finding]:
    samples = manifest.samples
    keys = keys_of(samples, seed=0)
    labels, traits = [sample.label for sample in samples], [look.traits for look in looks]
    for found in find_shortcuts(traits, labels, keys, config=limits.shortcuts):
        gives = "gives" if found.kind == "border" else "give"  # one colour, several of the others
        text = (
            f"{KINDS[found.kind]}, without the picture, {gives} away class '{manifest.classes[found.label]}': a "
            f"decision tree finds {found.recall:.0%} of its images, and takes {found.others:.0%} of the others for it "
            f"(balanced accuracy over all classes {found.balanced:.0%}, by chance {found.chance:.0%}; cross-validated, "
            f"false alarms below {limits.shortcuts.false_alarms:.1%})"
        )
        yield Finding("warning", f"{found.kind}-shortcut", text)


_DEFAULT_SPLIT = DataConfig()


@undisturbed()
@takes_plain_values
def doctor(
    data: Path | str,
    *,
    split: DataConfig = _DEFAULT_SPLIT,
    limits: DoctorConfig = _DEFAULT_LIMITS,
    decode: DecodeConfig = _DEFAULT_DECODE,
    reporter: Reporter = SILENT,
) -> Report:
    """Examine a folder or a CSV file: scan it, decode every image, and search for leaks, conflicts and imbalance.

    Bad data raises no error; the findings report it, and ``blocks`` says whether training would stop.
    """

    def progress(done: int, total: int) -> None:
        if done == 1:
            reporter.start("examine", total)
        reporter.advance()

    return examine(Path(data), split, limits=limits, decoding=decode, progress=progress, reporter=reporter)


def report_dict(report: Report) -> dict[str, Any]:
    """A report as plain JSON; ``images`` by split and class, empty if nothing can be trained on."""
    return {
        "data": str(report.root),
        "blocks": report.blocks,
        "images": report.manifest.counts() if report.manifest else {},
        "findings": [
            {
                "severity": finding.severity,
                "code": finding.code,
                "message": finding.message,
                "remedy": finding.remedy,
                "paths": [str(path) for path in finding.paths],
                "sets": [[str(path) for path in members] for members in finding.sets],
            }
            for finding in report.findings
        ],
    }
