"""Perceptual hash: it finds images that show the same, though re-encoded, resized, brightened or mirrored.

A perceptual hash (the signs of low-frequency DCT coefficients; Zauner 2010, "Implementation and Benchmarking of
Perceptual Image Hash Functions", section 3.2) proposes pairs, and a correlation of finer detail decides.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tl_kit.config import LikenessConfig
from tl_kit.images.decode import decode_pool
from tl_kit.optimization.side_by_side import one_thread

__all__ = ["SIDE", "Pairs", "detail", "few_pairs", "linked_sets", "near_pairs", "perceptual_hash", "thumbnail"]

SIDE = 32
_HASHED = 8  # frequencies a direction, of which the constant one is left out: 63 bits
_COMPARED = 16
_ROWS, _COLUMNS, _CANDIDATES = 512, 2048, 16384  # sizes of blocks: 4 MiB of agreements, 16 MiB of details
_DEFAULT = LikenessConfig()


@dataclass(frozen=True)
class Pairs:
    """Indices ``first`` < ``second`` of images that are alike, (p,) each, in order."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]


def thumbnail(image: Image.Image) -> NDArray[np.uint8]:
    """(32, 32, 3) of an RGB image of any size, whatever its aspect ratio."""
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def perceptual_hash(grey: NDArray[Any]) -> NDArray[np.float32]:
    """Signs (n, 63), each +1 or -1, of thumbnails (n, 32, 32).

    The threshold is 0 and not, as Zauner has it, the median of the coefficients: a mirror image then has the same hash
    but for the signs of the odd horizontal frequencies.
    """
    coefficients = _dct(grey, _HASHED)[:, 1:]
    signs: NDArray[np.float32] = np.where(coefficients > 0, np.float32(1), np.float32(-1))
    return signs


def detail(grey: NDArray[Any]) -> NDArray[np.float32]:
    """Unit vectors (n, 255) of thumbnails (n, 32, 32): DCT coefficients times their frequency.

    Spectra of photos fall off with the frequency; so weighted, outlines count as much as light and shade do, and the
    product of two vectors tells copies from other photos of the same kind of scene.
    """
    u = np.arange(_COMPARED)
    vectors = _dct(grey, _COMPARED) * np.hypot(u[:, None], u).ravel()
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: NDArray[np.float32] = (vectors / np.maximum(norms, 1e-6))[:, 1:].astype(np.float32)
    return found


def near_pairs(grey: NDArray[Any], *, config: LikenessConfig = _DEFAULT) -> Pairs:
    """All pairs of thumbnails (n, 32, 32) that are alike, or alike once one of them is mirrored.

    Every pair's hashes are compared, in matrix products of a block each. Permuting the images permutes the result. A
    constant image is like no other one.
    """
    found = _search(grey, config, _Count(None))
    assert found is not None
    return found


def few_pairs(grey: NDArray[Any], *, most: int, config: LikenessConfig = _DEFAULT) -> Pairs | None:
    """:func:`near_pairs`, or None where the hashes propose more than ``most`` pairs: it would take long."""
    return _search(grey, config, _Count(most))


class _Count:
    """Pairs that were proposed, over all threads; ``full`` once there are more than ``most``."""

    def __init__(self, most: int | None) -> None:
        self._most, self._found, self._lock = most, 0, threading.Lock()

    def add(self, pairs: int) -> None:
        with self._lock:
            self._found += pairs

    @property
    def full(self) -> bool:
        return self._most is not None and self._found > self._most


def _search(grey: NDArray[Any], config: LikenessConfig, count: _Count) -> Pairs | None:
    hashes, details = perceptual_hash(grey), detail(grey)
    found = [np.zeros((0, 2), dtype=np.int64)]
    with one_thread():  # blocks are small: the pool shares them out, BLAS need not
        for mirrored in (False, True):
            others = (hashes * _mirror(_HASHED), details * _mirror(_COMPARED)) if mirrored else (hashes, details)
            search = partial(_alike, hashes, details, *others, config=config, count=count)
            found += decode_pool().map(search, range(0, len(grey), _ROWS))
    if count.full:
        return None
    pairs = np.unique(np.concatenate(found), axis=0)  # a symmetric image is like another one both ways
    return Pairs(pairs[:, 0], pairs[:, 1])


def _alike(
    hashes: NDArray[np.float32],
    details: NDArray[np.float32],
    other_hashes: NDArray[np.float32],
    other_details: NDArray[np.float32],
    top: int,
    *,
    config: LikenessConfig,
    count: _Count,
) -> NDArray[np.int64]:
    """Pairs (p, 2) of a row from ``top`` on, of one block, with an ``other`` one of a higher index; fewer if full."""
    enough = hashes.shape[1] - 2 * config.hash_bits  # a product is the number of bits that agree less the others
    found = [np.zeros((0, 2), dtype=np.int64)]
    for left in range(top, len(hashes), _COLUMNS):
        agreement = hashes[top : top + _ROWS] @ other_hashes[left : left + _COLUMNS].T
        rows, columns = np.nonzero(agreement >= enough)
        candidates = np.column_stack([rows + top, columns + left])
        candidates = candidates[candidates[:, 0] < candidates[:, 1]]
        count.add(len(candidates))
        if count.full:
            break
        for start in range(0, len(candidates), _CANDIDATES):
            some = candidates[start : start + _CANDIDATES]
            correlation = np.einsum("pd,pd->p", details[some[:, 0]], other_details[some[:, 1]])
            found.append(some[correlation >= config.similarity])
    return np.concatenate(found)


def _dct(grey: NDArray[Any], size: int) -> NDArray[np.float64]:
    """The lowest ``size`` frequencies a direction (n, size^2), the constant one first."""
    from scipy.fft import dctn

    blocks = [grey[start : start + _ROWS].astype(np.float64) for start in range(0, len(grey), _ROWS)]
    found = [dctn(block, axes=(1, 2), norm="ortho")[:, :size, :size].reshape(len(block), -1) for block in blocks]
    return np.concatenate(found) if found else np.zeros((0, size * size))


def _mirror(size: int) -> NDArray[np.float32]:
    """(size^2 - 1,): the factors that mirroring an image puts on its DCT coefficients, without the constant one."""
    signs = np.where(np.arange(size) % 2, np.float32(-1), np.float32(1))
    return np.tile(signs, size)[1:]


def linked_sets(first: NDArray[np.int64], second: NDArray[np.int64], size: int) -> list[list[int]]:
    """Connected components of two nodes and more, each in order, the one with the smallest index first."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(first):
        return []
    edges = first.astype(np.int32), second.astype(np.int32)  # given others, scipy 1.11 links nothing
    _, component = connected_components(coo_array((np.ones(len(first)), edges), shape=(size, size)), False)
    nodes = np.unique(np.concatenate([first, second]))
    found: dict[int, list[int]] = {}
    for node in nodes.tolist():
        found.setdefault(int(component[node]), []).append(node)
    return list(found.values())
