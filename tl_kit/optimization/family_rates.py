"""Fine-tuning rate and layer decay of pretrained networks that BatchNorm does not follow, by family and size.

The numbers, and where each is from, stand in ``tl_kit.config.FamilyDefaults``.
"""

from __future__ import annotations

import fnmatch

from tl_kit.config import FamilyDefaults
from tl_kit.optimization.network_traits import NetworkTraits

__all__ = ["family_layer_decay", "family_rate"]

_DEFAULTS = FamilyDefaults()


def family_rate(network: NetworkTraits, defaults: FamilyDefaults = _DEFAULTS) -> tuple[float, str]:
    """AdamW's rate, and for which networks it is."""
    pattern, found, _ = _entry(network, defaults)
    kin = f"for {pattern.strip('*.')}" if pattern else "for networks that BatchNorm does not follow"
    factors = [(size, factor) for size, factor in defaults.sizes if network.parameters >= size]
    if not factors:
        return found, kin
    size, factor = factors[-1]
    return found * factor, f"{kin} of {size / 1e6:.0f} million parameters or more"


def family_layer_decay(network: NetworkTraits, defaults: FamilyDefaults = _DEFAULTS) -> float:
    """The factor on the rate for each layer below the head."""
    return _entry(network, defaults)[2]


def _entry(network: NetworkTraits, defaults: FamilyDefaults) -> tuple[str, float, float]:
    """Pattern, rate and layer decay of the network's family; the usual ones under an empty pattern."""
    fits = (entry for entry in defaults.families if fnmatch.fnmatch(network.name, entry[0]))
    return next(fits, ("", defaults.rate, defaults.layer_decay))
