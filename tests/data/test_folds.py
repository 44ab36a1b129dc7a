"""Folds: a partition that separates nothing that belongs together, and leaves every class to train on."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.test_splits import data_sets, digest
from tl_kit.config import DataConfig
from tl_kit.data.folds import assign_folds, fold_manifests, pool_of
from tl_kit.data.manifest import SPLITS, Manifest, Sample
from tl_kit.data.splits import unit_keys
from tl_kit.errors import ConfigError


def manifest_of(labels, digests=None, groups=None, *, splits=None, made=("val", "test")) -> Manifest:
    """A manifest of made-up images; its classes are c0, c1, ..., those that occur."""
    count = len(labels)
    digests = digests or [digest(index) for index in range(count)]
    groups = groups or [None] * count
    splits = splits or ["train"] * count
    names = sorted(set(labels))
    rows = zip(labels, splits, digests, groups, strict=True)
    samples = [Sample(Path(f"/d/{i}.png"), names.index(c), s, d, g) for i, (c, s, d, g) in enumerate(rows)]
    return Manifest(Path("/d"), tuple(f"c{name}" for name in names), tuple(samples), made_splits=made)


def folds_of(manifest: Manifest, folds: int, **config) -> dict[Path, int]:
    """The fold of each image."""
    found: dict[Path, int] = {}
    for number, part in enumerate(fold_manifests(manifest, folds, DataConfig(**config)), start=1):
        for sample in part.split("test"):
            assert sample.path not in found
            found[sample.path] = number
    return found


@given(data=data_sets(), folds=st.integers(2, 6), seed=st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_every_image_is_held_out_once_and_nothing_that_belongs_together_is_separated(data, folds, seed):
    labels, digests, groups = data
    manifest = manifest_of(labels, digests, groups)
    try:
        parts = fold_manifests(manifest, folds, DataConfig(split_seed=seed))
    except ConfigError:
        return
    held_out = Counter(sample.path for part in parts for sample in part.split("test"))
    assert held_out == Counter(sample.path for sample in manifest.samples)
    keys = dict(zip([s.path for s in manifest.samples], unit_keys(digests, groups, seed=seed), strict=True))
    for part in parts:
        assert {s.path for s in part.samples} == {s.path for s in manifest.samples}
        sides = defaultdict(set)
        for sample in part.samples:
            sides[keys[sample.path]].add(sample.split)
        assert all(len(found) == 1 for found in sides.values())
        assert {s.label for s in part.split("train")} == set(range(len(manifest.classes)))
        assert part.split("val")
        assert part.split("test")


def test_most_data_sets_can_be_folded_at_all():
    """So that the test above is not one of refusals."""
    rng = np.random.default_rng(0)
    for seed in range(20):
        labels = rng.integers(0, 3, 40).tolist()
        groups = [f"g{g}" if g < 8 else None for g in rng.integers(0, 16, 40)]
        assert len(folds_of(manifest_of(labels, None, groups), 4, split_seed=seed)) == 40


@given(data=data_sets(), links=st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_keys_are_equal_exactly_for_what_is_linked(data, links):
    """Against the transitive closure of "same content or same group", by repeated squaring of the relation."""
    _, digests, groups = data
    linked = np.array(
        [
            [a == b or (g is not None and g == h) for b, h in zip(digests, groups, strict=True)]
            for a, g in zip(digests, groups, strict=True)
        ]
    )
    for _ in range(7):
        linked = linked @ linked
    keys = np.array(unit_keys(digests, groups, seed=links))
    np.testing.assert_array_equal(keys[:, None] == keys[None, :], linked)


@pytest.mark.parametrize("folds", [2, 3, 5, 10])
def test_plain_classes_are_shared_out_evenly(folds):
    labels = [0] * 100 + [1] * 55 + [2] * 23
    manifest = manifest_of(labels)
    found = folds_of(manifest, folds)
    table = Counter((sample.label, found[sample.path]) for sample in manifest.samples)
    for label in range(3):
        counts = [table[label, fold] for fold in range(1, folds + 1)]
        assert max(counts) - min(counts) <= 1
    sizes = Counter(found.values())
    assert max(sizes.values()) - min(sizes.values()) <= 3


def test_whole_groups_are_shared_out_and_stratified():
    """20 persons, half of them with ten images of class 0, half of class 1: two of each in every fold."""
    labels = [index // 100 for index in range(200)]
    groups = [f"person {index // 10}" for index in range(200)]
    manifest = manifest_of(labels, None, groups)
    found = folds_of(manifest, 5)
    persons = defaultdict(set)
    for sample in manifest.samples:
        persons[found[sample.path], sample.label].add(sample.group)
    assert {len(group) for group in persons.values()} == {2}


@given(data=data_sets(), shuffle=st.randoms(use_true_random=False), seed=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_names_and_order_change_nothing(data, shuffle, seed):
    """Content decides: each image as (digest, label, group), whatever it is called and wherever it is listed."""
    manifest = manifest_of(*data)
    order = list(manifest.samples)
    shuffle.shuffle(order)
    renamed = [replace(sample, path=Path(f"/e/{i}.jpg")) for i, sample in enumerate(order)]
    other = replace(manifest, samples=tuple(renamed))

    def contents(of: Manifest) -> object:
        try:
            parts = fold_manifests(of, 3, DataConfig(split_seed=seed))
        except ConfigError as error:
            return str(error)
        return [sorted((s.digest, s.label, str(s.group), s.split) for s in part.samples) for part in parts]

    assert contents(manifest) == contents(other)


def test_the_names_of_classes_change_nothing():
    labels = [0] * 31 + [1] * 17 + [2] * 9
    swapped = [{0: 2, 1: 0, 2: 1}[label] for label in labels]
    assert folds_of(manifest_of(labels), 4) == folds_of(manifest_of(swapped), 4)


def test_the_seed_draws_other_folds_and_other_validation_images():
    manifest = manifest_of([0] * 30 + [1] * 30)
    assert folds_of(manifest, 5) != folds_of(manifest, 5, split_seed=1)
    assert folds_of(manifest, 5) == folds_of(manifest, 5)


@pytest.mark.parametrize("fraction", [0.1, 0.4])
def test_validation_images_are_a_share_of_the_others(fraction):
    parts = fold_manifests(manifest_of([0] * 50 + [1] * 50), 5, DataConfig(val_fraction=fraction))
    for part in parts:
        sizes = [len(part.split(split)) for split in SPLITS]
        assert sizes == [80 - 80 * fraction, 80 * fraction, 20]


def test_a_given_test_split_takes_no_part_and_a_made_one_does():
    splits = ["train"] * 20 + ["val"] * 10 + ["test"] * 10
    labels = [0, 1] * 20
    given_test = manifest_of(labels, splits=splits, made=())
    assert {sample.split for sample in pool_of(given_test)} == {"train", "val"}
    assert len(folds_of(given_test, 5)) == 30
    made = manifest_of(labels, splits=splits)
    assert len(folds_of(made, 5)) == 40
    assert len(folds_of(replace(made, made_splits=("val",)), 5)) == 30


@pytest.mark.parametrize("folds", [1, 0, -3])
def test_fewer_than_two_folds_are_refused(folds):
    with pytest.raises(ConfigError, match=f"--folds {folds}: must be at least 2"):
        fold_manifests(manifest_of([0] * 5 + [1] * 5), folds, DataConfig())


@pytest.mark.parametrize(
    ("groups", "digests"),
    [([None] * 11, None), ([None] * 10 + ["g"], None), (["x"] * 5 + [None] * 5 + ["g"], None)],
)
def test_a_class_that_cannot_be_in_every_training_part_is_named(groups, digests):
    manifest = manifest_of([0] * 5 + [1] * 5 + [7], digests, groups)
    with pytest.raises(ConfigError, match=r"--folds 3: class 'c(7|0)' has a single image or group.*no smaller number"):
        fold_manifests(manifest, 3, DataConfig())


def test_a_fold_without_a_validation_image_is_refused():
    """Two images a class: with two folds, one of each is left to train on, and none to validate with."""
    with pytest.raises(ConfigError, match="--folds 2: fold 1 would have no image to validate with; no smaller number"):
        fold_manifests(manifest_of([0, 0, 1, 1, 2, 2]), 2, DataConfig())


def test_copies_count_once():
    labels = [0] * 6 + [1] * 6
    copies = [digest(0)] * 6 + [digest(i) for i in range(1, 7)]
    with pytest.raises(ConfigError, match="class 'c0' has a single image or group"):
        fold_manifests(manifest_of(labels, copies), 2, DataConfig())


@given(data=data_sets(), folds=st.integers(3, 12))
@settings(max_examples=80, deadline=None)
def test_the_number_that_the_error_names_is_the_largest_that_works(data, folds):
    manifest = manifest_of(*data)

    def error(k: int) -> str:
        try:
            fold_manifests(manifest, k, DataConfig())
        except ConfigError as failure:
            return str(failure)
        return ""

    text = error(folds)
    if not text:
        return
    assert "\n" not in text
    named = re.search(r"the largest number below that works is (\d+)$", text)
    working = [k for k in range(2, folds) if not error(k)]
    assert (int(named[1]) if named else None) == max(working, default=None)


def test_more_folds_than_images_can_fill_are_refused_with_a_number_that_works():
    with pytest.raises(ConfigError, match=r"--folds 9: no class has so many images; .* that works is 6"):
        fold_manifests(manifest_of([0] * 6 + [1] * 6), 9, DataConfig())
    with pytest.raises(ConfigError, match=r"--folds 9: there are only 4 images or groups .* that works is \d"):
        fold_manifests(manifest_of([0, 1] * 10, None, [f"g{i % 4}" for i in range(20)]), 9, DataConfig())


def test_each_group_keeps_its_own_classes_where_they_are_shared_out():
    """Groups of one image: with the classes of others, as scikit-learn up to 1.7 shuffles, folds are by chance."""
    labels = [index % 4 for index in range(200)]
    found = assign_folds(labels, [f"image {index:03d}" for index in range(200)], 5, seed=3)
    assert set(Counter(zip(labels, found.tolist(), strict=True)).values()) == {10}
