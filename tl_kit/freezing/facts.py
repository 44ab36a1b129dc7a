"""Facts that a policy is sized to: counts of images, and the accuracy of linear probes of the frozen network."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Facts", "StageProbe"]


@dataclass(frozen=True)
class StageProbe:
    """A stage's module name and channels, and the cross-validated accuracy of a logistic regression on its features.

    ``error`` is the standard error over the folds, ``strength`` scikit-learn's C times the images.
    """

    stage: str
    channels: int
    accuracy: float
    error: float
    strength: float

    def beats(self, other: StageProbe) -> bool:
        """True where this one is more accurate by more than the other's standard error."""
        return self.accuracy > other.accuracy + other.error

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Training images in all, classes, images of the rarest and of the most frequent class, and the network.

    ``shares``: of the network's parameters, the part that the last 1, 2, ... groups of layers hold, the classifier not
    counted; empty where timm has no groups of this network. ``linear_head``: its classifier is one linear layer on
    flat features, which can be fitted.
    ``probes`` are from the input up, the last of them at the input of the head; none where the network is not
    pretrained, or where a class has too few images to validate on. ``together``: the probe of all of them side by side;
    None where it was not asked.
    """

    images: int
    classes: int
    smallest: int
    largest: int
    pretrained: bool
    shares: tuple[float, ...]
    linear_head: bool
    probes: tuple[StageProbe, ...] = ()
    together: StageProbe | None = None

    @property
    def per_class(self) -> float:
        """Mean training images a class."""
        return self.images / self.classes

    @property
    def groups(self) -> int:
        """Groups of layers as timm has them; 0 where it has none."""
        return len(self.shares)

    def last_groups(self, share: float) -> int:
        """The fewest last groups that hold this share of the parameters; all of them, and 0, where none do."""
        return next((count for count, held in enumerate(self.shares, 1) if held >= share), self.groups)

    @property
    def imbalance(self) -> float:
        """Images of the most frequent class over those of the rarest."""
        return self.largest / self.smallest

    @property
    def top(self) -> StageProbe | None:
        """The probe at the head's input: what ``--policy head`` would reach, about."""
        return self.probes[-1] if self.probes else None

    @property
    def best(self) -> StageProbe | None:
        """The most accurate probe; of equals, the nearest to the head."""
        return max(reversed(self.probes), key=lambda probe: probe.accuracy, default=None)

    @property
    def domain(self) -> str:
        """``similar`` to the pretraining images, ``different``, or ``unknown`` without probes.

        Different: an earlier stage is better than the head's input by more than the latter's standard error.
        The last layers have learned what tells the pretraining classes apart; where an earlier stage does better, they
        have dropped what matters here (Yosinski et al. 2014, "How transferable are features in deep neural networks?").
        """
        if self.top is None or self.best is None:
            return "unknown"
        return "different" if self.best.beats(self.top) else "similar"

    @property
    def stages_add(self) -> bool | None:
        """True where all stages' features side by side are better than the head's input by more than noise.

        Evci et al. 2022, "Head2Toe: Utilizing Intermediate Representations for Better Generalization": there,
        fine-tuning of all layers gains most. None where that was not asked.
        """
        if self.top is None or self.together is None:
            return None
        return self.together.beats(self.top)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, with what follows from the counts."""
        derived = {name: getattr(self, name) for name in ("per_class", "imbalance", "domain", "stages_add", "groups")}
        together = None if self.together is None else self.together.to_dict()
        return {**asdict(self), "probes": [probe.to_dict() for probe in self.probes], "together": together, **derived}
