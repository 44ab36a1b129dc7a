"""Input and output of the rules for default hyperparameters: a run's case, and a value with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from tl_kit.optimization.network_traits import NetworkTraits

__all__ = ["AS_GIVEN", "Case", "PolicyTraits", "Reasoned"]

AS_GIVEN = "as you said"
Value = TypeVar("Value")


class PolicyTraits(Protocol):
    """The traits of a freezing policy that hyperparameters follow from (``freezing.policies.Policy``)."""

    @property
    def head_only(self) -> bool: ...

    @property
    def mostly_new(self) -> bool: ...

    @property
    def fits_head_first(self) -> bool: ...

    @property
    def keeps_statistics(self) -> bool: ...

    @property
    def adapters(self) -> bool: ...

    @property
    def vectors(self) -> bool: ...


@dataclass(frozen=True)
class Reasoned(Generic[Value]):
    """A hyperparameter, and the reason for it in a sentence."""

    value: Value
    reason: str


@dataclass(frozen=True, kw_only=True)
class Case:
    """All that the rules look at: training images, classes, and the traits of network and policy.

    ``pretrained``: the network has been trained before; its head is new in any case.
    """

    images: int
    classes: int
    pretrained: bool
    network: NetworkTraits
    policy: PolicyTraits

    @property
    def scratch(self) -> bool:
        """True where the layers below the head train from random weights."""
        return not self.pretrained and not self.policy.head_only
