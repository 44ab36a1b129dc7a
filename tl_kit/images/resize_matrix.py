"""Pillow's resize as a matrix: each row has the weights of the given pixels in one pixel of the resized image."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["KERNELS", "resize_matrix"]

_Kernel = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.maximum(1 - np.abs(x), 0)
    return found


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cubic convolution of Keys (1981) with a = -1/2, as Pillow has it."""
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _lanczos(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


KERNELS: Mapping[Image.Resampling, tuple[_Kernel, float]] = {
    Image.Resampling.BILINEAR: (_triangle, 1.0),
    Image.Resampling.BICUBIC: (_cubic, 2.0),
    Image.Resampling.LANCZOS: (_lanczos, 3.0),
}
"""Kernels, and how far each reaches to both sides, in pixels."""


def resize_matrix(length: int, size: int, resample: Image.Resampling) -> NDArray[np.float64]:
    """Weights (size, length) with which Pillow resizes rows or columns of ``length`` pixels to ``size``.

    Where it reduces, the kernel is stretched, so that every pixel counts (antialiasing). Each row sums up to 1.
    """
    kernel, reach = KERNELS[resample]
    scale = length / size
    stretch = max(scale, 1.0)
    centers = (np.arange(size) + 0.5) * scale
    first = np.maximum(np.trunc(centers - reach * stretch + 0.5), 0)
    last = np.minimum(np.trunc(centers + reach * stretch + 0.5), length)
    pixels = np.arange(length)
    weights = kernel((pixels - centers[:, None] + 0.5) / stretch)
    weights *= (pixels >= first[:, None]) & (pixels < last[:, None])
    found: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return found
