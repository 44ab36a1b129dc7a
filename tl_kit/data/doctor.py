"""What is wrong with a data set, before any compute is spent on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tl_kit.config import DataConfig, DecodeConfig, DoctorConfig
from tl_kit.data.decode import decode
from tl_kit.data.listing import name_some
from tl_kit.data.manifest import Exclusion, Manifest, Sample, check_trainable
from tl_kit.data.scan import scan
from tl_kit.errors import DataError, ImageError
from tl_kit.runtime import decode_pool

__all__ = ["Finding", "Report", "examine"]

_DEFAULT = DataConfig()
_DEFAULT_LIMITS = DoctorConfig()
_DEFAULT_DECODE = DecodeConfig()


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong ("error" stops training), suspicious ("warning") or worth knowing ("info")."""

    severity: Literal["error", "warning", "info"]
    code: str
    message: str
    paths: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Report:
    """All findings, errors first. ``manifest`` is what can be trained on, or ``None`` if the scan failed."""

    root: Path
    manifest: Manifest | None
    findings: tuple[Finding, ...]

    @property
    def blocks(self) -> bool:
        """Whether training would stop on this data."""
        return any(finding.severity == "error" for finding in self.findings)


def examine(
    path: Path,
    config: DataConfig = _DEFAULT,
    *,
    limits: DoctorConfig = _DEFAULT_LIMITS,
    decoding: DecodeConfig = _DEFAULT_DECODE,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Scan ``path``, decode every image wholly, and look for what spoils training or its measurement.

    Raises nothing on bad data: that is what the findings are for. ``progress(done, total)`` counts decoded images.
    """
    root = Path(path).absolute()
    try:
        scanned = scan(path, config, decode=decoding)
    except DataError as error:
        return Report(root, None, (Finding("error", "unusable", str(error)),))
    failures, small = _decode_all(scanned.samples, limits, decoding, progress)
    manifest = scanned.without(failures)
    findings = [
        *(Finding("info", "note", note) for note in manifest.notes),
        *_exclusions(manifest.exclusions),
        *_untrainable(manifest),
        *_duplicates(manifest),
        *_balance(manifest, limits),
    ]
    if small:
        text = f"{len(small)} images have a side of less than {limits.min_side} pixels"
        findings.append(Finding("warning", "small-image", text, tuple(small)))
    order = ("error", "warning", "info")
    return Report(root, manifest, tuple(sorted(findings, key=lambda finding: order.index(finding.severity))))


def _decode_all(
    samples: tuple[Sample, ...],
    limits: DoctorConfig,
    decoding: DecodeConfig,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[Exclusion], list[Path]]:
    """Images that cannot be decoded, and images that are very small."""

    def short_side(sample: Sample) -> int | ImageError:
        try:
            # a scaled JPEG is above the limit anyway
            return min(decode(sample.path, min_side=limits.min_side, config=decoding).size)
        except ImageError as error:
            return error

    failures, small = [], []
    for done, (sample, side) in enumerate(zip(samples, decode_pool().map(short_side, samples), strict=True), start=1):
        if isinstance(side, ImageError):
            failures.append(Exclusion(sample.path, str(side)))
        elif side < limits.min_side:
            small.append(sample.path)
        if progress is not None:
            progress(done, len(samples))
    return failures, small


def _exclusions(exclusions: Iterable[Exclusion]) -> Iterator[Finding]:
    by_reason: dict[str, list[Path]] = defaultdict(list)
    for exclusion in exclusions:
        by_reason[exclusion.reason].append(exclusion.path)
    for reason, paths in by_reason.items():
        severity: Literal["info", "warning"] = "info" if reason == "hidden" else "warning"
        yield Finding(severity, "excluded", f"{len(paths)} left out: {reason}", tuple(paths))


def _untrainable(manifest: Manifest) -> Iterator[Finding]:
    try:
        check_trainable(manifest)
    except DataError as error:
        yield Finding("error", "unusable", str(error))


def _duplicates(manifest: Manifest) -> Iterator[Finding]:
    leaks, conflicts, copies = [], [], []
    for twins in _together(manifest.samples, lambda sample: sample.digest):
        if len({sample.label for sample in twins}) > 1:
            conflicts += twins
        if len({sample.split for sample in twins}) > 1:
            leaks += twins
        elif len({sample.label for sample in twins}) == 1:
            copies += twins
    torn = [
        sample
        for members in _together([sample for sample in manifest.samples if sample.group], lambda sample: sample.group)
        if len({sample.split for sample in members}) > 1
        for sample in members
    ]
    checks: tuple[tuple[Literal["info", "warning"], str, str, list[Sample]], ...] = (
        ("warning", "label-conflict", "{} files are identical to a file of another class", conflicts),
        ("warning", "split-leak", "{} files are identical to a file of another split: scores will be too good", leaks),
        ("warning", "group-leak", "{} images are in a group that spans splits: scores will be too good", torn),
        ("info", "duplicate", "{} files are identical to another of the same class and split", copies),
    )
    for severity, code, text, samples in checks:
        if samples:
            yield Finding(severity, code, text.format(len(samples)), tuple(sample.path for sample in samples))


def _together(samples: Iterable[Sample], key: Callable[[Sample], str | None]) -> list[list[Sample]]:
    found: dict[str | None, list[Sample]] = defaultdict(list)
    for sample in samples:
        found[key(sample)].append(sample)
    return [members for members in found.values() if len(members) > 1]


def _balance(manifest: Manifest, limits: DoctorConfig) -> Iterator[Finding]:
    counts = manifest.counts()
    total = {name: sum(split[name] for split in counts.values()) for name in manifest.classes}
    few = [name for name, count in total.items() if count < limits.min_images]
    if few:
        yield Finding("warning", "few-images", f"fewer than {limits.min_images} images: {name_some(few)}")
    for split, table in counts.items():
        lacking = [name for name, count in table.items() if count == 0]
        if lacking:
            yield Finding("warning", "class-missing", f"{split} has no image of {name_some(lacking)}")
    train = counts.get("train", {})
    if train and max(train.values()) > limits.max_imbalance * max(1, min(train.values())):
        most, least = max(train, key=lambda name: train[name]), min(train, key=lambda name: train[name])
        text = f"in train, class '{most}' has {train[most]} images and class '{least}' has {train[least]}"
        yield Finding("warning", "imbalance", text)
