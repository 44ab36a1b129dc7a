"""Texts of the command line as values: crops, learning rates and times."""

from __future__ import annotations

import math
from typing import Literal

from tl_kit.config import CropConfig, SaveConfig
from tl_kit.errors import ConfigError

__all__ = ["crop_config", "learning_rate", "save_config", "views_text"]


def crop_config(crops: int | None, scales: str | None) -> CropConfig | None:
    """What ``--crops`` and ``--scales`` say together: one given, the other takes its default. None without either.

    Raises ConfigError for scales that are no numbers.
    """
    if crops is None and scales is None:
        return None
    try:
        numbers = CropConfig.scales if scales is None else tuple(float(part) for part in scales.split(","))
    except ValueError:
        raise ConfigError(f"--scales {scales}: must be numbers with commas between, such as 1,1.15") from None
    return CropConfig(crops=CropConfig.crops if crops is None else crops, scales=numbers)


def views_text(crops: CropConfig, mc_dropout: int) -> str:
    """What is averaged over an image, in words."""
    return f"{crops}, {mc_dropout} passes with dropout" if mc_dropout else str(crops)


def learning_rate(text: str | None) -> float | Literal["auto"] | None:
    """What ``--lr`` says. Raises ConfigError if it is neither a number nor auto."""
    if text is None:
        return None
    if text == "auto":
        return "auto"
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--lr {text}: must be a positive number, or auto") from None


def save_config(text: str | None) -> SaveConfig:
    """What ``--save-every`` says. Raises ConfigError if it is neither a number of at least 0 nor none."""
    try:
        every = SaveConfig.every if text is None else 0.0 if text == "none" else float(text)
    except ValueError:
        every = math.nan
    if not 0 <= every < math.inf:
        raise ConfigError(f"--save-every {text}: must be a number of seconds, or none")
    return SaveConfig(every=every)
