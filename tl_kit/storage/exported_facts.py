"""Facts that an exported file carries in its metadata: class names, what its input is, and what it was made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tl_kit.errors import CheckpointError
from tl_kit.images.deep import SampleRanges
from tl_kit.images.transforms import Preprocessing
from tl_kit.storage.checkpoint_schema import check_classes, check_format, check_meta, ranges_of
from tl_kit.zoo.model_card import preprocessing_problems

__all__ = ["EXPORTED", "INPUT", "OUTPUT", "ExportedFacts"]

EXPORTED = ".onnx"
INPUT, OUTPUT = "images", "probabilities"
FORMAT = 1
_RECORD = "tlkit"
_CARD = ("input_size", "interpolation", "crop_mode", "crop_pct", "mean", "std")


@dataclass(frozen=True, kw_only=True)
class ExportedFacts:
    """Class names in the order of the outputs, and what has to be done to an image before the file's graph.

    ``decode_side``: JPEGs may be decoded at a fraction of their size while the shorter side keeps twice so many pixels.
    ``preprocessings``: those of the members. ``cropped``: True if the graph takes images that are resized and cropped
    by the first of them; else it does that itself. ``split``: settings of the splits that the run made. ``about``:
    what else people may want to know, as plain JSON.
    """

    classes: tuple[str, ...]
    decode_side: int
    preprocessings: tuple[Preprocessing, ...]
    cropped: bool = False
    ranges: SampleRanges | None = None
    split: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the images that the graph takes, in pixels; None: any."""
        return self.preprocessings[0].input_size[1:] if self.cropped else None

    def to_metadata(self) -> dict[str, str]:
        """Texts by name, as ONNX files keep them; all but plain numbers are JSON."""
        record = {
            "format": FORMAT,
            "cropped": self.cropped,
            "ranges": {} if self.ranges is None else self.ranges.to_dict(),
            "split": dict(self.split),
            **self.about,
        }
        return {
            "classes": _text(list(self.classes)),
            "decode_side": str(self.decode_side),
            "preprocessing": _text([each.card() for each in self.preprocessings]),
            _RECORD: _text(record),
        }

    @staticmethod
    def from_metadata(found: Mapping[str, str], path: Path) -> ExportedFacts:
        """Read :meth:`to_metadata`. Raises CheckpointError for a file that export did not write, or a broken one."""
        if _RECORD not in found:
            raise CheckpointError(
                f"{path}: was not written by tlkit export: it does not say what it takes and which classes it knows; "
                "give a file from tlkit export, or a checkpoint's folder"
            )
        record, classes = _json(found, _RECORD, path), _json(found, "classes", path)
        if not isinstance(record, dict):
            raise _broken(path, _RECORD)
        check_format(record, path, readable=(FORMAT,))
        meta = {"classes": classes, "config": {"split": record.get("split", {})}, "ranges": record.get("ranges", {})}
        check_meta(meta, path)
        side, cards = found.get("decode_side", ""), _json(found, "preprocessing", path)
        if not side.isascii() or not side.isdigit() or not 0 < len(side) < 7:
            raise _broken(path, "decode_side")
        if not isinstance(cards, list) or not cards or type(record.get("cropped")) is not bool:
            raise _broken(path, "preprocessing")
        return ExportedFacts(
            classes=check_classes(classes, path),
            decode_side=max(1, int(side)),
            preprocessings=tuple(_preprocessing(card, path) for card in cards),
            cropped=record["cropped"],
            ranges=ranges_of(meta),
            split=record.get("split", {}),
            about={name: record[name] for name in record if name not in ("format", "cropped", "ranges", "split")},
        )


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _json(found: Mapping[str, str], name: str, path: Path) -> Any:
    try:
        return json.loads(found[name])
    except (KeyError, ValueError, RecursionError) as error:
        raise _broken(path, name) from error


def _preprocessing(card: object, path: Path) -> Preprocessing:
    """A preprocessing from its card, checked: sizes are bounded, and numbers finite."""
    if not isinstance(card, dict):
        raise _broken(path, "preprocessing")
    if any(card.get(name) is None for name in _CARD) or any(preprocessing_problems(card)):
        raise _broken(path, "preprocessing")
    channels, height, width = card["input_size"]
    return Preprocessing(
        input_size=(channels, height, width),
        interpolation=card["interpolation"],
        crop_pct=card["crop_pct"],
        crop_mode=card["crop_mode"],
        mean=tuple(card["mean"]),
        std=tuple(card["std"]),
    )


def _broken(path: Path, name: str) -> CheckpointError:
    return CheckpointError(f"{path}: its entry {name!r} is broken; export the checkpoint again")
