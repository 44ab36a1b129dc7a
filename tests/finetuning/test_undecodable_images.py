"""Images whose files are whole at the scan and cannot be decoded: they leave the run once, and that is said once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import Listener, quick_config, write_images
from tl_kit.finetuning.finetune import finetune


@pytest.mark.parametrize("policy", ["auto", "head", "full", "lp-ft", "gradual", "last:1"])
def test_they_are_told_once_under_every_policy(policy: str, tmp_path: Path) -> None:
    """Several looks are taken at the images: probes, whether a head can be fitted, its fit, and the training."""
    data = write_images(tmp_path / "images", images=12)
    for file in sorted(data.rglob("*.png"))[:2]:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
    listener = Listener()
    epochs = None if policy == "head" else 1
    result = finetune(quick_config(data, tmp_path / "run", policy=policy, epochs=epochs), reporter=listener)
    assert len(result.left_out) == 2
    assert len([line for line in listener.messages if "left out" in line]) == 2, "a line a file"
