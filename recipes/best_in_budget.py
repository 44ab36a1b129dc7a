"""The best classifier in a given time: heads of every network, training of the best, and an ensemble of all of them.

Networks are ranked by heads on their features, since these take seconds (Kornblith et al. 2019, "Do Better ImageNet
Models Transfer Better?"); the better half trains by successive halving (Jamieson & Talwalkar 2016); members of the
ensemble are chosen by forward selection (Caruana et al. 2004).

    tlkit fit --data imgs --time 10m

Expected: the result is at least as good as the best single network in it, within noise; docs/fit.md has figures.
"""

from __future__ import annotations

from pathlib import Path

from tl_kit import FitConfig, FitResult, fit

__all__ = ["best_in_budget"]


def best_in_budget(
    data: Path | str, time: float | str | None = "10m", *, models: str = "auto", seed: int = 0, out: Path | None = None
) -> FitResult:
    """Climb as far as the time allows; the folder of the result predicts, whenever it ends."""
    return fit(FitConfig(data=Path(data), time=time, models=models, seed=seed, out=out))
