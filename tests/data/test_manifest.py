"""The manifest without some images, and what can be trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.data.images import write_classes
from tl_kit.data.manifest import Exclusion, Manifest, Sample, check_trainable, spread
from tl_kit.data.scan import scan
from tl_kit.errors import DataError


def manifest_of(*rows: tuple[int, str], classes: tuple[str, ...] = ("a", "b", "c")) -> Manifest:
    samples = [Sample(Path(f"/data/{i}"), label, split, f"{i:064x}") for i, (label, split) in enumerate(rows)]
    return Manifest(Path("/data"), classes, tuple(samples))


def test_without_removes_and_reports(tmp_path):
    manifest = scan(write_classes(tmp_path, {"a": 5, "b": 5}))
    gone = [Exclusion(manifest.samples[0].path, "truncated"), Exclusion(manifest.samples[7].path, "truncated")]
    smaller = manifest.without(gone)
    assert len(manifest.samples) == 10
    assert smaller.samples == tuple(s for i, s in enumerate(manifest.samples) if i not in (0, 7))
    assert smaller.exclusions == (*manifest.exclusions, *gone)
    assert smaller.classes == manifest.classes
    assert smaller.content_hash() != manifest.content_hash()
    assert manifest.without([]) == manifest


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "0 of its classes have training images"),
        ([(0, "train"), (0, "train"), (1, "val")], "1 of its classes"),
        ([(0, "train"), (1, "train"), (2, "val")], "no training image is left of 'c'"),
        ([(0, "train"), (1, "train"), (2, "train"), (1, "test")], "no validation image"),
    ],
)
def test_what_cannot_be_trained_on(rows, message):
    with pytest.raises(DataError, match=message):
        check_trainable(manifest_of(*rows))


def test_what_can_be_trained_on():
    check_trainable(manifest_of((0, "train"), (1, "train"), (2, "train"), (0, "val")))


@pytest.mark.parametrize(("count", "most"), [(0, 3), (3, 5), (7, 7), (10, 4), (1000, 256), (97, 13)])
def test_spread_takes_what_lies_at_even_distances(count: int, most: int) -> None:
    found = spread(range(count), most)
    assert len(found) == min(count, most)
    assert found[:1] == [0][: len(found)]
    assert {count // max(1, len(found)), -(-count // max(1, len(found)))} >= set(np.diff([*found, count]))
