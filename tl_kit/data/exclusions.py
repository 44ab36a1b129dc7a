"""Excluded files: reported one per line, or an error with ``--strict``."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tl_kit.config import DataConfig, DecodeConfig, LeftOutConfig
from tl_kit.data.listing import name_some
from tl_kit.data.manifest import HIDDEN, OWN, UNMISSED, Exclusion, Manifest, Sample
from tl_kit.data.scan import scan
from tl_kit.errors import DataError, ImageError
from tl_kit.images.decode import decode as decode_image
from tl_kit.images.decode import decode_pool
from tl_kit.reporting import Reporter

__all__ = ["left_out_dict", "missed", "scan_images", "tell_left_out", "unscored_now"]


def scan_images(
    data: Path | str,
    split: DataConfig,
    *,
    decode: DecodeConfig,
    strict: bool,
    reporter: Reporter,
    trainable: bool = True,
    judged: bool = False,
    link: Callable[[Sequence[Sample]], bool] = lambda samples: True,
) -> Manifest:
    """Run :func:`scan` and report excluded files; ``strict`` decodes every image, and refuses any exclusion.

    Hidden files, and files that tl-kit wrote, never count. Layout faults are reported too, unless the caller checks
    them (``judged``). The DataError names the first file and the number of files.
    """
    manifest = scan(Path(data), split, decode=decode, trainable=trainable, link=link, reporter=reporter)
    if strict:
        reporter.start("check", len(manifest.samples))
        broken = manifest.named(_undecodable(manifest.samples, decode, reporter))
        _refuse([*missed(manifest.exclusions), *broken], data)
    tell_left_out(manifest.exclusions, data, reporter)
    for fault in () if judged else manifest.faults:
        if fault.severity != "info":
            reporter.message(f"warning: {fault.message}")
    return manifest


def tell_left_out(exclusions: Iterable[Exclusion], data: Path | str, reporter: Reporter) -> None:
    """Report the first few, one per line; hidden files and tl-kit's own in one line each; and the list of all."""
    listed = list(exclusions)
    named = missed(listed)
    for exclusion in named[: LeftOutConfig.shown]:
        reporter.message(f"left out: {exclusion.path}: {exclusion.reason}")
    if len(named) > LeftOutConfig.shown:
        more = len(named) - LeftOutConfig.shown
        reporter.message(f"left out: {more:,} more; {_where(data)}")
    if hidden := sum(exclusion.reason == HIDDEN for exclusion in listed):
        reporter.message(f"left out: hidden files and folders ({hidden:,})")
    if own := [exclusion for exclusion in listed if exclusion.reason == OWN]:
        others = f" and {len(own) - 1:,} more" if len(own) > 1 else ""
        reporter.message(f"left out: {own[0].path}{others}: {OWN}")


def unscored_now(before: Manifest, after: Manifest) -> list[str]:
    """Warnings on validation and test images: ``after`` lacks what ``before`` had."""
    had, has = before.counts(), after.counts()
    lines = []
    for split in ("val", "test"):
        if split not in had:
            continue
        if split not in has:
            lines.append(f"warning: no image of the {split} split is left, so that nothing is scored on it")
            continue
        lost = [name for name, count in had[split].items() if count and not has[split][name]]
        if lost:
            lines.append(f"warning: {split} has no image of {name_some(lost)} left: its scores say nothing of that")
    return lines


def left_out_dict(exclusions: Iterable[Exclusion]) -> list[dict[str, str]]:
    """Paths and reasons as plain JSON, without hidden files and tl-kit's own."""
    return [{"path": str(exclusion.path), "reason": exclusion.reason} for exclusion in missed(exclusions)]


def missed(exclusions: Iterable[Exclusion]) -> list[Exclusion]:
    """The exclusions without hidden files and folders, and without those that tl-kit wrote."""
    return [exclusion for exclusion in exclusions if exclusion.reason not in UNMISSED]


def _undecodable(samples: Sequence[Sample], config: DecodeConfig, reporter: Reporter) -> list[Exclusion]:
    def reason(sample: Sample) -> str | None:
        try:
            decode_image(sample.path, min_side=1, config=config)
        except ImageError as error:
            return str(error)
        return None

    failures = []
    for sample, text in zip(samples, decode_pool().map(reason, samples), strict=True):
        reporter.advance()
        if text is not None:
            failures.append(Exclusion(sample.path, text))
    return failures


def _refuse(unusable: Sequence[Exclusion], data: Path | str) -> None:
    if unusable:
        count = "1 file or folder" if len(unusable) == 1 else f"{len(unusable):,} files or folders"
        first = f"{unusable[0].path}: {unusable[0].reason}"
        raise DataError(f"--strict: {count} cannot be used, the first: {first}; {_where(data)}")


def _where(data: Path | str) -> str:
    return f"`tlkit doctor --data {shlex.quote(str(data))} --json` lists all"
