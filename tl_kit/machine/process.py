"""The one setting that must be made before torch is imported."""

from __future__ import annotations

import os

from tl_kit.config import ProcessConfig

__all__ = ["share_the_cores"]


def share_the_cores() -> None:
    """Let waiting OpenMP threads sleep soon: else another process on the machine slows this one many times over.

    GNU's OpenMP reads the environment once, when torch loads it. A setting of the user's own is kept.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = str(ProcessConfig.spin_count)
