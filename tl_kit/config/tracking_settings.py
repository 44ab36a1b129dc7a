"""Defaults of experiment trackers: which of them follow the work, and the project that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tl_kit.flags import Flag

__all__ = ["TrackingConfig"]


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Experiment trackers by accelerate's names for them; one text may hold several, with commas between.

    ``project`` is what mlflow calls the experiment. TensorBoard has none: its files are in the run's folder.
    """

    track: Annotated[
        tuple[str, ...],
        Flag(
            panel="Output",
            metavar="NAME",
            complete=("tensorboard", "mlflow", "wandb", "trackio"),
            help="Experiment tracker: tensorboard, mlflow, wandb, trackio or another of accelerate's; may be repeated.",
        ),
    ] = ()
    project: Annotated[
        str, Flag(panel="Output", name="--track-project", metavar="NAME", help="The trackers' project or experiment.")
    ] = "tl-kit"
