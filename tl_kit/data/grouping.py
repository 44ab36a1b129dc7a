"""Groups of images by their file names: all photos of one patient, one product, one day."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from tl_kit.data.manifest import Sample
from tl_kit.errors import ConfigError

__all__ = ["group_by_name"]


def group_by_name(samples: Sequence[Sample], pattern: str | None) -> tuple[list[Sample], list[str]]:
    """The samples, with a group where they had none and ``pattern`` is found in the file name; and a note on it.

    The group is the text of the pattern's first bracketed part, or all that was found. Without a pattern nothing
    changes. Raises ConfigError if it is no regular expression.
    """
    if pattern is None:
        return list(samples), []
    try:
        search = re.compile(pattern).search
    except re.error as error:
        raise ConfigError(f"--group-pattern {pattern}: no regular expression ({error})") from error
    grouped = []
    for sample in samples:
        match = search(sample.path.name) if sample.group is None else None
        name = None if match is None else (match[1] if match.re.groups else match[0])
        grouped.append(sample if name is None else replace(sample, group=name))
    groups = {sample.group for sample in grouped} - {None}
    alone = sum(sample.group is None for sample in grouped)
    return grouped, [f"{len(groups):,} groups by file name; {alone:,} of {len(grouped):,} images are in none"]
