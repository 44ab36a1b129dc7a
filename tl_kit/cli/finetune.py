"""``tlkit finetune``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from tl_kit.cli import options
from tl_kit.cli.cells import figure
from tl_kit.cli.console import Console
from tl_kit.cli.parsing import learning_rate, save_config
from tl_kit.cli.session import INTERRUPTED, answering_signals, session
from tl_kit.cli.show_folds import show_folds
from tl_kit.cli.show_members import show_members, show_snapshots
from tl_kit.config import (
    CacheConfig,
    DataConfig,
    DecodeConfig,
    FinetuneConfig,
    LoopConfig,
    RegularizationConfig,
    RuntimeConfig,
    Vary,
    VaryConfig,
)
from tl_kit.display import marked
from tl_kit.errors import ConfigError

if TYPE_CHECKING:
    from tl_kit import CrossValidation, FinetuneResult, MemberRuns

__all__ = ["finetune"]

T = TypeVar("T")


def finetune(
    context: typer.Context,
    model: options.ModelToTrain = None,
    data: options.DataToTrain = None,
    policy: options.Policy = FinetuneConfig.policy,
    epochs: options.Epochs = FinetuneConfig.epochs,
    batch_size: options.BatchSize = FinetuneConfig.batch_size,
    lr: options.Lr = None,
    optimizer: options.Optimizer = FinetuneConfig.optimizer,
    opt: options.Opt = None,
    schedule: options.Schedule = FinetuneConfig.schedule,
    schedule_opt: options.ScheduleOpt = None,
    warmup: options.Warmup = LoopConfig.warmup_epochs,
    weight_decay: options.WeightDecay = LoopConfig.weight_decay,
    clip_norm: options.ClipNorm = LoopConfig.clip_norm,
    layer_decay: options.LayerDecay = LoopConfig.layer_decay,
    l1: options.L1 = RegularizationConfig.l1,
    l2: options.L2 = RegularizationConfig.l2,
    l2_sp: options.L2Sp = RegularizationConfig.l2_sp,
    dropout: options.Dropout = RegularizationConfig.dropout,
    drop_connect: options.DropConnect = RegularizationConfig.drop_connect,
    drop_path: options.DropPath = RegularizationConfig.drop_path,
    label_smoothing: options.LabelSmoothing = RegularizationConfig.label_smoothing,
    mixup: options.Mixup = RegularizationConfig.mixup,
    cutmix: options.Cutmix = RegularizationConfig.cutmix,
    ema: options.Ema = RegularizationConfig.ema,
    swa: options.Swa = RegularizationConfig.swa,
    snapshots: options.Snapshots = FinetuneConfig.snapshots,
    late: options.Late = FinetuneConfig.late,
    balance: options.Balance = FinetuneConfig.balance,
    select: options.Select = FinetuneConfig.select,
    augment: options.Augment = str(FinetuneConfig.augment),
    aug: options.Aug = None,
    batchnorm: options.Batchnorm = FinetuneConfig.batchnorm,
    weights: options.Weights = FinetuneConfig.weights,
    img_size: options.ImgSize = FinetuneConfig.img_size,
    seed: options.Seed = FinetuneConfig.seed,
    split_seed: options.SplitSeed = DataConfig.split_seed,
    group_pattern: options.GroupPattern = DataConfig.group_pattern,
    allow: options.Allow = None,
    strict: options.Strict = FinetuneConfig.strict,
    max_pixels: options.MaxPixels = DecodeConfig.max_pixels,
    cache_size: options.CacheSize = CacheConfig.size_gb,
    views: options.Views = CacheConfig.views,
    runtime: options.Runtime = RuntimeConfig.mode,
    compile: options.Compile = RuntimeConfig.compile,
    folds: options.Folds = None,
    members: options.Members = None,
    vary: options.Vary = None,
    out: options.Out = FinetuneConfig.out,
    plot: options.Plot = FinetuneConfig.plot,
    on_nan: options.OnNan = FinetuneConfig.on_nan,
    save_every: options.SaveEvery = None,
    resume: options.Resume = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Fine-tune a timm model on a folder of images. Writes a checkpoint folder."""
    with session(debug=debug) as console, answering_signals():
        if resume is not None:
            _refuse_options(context)
            import tl_kit

            _report(tl_kit.resume(resume, reporter=console), resume, console, json=json)
            return
        config = FinetuneConfig(
            model=_given(model, "MODEL"),
            data=_given(data, "--data"),
            policy=policy,
            epochs=epochs,
            batch_size=batch_size,
            lr=learning_rate(lr),
            optimizer=optimizer,
            optimizer_options=tuple(opt or ()),
            schedule=schedule,
            schedule_options=tuple(schedule_opt or ()),
            balance=balance,
            select=select,
            augment=augment,
            augment_options=tuple(aug or ()),
            snapshots=snapshots,
            late=late,
            plot=plot,
            on_nan=on_nan,
            save=save_config(save_every),
            loop=LoopConfig(
                warmup_epochs=warmup, weight_decay=weight_decay, clip_norm=clip_norm, layer_decay=layer_decay
            ),
            regularization=RegularizationConfig(
                l1=l1,
                l2=l2,
                l2_sp=l2_sp,
                dropout=dropout,
                drop_connect=drop_connect,
                drop_path=drop_path,
                label_smoothing=label_smoothing,
                mixup=mixup,
                cutmix=cutmix,
                ema=ema,
                swa=swa,
            ),
            batchnorm=batchnorm,
            weights=weights,
            img_size=img_size,
            seed=seed,
            out=out,
            split=DataConfig(split_seed=split_seed, group_pattern=group_pattern),
            allow=tuple(allow or ()),
            strict=strict,
            decode=DecodeConfig(max_pixels=max_pixels),
            cache=CacheConfig(size_gb=cache_size, views=views),
            runtime=RuntimeConfig(mode=runtime, compile=compile),
        )
        _report(_train(config, console, folds=folds, members=members, vary=vary), out, console, json=json)


