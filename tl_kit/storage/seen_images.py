"""Provenance of a model: the images that trained or selected it, and the kind of a score on given images.

An image is identified by its content, whatever its name, label or folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from typing import Any, Literal, TypeAlias

from tl_kit.data.manifest import Sample
from tl_kit.storage.checkpoint import Checkpoint, digest_prefix

__all__ = ["NO_USES", "Kind", "Use", "Uses", "kind_of", "kinds_of", "uses_in", "uses_of", "uses_together"]

Use: TypeAlias = Literal["train", "selected on"]
Kind: TypeAlias = Literal["test", "selected on", "trained on", "mixed", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Uses:
    """Images that a model has seen, as digests (:func:`digest_prefix`).

    ``trained``: images on which it or its teacher was trained. ``selected``: images that selected something for it, and
    ``chose`` names what they selected (empty if the record does not say). ``watched``: validation images that selected
    nothing. ``unknown``: names of the models whose records do not say which images they have seen.
    """

    trained: frozenset[str] = frozenset()
    selected: frozenset[str] = frozenset()
    watched: frozenset[str] = frozenset()
    chose: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def __or__(self, other: Uses) -> Uses:
        return Uses(
            trained=self.trained | other.trained,
            selected=self.selected | other.selected,
            watched=self.watched | other.watched,
            chose=tuple(dict.fromkeys((*self.chose, *other.chose))),
            unknown=tuple(dict.fromkeys((*self.unknown, *other.unknown))),
        )

    @property
    def known(self) -> frozenset[str]:
        """All images that the model has seen, for any use."""
        return self.trained | self.selected | self.watched

    def of(self, sample: Sample) -> Use | None:
        """The image's use; ``train`` if it was used for both; None if it was not used."""
        digest = digest_prefix(sample)
        if digest in self.trained:
            return "train"
        return "selected on" if digest in self.selected else None

    def seen(self, samples: Iterable[Sample], *uses: Use) -> list[Sample]:
        """The samples that were used for one of ``uses``, or for any use if none is given."""
        wanted = uses or ("train", "selected on")
        return [sample for sample in samples if self.of(sample) in wanted]

    def beside(self, trained: Iterable[str]) -> Uses:
        """These uses without the images that are already known to be ``trained`` on."""
        known = frozenset(trained)
        return replace(self, trained=self.trained - known, selected=self.selected - known)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON for a record; :func:`uses_in` reads it."""
        content: dict[str, Any] = {"train": sorted(self.trained), "val": sorted(self.selected)}
        if self.chose or not self.selected:
            content["selected"] = list(self.chose)
        return {**content, "unknown": True} if self.unknown else content


NO_USES = Uses()


def uses_in(data: Mapping[str, Any], name: str) -> Uses:
    """Uses in the entry ``data`` of a record, with those of its teacher; ``name`` is the name of the record's model.

    A record without ``selected`` comes from an earlier version, or from a run that never ended: its validation images
    are assumed to have selected something.
    """
    val, noted = frozenset(data.get("val", ())), data.get("selected")
    chosen = noted is None or bool(noted)
    own = Uses(
        trained=frozenset(data.get("train", ())),
        selected=val if chosen else frozenset(),
        watched=frozenset() if chosen else val,
        chose=tuple(noted or ()),
        unknown=(name,) if "train" not in data or data.get("unknown", False) else (),
    )
    teacher = data.get("teacher")
    return own if teacher is None else own | uses_in({**teacher, "teacher": None}, f"the teacher of {name}")


def uses_of(checkpoint: Checkpoint) -> Uses:
    """Uses in a checkpoint's record."""
    data, path = checkpoint.meta.get("data", {}), str(checkpoint.path)
    found = uses_in(data, path)
    taught = checkpoint.meta.get("config", {}).get("distill") and "derived" not in checkpoint.meta
    if taught and "teacher" not in data:
        return found | Uses(unknown=(f"the teacher of {path}",))
    return found


def uses_together(uses: Iterable[Uses]) -> Uses:
    """Union of the uses of several models."""
    return reduce(or_, uses, NO_USES)


def kind_of(samples: Sequence[Sample], uses: Uses) -> Kind:
    """Kind of a score on these images, for a model with these ``uses``.

    ``test``: none of them trained the model or selected anything; ``selected on``, ``trained on``: all of them did;
    ``mixed``: they differ; ``unknown``: none is known to be used, but a model's record does not list its images.
    """
    names: dict[Use | None, Kind] = {"train": "trained on", "selected on": "selected on"}
    rest: Kind = "unknown" if uses.unknown else "test"
    found = {names.get(uses.of(sample), rest) for sample in samples}
    return found.pop() if len(found) == 1 else "mixed" if found else rest


def kinds_of(splits: Mapping[str, Sequence[Sample]], uses: Uses) -> dict[str, str]:
    """The kind of each split that has images."""
    return {split: kind_of(samples, uses) for split, samples in splits.items() if samples}
