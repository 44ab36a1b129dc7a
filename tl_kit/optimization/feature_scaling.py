"""Features on a common footing before a penalised fit, and the choice of a penalty that no single image decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tl_kit.config import ScalingConfig
from tl_kit.errors import NonFiniteError

__all__ = ["Scaling", "check_finite", "choose_strength", "fit_scaling"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scaling:
    """x -> (x - mean) / scale, channel by channel: both (d,). A channel that is dead has an infinite scale."""

    mean: Floats
    scale: Floats

    def __call__(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Features (n, d) to be fitted to."""
        return ((features - self.mean) / self.scale).astype(np.float32)

    def on_raw(self, weight: Floats, bias: Floats) -> tuple[Floats, Floats]:
        """A linear layer on scaled features, weight (k, d) and bias (k,), as one on the features themselves."""
        raw = weight / self.scale
        return raw, bias - raw @ self.mean


def fit_scaling(
    features: NDArray[np.floating],
    *,
    weights: Floats | None = None,
    blocks: Sequence[int] | None = None,
    config: ScalingConfig = ScalingConfig(),
) -> Scaling:
    """Means and deviations of the channels of (n, d), where no channel counts as much more than it varies.

    Divided by its own deviation, a channel that is almost dead in training would decide everything about an image in
    which it is not. So no channel is divided by less than a share of what most deviations lie below, and one that is
    far smaller has no part in the fit (:class:`tl_kit.config.ScalingConfig`). ``weights`` (n,) are those of images;
    ``blocks``: widths that sum to d, each on its own, where features of several networks stand side by side.

    Raises NonFiniteError for a feature that is NaN or infinite.
    """
    check_finite(features)
    values = np.asarray(features, dtype=np.float64)
    mean = np.average(values, axis=0, weights=weights)
    deviation = np.sqrt(np.average(np.square(values - mean), axis=0, weights=weights))
    ends: list[int] = [] if blocks is None else np.cumsum(blocks)[:-1].tolist()
    return Scaling(mean, np.concatenate([_floored(part, config) for part in np.split(deviation, ends)]))


def check_finite(features: NDArray[np.floating]) -> None:
    """Raises NonFiniteError for a feature (n, d) that is NaN or infinite."""
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise NonFiniteError(
            f"the network's features of {(~finite).sum():,} of {len(finite):,} images are not finite: its weights are "
            "damaged, or its precision is too low for it; try --runtime plain"
        )


def _floored(deviation: Floats, config: ScalingConfig) -> Floats:
    reference = float(np.quantile(deviation, config.reference)) or float(deviation.max())  # 0: almost all are constant
    dead = deviation <= config.dead * reference
    return np.where(dead, np.inf, np.maximum(deviation, config.floor * reference))


def choose_strength(strengths: Sequence[float], loss: Callable[[float], float]) -> float:
    """The one of lowest loss, the strongest penalty where several are equal; tried from the strongest on.

    ``strengths`` are inverse penalties. Weaker ones fit the training images more closely: the search ends when the loss
    has risen twice in a row.
    """
    best, *weaker = sorted(strengths)
    lowest = before = loss(best)
    rises = 0
    for strength in weaker:
        found = loss(strength)
        rises = rises + 1 if found > before else 0
        if found < lowest:
            best, lowest = strength, found
        if rises == 2:
            break
        before = found
    return best
