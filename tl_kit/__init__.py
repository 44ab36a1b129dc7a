"""tl-kit: transfer learning and ensembling of image classifiers on timm's model zoo.

>>> import tl_kit
>>> run = tl_kit.finetune(tl_kit.FinetuneConfig(model="resnet18", data="imgs"))  # doctest: +SKIP
>>> tl_kit.load(run.checkpoint).predict("photo.jpg")  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from tl_kit._forks import survive_forks
from tl_kit._process import share_the_cores
from tl_kit._version import __version__
from tl_kit.config import (
    AugmentConfig,
    AutoPolicyConfig,
    BalanceConfig,
    CacheConfig,
    CropConfig,
    DataConfig,
    DistillConfig,
    EnsembleConfig,
    FinetuneConfig,
    HeadConfig,
    LoopConfig,
    RangeTestConfig,
    RegularizationConfig,
    RuntimeConfig,
    SaveConfig,
    SoupConfig,
    StoreConfig,
    SwaConfig,
)
from tl_kit.errors import TlKitError
from tl_kit.user_cache import prepare_libraries

if TYPE_CHECKING:
    from tl_kit.api import (
        CrossValidation,
        Distillation,
        EnsembleResult,
        Evaluation,
        FinetuneResult,
        MemberRuns,
        Plan,
        Prediction,
        Predictor,
        cross_validate,
        demo,
        distill,
        doctor,
        ensemble,
        evaluate,
        finetune,
        finetune_members,
        load,
        models,
        plan,
        predict,
        resume,
    )

__all__ = [
    "AugmentConfig",
    "AutoPolicyConfig",
    "BalanceConfig",
    "CacheConfig",
    "CropConfig",
    "CrossValidation",
    "DataConfig",
    "DistillConfig",
    "Distillation",
    "EnsembleConfig",
    "EnsembleResult",
    "Evaluation",
    "FinetuneConfig",
    "FinetuneResult",
    "HeadConfig",
    "LoopConfig",
    "MemberRuns",
    "Plan",
    "Prediction",
    "Predictor",
    "RangeTestConfig",
    "RegularizationConfig",
    "RuntimeConfig",
    "SaveConfig",
    "SoupConfig",
    "StoreConfig",
    "SwaConfig",
    "TlKitError",
    "__version__",
    "cross_validate",
    "demo",
    "distill",
    "doctor",
    "ensemble",
    "evaluate",
    "finetune",
    "finetune_members",
    "load",
    "models",
    "plan",
    "predict",
    "resume",
]


share_the_cores()
survive_forks()
prepare_libraries()


def __getattr__(name: str) -> object:
    """Import what needs torch only when it is asked for: the command line's help must not wait for it."""
    if name in __all__:
        return getattr(import_module("tl_kit.api"), name)
    raise AttributeError(f"module 'tl_kit' has no attribute {name!r}")
