"""``tlkit ensemble``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tl_kit.cli import options
from tl_kit.cli.console import Console
from tl_kit.cli.session import session
from tl_kit.cli.text import figure
from tl_kit.config import EnsembleConfig

if TYPE_CHECKING:
    from tl_kit.api import EnsembleResult

__all__ = ["ensemble"]

SHOWN = ("accuracy", "nll", "ece")


def ensemble(
    checkpoints: options.Checkpoints,
    data: options.DataOfMembers = EnsembleConfig.data,
    out: options.Out = EnsembleConfig.out,
    crops: options.Crops = None,
    scales: options.Scales = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Combine checkpoints into one that predicts on its own. Shows what was gained over the best of them."""
    with session(debug=debug) as console:
        chosen = options.crop_config(crops, scales) or EnsembleConfig.crops
        config = EnsembleConfig(checkpoints=tuple(checkpoints), data=data, out=out, crops=chosen)
        from tl_kit import api

        result = api.ensemble(config, reporter=console)
        if json:
            console.json(result.to_dict())
        else:
            _show(result, console)


def _show(result: EnsembleResult, console: Console) -> None:
    receipt = result.receipt
    splits = [split for split in ("val", "test") if receipt["ensemble"][split] is not None]
    header = ["", *(f"{split} {name}" for split in splits for name in SHOWN)]
    together: list[tuple[str, Any]] = [(member["checkpoint"], member) for member in receipt["members"]]
    together.append((f"ensemble ({receipt['rule']})", receipt["ensemble"]))
    rows = [
        [name, *(figure(score, scores[split][score]) for split in splits for score in SHOWN)]
        for name, scores in together
    ]
    console.table(header, rows, align="l" + "r" * (len(header) - 1))
    console.line()
    console.line(f"each image: {result.crops}")
    console.line(f"checkpoint: {result.checkpoint}")
