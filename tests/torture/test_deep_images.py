"""Deep images of every kind, depth and layout, with odd pixels in them: their levels are those of the 8-bit images."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.data.images import png, ppm, tiff
from tests.data.preparing import photo
from tests.helpers import quick
from tests.torture.table import record
from tl_kit import CacheConfig, evaluate
from tl_kit.data.ranges import measure_ranges
from tl_kit.data.scan import scan
from tl_kit.images.decode import decode

pytestmark = pytest.mark.torture

SHADES = [np.array(photo(90, 70, seed=seed).convert("L")) for seed in range(8)]
Writer = Callable[[np.ndarray], bytes]


def _colours(samples: np.ndarray) -> np.ndarray:
    return np.dstack([samples, samples, samples])


WRITERS: dict[str, tuple[str, Writer]] = {
    "PNG": ("uint16", lambda samples: png(samples[..., None], colour_type=0)),
    "PNG RGB": ("uint16", lambda samples: png(_colours(samples), colour_type=2)),
    "PNG RGBA": ("uint16", lambda s: png(np.dstack([_colours(s), np.full_like(s, 65535)]), colour_type=6)),
    "PNG LA": ("uint16", lambda s: png(np.dstack([s, np.full_like(s, 65535)]), colour_type=4)),
    "PGM": ("uint16", ppm),
    "PPM": ("uint16", lambda samples: ppm(_colours(samples))),
    "float": ("float32", tiff),
}
for kind, order, options in itertools.product(
    ("uint16", "int16", "int32"), "<>", ({}, {"rows": 7}, {"tile": 32}, {"deflate": True, "rows": 7})
):
    WRITERS[f"TIFF {kind} {order} {options}"] = (kind, lambda s, o=order, k=options: tiff(s, order=o, **k))
for planar, order, options in itertools.product((False, True), "<>", ({"rows": 7}, {"deflate": True, "tile": 32})):
    WRITERS[f"TIFF RGB {planar} {order} {options}"] = (
        "uint16",
        lambda s, p=planar, o=order, k=options: tiff(_colours(s), planar=p, order=o, **k),
    )


def _odd(samples: np.ndarray, how: str, white: float) -> np.ndarray:
    """Nothing odd; hot and dead pixels; a margin of one far value."""
    samples = samples.copy()
    most = white * 8 if samples.dtype.kind == "f" else np.iinfo(samples.dtype).max
    if how == "hot":
        samples[[3, 40], [5, 70]], samples[[4, 41], [6, 71]] = most, 0
    elif how == "margin" and most > 3 * white:
        samples[:6] = most
    return samples


def test_levels(tmp_path: Path) -> None:
    tries, lost = 0, []
    for (name, (kind, write)), bits, how in itertools.product(WRITERS.items(), (8, 10, 12, 14), ("", "hot", "margin")):
        tries += 1
        white = 1.0 if kind == "float32" and bits == 8 else 2.0**bits - 1
        folder = tmp_path / str(tries)
        for number, levels in enumerate(SHADES):
            values = levels * (white / 255)
            samples = (values if kind == "float32" else np.rint(values)).astype(kind)
            (folder / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
            (folder / "ab"[number % 2] / f"{number}.img").write_bytes(write(_odd(samples, how, white)))
        ranges = measure_ranges(scan(folder).samples)
        for number, levels in enumerate(SHADES):
            found = np.asarray(decode(folder / "ab"[number % 2] / f"{number}.img", ranges=ranges))[..., 1].astype(int)
            wrong = np.abs(found - levels)[6:] > 1
            if wrong.sum() > 4:
                lost.append(f"{name}, {bits} bits, {how or 'plain'}: {ranges}")
                break
    record("deep images", tries=tries, survived=tries - len(lost), lost=lost)


def test_runs(tmp_path: Path) -> None:
    """A run on each kind learns what tells the classes apart, and its checkpoint predicts what the run did."""
    lost, rng = [], np.random.default_rng(0)
    names = ("PNG", "PNG RGB", "PGM", "TIFF int16 < {}", "TIFF int32 > {}", "float")
    for name in names:
        kind, write = WRITERS[name]
        data = tmp_path / name.replace(" ", "-")
        for label, level in {"dark": 60, "bright": 180}.items():
            (data / label).mkdir(parents=True)
            for number in range(12):
                values = np.rint(rng.normal(level, 20, (40, 40)).clip(0, 255)).astype(kind)
                (data / label / f"{number}.img").write_bytes(write(values))
        out = tmp_path / f"{data.name}-out"
        cache = CacheConfig(directory=tmp_path / "cache")
        result = quick(data, out, policy="head", epochs=None, cache=cache)
        same = evaluate(out, data, split="val").metrics == result.val
        if not same or result.val is None or result.val["accuracy"] < 0.9:
            lost.append(name)
    record("deep images", tries=len(names), survived=len(names) - len(lost), lost=lost)
