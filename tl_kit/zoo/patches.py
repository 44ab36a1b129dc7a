"""Patches: the part of an image that a network sees whose first layer divides it into squares."""

from __future__ import annotations

from torch import nn

__all__ = ["unseen_edge"]


def unseen_edge(model: nn.Module, side: int) -> str:
    """Say how many of an image's ``side`` pixels lie in no patch; empty where each does.

    A convolution without padding whose stride is its width (ViT, Mixer, ConvNeXt) leaves out what is no whole patch.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            patch, *_ = module.kernel_size
            if module.stride != module.kernel_size or patch == 1 or module.padding not in (0, (0, 0), "valid"):
                return ""
            seen = side // patch * patch
            if seen == side:
                return ""
            return (
                f"--img-size {side}: patches of {patch} pixels see {seen} of {side} pixels a side, and nothing of the "
                f"rest; {seen + patch} fits"
            )
    return ""
