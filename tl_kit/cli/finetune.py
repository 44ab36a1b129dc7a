"""``tlkit finetune``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from tl_kit.cli import options
from tl_kit.cli.console import Console
from tl_kit.cli.session import INTERRUPTED, session
from tl_kit.cli.text import figure
from tl_kit.config import CacheConfig, DataConfig, FinetuneConfig, RuntimeConfig

if TYPE_CHECKING:
    from tl_kit.api import FinetuneResult

__all__ = ["finetune"]


def finetune(
    model: options.Model,
    data: options.Data,
    policy: options.Policy = FinetuneConfig.policy,
    epochs: options.Epochs = FinetuneConfig.epochs,
    batch_size: options.BatchSize = FinetuneConfig.batch_size,
    lr: options.Lr = FinetuneConfig.lr,
    optimizer: options.Optimizer = FinetuneConfig.optimizer,
    schedule: options.Schedule = FinetuneConfig.schedule,
    weights: options.Weights = FinetuneConfig.weights,
    img_size: options.ImgSize = FinetuneConfig.img_size,
    seed: options.Seed = FinetuneConfig.seed,
    split_seed: options.SplitSeed = DataConfig.split_seed,
    cache_size: options.CacheSize = CacheConfig.size_gb,
    views: options.Views = CacheConfig.views,
    runtime: options.Runtime = RuntimeConfig.mode,
    compile: options.Compile = RuntimeConfig.compile,
    out: options.Out = FinetuneConfig.out,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Fine-tune a timm model on a folder of images. Writes a checkpoint folder."""
    with session(debug=debug) as console:
        config = FinetuneConfig(
            model=model,
            data=data,
            policy=policy,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            optimizer=optimizer,
            schedule=schedule,
            weights=weights,
            img_size=img_size,
            seed=seed,
            out=out,
            split=DataConfig(split_seed=split_seed),
            cache=CacheConfig(size_gb=cache_size, views=views),
            runtime=RuntimeConfig(mode=runtime, compile=compile),
        )
        from tl_kit import api

        result = api.finetune(config, reporter=console)
        if json:
            console.json(result.to_dict())
        else:
            _show(result, console)
        if result.status == "interrupted":
            console.error(f"interrupted: the best checkpoint so far is in {result.checkpoint}")
            raise typer.Exit(INTERRUPTED)


def _show(result: FinetuneResult, console: Console) -> None:
    scores = {name: values for name, values in (("val", result.val), ("test", result.test)) if values is not None}
    names = list(next(iter(scores.values()), {}))
    rows = [[name.replace("_", " "), *(figure(name, values[name]) for values in scores.values())] for name in names]
    console.table(["", *scores], rows, align="l" + "r" * len(scores))
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
    console.line(f"checkpoint: {result.checkpoint}")
