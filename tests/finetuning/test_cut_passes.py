"""A pass over many images that is cut short: the parts that are written stay, and the next run goes on from there."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor

from tests.helpers import quick, write_images
from tl_kit.config import CacheConfig, RuntimeConfig
from tl_kit.finetuning import trunk_reuse
from tl_kit.finetuning.trunk_reuse import shard_rows


@pytest.mark.parametrize(
    ("images", "batch_size", "rows"), [(1, 32, 32), (256, 32, 32), (257, 32, 64), (10_000, 32, 1_280), (0, 4, 4)]
)
def test_a_pass_writes_at_most_eight_files_of_whole_batches(images: int, batch_size: int, rows: int) -> None:
    assert shard_rows(images, batch_size) == rows
    assert images / rows <= 8


def test_what_was_written_is_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """72 training images in batches of 4 make files of 12; the pass is cut short in the third batch of the third."""
    data = write_images(tmp_path / "imgs", images=40, size=(44, 44))
    how = {
        "policy": "head",
        "epochs": None,
        "batch_size": None,
        "runtime": RuntimeConfig(precision="fp32", batch_size=4),
    }
    passed: list[int] = []
    original = trunk_reuse.forward_rows

    def cut(trunk: object, inputs: Tensor, **options: object) -> Tensor:
        if inputs.ndim == 4:
            passed.append(len(inputs))
            if len(passed) == 9 and stops:
                raise KeyboardInterrupt
        found: Tensor = original(trunk, inputs, **options)  # type: ignore[arg-type]
        return found

    monkeypatch.setattr(trunk_reuse, "forward_rows", cut)
    cache, stops = CacheConfig(directory=tmp_path / "cache"), True
    with pytest.raises(KeyboardInterrupt):
        quick(data, tmp_path / "cut", cache=cache, **how)
    stops = False
    passed.clear()
    again = quick(data, tmp_path / "again", cache=cache, **how)
    assert sum(passed) == 120 - 24
    passed.clear()
    whole = quick(data, tmp_path / "whole", cache=CacheConfig(directory=tmp_path / "other"), **how)
    assert sum(passed) == 120
    assert again.val == whole.val
    assert again.test == whole.test
