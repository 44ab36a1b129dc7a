"""Features on a common footing before a penalised fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tl_kit.config import ScalingConfig
from tl_kit.errors import NonFiniteError

__all__ = ["Scaling", "check_finite", "fit_scaling"]

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
    """Pareto scaling of the channels of (n, d): each divided by the root of its deviation over the images.

    Where every channel is divided by its whole deviation, those that hardly vary count as much as all others, and one
    that is almost dead decides everything about an image in which it is not; where all keep one scale, few channels
    decide. The root is between the two (:class:`tl_kit.config.ScalingConfig` has its limits). The mean variance of
    scaled channels is 1, so that penalties mean about the same for every network. ``weights`` (n,) are those of images;
    ``blocks``: widths that sum to d, each on its own, where features of several networks stand side by side.

    Raises NonFiniteError for a feature that is NaN or infinite.
    """
    check_finite(features)
    values = np.asarray(features, dtype=np.float64)
    mean = np.average(values, axis=0, weights=weights)
    deviation = np.sqrt(np.average(np.square(values - mean), axis=0, weights=weights))
    ends: list[int] = [] if blocks is None else np.cumsum(blocks)[:-1].tolist()
    return Scaling(mean, np.concatenate([_divisors(part, config) for part in np.split(deviation, ends)]))


def check_finite(features: NDArray[np.floating]) -> None:
    """Raises NonFiniteError for a feature (n, d) that is NaN or infinite."""
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise NonFiniteError(
            f"the network's features of {(~finite).sum():,} of {len(finite):,} images are not finite: its weights are "
            "damaged, or its precision is too low for it; try --runtime plain"
        )


def _divisors(deviation: Floats, config: ScalingConfig) -> Floats:
    """Divisors of one network's channels (d,); infinite for a channel that is dead."""
    reference = float(np.quantile(deviation, config.reference)) or float(deviation.max())  # 0: almost all are constant
    alive = deviation > config.dead * reference
    if not alive.any():
        return np.full(len(deviation), np.inf)
    relative = deviation[alive] / reference
    divisors = np.clip(relative, config.floor, config.ceiling) ** config.power
    divisors *= np.maximum(relative / config.ceiling, 1.0)
    found = np.full(len(deviation), np.inf)
    found[alive] = reference * divisors * np.sqrt(np.mean(np.square(relative / divisors)))
    return found
