"""A checkpoint is opened without random numbers: its network is the one of its file, and draws none."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from tests.exporting.checkpoints import write_checkpoint
from tests.helpers import same
from tl_kit.storage.checkpoint import load_checkpoint


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_no_number_is_drawn_and_the_network_is_that_of_the_file(name: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "run", name)
    before = torch.get_rng_state()
    ours = load_checkpoint(folder).model
    assert torch.equal(torch.get_rng_state(), before)
    assert same(dict(ours.state_dict()), timm.create_model(f"local-dir:{folder}", pretrained=True).state_dict())
