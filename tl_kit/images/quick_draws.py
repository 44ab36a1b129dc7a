"""Crops and mirror images of a batch, drawn as torchvision draws them, without its calls for one number at a time.

These take 50 to 100 microseconds an image, in which no other thread of Python runs. torch's generator for the CPU is
the Mersenne Twister, seeded as NumPy's ``RandomState`` is: NumPy gives the same numbers of 32 bits, all at once. One of
them modulo n is torch's ``randint(n)``; the last 24 bits are the fraction of a ``uniform_`` in float32. The tests
compare the crops of both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["crops_and_flips"]

_TRIES = 10  # of torchvision's RandomResizedCrop
_NUMBERS = 2 * _TRIES + 3  # an area and a ratio each, a place, a mirror image


def crops_and_flips(
    seeds: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    flip: float,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Boxes (n, 4) as (top, left, height, width), and mirror images (n,), of images of ``sizes`` (height, width).

    They are those of torchvision's RandomResizedCrop and RandomHorizontalFlip, one after the other, after
    ``torch.manual_seed`` with each of the seeds. ``scale``: share of the image's area; ``ratio``: the crop's width over
    its height; ``flip``: the chance of a mirror image. Where ten tries do not fit, the crop is the largest in the
    image's middle that has such a ratio.
    """
    numbers = _numbers(seeds)
    height, width = np.array(sizes, dtype=np.int64).reshape(-1, 2).T
    tries = numbers[:, : 2 * _TRIES].reshape(-1, _TRIES, 2)
    areas = (height * width)[:, None] * _uniform(tries[..., 0], *scale).astype(np.float64)
    logs = _uniform(tries[..., 1], *np.log(np.array(ratio, dtype=np.float32)).tolist())
    shapes = np.exp(logs.astype(np.float64)).astype(np.float32).astype(np.float64)
    columns, rows = np.rint(np.sqrt(areas * shapes)), np.rint(np.sqrt(areas / shapes))
    fits = (columns > 0) & (columns <= width[:, None]) & (rows > 0) & (rows <= height[:, None])
    any_fits, first, each = fits.any(axis=1), fits.argmax(axis=1), np.arange(len(sizes))
    rows, columns = (np.where(any_fits, sides[each, first], 0).astype(np.int64) for sides in (rows, columns))
    after = np.where(any_fits, 2 * (first + 1), 2 * _TRIES)  # numbers that the tries have used up
    top = numbers[each, after] % (height - rows + 1)
    left = numbers[each, after + 1] % (width - columns + 1)
    boxes = np.where(any_fits, np.stack([top, left, rows, columns]), _central(height, width, ratio)).T
    chance = _uniform(numbers[each, after + 2 * any_fits], 0.0, 1.0)
    return boxes, chance < np.float32(flip)


def _numbers(seeds: Sequence[int]) -> NDArray[np.int64]:
    """The first numbers (n, 23), from 0 to 2**32 - 1, of torch's generator for the CPU after each of the seeds."""
    state, found = np.random.RandomState(0), np.empty((len(seeds), _NUMBERS), dtype=np.uint32)
    for row, seed in zip(found, seeds, strict=True):
        state.seed(seed % 2**32)
        row[:] = state.randint(0, 2**32, size=_NUMBERS, dtype=np.uint32)
    return found.astype(np.int64)


def _uniform(numbers: NDArray[np.int64], low: float, high: float) -> NDArray[np.float32]:
    """As ``torch.empty(1).uniform_(low, high)`` makes of each number."""
    fraction = (numbers % 2**24).astype(np.float32) * np.float32(2.0**-24)
    found: NDArray[np.float32] = fraction * (np.float32(high) - np.float32(low)) + np.float32(low)
    return found


def _central(height: NDArray[np.int64], width: NDArray[np.int64], ratio: tuple[float, float]) -> NDArray[np.int64]:
    shape = width / height
    rows = np.where(shape < ratio[0], np.rint(width / ratio[0]), height).astype(np.int64)
    columns = np.where(shape > ratio[1], np.rint(height * ratio[1]), width).astype(np.int64)
    return np.stack([(height - rows) // 2, (width - columns) // 2, rows, columns])
