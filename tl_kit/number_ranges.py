"""The numbers that a configuration can have: finite, not negative, and for some fields less than that."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from tl_kit.errors import ConfigError

__all__ = ["CHECKED_ELSEWHERE", "check_numbers"]

_Test = tuple[str, Callable[[float], bool]]

_AT_LEAST_ONE: _Test = ("must be at least 1", lambda value: value >= 1)
_AT_LEAST_TWO: _Test = ("must be at least 2", lambda value: value >= 2)
_POSITIVE: _Test = ("must be above 0", lambda value: value > 0)
_SHARE: _Test = ("must be from 0 to 1", lambda value: 0 <= value <= 1)
_BELOW_ONE: _Test = ("must be at least 0 and below 1", lambda value: 0 <= value < 1)
_NOT_NEGATIVE: _Test = ("must be at least 0", lambda value: value >= 0)

_RANGES: Mapping[str, _Test] = {
    **dict.fromkeys(("AugmentConfig.flip", "AugmentConfig.erasing", "SaveConfig.most_share"), _SHARE),
    **dict.fromkeys(("AugmentConfig.crop_scale", "AugmentConfig.crop_ratio", "AugmentConfig.short_side"), _POSITIVE),
    **dict.fromkeys(("AutoPolicyConfig.last_groups", "BalanceConfig.uneven_from"), _AT_LEAST_ONE),
    "CacheConfig.default_views": _AT_LEAST_ONE,
    **dict.fromkeys(("DecodeConfig.max_scans", "DemoConfig.side"), _AT_LEAST_ONE),
    **dict.fromkeys(("DataConfig.val_fraction", "DataConfig.test_fraction"), _BELOW_ONE),
    **dict.fromkeys(("DemoMember.img_size", "DemoMember.epochs"), _AT_LEAST_ONE),
    "DemoMember.lr": _POSITIVE,
    "EnsembleConfig.bootstrap": _AT_LEAST_ONE,
    **dict.fromkeys(("DistillConfig.temperature", "DoctorConfig.max_imbalance"), _POSITIVE),
    "DistillConfig.weight": _SHARE,
    **dict.fromkeys(
        ("EstimateConfig.train_images", "EstimateConfig.val_images", "EstimateConfig.steps"), _AT_LEAST_ONE
    ),
    **dict.fromkeys(("HeadConfig.strengths", "HeadConfig.start_strength", "HeadConfig.max_iter"), _POSITIVE),
    "HeadConfig.folds": _AT_LEAST_TWO,
    **dict.fromkeys(("LoopConfig.epochs", "LoopConfig.most_epochs", "LoopConfig.head_epochs"), _AT_LEAST_ONE),
    **dict.fromkeys(("LoopConfig.patience", "LoopConfig.batch_size"), _AT_LEAST_ONE),
    "McDropoutConfig.rows": _AT_LEAST_ONE,
    **dict.fromkeys(("ProbeConfig.stages", "ProbeConfig.images", "ProbeConfig.max_iter"), _AT_LEAST_ONE),
    **dict.fromkeys(("ProbeConfig.folds", "ShortcutConfig.folds", "FoldsConfig.folds"), _AT_LEAST_TWO),
    "ProbeConfig.strengths": _POSITIVE,
    **dict.fromkeys(("RangeTestConfig.steps", "ShortcutConfig.leaf", "SoupConfig.batchnorm_images"), _AT_LEAST_ONE),
    **dict.fromkeys(("RangeTestConfig.lowest", "RangeTestConfig.highest", "RangeTestConfig.stop_at"), _POSITIVE),
    "RangeTestConfig.smoothing": _BELOW_ONE,
    "RollbackConfig.factor": _POSITIVE,
    **dict.fromkeys(("RuntimeConfig.batch_size", "RuntimeConfig.gpu_batch_size"), _AT_LEAST_ONE),
    **dict.fromkeys(("ScalingConfig.reference", "ScalingConfig.floor", "ScalingConfig.dead"), _SHARE),
    **dict.fromkeys(("StoreConfig.memory_share",), _SHARE),
    "SwaConfig.start": _BELOW_ONE,
}

CHECKED_ELSEWHERE = frozenset(
    {
        "CropConfig.crops",
        "CropConfig.scales",
        "DecodeConfig.max_pixels",
        "EnsembleConfig.mc_dropout",
        "RuleFitConfig.folds",
        "RuleFitConfig.greedy_rounds",
        "RuleFitConfig.greedy_bags",
        "RuleFitConfig.greedy_share",
        "RuleFitConfig.stack_c",
        "SoupConfig.alphas",
    }
)
"""Fields whose own functions check them against what they can be, before any work, and say more."""

_NON_EMPTY = frozenset({"HeadConfig.strengths", "ProbeConfig.strengths"})
_LARGEST = 2**63


def check_numbers(config: object) -> None:
    """Raises ConfigError, naming the field, for a number in a configuration, or in one that it holds, out of range.

    No number may be NaN, infinite or negative, and no whole one above 2^63 - 1. The values are plain ones.
    """
    for where, value in _numbers(config):
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{where} {value}: must be a finite number")
        if isinstance(value, int) and value >= _LARGEST:
            raise ConfigError(f"{where} {value}: is too large")
        text, holds = _RANGES.get(where, _NOT_NEGATIVE)
        if where not in CHECKED_ELSEWHERE and not holds(value):
            raise ConfigError(f"{where} {value}: {text}")


def _numbers(config: object) -> Iterator[tuple[str, int | float]]:
    """Every number with its field's name; those of a mapping are checked by whoever reads it."""
    kind: Any = type(config)
    for entry in fields(kind):
        value, where = getattr(config, entry.name), f"{kind.__name__}.{entry.name}"
        if is_dataclass(value):
            yield from _numbers(value)
        if where in _NON_EMPTY and not value:
            raise ConfigError(f"{where}: is empty; give one number or more")
        for item in value if isinstance(value, tuple) else (value,):
            if is_dataclass(item) and isinstance(value, tuple):
                yield from _numbers(item)
            elif isinstance(item, int | float) and not isinstance(item, bool):
                yield where, item
