"""The decoder of plain JPEGs: chosen for a new model, and taken up for one that has been trained."""

from __future__ import annotations

from dataclasses import replace

import torch

from tl_kit.config import RuntimeConfig
from tl_kit.images.device_decode import DECODERS, has_nvjpeg, suits_device
from tl_kit.images.transforms import Preprocessing
from tl_kit.machine.runtime import detect
from tl_kit.reporting import note
from tl_kit.storage.checkpoint import Checkpoint

__all__ = ["choose_decoder", "decoded_here"]


def choose_decoder(
    preprocessing: Preprocessing, device: torch.device, config: RuntimeConfig, *, recorded: object = None
) -> str:
    """nvjpeg where the device has it and the configuration allows it; else pillow. ``recorded``: of a run resumed."""
    wanted = recorded if recorded in DECODERS and config.decoder == "auto" else config.decoder
    if wanted == "pillow" or config.mode == "plain" or not suits_device(preprocessing):
        return "pillow"
    return "nvjpeg" if has_nvjpeg(device) else "pillow"


def decoded_here(member: Checkpoint, config: RuntimeConfig) -> Checkpoint:
    """The member with the decoder that is used here: the one it was trained with, where this device has it.

    A line tells of another one (docs/reproducibility.md has the differences).
    """
    recorded = member.preprocessing.decoder
    if recorded == "pillow" and config.decoder != "nvjpeg":
        return member
    here = choose_decoder(member.preprocessing, detect(config).device, config, recorded=recorded)
    if here == recorded:
        return member
    note(
        f"{member.path}: the JPEGs of its training were decoded by {recorded}, here they are by {here}: probabilities "
        "may differ by some hundredths"
    )
    return replace(member, preprocessing=replace(member.preprocessing, decoder=here))
