"""Even batches: every image once, sizes within one of each other, decided by seed and epoch alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tl_kit.training.batches import even_batches


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
