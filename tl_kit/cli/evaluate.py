"""``tlkit evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tl_kit.cli import options
from tl_kit.cli.cells import figure, figures
from tl_kit.cli.console import Console
from tl_kit.cli.parsing import crop_config, views_text
from tl_kit.cli.session import session
from tl_kit.config import DecodeConfig

if TYPE_CHECKING:
    from tl_kit import Evaluation

__all__ = ["evaluate"]


def evaluate(
    checkpoint: options.Checkpoint,
    data: options.Data,
    split: options.Split = None,
    crops: options.Crops = None,
    scales: options.Scales = None,
    mc_dropout: options.McDropout = None,
    strict: options.Strict = False,
    max_pixels: options.MaxPixels = DecodeConfig.max_pixels,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Score a checkpoint or an ensemble on labelled images."""
    with session(debug=debug) as console:
        chosen = crop_config(crops, scales)
        import tl_kit

        result = tl_kit.evaluate(
            checkpoint,
            data,
            split=split,
            crops=chosen,
            mc_dropout=mc_dropout,
            strict=strict,
            decode=DecodeConfig(max_pixels=max_pixels),
            reporter=console,
        )
        if json:
            console.json(result.to_dict())
        else:
            _show(result, console)


def _show(result: Evaluation, console: Console) -> None:
    names = list(result.per_class)
    columns = list(next(iter(result.per_class.values()), {}))
    rows = []
    for index, (name, scores) in enumerate(result.per_class.items()):
        wrong = {names[other]: count for other, count in enumerate(result.confusion[index]) if other != index and count}
        worst = max(wrong, key=lambda other: wrong[other], default="")
        mistaken = f"{worst} ({wrong[worst]})" if wrong else ""
        rows.append([name, *(figure(column, scores[column]) for column in columns), mistaken])
    console.table(["class", *columns, "most mistaken for"], rows, align="l" + "r" * len(columns) + "l")
    console.line()
    views = views_text(result.crops, result.mc_dropout)
    kind = "" if result.kind == "test" else f" ({result.kind})"
    console.line(f"{result.split}{kind}, {result.images:,} images, {views}: {figures(result.metrics)}")
