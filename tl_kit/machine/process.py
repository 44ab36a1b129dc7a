"""Process settings that must be made before torch is imported: OpenMP's spin count."""

from __future__ import annotations

import os

from tl_kit.config import ProcessConfig

__all__ = ["share_the_cores"]


def share_the_cores() -> None:
    """Let waiting OpenMP threads sleep soon; otherwise another busy process slows this one down many times.

    GNU's OpenMP reads the environment once, when torch loads it. The user's own setting is kept.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = str(ProcessConfig.spin_count)
