"""Defaults of ensembles: rules, temperature and averages of weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tl_kit.config.augment_settings import CropConfig
from tl_kit.config.data_settings import DecodeConfig, StoreConfig
from tl_kit.config.machine_settings import CacheConfig, RuntimeConfig
from tl_kit.config.shared_flags import DEVICE_ONLY, IMAGE_COLUMN, LABEL_COLUMN, MC_DROPOUT, OUT, STRICT
from tl_kit.config.tracking_settings import TrackingConfig
from tl_kit.config.training_settings import HeadConfig
from tl_kit.flags import NO_FLAGS, Flag, OnlyFlags
from tl_kit.number_ranges import AT_LEAST_ONE, AT_LEAST_TWO, FRACTION, OWN_CHECK, POSITIVE, SHARE

__all__ = ["EnsembleConfig", "MemberChoiceConfig", "RuleFitConfig", "SoupConfig"]


@dataclass(frozen=True, kw_only=True)
class RuleFitConfig:
    """Fitting and comparing ensemble rules on validation images.

    ``folds`` for predictions out of fold; ``greedy_rounds`` members added by forward selection, in each of
    ``greedy_bags`` random subsets of ``greedy_share`` of the members (1: all members, once); ``stack_c`` inverse
    penalties tried; ``auto`` leaves ``stack`` out where it would have more than ``stack_parameters``, and ``concat``
    where a step of its fit takes more than ``concat_multiplications`` (images x features x classes).
    """

    folds: Annotated[int, AT_LEAST_TWO] = 5
    greedy_rounds: int = 50
    greedy_bags: Annotated[int, AT_LEAST_ONE] = 1
    greedy_share: Annotated[float, FRACTION] = 0.5
    stack_c: Annotated[tuple[float, ...], POSITIVE] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    stack_parameters: int = 20_000
    concat_multiplications: int = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class MemberChoiceConfig:
    """Noise in the choice of members, in standard errors of a paired difference (docs/fit.md has the figures).

    ``largest_within``: of ensembles that are so near to the best, the largest is taken; ``fastest_within``: where speed
    is preferred, the fastest. ``worse_alone``: a member that is worse than the best single one by more than that is
    taken only where the ensemble of the lowest NLL has it, or one that makes clearly fewer errors.
    """

    largest_within: Annotated[float, POSITIVE] = 2.0
    fastest_within: Annotated[float, POSITIVE] = 1.0
    worse_alone: Annotated[float, POSITIVE] = 2.0


@dataclass(frozen=True, kw_only=True)
class TemperatureConfig:
    """Temperature scaling: ``prior_images`` perfectly calibrated images are added to the fit and hold T near 1.

    Few validation images have too few mistakes to fit T. Chosen among 0 to 64, on photos not used for results.
    """

    prior_images: float = 8.0


@dataclass(frozen=True, kw_only=True)
class SoupConfig:
    """Averages of weights: the ``alphas`` that wise-ft tries, the share of the fine-tuned model.

    BatchNorm's statistics are estimated on at most ``batchnorm_images`` training images.
    """

    alphas: Annotated[tuple[float, ...], SHARE] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    batchnorm_images: Annotated[int, AT_LEAST_ONE] = 1024


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig:
    """One ensemble of finished checkpoints. ``data`` ``None``: the folder that the members were trained on.

    ``calibrate``: scale by a temperature fitted on validation, where that lowers the NLL out of fold. ``mc_dropout``:
    so many forward passes with dropout a member, whose probabilities are averaged; 0: one without. ``soups`` is for
    averages of weights, ``head`` and ``cache`` for the head and the features of ``concat``, ``store`` for the memory
    that decoded images may take in both. ``strict`` as for ``FinetuneConfig``.
    """

    checkpoints: Annotated[
        tuple[Path, ...],
        Flag(
            panel="Combination",
            name="CKPT",
            complete="checkpoints",
            help="Two or more checkpoint folders, for example ckpts/*.",
        ),
    ]
    data: Annotated[
        Path | None,
        Flag(panel="Data", common=True, help="Images to score on (default: those that the members were trained on)."),
    ] = None
    image_column: Annotated[str | None, IMAGE_COLUMN] = None
    label_column: Annotated[str | None, LABEL_COLUMN] = None
    out: Annotated[Path | None, OUT] = None
    rule: Annotated[
        str,
        Flag(
            panel="Combination",
            metavar="NAME",
            help="mean, logit-mean, vote; fitted on val: weighted, greedy, stack; of weights: soup, greedy-soup, "
            "wise-ft; of features: concat; auto: the one that val supports.",
        ),
    ] = "mean"
    calibrate: Annotated[
        bool,
        Flag(
            panel="Combination",
            name="--calibrate/--no-calibrate",
            help="Fit a temperature on val, where it lowers the NLL out of fold.",
        ),
    ] = True
    fit: RuleFitConfig = RuleFitConfig()
    soups: SoupConfig = SoupConfig()
    head: Annotated[HeadConfig, NO_FLAGS] = HeadConfig()
    store: StoreConfig = StoreConfig()
    cache: Annotated[CacheConfig, NO_FLAGS] = CacheConfig()
    seed: int = 0
    bootstrap: Annotated[int, AT_LEAST_ONE] = 2000
    tracking: Annotated[TrackingConfig, OnlyFlags(("track",))] = TrackingConfig()
    default_out: str = "ensembles"
    crops: CropConfig = CropConfig()
    mc_dropout: Annotated[int, OWN_CHECK, MC_DROPOUT] = 0
    strict: Annotated[bool, STRICT] = False
    decode: DecodeConfig = DecodeConfig()
    runtime: Annotated[RuntimeConfig, DEVICE_ONLY] = RuntimeConfig()
