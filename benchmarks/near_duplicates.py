"""How well copies are told from other photos, and what looking for them costs.

Every image of a folder is re-encoded (``--quality``) and resized (``--scale``), and compared with all originals: recall
is the share of copies that are found with their original, precision the share of pairs found that are a copy and its
original. Pairs among the originals themselves are listed apart. With ``--random N`` the search alone is timed.

    python benchmarks/near_duplicates.py --data imgs [--quality 40 --scale 0.6] [--mirror] [--brightness 1.1]
    python benchmarks/near_duplicates.py --random 50000
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from tl_kit.config import DoctorConfig
from tl_kit.data.folders import list_files
from tl_kit.errors import ImageError
from tl_kit.images.decode import decode, decode_pool
from tl_kit.images.perceptual_hash import detail, near_pairs, perceptual_hash, thumbnail


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--quality", type=int, default=40)
    parser.add_argument("--scale", type=float, default=0.6)
    parser.add_argument("--brightness", type=float, default=1.0)
    parser.add_argument("--mirror", action="store_true")
    parser.add_argument("--random", type=int, default=0)
    options = parser.parse_args()
    if options.random:
        thumbnails = np.random.default_rng(0).integers(0, 256, (options.random, 32, 32), dtype=np.uint8)
        started = time.perf_counter()
        print(f"{len(near_pairs(thumbnails).first)} pairs of {options.random:,} random images")
        print(f"{time.perf_counter() - started:.1f} s")
        return
    _copies(options)


def _copies(options: argparse.Namespace) -> None:
    files = list_files(options.data)[0]
    started = time.perf_counter()
    found = list(decode_pool().map(_grey, files))
    seconds = time.perf_counter() - started
    kept = [file for file, grey in zip(files, found, strict=True) if grey is not None]
    originals = np.stack([grey for grey in found if grey is not None])
    copies = np.stack([_grey(_altered(file, options)) for file in kept])
    pairs = near_pairs(np.concatenate([originals, copies]))
    n = len(originals)
    across = (pairs.first < n) & (pairs.second >= n)
    right = int(np.sum(pairs.second[across] - n == pairs.first[across]))
    print(f"{n:,} images read in {seconds:.1f} s")
    print(
        f"recall {right}/{n} = {right / n:.2%}; precision {right}/{across.sum()} = {right / max(1, across.sum()):.2%}"
    )
    print(f"{np.sum(pairs.second < n)} pairs among the originals, {np.sum(pairs.first >= n)} among the copies")
    _margins(originals, copies[:, :, ::-1] if options.mirror else copies)


def _margins(originals: NDArray[np.uint8], copies: NDArray[np.uint8]) -> None:
    """How far both kinds of pairs are from the thresholds."""
    details, hashes = detail(originals), perceptual_hash(originals)
    own = np.einsum("nd,nd->n", details, detail(copies))
    bits = (63 - np.einsum("nd,nd->n", hashes, perceptual_hash(copies))) / 2
    others = details @ details.T
    np.fill_diagonal(others, -1)
    print(f"correlation of a copy with its original: least {own.min():.3f}, median {np.median(own):.3f}")
    print(
        f"correlation of different images: most {others.max():.3f}; hash of a copy: {bits.max():.0f} bits off at most"
    )


def _grey(source: Path | bytes) -> NDArray[np.uint8] | None:
    try:
        pixels = thumbnail(decode(source, min_side=DoctorConfig.min_side))
    except ImageError:
        return None
    return np.asarray(Image.fromarray(pixels).convert("L"))


def _altered(file: Path, options: argparse.Namespace) -> bytes:
    image = decode(file)
    width, height = (max(1, round(side * options.scale)) for side in image.size)
    image = ImageEnhance.Brightness(image.resize((width, height), Image.Resampling.BICUBIC)).enhance(options.brightness)
    stream = io.BytesIO()
    (ImageOps.mirror(image) if options.mirror else image).save(stream, "JPEG", quality=options.quality)
    return stream.getvalue()


if __name__ == "__main__":
    main()
