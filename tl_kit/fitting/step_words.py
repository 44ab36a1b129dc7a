"""The steps of a fit in words."""

from __future__ import annotations

from tl_kit.errors import first_line
from tl_kit.fitting.ladder import Step, first_run
from tl_kit.training.late_losses import ADVICE
from tl_kit.zoo.starter import WAYS_OUT, WAYS_OUT_OF_A_FIT

__all__ = ["KINDS", "named", "reason_of"]

KINDS = {
    "sample": "head of a sample of the training images",
    "head": "head",
    "view": "head on another crop",
    "short": "short training",
    "full": "training in full",
    "part": "training of the last layers",
    "member": "further member",
    "refit": "refit with validation images",
}
"""Names of the rungs, in a leaderboard."""


def named(step: Step) -> str:
    """The step in words."""
    how = {
        "sample": f"head of {step.model} on {step.images:,} training images",
        "head": f"head of {step.model}",
        "view": f"head of {step.model}, crop mode {step.crop_mode}",
        "short": f"short training of {step.model}",
        "full": f"training of {step.model}",
        "part": f"training of the last layers of {step.model}",
        "member": f"one more training of {step.model}, seed {step.seed}",
    }
    if step.rung == "refit":
        return f"{named(first_run(step))}, again with validation images"
    return how[step.rung]


def reason_of(error: BaseException) -> str:
    """Return why a step failed: the error's first line, without advice on options that ``fit`` does not have."""
    return first_line(error).partition(f": {ADVICE}")[0].replace(WAYS_OUT, WAYS_OUT_OF_A_FIT)
