"""Groups of images by file name: all photos of one patient, one product, or one day."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from tl_kit.class_names import nfc
from tl_kit.data.manifest import Sample
from tl_kit.errors import ConfigError

__all__ = ["check_group_pattern", "check_matches", "group_by_name"]

# The pattern in a checkpoint may come from anyone. Python's regular expressions backtrack: with a few more repetitions,
# or nested ones, a file name of 40 characters takes years.
_LONGEST, _REPETITIONS, _CHOICES = 100, 2, 5


def group_by_name(samples: Sequence[Sample], pattern: str | None) -> tuple[list[Sample], list[str]]:
    """The samples, with a group if they had none and ``pattern`` matches the file name; and notes about it.

    The group is the text of the pattern's first bracketed part, or the whole match. Names and pattern are compared in
    Unicode's composed form. Without a pattern nothing changes. Raises ConfigError as :func:`check_group_pattern` does.
    """
    if pattern is None:
        return list(samples), []
    check_group_pattern(pattern)
    search = re.compile(nfc(pattern)).search
    grouped, by_name = [], set()
    for sample in samples:
        match = search(nfc(sample.path.name)) if sample.group is None else None
        name = None if match is None else (match[1] if match.re.groups else match[0])
        grouped.append(sample if name is None else replace(sample, group=name))
        by_name.add(name)
    alone = sum(sample.group is None for sample in grouped)
    notes = [f"{len(by_name - {None}):,} groups by file name; {alone:,} of {len(grouped):,} images are in none"]
    if given := sum(sample.group is not None for sample in samples):
        notes.append(
            f"{given:,} of {len(grouped):,} images have their group from the data, where --group-pattern is not used"
        )
    return grouped, notes


def check_matches(samples: Sequence[Sample], grouped: Sequence[Sample], pattern: str | None) -> None:
    """Raises ConfigError for a pattern that gave none of the samples without a group one.

    ``samples`` and ``grouped``: before and after :func:`group_by_name`. Splits would divide what belongs together.
    """
    alone = next((sample for sample in samples if sample.group is None), None)
    if pattern is not None and alone is not None and list(samples) == list(grouped):
        raise ConfigError(f"--group-pattern {pattern}: matches no file name, such as {alone.path.name}")


def check_group_pattern(pattern: str) -> None:
    """Raises ConfigError for an invalid regular expression, or one whose search could take forever.

    It may contain at most two of ``* + ? {``, none of them after a bracket, five ``|``, and 100 characters.
    """
    repetitions = len(re.findall(r"[*+?{]", pattern))
    if (
        len(pattern) > _LONGEST
        or repetitions > _REPETITIONS
        or pattern.count("|") > _CHOICES
        or re.search(r"\)[*+?{]", pattern)
    ):
        raise ConfigError(
            f"--group-pattern {pattern[:_LONGEST]}: too much to search for; at most {_REPETITIONS} of * + ? {{, none "
            f"of them after a bracket, and {_CHOICES} of |, in {_LONGEST} characters"
        )
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"--group-pattern {pattern}: not a regular expression ({error})") from error
