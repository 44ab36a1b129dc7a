"""Replies of the server as JSON: predictions of images, and what the classifier is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tl_kit._version import __version__
from tl_kit.config import ServeConfig
from tl_kit.inference.exported import ExportedModel
from tl_kit.inference.predictor import Predictor

__all__ = [
    "ErrorReply",
    "HealthReply",
    "HeatMap",
    "Metadata",
    "PredictReply",
    "as_json",
    "best_of",
    "members_of",
    "metadata_of",
    "votes_of",
]


@dataclass(frozen=True)
class ClassProbability:
    """A class name and its probability."""

    label: str
    probability: float


@dataclass(frozen=True)
class MemberVote:
    """One member's most probable classes."""

    member: str
    label: str
    probability: float
    top: list[ClassProbability]


@dataclass(frozen=True)
class HeatMap:
    """The places where the networks look: a grey picture, coloured the lighter, the more a place speaks for the class.

    ``image``: a PNG (data:...). ``members``: of so many of them. ``blank``: no place speaks for the class. ``error``:
    the reason why there is none.
    """

    image: str | None
    members: int
    blank: bool
    error: str | None


@dataclass(frozen=True)
class ImageReply:
    """One image: its most probable classes; or ``error``, the reason why there are none.

    ``name``: that in the request, or the address. ``members``: each member's vote, and ``heat_map``, where they were
    asked for.
    """

    name: str
    label: str | None
    probability: float | None
    top: list[ClassProbability]
    error: str | None
    members: list[MemberVote] | None = None
    heat_map: HeatMap | None = None


@dataclass(frozen=True)
class PredictReply:
    """The images of a request, in its order."""

    predictions: list[ImageReply]


@dataclass(frozen=True)
class ErrorReply:
    """The reason why a request is not answered."""

    error: str


@dataclass(frozen=True)
class HealthReply:
    """The server's state: ``ok``, and how many images are decoded, wait or run."""

    status: str
    images_inside: int


@dataclass(frozen=True)
class LimitsReply:
    """The limits of one request. ``heat_maps``: 0 where the classifier has none."""

    files: int
    heat_maps: int
    image_bytes: int
    request_bytes: int
    pixels: int
    seconds: float


@dataclass(frozen=True)
class Metadata:
    """The classifier: its name, its classes, its members and their input sizes (height, width).

    ``urls``: whether the server fetches images whose addresses it is sent.
    """

    name: str
    classes: list[str]
    members: list[str]
    rule: str
    input_sizes: list[tuple[int, int]]
    urls: bool
    limits: LimitsReply
    version: str


def best_of(row: NDArray[np.float64], classes: Sequence[str], top: int) -> list[dict[str, object]]:
    """The ``top`` most probable classes of one image, as :class:`ClassProbability` is in JSON; 0: all."""
    order = np.argsort(-row, kind="stable")[: top or None]
    return [{"label": classes[i], "probability": float(row[i])} for i in order]


def votes_of(
    rows: NDArray[np.float64], members: Sequence[str], classes: Sequence[str], top: int
) -> list[dict[str, object]]:
    """Each member's vote, from its probabilities (members, classes), as :class:`MemberVote` is in JSON."""
    found: list[dict[str, object]] = []
    for member, row in zip(members, rows, strict=True):
        best = best_of(row, classes, top)
        found.append({"member": member, **best[0], "top": best})
    return found


def metadata_of(classifier: Predictor | ExportedModel, config: ServeConfig) -> Metadata:
    """Facts that clients may know of the classifier: the names of folders, and nothing about where they are."""
    if isinstance(classifier, Predictor):
        ways = tuple(member.preprocessing for member in classifier.members)
    else:
        ways = classifier.facts.preprocessings
    limits = config.limits
    heat_maps = limits.heat_maps if isinstance(classifier, Predictor) else 0
    return Metadata(
        name=classifier.path.resolve().name,
        classes=list(classifier.classes),
        members=members_of(classifier),
        rule=classifier.rule.rule if isinstance(classifier, Predictor) else "in the file",
        input_sizes=[(way.input_size[1], way.input_size[2]) for way in ways],
        urls=config.urls,
        limits=LimitsReply(
            min(limits.files, limits.queue),
            heat_maps,
            limits.image_bytes,
            limits.request_bytes,
            limits.pixels,
            limits.seconds,
        ),
        version=__version__,
    )


def members_of(classifier: Predictor | ExportedModel) -> list[str]:
    """The members' names: those of their folders, numbered where they are equal."""
    if not isinstance(classifier, Predictor):
        return [classifier.path.resolve().name]
    names = [member.path.resolve().name for member in classifier.members]
    return [f"{name} ({place})" if names.count(name) > 1 else name for place, name in enumerate(names, 1)]


def as_json(content: object) -> bytes:
    """A reply's bytes; what is no text in Unicode is a question mark."""
    return json.dumps(content, allow_nan=False, ensure_ascii=False).encode("utf-8", errors="replace")