def _given(value: T | None, name: str) -> T:
    if value is None:
        raise ConfigError(f"{name} is missing: tlkit finetune MODEL --data PATH, or tlkit finetune --resume RUN")
    return value


def _train(
    config: FinetuneConfig, console: Console, *, folds: int | None, members: int | None, vary: Vary | None
) -> FinetuneResult | CrossValidation | MemberRuns:
    """One run, one a fold, or one a member."""
    import tl_kit

    if members is not None or vary is not None:
        if folds is not None:
            raise ConfigError("--folds: scores one model on every image, and --members trains several; leave one out")
        return tl_kit.finetune_members(config, members=members, vary=vary or VaryConfig.vary, reporter=console)
    if folds is not None:
        return tl_kit.cross_validate(config, folds=folds, reporter=console)
    return tl_kit.finetune(config, reporter=console)


def _refuse_options(context: typer.Context) -> None:
    """A run that is taken up again has the options that it began with."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE" and parameter.name not in ("resume", "json", "debug"):
            name = parameter.opts[0] if parameter.opts[0].startswith("-") else "MODEL"
            raise ConfigError(f"{name}: --resume goes on with the options that the run began with; leave it out")


def _report(
    result: FinetuneResult | CrossValidation | MemberRuns | None, folder: Path | None, console: Console, *, json: bool
) -> None:
    """What came out; None where the run in ``folder`` had been finished before."""
    if result is None:
        if json:
            console.json({"checkpoint": str(folder), "status": "finished"})
        return
    import tl_kit
    from tl_kit import leads

    if leads():  # of several processes that trained together one says what came out
        if isinstance(result, tl_kit.MemberRuns):
            show_members(result, console, json=json)
        elif isinstance(result, tl_kit.CrossValidation):
            show_folds(result, console, json=json)
        elif json:
            console.notes(result.notes, json=True)
            console.json(result.to_dict())
        else:
            _show(result, console)
    if isinstance(result, tl_kit.FinetuneResult) and result.status == "interrupted":
        console.error(f"interrupted: the best checkpoint so far is in {result.checkpoint}")
        raise typer.Exit(INTERRUPTED)


def _cross_validated(found: Mapping[str, Any]) -> str:
    return (
        f"cross-validated over the {found['images']:,} training and validation images ({found['folds']} folds): "
        f"accuracy {figure('accuracy', found['accuracy'])}, NLL {figure('nll', found['nll'])}"
    )


def _show(result: FinetuneResult, console: Console) -> None:
    scores = {name: values for name, values in (("val", result.val), ("test", result.test)) if values is not None}
    names = list(next(iter(scores.values()), {}))
    rows = [[name.replace("_", " "), *(figure(name, values[name]) for values in scores.values())] for name in names]
    console.table(["", *(marked(name, [result.kinds]) for name in scores)], rows, align="l" + "r" * len(scores))
    if result.cross_validated is not None:
        console.line(_cross_validated(result.cross_validated))
    console.notes(result.notes, json=False)
    audit = result.audit
    verdict = "none of them changed" if audit["ok"] else f"{audit['changed_tensors']} of them CHANGED"
    seconds = ", ".join(
        f"{stage.replace('_', ' ')} {value:.1f}" for stage, value in result.seconds.items() if stage != "total"
    )
    console.line()
    how = f"{result.epochs} epochs" if result.epochs else "in closed form"
    console.line(f"policy {result.policy}: {result.trainable_parameters:,} parameters trained, {how}")
    console.line(f"audit: {audit['frozen_tensors']} frozen tensors, {verdict}")
    console.line(f"time: {result.seconds['total']:.1f} s ({seconds})")
    console.entry("checkpoint", str(result.checkpoint))
    show_snapshots(result, console)
