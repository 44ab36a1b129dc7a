"""The images that a run trains on: scanned, and judged before anything else is paid for."""

from __future__ import annotations

from dataclasses import replace

from tl_kit.api.left_out import scan_images
from tl_kit.config import FinetuneConfig
from tl_kit.data.discipline import check_discipline
from tl_kit.data.folds import pool_of
from tl_kit.data.manifest import Manifest
from tl_kit.data.ranges import measure_ranges, range_note
from tl_kit.reporting import Reporter

__all__ = ["training_images"]


def training_images(config: FinetuneConfig, reporter: Reporter, *, pooled: bool = False) -> Manifest:
    """:func:`scan_images`; the faults that ``config.allow`` names are told. Raises DataError for any other.

    Images of more than 8 bits a sample are looked at once more, for the range of their values; test images are not.
    ``pooled``: training and validation images will be split anew, and only they are judged.
    """
    manifest = scan_images(config.data, config.split, decode=config.decode, strict=config.strict, reporter=reporter)
    judged = replace(manifest, samples=pool_of(manifest)) if pooled else manifest
    for line in check_discipline(judged, allow=config.allow, pooled=pooled):
        reporter.message(line)

    def progress(done: int, total: int) -> None:
        if done == 1:
            reporter.start("range of values", total)
        reporter.advance()

    known = judged.samples if pooled else (*manifest.split("train"), *manifest.split("val"))
    manifest = replace(manifest, ranges=measure_ranges(known, decode=config.decode, progress=progress))
    note = range_note(manifest)
    if note is not None:
        reporter.message(note)
    return manifest
