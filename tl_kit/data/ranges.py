"""Dynamic range of deep images (more than 8 bits a sample): measured once over a data set, then always used.

A 12-bit camera uses 12 of 16 bits; scaled by all 16, its images are black. Scaled by each image's own range, images of
different brightness look the same. So one range is measured for all images of a type, and stored with the model.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tl_kit.config import DecodeConfig, RangeConfig
from tl_kit.data.manifest import Manifest, Sample
from tl_kit.errors import ImageError
from tl_kit.images.decode import decode_pool, decode_samples
from tl_kit.images.deep import SampleRanges, as_text, reads_by_type

__all__ = ["measure_ranges", "range_in_use", "range_note"]

_DEFAULT = RangeConfig()
_GOLDEN = (5**0.5 - 1) / 2  # its multiples, modulo 1, are evenly spread for any number of them
_MOST_FILLS = 3
_LOOK = 4096  # values among which distinct ones are counted


def measure_ranges(
    samples: Sequence[Sample],
    *,
    decode: DecodeConfig = DecodeConfig(),
    config: RangeConfig = _DEFAULT,
    progress: Callable[[int, int], None] | None = None,
) -> SampleRanges | None:
    """The range in use of each type of deep images among these; None if there are no deep images.

    Every image has the same weight, whatever its size and name. Images that cannot be decoded are skipped.
    ``progress(done, total)`` counts the images read.
    """
    by_kind: dict[str, dict[str, Sample]] = {}
    for sample in samples:
        if sample.deep is not None:
            by_kind.setdefault(sample.deep, {})[sample.digest] = sample
    chosen = {kind: [unique[digest] for digest in sorted(unique)[: config.images]] for kind, unique in by_kind.items()}
    done, total, found = itertools.count(1), sum(map(len, chosen.values())), {}
    for kind, some in chosen.items():
        parts = []
        for part in _looks(some, decode, config):
            parts.append(part)
            if progress is not None:
                progress(next(done), total)
        values = np.concatenate(parts)
        if len(values):
            found[kind] = range_in_use(values, whole=kind != "float32", config=config)
    return SampleRanges.of(found) if found else None


def range_in_use(values: NDArray[Any], *, whole: bool, config: RangeConfig = _DEFAULT) -> tuple[float, float]:
    """``(low, high)`` of finite samples (n,), between which all samples lie except a share ``config.tail`` at each end.

    It is the smallest of the ranges 0..2^k - 1, k >= 8, that contains them; for floats 0..1 is tried too, with a small
    overshoot. If they fill less than ``config.least_used`` of it, or no range contains them, their own range is used.
    For ``whole`` numbers, 0..255 is not narrowed, because these are the levels of 8-bit images. Single values far from
    all others (a hot pixel, the fill of an empty margin) do not count.
    """
    ordered = _without_fills(np.sort(values.astype(np.float64)), config)
    low, high = _bounds(ordered, config.tail)
    if low == high:
        low, high = float(ordered[0]), float(ordered[-1])
    slack = 0.0 if whole else config.overshoot
    tops = [2.0**bits - 1 for bits in range(8, 33 if whole else 17)]
    for top in tops if whole else [1.0, *tops]:
        if low >= -slack * top and high <= top * (1 + slack):
            if (whole and top == 255) or low == high or high - low >= config.least_used * top:
                return 0.0, top
            break
    return (low, high) if low < high else (low, low + max(1.0, abs(low) / 1000))


def range_note(manifest: Manifest) -> str | None:
    """A note on the ranges over which a data set's deep images are read; None if it has no deep images."""
    kinds = Counter(sample.deep for sample in manifest.samples if sample.deep is not None)
    if not kinds:
        return None
    known = {kind: None if manifest.ranges is None else manifest.ranges.get(kind) for kind in sorted(kinds)}
    total = sum(kinds.values())
    many = "1 image has" if total == 1 else f"{total:,} images have"
    if len(known) == 1 and (only := next(iter(known.values()))) is not None:
        return f"{many} more than 8 bits a sample: their values lie in {as_text(*only)} and are read over that range"
    each = ", ".join(f"{kind} ({kinds[kind]:,}) over {_over(kind, bounds)}" for kind, bounds in known.items())
    return f"{many} more than 8 bits a sample: they are read, {each}"


def _over(kind: str, bounds: tuple[float, float] | None) -> str:
    if bounds is not None:
        return as_text(*bounds)
    return f"{reads_by_type(kind)}, since no training image is of that kind"


def _looks(samples: Sequence[Sample], decode: DecodeConfig, config: RangeConfig) -> Iterator[NDArray[np.float64]]:
    """A fixed number of values from each image; none from one that cannot be decoded."""
    count = int(np.clip(config.values // len(samples), config.least_values, config.most_values))

    def some(sample: Sample) -> NDArray[np.float64]:
        try:
            return _spread(decode_samples(sample.path, config=decode), count)
        except (ImageError, MemoryError):
            return np.empty(0)

    yield from decode_pool().map(some, samples)


def _spread(values: NDArray[Any], count: int) -> NDArray[np.float64]:
    """``count`` of the values (n,), spread over the image, without non-finite ones."""
    if not len(values):
        return np.empty(0)
    places = (np.arange(1, count + 1) * _GOLDEN % 1 * len(values)).astype(np.int64)
    with np.errstate(invalid="ignore"):  # for signalling NaNs
        found = values[places].astype(np.float64)
    return found[np.isfinite(found)]


def _bounds(ordered: NDArray[np.float64], tail: float) -> tuple[float, float]:
    out = int(tail * len(ordered))
    return float(ordered[out]), float(ordered[len(ordered) - 1 - out])


def _without_fills(ordered: NDArray[np.float64], config: RangeConfig) -> NDArray[np.float64]:
    """Sorted values without outliers: values at an end that are farther from the others than these are from each other.

    Outliers are a few distinct values of any frequency (fills), or a few samples of any value (hot pixels).
    """
    for at_end in (True, False):
        ordered = _without_odd(ordered, config, at_end=at_end)
        rest = ordered
        for _ in range(_MOST_FILLS):
            fill = float(rest[-1] if at_end else rest[0])
            rest = rest[: np.searchsorted(rest, fill)] if at_end else rest[np.searchsorted(rest, fill, "right") :]
            if len(np.unique(rest[:: max(1, len(rest) // _LOOK)])) < config.least_levels:
                break
            if _is_far(fill, rest, config):
                ordered = rest
    return ordered


def _without_odd(ordered: NDArray[np.float64], config: RangeConfig, *, at_end: bool) -> NDArray[np.float64]:
    """The values without a share of at most ``config.most_odd`` that the widest gap separates."""
    most = int(config.most_odd * len(ordered))
    if most < 1:
        return ordered
    gaps = np.diff(ordered[-most - 1 :] if at_end else ordered[: most + 1])
    cut = len(ordered) - most + int(np.argmax(gaps)) if at_end else int(np.argmax(gaps)) + 1
    rest, nearest = (ordered[:cut], ordered[cut]) if at_end else (ordered[cut:], ordered[cut - 1])
    return rest if _is_far(float(nearest), rest, config) else ordered


def _is_far(value: float, rest: NDArray[np.float64], config: RangeConfig) -> bool:
    low, high = _bounds(rest, config.tail)
    return low < high and max(value - high, low - value) > config.gap * (high - low)
