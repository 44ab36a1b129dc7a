"""``tlkit evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tl_kit.cli.cells import figures, views_text
from tl_kit.cli.command import Given, command
from tl_kit.cli.console import Console
from tl_kit.config import EvaluateConfig, JsonConfig
from tl_kit.display import class_figures

if TYPE_CHECKING:
    from tl_kit import Evaluation

__all__ = ["evaluate"]


@command(EvaluateConfig, JsonConfig, usage="tlkit evaluate CKPT --data PATH")
def evaluate(given: Given, console: Console) -> None:
    """Score a checkpoint or an ensemble on labelled images."""
    asked = given.read(EvaluateConfig)
    import tl_kit

    result = tl_kit.evaluate(
        asked.checkpoint,
        asked.data,
        split=asked.split,
        crops=asked.crops,
        mc_dropout=asked.mc_dropout,
        strict=asked.strict,
        image_column=asked.image_column,
        label_column=asked.label_column,
        decode=asked.decode,
        runtime=asked.runtime,
        reporter=console,
    )
    if given.read(JsonConfig).json:
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
        rows.append([name, *class_figures(scores), mistaken])
    console.table(["class", *columns, "most mistaken for"], rows, align="l" + "r" * len(columns) + "l")
    console.line()
    views = views_text(result.crops, result.mc_dropout)
    kind = "" if result.kind == "test" else f" ({result.kind})"
    console.line(f"{result.split}{kind}, {result.images:,} images, {views}: {figures(result.metrics)}")
