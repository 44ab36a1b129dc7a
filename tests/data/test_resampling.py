"""Bootstrap samples and left-out folds: what they hold, and what they depend on."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tl_kit.data.manifest import Manifest, Sample, in_order
from tl_kit.data.resampling import bootstrap_sample, leave_folds_out
from tl_kit.errors import ConfigError

SIZES = {"train": (40, 7, 1), "val": (4, 4, 4), "test": (3, 3, 3)}


def a_manifest(sizes: dict[str, tuple[int, ...]] = SIZES, group_of: int = 1) -> Manifest:
    samples = []
    for split, counts in sizes.items():
        for label, count in enumerate(counts):
            for number in range(count):
                name = f"{split}/{label}/{number}"
                group = f"{split}-{label}-{number // group_of}" if group_of > 1 else None
                digest = hashlib.sha256(name.encode()).hexdigest()
                samples.append(Sample(Path(f"{name}.png"), label, split, digest, group))
    return Manifest(Path("images"), tuple("abc"[: len(sizes["train"])]), in_order(samples))


def drawn(manifest: Manifest) -> Counter[str]:
    return Counter(sample.digest for sample in manifest.split("train"))


def test_a_bootstrap_sample_has_as_many_images_of_each_class_and_all_of_the_other_splits() -> None:
    whole = a_manifest()
    part = bootstrap_sample(whole, seed=0, draw=1)
    assert part.counts() == whole.counts()
    for split in ("val", "test"):
        assert part.split(split) == whole.split(split)
    assert set(part.split("train")) <= set(whole.split("train"))
    assert part.samples == in_order(part.samples)


def test_how_often_an_image_is_drawn_is_binomial() -> None:
    """Of n = 40: n draws at probability 1/n each; none with probability (1 - 1/n)^n."""
    whole, draws = a_manifest({"train": (40, 40), "val": (1, 1), "test": (1, 1)}), 500
    counts = [drawn(bootstrap_sample(whole, seed=3, draw=draw)) for draw in range(draws)]
    table = np.array([[count[s.digest] for s in whole.split("train")] for count in counts])
    assert (table.sum(axis=1) == 80).all()
    np.testing.assert_allclose(table.mean(axis=0), 1, atol=5 / np.sqrt(draws))
    assert (table == 0).mean() == pytest.approx((1 - 1 / 40) ** 40, abs=0.01)
    assert table.var() == pytest.approx(1 - 1 / 40, abs=0.03)
    of_two = np.corrcoef(table[:, :40].T)[np.triu_indices(40, 1)]
    assert of_two.mean() == pytest.approx(-1 / 39, abs=0.01), "of one class: the draws are shared out"
    assert abs(np.corrcoef(table[:, 0], table[:, 40])[0, 1]) < 0.2, "classes are drawn independently"


def test_a_bootstrap_sample_follows_from_contents_seed_and_draw_alone() -> None:
    whole = a_manifest()
    usual = drawn(bootstrap_sample(whole, seed=0, draw=1))
    shuffled = random.Random(0).sample(whole.samples, len(whole.samples))
    renamed = [replace(s, path=Path(f"{i}.png"), label=2 - s.label) for i, s in enumerate(shuffled)]
    other = replace(whole, classes=("c", "b", "a"), samples=in_order(renamed))
    assert drawn(bootstrap_sample(other, seed=0, draw=1)) == usual
    assert drawn(bootstrap_sample(whole, seed=0, draw=2)) != usual
    assert drawn(bootstrap_sample(whole, seed=1, draw=1)) != usual


@pytest.mark.parametrize("group_of", [1, 2])
def test_each_training_image_is_left_out_once_with_its_group_and_the_other_splits_stay(group_of: int) -> None:
    whole = a_manifest({"train": (20, 12), "val": (4, 4), "test": (3, 3)}, group_of)
    parts = leave_folds_out(whole, 4, seed=0)
    train = set(whole.split("train"))
    left_out = [train - set(part.split("train")) for part in parts]
    assert sorted(s.digest for fold in left_out for s in fold) == sorted(s.digest for s in train)
    for part, fold in zip(parts, left_out, strict=True):
        assert [part.split(name) for name in ("val", "test")] == [whole.split(name) for name in ("val", "test")]
        assert len(part.split("train")) == len(train) - len(fold)
        assert Counter(s.label for s in fold) == {0: 5, 1: 3} or group_of == 2
        kept = {s.group for s in part.split("train")}
        assert group_of == 1 or not kept & {s.group for s in fold}
    assert leave_folds_out(whole, 4, seed=0) == parts
    assert leave_folds_out(whole, 4, seed=1) != parts


def test_copies_are_left_out_together() -> None:
    whole = a_manifest({"train": (8, 8), "val": (1, 1), "test": (1, 1)})
    copies = [replace(s, path=Path(f"copy-of-{s.path.name}")) for s in whole.split("train")[:4]]
    parts = leave_folds_out(replace(whole, samples=in_order([*whole.samples, *copies])), 4, seed=0)
    for part in parts:
        counts = drawn(part)
        assert {counts[s.digest] for s in copies} <= {0, 2}


@pytest.mark.parametrize(
    ("counts", "folds", "words"),
    [
        ((8, 8), 9, "--members 9: no class has training images for more than"),
        ((8, 1), 4, "--vary folds: class 'b' has all its training"),
    ],
)
def test_folds_that_cannot_be_are_refused(counts: tuple[int, ...], folds: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        leave_folds_out(a_manifest({"train": counts, "val": (1, 1), "test": (1, 1)}), folds, seed=0)
