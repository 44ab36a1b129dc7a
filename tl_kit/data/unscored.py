"""Classes and splits that lose their last image while a run decodes its images, and so are not scored."""

from __future__ import annotations

from tl_kit.data.listing import name_some
from tl_kit.data.manifest import Manifest

__all__ = ["unscored_now"]


def unscored_now(before: Manifest, after: Manifest) -> list[str]:
    """Warnings on validation and test images: ``after`` lacks what ``before`` had."""
    had, has = before.counts(), after.counts()
    lines = []
    for split in ("val", "test"):
        if split not in had:
            continue
        if split not in has:
            lines.append(f"warning: no image of the {split} split is left, so that nothing is scored on it")
            continue
        lost = [name for name, count in had[split].items() if count and not has[split][name]]
        if lost:
            lines.append(f"warning: {split} has no image of {name_some(lost)} left: its scores say nothing of that")
    return lines
