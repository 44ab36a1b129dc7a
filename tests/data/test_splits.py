"""Making splits: the promises of ``assign_splits`` on any data set, and its numbers on plain ones."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tl_kit.data.splits import assign_splits
from tl_kit.errors import ConfigError

FRACTIONS = {"val_fraction": 0.2, "test_fraction": 0.2}


def digest(value: object) -> str:
    return hashlib.sha256(str(value).encode()).hexdigest()


def table(labels, splits) -> dict[int, Counter]:
    counts: dict[int, Counter] = defaultdict(Counter)
    for label, split in zip(labels, splits, strict=True):
        counts[label][split] += 1
    return counts


def plain(counts: dict[int, int], *, seed: int = 0, **fractions) -> dict[int, Counter]:
    """Splits of a data set without duplicates and groups, counted."""
    labels = [label for label, count in counts.items() for _ in range(count)]
    digests = [digest(index) for index in range(len(labels))]
    splits = assign_splits(labels, digests, [None] * len(labels), seed=seed, **(FRACTIONS | fractions))
    return table(labels, splits)


@st.composite
def data_sets(draw, *, linked: bool = True):
    """Labels, digests and groups; ``linked``: with duplicates and groups, also across classes."""
    size = draw(st.integers(1, 60))
    labels = draw(st.lists(st.integers(0, 5), min_size=size, max_size=size))
    if not linked:
        return labels, [digest(index) for index in range(size)], [None] * size
    contents = draw(st.lists(st.integers(0, 80), min_size=size, max_size=size))
    groups = draw(st.lists(st.none() | st.sampled_from("abcdefghij"), min_size=size, max_size=size))
    return labels, [digest(content) for content in contents], groups


shares = st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.4])


@given(data=data_sets(), val=shares, test=shares, seed=st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_nothing_that_belongs_together_is_separated_and_every_class_can_be_trained(data, val, test, seed):
    labels, digests, groups = data
    splits = assign_splits(labels, digests, groups, val_fraction=val, test_fraction=test, seed=seed)
    assert len(splits) == len(labels)
    for key in (digests, groups):
        sides = defaultdict(set)
        for name, split in zip(key, splits, strict=True):
            if name is not None:
                sides[name].add(split)
        assert all(len(found) == 1 for found in sides.values())
    assert all(counts["train"] >= 1 for counts in table(labels, splits).values())
    assert val > 0 or "val" not in splits
    assert test > 0 or "test" not in splits


@given(data=data_sets(linked=False), seed=st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_small_classes_reach_every_split_they_can(data, seed):
    labels, digests, groups = data
    splits = assign_splits(labels, digests, groups, seed=seed, **FRACTIONS)
    for counts in table(labels, splits).values():
        total = sum(counts.values())
        if total >= 3:
            held_out = max(1, int(total * 0.2 + 0.5))
            assert (counts["val"], counts["test"]) == (held_out, held_out)
        else:
            assert counts == {1: {"train": 1}, 2: {"train": 1, "val": 1}}[total]


@given(data=data_sets(), shuffle=st.randoms(use_true_random=False), seed=st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_permuting_the_images_permutes_the_splits(data, shuffle, seed):
    labels, digests, groups = data
    order = list(range(len(labels)))
    shuffle.shuffle(order)
    straight = assign_splits(labels, digests, groups, seed=seed, **FRACTIONS)
    permuted = assign_splits(*[[column[i] for i in order] for column in data], seed=seed, **FRACTIONS)
    assert permuted == [straight[i] for i in order]


@given(data=data_sets(), names=st.permutations(range(6)), seed=st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_renaming_classes_and_groups_changes_nothing(data, names, seed):
    labels, digests, groups = data
    renamed = [None if group is None else f"{ord(group) * 7 % 31} of them" for group in groups]
    expected = assign_splits(labels, digests, groups, seed=seed, **FRACTIONS)
    assert assign_splits([names[x] for x in labels], digests, renamed, seed=seed, **FRACTIONS) == expected


def test_plain_classes_get_their_exact_shares():
    counts = plain({0: 1000, 1: 55, 2: 10})
    assert counts[0] == {"train": 600, "val": 200, "test": 200}
    assert counts[1] == {"train": 33, "val": 11, "test": 11}
    assert counts[2] == {"train": 6, "val": 2, "test": 2}


def test_val_alone():
    assert plain({0: 100, 1: 5, 2: 1}, test_fraction=0.0) == {
        0: {"train": 80, "val": 20},
        1: {"train": 4, "val": 1},
        2: {"train": 1},
    }


def test_five_images_in_all():
    assert plain({0: 3, 1: 2}) == {0: {"train": 1, "val": 1, "test": 1}, 1: {"train": 1, "val": 1}}
    assert plain({0: 5}) == {0: {"train": 3, "val": 1, "test": 1}}
    assert plain(dict.fromkeys(range(5), 1)) == {label: {"train": 1} for label in range(5)}


def test_the_seed_draws_another_split_and_every_image_is_drawn_alike():
    """Over many seeds each of 20 images is in test 4 times in 20: a fair draw, whatever the digest."""
    digests = [digest(index) for index in range(20)]
    drawn = np.zeros(20)
    for seed in range(400):
        splits = assign_splits([0] * 20, digests, [None] * 20, seed=seed, **FRACTIONS)
        drawn += [split == "test" for split in splits]
    # standard deviation of each count: sqrt(400 * 0.2 * 0.8) = 8
    assert drawn.sum() == 400 * 4
    assert np.abs(drawn - 80).max() < 4 * 8


def test_a_large_group_stays_in_train():
    labels, groups = [0] * 12, ["large"] * 10 + [None, None]
    for seed in range(20):
        splits = assign_splits(labels, [digest(i) for i in range(12)], groups, seed=seed, **FRACTIONS)
        assert splits[:10] == ["train"] * 10
        assert sorted(splits[10:]) == ["test", "val"]


def test_groups_of_ten_are_shared_out_whole():
    groups = [f"person {index // 10}" for index in range(100)]
    splits = assign_splits([0] * 100, [digest(i) for i in range(100)], groups, seed=0, **FRACTIONS)
    assert Counter(splits) == {"train": 60, "val": 20, "test": 20}


def test_a_class_of_one_group_or_of_copies_is_not_split():
    assert set(assign_splits([0] * 6, [digest(i) for i in range(6)], ["g"] * 6, seed=0, **FRACTIONS)) == {"train"}
    assert set(assign_splits([0] * 6, [digest(0)] * 6, [None] * 6, seed=0, **FRACTIONS)) == {"train"}


def test_links_are_followed_through_digest_and_group():
    """0 and 1 share a group, 1 and 2 their content, 2 and 3 a group: one unit."""
    digests = [digest("a"), digest("b"), digest("b"), digest("c"), *(digest(i) for i in range(6))]
    groups = ["x", "x", "y", "y", *[None] * 6]
    for seed in range(20):
        splits = assign_splits([0] * 10, digests, groups, seed=seed, **FRACTIONS)
        assert len(set(splits[:4])) == 1


def test_a_thousand_classes():
    counts = plain({label: 3 + label % 5 for label in range(1000)})
    assert len(counts) == 1000
    assert all(set(found) == {"train", "val", "test"} for found in counts.values())


def test_nothing_to_split():
    assert assign_splits([], [], [], seed=0, **FRACTIONS) == []


@pytest.mark.parametrize(("val", "test"), [(0.5, 0.5), (-0.1, 0.2), (0.2, -0.1), (1.0, 0.0), (float("nan"), 0.2)])
def test_fractions_out_of_range(val, test):
    with pytest.raises(ConfigError, match="val_fraction"):
        assign_splits([0], [digest(0)], [None], val_fraction=val, test_fraction=test, seed=0)
