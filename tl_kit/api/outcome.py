"""What training hands back, whichever way the weights were found."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from tl_kit.freezing.audit import Audit

__all__ = ["Outcome"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The model holds the best weights; ``logits`` are its outputs on val and test, as inference gives them.

    ``audit`` is that of the last phase, ``phases`` those of the ones before, each with its name.
    """

    epochs: int
    best_epoch: int
    trainable_parameters: int
    logits: dict[str, Tensor]
    audit: Audit
    phases: tuple[tuple[str, Audit], ...] = ()
    status: str = "finished"
    settings: dict[str, object] = field(default_factory=dict)
    error: str | None = None
