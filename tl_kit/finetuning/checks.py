"""A run's options before any data is read: ranges, texts into values, and which of them only gradient methods have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, get_args

from tl_kit.config import (
    CROP_MODES,
    AugmentConfig,
    BalanceMethod,
    FinetuneConfig,
    HeadConfig,
    KeptEpoch,
    Options,
    RegularizationConfig,
    Selection,
    VaryConfig,
)
from tl_kit.data.findings import BLOCKING
from tl_kit.data.folds import check_folds
from tl_kit.errors import ConfigError
from tl_kit.flags import fields_of
from tl_kit.freezing.policies import Policy, is_auto
from tl_kit.number_ranges import ANY, POSITIVE, check_numbers
from tl_kit.optimization.key_values import Option, check_options, parse_pairs, require_known
from tl_kit.optimization.optimizers import HEAD_ONLY, default_lr
from tl_kit.optimization.schedules import parse_schedule_options
from tl_kit.optional_packages import check_packages
from tl_kit.zoo.locate import check_weights
from tl_kit.zoo.names import check_name

__all__ = [
    "as_head",
    "augment_options",
    "check",
    "check_balance",
    "check_distill",
    "check_folded",
    "check_policy",
    "count_of_members",
    "gradient_options",
    "head_config",
    "is_head_only",
]

_HEAD_OPTIONS = {
    "C": Option(1.0, float, limits=POSITIVE),
    "max_iter": Option(HeadConfig.max_iter, int, limits=POSITIVE),
}


def check(config: FinetuneConfig) -> None:
    """Raises ConfigError for a number out of range, naming its flag; for weights that are not there, WeightsError."""
    check_name(config.model)
    check_weights(config.weights)
    check_numbers(config)
    if isinstance(config.lr, str) and config.lr != "auto":
        raise ConfigError(f"--lr {config.lr}: must be a positive number, or auto")
    if config.optimizer is not None and not is_head_only(config.optimizer):
        default_lr(config.optimizer, pretrained=False)  # raises for a name that does not exist
    if config.schedule is not None:
        parse_schedule_options(config.schedule, ())
    if config.regularization.l2_sp and config.weights == "none":
        raise ConfigError("--l2-sp: pulls towards pretrained weights, and --weights none has none")
    require_known("head solver", config.head.solver, HEAD_ONLY)
    for name in config.allow:
        if name not in BLOCKING:
            raise ConfigError(f"--allow {name}: known are {', '.join(BLOCKING)}")
    if config.crop_mode not in ("auto", *CROP_MODES):
        raise ConfigError(f"--crop-mode {config.crop_mode}: known are auto, {', '.join(CROP_MODES)}")
    check_balance(config)
    check_distill(config)
    _check_kept(config)


def check_folded(config: FinetuneConfig, folds: int) -> None:
    """:func:`check`, for one run a fold. Raises ConfigError for fewer than two folds, and for a teacher."""
    check(config)
    if config.distill is not None:
        raise ConfigError("--folds: a teacher has seen the images of every fold; leave it out")
    check_folds(folds)


def count_of_members(given: int | None) -> int:
    """Number of members: as given, or by default ``VaryConfig``'s. Raises ConfigError for fewer than two."""
    count = VaryConfig.members if given is None else given
    if count < 2:
        raise ConfigError(f"--members {count}: must be at least 2")
    return count


def _check_kept(config: FinetuneConfig) -> None:
    if config.snapshots and config.schedule not in (None, "cyclic"):
        raise ConfigError(
            f"--snapshots: are taken where a cycle of the rate ends; --schedule {config.schedule} has none"
        )
    if config.snapshots and config.patience is not None:
        raise ConfigError("--snapshots: patience could end the run before its last cycle; leave it out")
    if config.regularization.swa and config.regularization.ema is not None:
        raise ConfigError("--swa: --ema averages the weights already; leave one of them out")
    parse_schedule_options(config.swa.schedule, ())


def as_head(config: FinetuneConfig) -> FinetuneConfig:
    """The options of a head on the same images: without those that ``--policy head`` does not have."""
    return replace(
        config,
        policy="head",
        augment="auto",
        augment_options=(),
        optimizer=None,
        optimizer_options=(),
        plot=False,
        select="auto",
        keep_epoch="auto",
        regularization=RegularizationConfig(),
        loop=replace(config.loop, layer_decay=None),
        cache=replace(config.cache, views=None),
    )


