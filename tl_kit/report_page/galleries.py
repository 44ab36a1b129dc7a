"""Galleries: which images the report shows, and what it says of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tl_kit.config import DecodeConfig, ReportLimits
from tl_kit.data.findings import Finding
from tl_kit.display import visible
from tl_kit.errors import ImageError
from tl_kit.images.decode import decode
from tl_kit.report_page.class_tables import confused_pairs
from tl_kit.report_page.figures import percent
from tl_kit.report_page.pictures import Album, blended
from tl_kit.report_page.places import Looked
from tl_kit.report_page.scored import Scored, Suspect

__all__ = ["Gallery", "Tile", "Wanted", "fill", "wanted_copies", "wanted_images", "wanted_pairs", "wanted_suspects"]


@dataclass(frozen=True)
class Tile:
    """One image: thumbnail and map as data URIs (None: not shown), text for a screen reader, name, and lines."""

    photo: str | None
    map: str | None
    alt: str
    name: str
    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Tiles under a heading: some of the ``total`` images of this kind."""

    id: str
    title: str
    text: str
    tiles: tuple[Tile, ...]
    total: int


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A gallery before its pictures are made: index (None: an image that was not predicted), path, and lines."""

    id: str
    title: str
    text: str
    images: tuple[tuple[int | None, Path, tuple[str, ...]], ...]
    total: int


def wanted_images(scored: Scored, limits: ReportLimits) -> list[Wanted]:
    """The images that are confidently wrong, those that are doubtful, and those on which members disagree."""
    confidence, others = scored.probabilities.max(axis=1), scored.probabilities.copy()
    others[np.arange(len(others)), scored.predicted] = -np.inf
    margin = confidence - others.max(axis=1)
    wrong = np.flatnonzero((scored.predicted != scored.labels) & (confidence >= limits.sure))
    sure = wrong[np.argsort(-confidence[wrong], kind="stable")]
    found = [
        _of_indices(
            scored,
            "wrong",
            "Confidently wrong",
            f"Labelled otherwise than the model says with {limits.sure:.0%} or more: the surest first. A wrong label "
            "looks just like a wrong model.",
            sure[: limits.shown],
            len(wrong),
        )
    ]
    shown = set(sure[: limits.shown].tolist())
    doubtful = [int(index) for index in np.argsort(margin, kind="stable") if index not in shown]
    close = [index for index in doubtful if margin[index] < limits.close]
    found.append(
        _of_indices(
            scored,
            "doubtful",
            "Doubtful",
            f"The two highest probabilities differ by less than {100 * limits.close:.0f} points. The closest first; "
            "right and wrong ones.",
            close[: limits.shown],
            len(close),
        )
    )
    if scored.members is not None:
        found.append(_disagreements(scored, limits))
    return found


def _of_indices(
    scored: Scored, name: str, title: str, text: str, indices: Sequence[int] | np.ndarray, total: int
) -> Wanted:
    images = tuple((int(index), scored.paths[index], _says(scored, int(index))) for index in indices)
    return Wanted(id=name, title=title, text=text, images=images, total=total)


def _says(scored: Scored, index: int) -> tuple[str, ...]:
    """Label and the most probable classes of an image."""
    row = scored.probabilities[index]
    first, second = np.argsort(-row, kind="stable")[:2]
    label = int(scored.labels[index])
    lines = [f"labelled {visible(scored.classes[label])}"]
    lines.append(f"predicted {visible(scored.classes[first])}, {percent(row[first])}")
    other = label if first != label else int(second)
    lines.append(f"{visible(scored.classes[other])}: {percent(row[other])}")
    return tuple(lines)


def _disagreements(scored: Scored, limits: ReportLimits) -> Wanted:
    assert scored.members is not None
    votes = scored.members.argmax(axis=2)
    different = np.array([len(set(column)) for column in votes.T])
    spread = scored.members.std(axis=0).sum(axis=1)
    order = [int(i) for i in np.lexsort((-spread, -different)) if different[i] > 1]
    images = []
    for index in order[: limits.shown]:
        said = [
            f"member {number}: {visible(scored.classes[int(vote)])}, "
            f"{percent(float(scored.members[number - 1, index].max()))}"
            for number, vote in enumerate(votes[:, index], start=1)
        ]
        images.append((index, scored.paths[index], (*_says(scored, index)[:2], *said)))
    return Wanted(
        id="disagreements",
        title="Where members disagree",
        text="Images for which members vote for different classes; most different votes first.",
        images=tuple(images),
        total=len(order),
    )


def wanted_pairs(scored: Scored, limits: ReportLimits) -> list[Wanted]:
    """The classes that are confused most, with their surest images."""
    found = []
    for number, pair in enumerate(confused_pairs(scored.probabilities, scored.labels)[: limits.pairs], start=1):
        label, predicted = visible(scored.classes[pair.label]), visible(scored.classes[pair.predicted])
        images = len(pair.images)
        text = f"{images} image{'s' if images != 1 else ''} of {label} taken for {predicted}"
        title = f"{label} taken for {predicted}"
        found.append(_of_indices(scored, f"pair-{number}", title, text, pair.images[: limits.of_pair], images))
    return found


def wanted_suspects(scored: Scored, suspects: Sequence[Suspect], base: Path | None, limits: ReportLimits) -> Wanted:
    """The images whose labels are suspect, by out-of-fold predictions."""
    place = {str(path): index for index, path in enumerate(scored.paths)}
    images = []
    for suspect in suspects[: limits.shown]:
        path = Path(suspect.path) if base is None else base / suspect.path
        lines = (
            f"labelled {visible(suspect.label)}, {percent(suspect.p_label)}",
            f"suggested {visible(suspect.suggested)}, {percent(suspect.p_suggested)}",
        )
        images.append((place.get(str(path)), path, lines))
    return Wanted(
        id="suspects",
        title="Probably mislabelled",
        text="Labels that confident learning (Northcutt et al. 2021) finds suspect from predictions out of fold; the "
        "most suspect first. suspects.csv has all of them. Some are right, and the model is wrong.",
        images=tuple(images),
        total=len(suspects),
    )


def wanted_copies(findings: Sequence[Finding], split_of: Mapping[Path, str], limits: ReportLimits) -> Wanted:
    """Copies and near copies of an image in different splits, as the doctor finds them."""
    sets = [group for finding in findings if finding.code.endswith("split-leak") for group in finding.sets]
    images = [
        (None, path, (f"set {number}", f"split: {split_of.get(path, 'unknown')}"))
        for number, group in enumerate(sets, start=1)
        for path in group
    ]
    return Wanted(
        id="copies",
        title="Near copies across splits",
        text="The same picture, or almost, in two splits: a test on it is no test. Pictures of one set are alike.",
        images=tuple(images[: limits.shown]),
        total=len(images),
    )


def fill(
    wanted: Wanted,
    album: Album,
    looked: Mapping[int, Looked],
    *,
    base: Path | None,
    decoding: DecodeConfig,
    limits: ReportLimits,
) -> Gallery:
    """Make the pictures of a gallery."""
    tiles = []
    for index, path, lines in wanted.images:
        name = visible(str(path.relative_to(base) if base is not None and path.is_relative_to(base) else path))
        try:
            photo = album.add(decode(path, min_side=limits.side, config=decoding))
        except ImageError as error:
            photo, lines = None, (*lines, f"cannot be shown: {visible(str(error))}")
        one = looked.get(index) if index is not None else None
        covered = None
        if one is not None and photo is not None:
            covered = album.add(blended(one.pixels, one.places, strength=limits.map_strength))
        tiles.append(Tile(photo, covered, f"{name}: {'; '.join(lines)}", name, lines))
    return Gallery(id=wanted.id, title=wanted.title, text=wanted.text, tiles=tuple(tiles), total=wanted.total)
