"""Batches: every image once or every class equally often, in even sizes, decided by seed and epoch alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tl_kit.training.batch_order import balanced_batches, even_batches


@given(images=st.integers(1, 500), batch_size=st.integers(1, 80), seed=st.integers(0, 5), epoch=st.integers(0, 5))
def test_every_image_once_in_batches_that_differ_by_at_most_one(
    images: int, batch_size: int, seed: int, epoch: int
) -> None:
    batches = even_batches(images, batch_size, seed=seed, epoch=epoch)
    sizes = [len(batch) for batch in batches]
    assert sorted(np.concatenate(batches)) == list(range(images))
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert len(batches) == -(-images // batch_size)


def test_65_images_at_batch_64_make_no_batch_of_one() -> None:
    assert sorted(len(b) for b in even_batches(65, 64, seed=0, epoch=0)) == [32, 33]


@pytest.mark.parametrize("other", [{"seed": 1, "epoch": 0}, {"seed": 0, "epoch": 1}])
def test_seed_and_epoch_change_the_order_and_nothing_else_does(other: dict[str, int]) -> None:
    first = np.concatenate(even_batches(50, 8, seed=0, epoch=0))
    assert np.array_equal(first, np.concatenate(even_batches(50, 16, seed=0, epoch=0)))
    assert not np.array_equal(first, np.concatenate(even_batches(50, 8, **other)))


uneven = st.lists(st.integers(1, 60), min_size=1, max_size=8).map(lambda sizes: np.repeat(np.arange(len(sizes)), sizes))


@given(labels=uneven, batch_size=st.integers(1, 80), seed=st.integers(0, 5), epoch=st.integers(0, 5))
def test_every_class_equally_often_and_no_image_again_before_the_rest_of_its_class(
    labels: np.ndarray, batch_size: int, seed: int, epoch: int
) -> None:
    images = len(labels)
    labels = np.random.default_rng(seed).permutation(labels)
    batches = balanced_batches(labels, batch_size, seed=seed, epoch=epoch)
    plain = even_batches(images, batch_size, seed=seed, epoch=epoch)
    assert [len(batch) for batch in batches] == [len(batch) for batch in plain]
    drawn = np.concatenate(batches)
    assert len(set(drawn.tolist())) == images, "no use of an image comes twice"
    turns, found = np.divmod(drawn, images)
    by_class = np.bincount(labels[found], minlength=labels.max() + 1)
    assert max(by_class) - min(by_class) <= 1
    for label in set(labels.tolist()):
        own, size = labels[found] == label, int((labels == label).sum())
        assert turns[own].tolist() == [place // size for place in range(own.sum())], "turn after turn, each complete"


def test_seed_and_epoch_draw_other_images_and_other_leftovers() -> None:
    labels = np.repeat([0, 1, 2], [4, 30, 66])
    first = np.concatenate(balanced_batches(labels, 8, seed=0, epoch=0))
    assert np.array_equal(first, np.concatenate(balanced_batches(labels, 16, seed=0, epoch=0)))
    later = [np.concatenate(balanced_batches(labels, 8, seed=0, epoch=epoch)) for epoch in range(40)]
    assert np.array_equal(first, later[0])
    counts = [np.bincount(labels[drawn % 100]).tolist() for drawn in later]
    assert {tuple(sorted(count)) for count in counts} == {(33, 33, 34)}
    assert {count.index(34) for count in counts} == {0, 1, 2}, "the odd draw goes round"
    assert set(np.concatenate(later) % 100) == set(range(100)), "in time all images are seen"
    other = np.concatenate(balanced_batches(labels, 8, seed=1, epoch=0))
    assert not np.array_equal(first, other)


def test_even_classes_have_every_image_once() -> None:
    labels = np.tile([0, 1, 2], 9)
    assert sorted(np.concatenate(balanced_batches(labels, 4, seed=3, epoch=2))) == list(range(27))
