"""Derived members: writes the members that a rule made as checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from tl_kit.ensembling.evidence import Evidence
from tl_kit.storage.checkpoint import Checkpoint, digest_prefix, save_config, save_meta, save_weights
from tl_kit.storage.seen_images import Uses, uses_of, uses_together

__all__ = ["write_member"]


def write_member(
    folder: Path,
    model: nn.Module,
    *,
    evidence: Evidence,
    sources: Sequence[int],
    record: Mapping[str, Any],
    trained: Iterable[str] = (),
) -> Path:
    """Write a model, with outputs in the predictor's class order, as a checkpoint that records its ingredients.

    ``tlkit.json`` holds the entries that are equal in all ``sources`` (members' numbers), the precision of scoring, the
    union of the images that they were trained and selected on, with those that the rule was ``trained`` (digests) and
    selected on, and ``record``.
    """
    members = [evidence.predictor.members[index] for index in sources]
    scored = frozenset(map(digest_prefix, evidence.val))
    uses = uses_together(map(uses_of, members))
    uses |= Uses(trained=frozenset(trained), selected=scored, chose=("rule",))
    folder.mkdir(parents=True)
    save_config(folder, model, evidence.predictor.classes, members[0].preprocessing)
    save_weights(folder, model)
    save_meta(
        folder,
        evidence.predictor.classes,
        config=_common([_mapping(member, "config") for member in members]),
        data={
            **_common([_mapping(member, "data") for member in members], only=("content", "root", "images")),
            **uses.to_dict(),
        },
        precision=_precision(evidence, sources),
        decoder=members[0].preprocessing.decoder,
        **_common([member.meta for member in members], only=("ranges", "weights", "model", "policy")),
        derived=dict(record),
    )
    return folder


def _precision(evidence: Evidence, sources: Sequence[int]) -> str:
    """Precision to score the new member in: that of its sources, or fp32 if these differ."""
    found = {evidence.predictor.scorers[index].runtime.precision for index in sources}
    return found.pop() if len(found) == 1 else "fp32"


def _mapping(member: Checkpoint, key: str) -> Mapping[str, Any]:
    found = member.meta.get(key)
    return found if isinstance(found, Mapping) else {}


def _common(contents: Sequence[Mapping[str, Any]], *, only: Sequence[str] | None = None) -> dict[str, Any]:
    """The entries that are equal in all."""
    first, *others = contents
    return {
        key: value
        for key, value in first.items()
        if (only is None or key in only) and all(key in other and other[key] == value for other in others)
    }
