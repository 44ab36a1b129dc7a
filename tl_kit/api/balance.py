"""What a run does about classes of uneven size, and by which figure it keeps its best epoch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import get_args

from tl_kit.config import BalanceConfig, BalanceMethod, FinetuneConfig, Selection
from tl_kit.errors import ConfigError

__all__ = ["Balance", "check_balance", "choose_balance"]


@dataclass(frozen=True, kw_only=True)
class Balance:
    """``method`` is none, sampler or loss; ``select`` a figure of ``metrics.summary``."""

    method: str
    select: str


def check_balance(config: FinetuneConfig) -> None:
    """Raises ConfigError for a way or a figure that does not exist."""
    for name, kind in (("balance", BalanceMethod), ("select", Selection)):
        known = get_args(kind)
        if getattr(config, name) not in known:
            raise ConfigError(f"--{name} {getattr(config, name)}: known are {', '.join(known)}")


def choose_balance(
    counts: Collection[int], *, balance: str = "auto", select: str = "auto", config: BalanceConfig = BalanceConfig()
) -> tuple[Balance, str | None]:
    """What is done for so many training images a class, and the reason as a sentence where the images decide.

    ``counts`` are positive. "auto" takes the loss and balanced accuracy where classes are uneven, and otherwise nothing
    and accuracy.
    """
    few, many = min(counts), max(counts)
    uneven = many >= config.uneven_from * few
    method = ("loss" if uneven else "none") if balance == "auto" else balance
    figure = ("balanced-accuracy" if uneven else "accuracy") if select == "auto" else select
    reason = None
    if uneven and balance == "auto":
        reason = (
            f"balance {method}: {few} to {many} training images a class, {many / few:.3g} times as many in the largest "
            f"(from {config.uneven_from:g}): every class counts the same"
        )
    return Balance(method=method, select=figure.replace("-", "_")), reason
