"""Training resolution: the images' own size, where a network's larger size would do no more than enlarge them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tl_kit.config import DecodeConfig, SideConfig
from tl_kit.data.manifest import Sample, spread
from tl_kit.images.decode import upright_sizes

__all__ = ["longer_side", "training_side"]


def longer_side(samples: Sequence[Sample], config: SideConfig, *, decode: DecodeConfig) -> int | None:
    """Pixels that the longer side of most images does not exceed; None where no image can be read.

    Most are the share ``config.share`` of them. At most ``config.measured`` headers are read.
    """
    sizes = upright_sizes((sample.path for sample in spread(samples, config.measured)), decode)
    return math.ceil(np.quantile([max(size) for size in sizes], config.share)) if sizes else None


def training_side(images: int, network: int, config: SideConfig) -> int:
    """Pixels a side to train at, for images of a longer side and a network's own side, all in pixels.

    The images' own size, but at least the share ``config.least`` of the network's, rounded up to a multiple of
    ``config.step``, and never more than the network's.
    """
    side = config.step * math.ceil(max(images, config.least * network) / config.step)
    return min(side, network)
