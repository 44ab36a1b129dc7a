"""What training hands back, whichever way the weights were found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from tl_kit.freezing.audit import Audit

__all__ = ["Outcome", "SwaVerdict", "Waypoint"]


@dataclass(frozen=True, kw_only=True)
class Waypoint:
    """Weights on a run's way, in ``folder``, as they were after ``step`` updates; the rest as in Outcome."""

    folder: Path
    step: int
    logits: Mapping[str, Tensor]
    chosen_by_val: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SwaVerdict:
    """A uniform average of ``count`` moments: its validation scores, those of the best epoch, which of them is kept."""

    count: int
    val: Mapping[str, float] | None
    best_epoch_val: Mapping[str, float] | None
    kept: bool


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The model holds the best weights; ``logits`` are its outputs on val and test, as inference gives them.

    ``audit`` is that of the last phase, ``phases`` those of the ones before, each with its name. ``chosen_by_val``:
    what the validation images have chosen of the model (``C``, ``epoch``, ``average``, ``rate``, ``length``); empty
    where they were only looked at, and their scores are those of any other new images. ``cross_validated``: scores out
    of fold of a head in closed form.
    """

    epochs: int
    best_epoch: int
    trainable_parameters: int
    logits: dict[str, Tensor]
    audit: Audit
    chosen_by_val: tuple[str, ...]
    phases: tuple[tuple[str, Audit], ...] = ()
    status: str = "finished"
    settings: dict[str, object] = field(default_factory=dict)
    error: str | None = None
    waypoints: tuple[Waypoint, ...] = ()
    swa: SwaVerdict | None = None
    cross_validated: Mapping[str, Any] | None = None
