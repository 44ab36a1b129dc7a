"""The images that a run trains on: scanned, and judged before anything else is paid for."""

from __future__ import annotations

import shlex
from dataclasses import replace

from tl_kit.api.left_out import scan_images
from tl_kit.config import FinetuneConfig
from tl_kit.data.copies import link_near_copies
from tl_kit.data.discipline import check_discipline, doubts
from tl_kit.data.folds import pool_of
from tl_kit.data.manifest import Manifest
from tl_kit.data.ranges import measure_ranges, range_note
from tl_kit.reporting import Reporter

__all__ = ["training_images"]


def training_images(config: FinetuneConfig, reporter: Reporter, *, pooled: bool = False) -> Manifest:
    """:func:`scan_images`; the faults that ``config.allow`` names are told. Raises DataError for any other.

    Images of more than 8 bits a sample are looked at once more, for the range of their values; test images are not.
    ``pooled``: training and validation images will be split anew, and only they are judged; near copies are linked, so
    that they stay together.
    """
    manifest = scan_images(
        config.data, config.split, decode=config.decode, strict=config.strict, reporter=reporter, judged=True
    )
    judged = replace(manifest, samples=pool_of(manifest)) if pooled else manifest
    for line in check_discipline(judged, allow=config.allow, pooled=pooled):
        reporter.message(line)
    for text in doubts(manifest):
        reporter.message(f"warning: {text}")
    manifest = _with_ranges(manifest, config, reporter, pooled=pooled)
    if pooled:
        return _linked(manifest, config, reporter)
    if {sample.split for sample in manifest.samples} - {"train", *manifest.made_splits}:
        reporter.message(
            "near copies across the given splits were not looked for: "
            f"tlkit doctor --data {shlex.quote(str(config.data))} does"
        )
    return manifest


def _with_ranges(manifest: Manifest, config: FinetuneConfig, reporter: Reporter, *, pooled: bool) -> Manifest:
    """The manifest with the range of values of its deep images, which is told."""

    def progress(done: int, total: int) -> None:
        if done == 1:
            reporter.start("range of values", total)
        reporter.advance()

    known = pool_of(manifest) if pooled else (*manifest.split("train"), *manifest.split("val"))
    manifest = replace(manifest, ranges=measure_ranges(known, decode=config.decode, progress=progress))
    note = range_note(manifest)
    if note is not None:
        reporter.message(note)
    return manifest


def _linked(manifest: Manifest, config: FinetuneConfig, reporter: Reporter) -> Manifest:
    """Near copies linked over all images that will be split anew, where the scan has not done it."""
    if manifest.made_splits:
        for note in manifest.notes:
            if not note.startswith("no "):  # which splits the scan has made does not matter here
                reporter.message(note)
        return manifest
    linked, notes = link_near_copies(pool_of(manifest), config=config.split, decode=config.decode)
    for note in notes:
        reporter.message(note)
    near = {sample.path: sample for sample in linked}
    return replace(manifest, samples=tuple(near.get(sample.path, sample) for sample in manifest.samples))
