"""``tlkit plan``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tl_kit.cli import options
from tl_kit.cli.console import Console
from tl_kit.cli.parsing import learning_rate
from tl_kit.cli.session import session
from tl_kit.config import CacheConfig, DataConfig, DecodeConfig, FinetuneConfig, LoopConfig, RuntimeConfig

if TYPE_CHECKING:
    from tl_kit import Plan

__all__ = ["plan"]


def plan(
    model: options.Model,
    data: options.Data,
    policy: options.Policy = FinetuneConfig.policy,
    epochs: options.Epochs = FinetuneConfig.epochs,
    batch_size: options.BatchSize = FinetuneConfig.batch_size,
    lr: options.Lr = None,
    optimizer: options.Optimizer = FinetuneConfig.optimizer,
    schedule: options.Schedule = FinetuneConfig.schedule,
    layer_decay: options.LayerDecay = LoopConfig.layer_decay,
    balance: options.Balance = FinetuneConfig.balance,
    select: options.Select = FinetuneConfig.select,
    augment: options.Augment = str(FinetuneConfig.augment),
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
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Say what finetune would do with these images, why, and what it would cost. Trains nothing."""
    with session(debug=debug) as console:
        config = FinetuneConfig(
            model=model,
            data=data,
            policy=policy,
            epochs=epochs,
            batch_size=batch_size,
            lr=learning_rate(lr),
            optimizer=optimizer,
            schedule=schedule,
            balance=balance,
            select=select,
            augment=augment,
            batchnorm=batchnorm,
            loop=LoopConfig(layer_decay=layer_decay),
            weights=weights,
            img_size=img_size,
            seed=seed,
            split=DataConfig(split_seed=split_seed, group_pattern=group_pattern),
            allow=tuple(allow or ()),
            strict=strict,
            decode=DecodeConfig(max_pixels=max_pixels),
            cache=CacheConfig(size_gb=cache_size, views=views),
            runtime=RuntimeConfig(mode=runtime),
        )
        import tl_kit

        result = tl_kit.plan(config, reporter=console)
        if json:
            console.json(result.to_dict())
        else:
            _show(result, console)


def _show(plan: Plan, console: Console) -> None:
    facts = plan.facts
    if facts.probes:
        rows = [
            [probe.stage, f"{probe.channels:,}", f"{probe.accuracy:.1%}", f"± {probe.error:.1%}"]
            for probe in facts.probes
        ]
        console.table(["features of", "channels", "cross-validated", "s.e."], rows, align="lrrr")
        console.line()
        best, top = facts.best, facts.top
        assert best is not None
        assert top is not None
        where = f"{best.stage} is best" if facts.domain == "different" else "the last stage is best"
        kind = {"similar": "similar to", "different": "different from"}[facts.domain]
        console.line(f"your images are {kind} those of the pretraining: {where}")
        console.line()
    console.table(["", "", "why"], [[c.name, c.value, c.reason] for c in plan.choices], align="lww")
    cost = plan.estimate
    stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in cost.stages.items() if seconds >= 0.05)
    gpu = "" if cost.gpu_bytes is None else f", {cost.gpu_bytes / 1e9:.1f} GB of them on the GPU"
    console.line()
    console.line(f"time: about {cost.seconds:.0f} s ({stages})")
    console.line(f"memory: about {cost.bytes / 1e9:.1f} GB{gpu}")
