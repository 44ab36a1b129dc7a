"""``tlkit push``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tl_kit.cli.command import Given, command
from tl_kit.cli.console import Console
from tl_kit.cli.session import answering_signals
from tl_kit.config import JsonConfig, PushConfig

if TYPE_CHECKING:
    from tl_kit import PushResult

__all__ = ["push"]


@command(PushConfig, JsonConfig, usage="tlkit push CKPT OWNER/NAME")
def push(given: Given, console: Console) -> None:
    """Publish a checkpoint or an ensemble on the Hugging Face hub. Private unless told; images stay here."""
    config, json = given.read(PushConfig), given.read(JsonConfig).json
    with answering_signals():
        import tl_kit

        result = tl_kit.push(config, reporter=console)
        if json:
            console.json(result.to_dict())
        else:
            _show(result, console)


def _show(result: PushResult, console: Console) -> None:
    rows = [[path, f"{size:,}"] for path, size in result.files.items()]
    console.table(["file", "bytes"], [*rows, ["all", f"{sum(result.files.values()):,}"]], align="nr")
    for line in result.left_out:
        console.line(f"not sent: {line}")
    seen = "private" if result.private else "public"
    if result.url is None:
        console.line(f"dry run: nothing was sent; {result.repository} would be {seen}")
    else:
        console.entry("repository", f"{result.url} ({seen})")