def check_policy(config: FinetuneConfig, policy: Policy) -> None:
    """Raises ConfigError for an option that the policy does not have: it would be ignored."""
    if not policy.head_only:
        every_epoch = policy.trains_all or _mixes(config)
        if config.cache.views is not None and not is_auto(config.policy) and every_epoch:
            raise ConfigError("--views: are for what runs once under last:K; here every epoch has views of its own")
        if is_head_only(config.optimizer):
            raise ConfigError(f"--optimizer {config.optimizer}: only fits a head on features; use --policy head")
        if policy.adapters:
            _check_adapters(config, policy)
        return
    if config.augment not in ("auto", "none") or config.augment_options:
        raise ConfigError(
            "--augment: the head is fitted to images as evaluation sees them; use --policy last:1 or more"
        )
    if config.cache.views is not None:
        raise ConfigError("--views: the head is fitted to one view of each image; use --policy last:1 or more")
    if config.regularization.drop_path is not None:
        raise ConfigError("--drop-path: no residual branch trains under --policy head")
    if config.loop.layer_decay is not None:
        raise ConfigError("--layer-decay: one layer trains under --policy head")
    if config.regularization.l2_sp:
        raise ConfigError("--l2-sp: a new head has no pretrained weights to be pulled to; use --l2")
    _check_closed_form(config)


def _check_adapters(config: FinetuneConfig, policy: Policy) -> None:
    """Refuse what only weights that train themselves have, and a run without peft."""
    check_packages(f"--policy {policy}", "peft", extra="peft", error=ConfigError)
    given = {name: getattr(config.regularization, name) for name in ("l1", "l2", "l2_sp", "drop_connect")}
    for name in (name for name, strength in given.items() if strength):
        raise ConfigError(
            f"--{name.replace('_', '-')}: is for weights that train, and under --policy {policy} only adapters do; "
            "leave it out"
        )


def _check_closed_form(config: FinetuneConfig) -> None:
    """Refuse options that a head fitted in closed form does not have."""
    given = gradient_options(config)
    if is_head_only(config.optimizer) and given:
        raise ConfigError(
            f"{given[0]}: the head that {config.optimizer} fits in closed form has none; "
            "leave it out, or name a gradient method such as --optimizer adamw"
        )
    if given or not is_head_only(config.optimizer or config.head.solver):
        return
    if config.plot:
        raise ConfigError("--plot: a head fitted in closed form has no epochs to draw; add --epochs, or leave it out")
    for flag, value in (("--select", config.select), ("--keep-epoch", config.keep_epoch)):
        if value != "auto":
            raise ConfigError(
                f"{flag} {value}: a head fitted in closed form has no epochs to choose from; add --epochs, or leave it "
                "out"
            )
    head_config(config)


def _mixes(config: FinetuneConfig) -> bool:
    return bool(config.regularization.mixup or config.regularization.cutmix)


def _as_mapping(owner: str, given: Options, known: Mapping[str, Option]) -> dict[str, object]:
    """Options by name, typed and checked, from a mapping or from texts ``key=value``."""
    if isinstance(given, Mapping):
        return check_options(owner, given, known)
    return parse_pairs(owner, given, known)


def augment_options(config: FinetuneConfig) -> dict[str, object]:
    """The fields of AugmentConfig that the run replaces."""
    default = AugmentConfig()
    known = {}
    for entry in fields(AugmentConfig):
        value = getattr(default, entry.name)
        length = len(value) if isinstance(value, tuple) else None
        known[entry.name] = Option(value, type(value), length=length, limits=ANY)
    return _as_mapping("--aug", config.augment_options, known)


def head_config(config: FinetuneConfig) -> HeadConfig:
    """The closed-form head's settings, with its optimizer's name and options taken in."""
    name = config.optimizer or config.head.solver
    given = _as_mapping(f"optimizer {name!r}", config.optimizer_options, _HEAD_OPTIONS)
    changes: dict[str, Any] = {"solver": name}
    if "C" in given:
        changes["c"] = given["C"]
    if "max_iter" in given:
        changes["max_iter"] = given["max_iter"]
    return replace(config.head, **changes)


def gradient_options(config: FinetuneConfig) -> list[str]:
    """The flags given that only gradient methods have: what is fitted in closed form must not ignore them."""
    named = {"epochs", "lr", "schedule", "schedule_options", "patience", "snapshots", "late"}
    loop = {"warmup_epochs", "weight_decay", "clip_norm", "layer_decay"}
    flags = [
        entry.shown
        for owner, names in ((config, named), (config.loop, loop), (config.regularization, None))
        for entry in fields_of(type(owner))
        if (names is None or entry.name in names) and getattr(owner, entry.name) != entry.default
    ]
    if config.runtime.compile == "on":
        flags.append("--compile")
    if config.distill is not None:
        flags.append("--distill")
    return flags


def is_head_only(name: str | None) -> bool:
    """True where the named optimizer only fits a head in closed form."""
    return name in HEAD_ONLY


def check_distill(config: FinetuneConfig) -> None:
    """Raises ConfigError for what a run with a teacher cannot have."""
    if config.distill is not None and (config.regularization.mixup or config.regularization.cutmix):
        raise ConfigError("--mixup, --cutmix: the teacher has seen no mixed images; leave them out of a distillation")


def check_balance(config: FinetuneConfig) -> None:
    """Raises ConfigError for a way or a figure that does not exist."""
    for name, kind in (("balance", BalanceMethod), ("select", Selection), ("keep_epoch", KeptEpoch)):
        known = get_args(kind)
        if getattr(config, name) not in known:
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} {getattr(config, name)}: known are {', '.join(known)}")
