"""Likeness: copies are found, other images are not, and the block-wise search is the search over all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn
from sklearn.datasets import load_sample_images

from tests.data.images import encoded
from tl_kit.config import LikenessConfig
from tl_kit.images import perceptual_hash as likeness
from tl_kit.images.decode import decode
from tl_kit.images.perceptual_hash import detail, near_pairs, perceptual_hash, thumbnail


def greys(count: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32), dtype=np.uint8)


def as_set(pairs: likeness.Pairs) -> set[tuple[int, int]]:
    return set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))


def test_the_hash_is_the_signs_of_the_lowest_frequencies():
    """Against the definition of the DCT-II: X_uv = sum_xy f(x, y) cos(pi (2x + 1) u / 64) cos(pi (2y + 1) v / 64)."""
    image = greys(1)[0].astype(float)
    at = np.arange(32)
    waves = [np.cos(np.pi * (2 * at + 1) * u / 64) for u in range(8)]
    expected = [np.sign(waves[u] @ image @ waves[v]) for u in range(8) for v in range(8) if u or v]
    assert perceptual_hash(image[None])[0].tolist() == expected


def test_details_are_unit_vectors_of_weighted_coefficients():
    image = greys(3)[2].astype(float)
    coefficients = dctn(image, norm="ortho")[:16, :16]
    weighted = np.array([[coefficients[u, v] * np.hypot(u, v) for v in range(16)] for u in range(16)]).ravel()[1:]
    np.testing.assert_allclose(detail(greys(3))[2], weighted / np.linalg.norm(weighted), atol=1e-6)


def test_neither_brightness_nor_contrast_matters():
    images = greys(5).astype(float)
    np.testing.assert_array_equal(perceptual_hash(0.5 * images + 60), perceptual_hash(images))
    np.testing.assert_allclose(detail(0.5 * images + 60), detail(images), atol=1e-6)


def brute_force(images: np.ndarray, config: LikenessConfig) -> set[tuple[int, int]]:
    found = set()
    for i in range(len(images)):
        for j in range(i + 1, len(images)):
            for other in (images[j], images[j][:, ::-1]):
                bits = np.sum(perceptual_hash(images[i][None]) != perceptual_hash(other[None]))
                same = float((detail(images[i][None]) @ detail(other[None]).T)[0, 0])
                if bits <= config.hash_bits and same >= config.similarity:
                    found.add((i, j))
    return found


def test_the_search_in_blocks_is_that_over_all_pairs(monkeypatch):
    """With thresholds so wide that hundreds of pairs qualify, some by the hash and some by the details alone."""
    for name, size in {"_ROWS": 7, "_COLUMNS": 11, "_CANDIDATES": 5}.items():
        monkeypatch.setattr(likeness, name, size)
    images = np.concatenate([greys(30), greys(10)[:, :, ::-1]])
    config = LikenessConfig(hash_bits=30, similarity=0.05)
    expected = brute_force(images, config)
    assert 50 < len(expected) < 400
    assert as_set(near_pairs(images, config=config)) == expected


def test_permuting_the_images_permutes_the_pairs():
    images = np.concatenate([greys(20), greys(6), greys(4)[:, :, ::-1]])
    order = np.random.default_rng(1).permutation(len(images))
    renamed = {tuple(sorted((int(order[i]), int(order[j])))) for i, j in as_set(near_pairs(images[order]))}
    assert renamed == as_set(near_pairs(images))
    assert renamed >= {(number, 20 + number) for number in range(6)} | {(number, 26 + number) for number in range(4)}


@pytest.mark.parametrize("count", [0, 1])
def test_few_images_have_no_pairs(count):
    assert as_set(near_pairs(greys(count))) == set()


def test_constant_images_are_like_nothing():
    assert as_set(near_pairs(np.full((5, 32, 32), 200, dtype=np.uint8))) == set()


def as_thumbnail(content: bytes) -> np.ndarray:
    return np.asarray(Image.fromarray(thumbnail(decode(content, min_side=32))).convert("L"))


def test_real_photos_and_their_copies():
    """At 0.6 of the size and JPEG quality 40, every second one mirrored: each is found, and nothing else.

    The photos are views into the two that come with scikit-learn, of which neighbours overlap by half.
    """
    views = [
        Image.fromarray(photo[top : top + 220, left : left + 220])
        for photo in load_sample_images().images
        for top in range(0, photo.shape[0] - 219, 100)
        for left in range(0, photo.shape[1] - 219, 100)
    ]
    assert len(views) == 30
    copies = []
    for number, view in enumerate(views):
        image = view.resize((132, 132))
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if number % 2 else image
        copies.append(as_thumbnail(encoded(image, "JPEG", quality=40)))
    found = as_set(near_pairs(np.stack([*(as_thumbnail(encoded(view, "PNG")) for view in views), *copies])))
    assert found == {(number, number + len(views)) for number in range(len(views))}
