"""Cases for the tables of rules: what a rule may know of images, network and policy."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from tl_kit.config import LoopConfig, OptimizerDefaults
from tl_kit.optimization.cases import Case
from tl_kit.optimization.network_traits import NetworkTraits
from tl_kit.optimization.rules import carried

DEFAULTS, LOOP = OptimizerDefaults(), LoopConfig()
TRAITS = ("head_only", "mostly_new", "keeps_statistics", "fits_head_first", "adapters", "vectors")
NONE, LAST, HEAD, LP_FT, LORA, BIAS = (dict.fromkeys(TRAITS, False) for _ in range(6))
LAST["mostly_new"] = HEAD["head_only"] = LORA["adapters"] = BIAS["vectors"] = True
LP_FT["keeps_statistics"] = LP_FT["fits_head_first"] = True
POLICIES = {
    "any": NONE,
    "last": LAST,
    "head": HEAD,
    "full": {**NONE, "keeps_statistics": True},
    "lp-ft": LP_FT,
    "lora": LORA,
    "bias": BIAS,
}


def case(policy: str = "any", *, bare: int = 0, decayed: int = 10, **changes: Any) -> Case:
    """``bare``: the weights that no BatchNorm follows."""
    network = NetworkTraits(decayed=decayed, batch_free=decayed - bare, always_free=0, batchnorms=20)
    traits = SimpleNamespace(**POLICIES[policy])
    return replace(Case(images=1000, classes=10, pretrained=True, network=network, policy=traits), **changes)


def travel(name: str, lr: float, steps: int = 384, options: dict[str, object] | None = None) -> float:
    return lr * carried(name, options or {}) * steps
