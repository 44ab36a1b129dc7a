"""Result of a training run, by gradient or in closed form."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from tl_kit.data.manifest import Manifest
from tl_kit.display import figure, marked
from tl_kit.freezing.audit import Audit
from tl_kit.html_tables import html_block, html_lines, html_table
from tl_kit.score_kinds import notes_on
from tl_kit.storage.config_json import to_json

__all__ = ["FinetuneResult", "Guarded", "Outcome", "Snapshot", "SwaVerdict", "Trained", "Waypoint"]


@dataclass(frozen=True, kw_only=True)
class Waypoint:
    """Weights on a run's way, in ``folder``, as they were after ``step`` updates; the rest as in Outcome.

    ``refit``: True where their head was fitted to the validation images too.
    """

    folder: Path
    step: int
    logits: Mapping[str, Tensor]
    chosen_by_val: tuple[str, ...] = ()
    refit: bool = False


@dataclass(frozen=True, kw_only=True)
class SwaVerdict:
    """Stochastic weight averaging: the average of ``count`` states against the best epoch, by validation scores."""

    count: int
    val: Mapping[str, float] | None
    best_epoch_val: Mapping[str, float] | None
    kept: bool


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """Verdict of the guard: the one kept of fitted head, trained network, and averages of their weights.

    ``kept`` is a name in ``compared``, whose rows are validation figures; ``alpha`` is the trained network's share of
    the kept weights, ``temperature`` what their classifier was divided by, ``strength`` the head's C. ``together`` has
    the figures of the mean of two networks' probabilities: the kept one's, and the head's (the trained one's, where the
    head is kept); None where there is one network only. ``beside`` is the second of them, where the two together are
    better by more than noise. ``out_of_fold``: the head's figures are of heads that were fitted to validation images
    too, each image scored by one that had not seen it.
    """

    kept: str
    alpha: float
    temperature: float
    strength: float
    compared: Mapping[str, Mapping[str, float]]
    together: Mapping[str, float] | None = None
    beside: Waypoint | None = None
    out_of_fold: bool = False

    @property
    def phrase(self) -> str:
        """The kept network, in words."""
        if 0 < self.alpha < 1:
            return f"the average of their weights, {self.alpha:.0%} trained and {1 - self.alpha:.0%} head,"
        return "the trained network" if self.alpha else "the head"

    def to_dict(self, beside: Snapshot | None, run: str) -> dict[str, Any]:
        """Plain JSON; ``beside`` is that checkpoint once it is scored, and ``run`` the run's own folder."""
        found = {"kept": self.kept, "alpha": self.alpha, "temperature": self.temperature, "C": self.strength}
        found["out_of_fold"] = self.out_of_fold
        command = None if beside is None else f"tlkit ensemble {shlex.quote(run)} {shlex.quote(beside.checkpoint)}"
        together = None if self.together is None else {**self.together, "command": command}
        plain: dict[str, Any] = to_json({**found, "compared": self.compared, "together": together, "beside": beside})
        return plain


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The model holds the best weights; ``logits`` are its outputs on val and test, as inference gives them.

    ``audit`` is that of the last phase, ``phases`` those of the ones before, each with its name. ``chosen_by_val``:
    what the validation images have chosen of the model (``C``, ``epoch``, ``average``, ``rate``, ``length``); empty
    where they were only looked at, and their scores are those of any other new images. ``cross_validated``: scores out
    of fold of a head in closed form. ``held_out_head``: where the model's head was fitted to the validation images too,
    the classifier's tensors before that, whose outputs are the ``logits`` of val.
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
    guard: Guarded | None = None
    cross_validated: Mapping[str, Any] | None = None
    held_out_head: Mapping[str, Tensor] | None = None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A checkpoint on a run's way, with the weights after ``step`` updates; scores as in FinetuneResult."""

    checkpoint: str
    step: int
    val: dict[str, float] | None
    test: dict[str, float] | None
    kinds: dict[str, str] = field(default_factory=dict)
    chosen_by_val: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FinetuneResult:
    """Result of a run. ``val`` is None without validation images, ``test`` without test images.

    ``kinds`` say what the scores on each split are worth (:func:`tl_kit.storage.seen_images.kind_of`): a ``test``, or
    ``selected on`` for images that have chosen something of the model, which is in ``chosen_by_val``.
    ``snapshots`` are those of ``--snapshots``, and of ``--late``; ``swa``, of ``--swa``, says how many moments were
    averaged (``count``), the average's scores and the best epoch's on validation, and whether the average was ``kept``.
    ``guard``: which of the fitted head, the trained network and averages of their weights was ``kept`` (``alpha``: the
    trained one's share), the validation figures of those ``compared``, those of the head and the network ``together``,
    and the checkpoint ``beside`` the run's own where that pair is better.
    ``left_out``: path and reason of each file that could not be used. ``cross_validated``: of a head in closed form,
    ``folds``, ``images`` (those of train and val), and scores on each image by a head fitted without it. ``refit``:
    True where the final head, or the head's share of an average, was fitted to train and val; ``val`` has then the
    scores from before, with the head fitted to train alone, and ``test`` those of the final network.
    """

    checkpoint: str
    model: str
    policy: str
    classes: tuple[str, ...]
    trainable_parameters: int
    epochs: int
    val: dict[str, float] | None
    test: dict[str, float] | None
    seconds: dict[str, float]
    audit: dict[str, Any]
    status: str = "finished"
    snapshots: tuple[Snapshot, ...] = ()
    swa: dict[str, Any] | None = None
    guard: dict[str, Any] | None = None
    left_out: list[dict[str, str]] = field(default_factory=list)
    kinds: dict[str, str] = field(default_factory=dict)
    chosen_by_val: tuple[str, ...] = ()
    cross_validated: dict[str, Any] | None = None
    refit: bool = False

    @property
    def notes(self) -> list[str]:
        """Notes, a line each: scores too good as estimates, and the way to an honest score if it is missing."""
        return notes_on([self.kinds], self.chosen_by_val, cross_validated=self.cross_validated is not None)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        plain: dict[str, Any] = to_json(self)
        return plain

    def _repr_html_(self) -> str:
        """The scores, for a notebook."""
        scores = {name: values for name, values in (("val", self.val), ("test", self.test)) if values is not None}
        names = list(next(iter(scores.values()), {}))
        rows = [[name.replace("_", " "), *(figure(name, each[name]) for each in scores.values())] for name in names]
        how = f"{self.epochs} epochs" if self.epochs else "in closed form"
        return html_block(
            f"{self.model}, policy {self.policy}: {self.trainable_parameters:,} parameters trained, {how}",
            html_table(["", *(marked(name, [self.kinds]) for name in scores)], rows, align="l" + "r" * len(scores)),
            html_lines([*self.notes, f"checkpoint: {self.checkpoint}" if self.checkpoint else ""]),
        )


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run's result, the manifest it ended with, and the model's outputs (n, classes) on its val and test."""

    result: FinetuneResult
    manifest: Manifest
    logits: Mapping[str, Tensor]
