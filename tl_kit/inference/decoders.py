"""The decoder of plain JPEGs: chosen for a new model, and taken up for one that has been trained."""

from __future__ import annotations

from dataclasses import replace

import torch

from tl_kit.config import CropConfig, RuntimeConfig
from tl_kit.errors import ConfigError
from tl_kit.images.device_decode import DECODERS, has_nvjpeg, suits_device
from tl_kit.images.transforms import Preprocessing
from tl_kit.machine.runtime import detect
from tl_kit.reporting import note
from tl_kit.storage.checkpoint import Checkpoint

__all__ = ["choose_decoder", "decoded_here"]


def choose_decoder(
    preprocessing: Preprocessing, device: torch.device, config: RuntimeConfig, *, recorded: object = None
) -> str:
    """nvjpeg where device and preprocessing allow it; else pillow. ``recorded``: of a run that was begun with it.

    Raises ConfigError where the configuration asks for nvjpeg, and it is not to be had.
    """
    wanted = recorded if recorded in DECODERS and config.decoder == "auto" else config.decoder
    if wanted == "pillow" or (config.mode == "plain" and config.decoder == "auto"):
        return "pillow"
    if config.mode != "plain" and suits_device(preprocessing) and has_nvjpeg(device):
        return "nvjpeg"
    if config.decoder == "nvjpeg":
        raise ConfigError(
            "decoder nvjpeg: needs a CUDA GPU, a torchvision with nvJPEG, and a bilinear or bicubic network without a "
            "border around its images, and does not go with --runtime plain; use auto"
        )
    return "pillow"


def decoded_here(member: Checkpoint, config: RuntimeConfig, crops: CropConfig = CropConfig()) -> Checkpoint:
    """The member with the decoder that is used here: the one it was trained with, where this device has it.

    Several ``crops`` are always Pillow's. A line tells of another decoder (docs/reproducibility.md has the
    differences). Raises ConfigError as :func:`choose_decoder`.
    """
    recorded = member.preprocessing.decoder
    if recorded == "pillow" and config.decoder != "nvjpeg":
        return member
    here = "pillow"
    if crops == CropConfig():
        here = choose_decoder(member.preprocessing, detect(config).device, config, recorded=recorded)
    if here == recorded:
        return member
    note(
        f"{member.path}: the JPEGs of its training were decoded by {recorded}, here they are by {here}: probabilities "
        "may differ by some hundredths"
    )
    return replace(member, preprocessing=replace(member.preprocessing, decoder=here))
