"""``tlkit serve``."""

from __future__ import annotations

from tl_kit.cli.command import Given, command
from tl_kit.cli.console import Console
from tl_kit.config import ServeConfig

__all__ = ["serve"]


@command(ServeConfig, usage="tlkit serve CKPT")
def serve(given: Given, console: Console) -> None:
    """Serve a page to try a model, and an HTTP interface.

    SIGTERM and Ctrl-C stop it, once running requests have their answers.
    """
    config = given.read(ServeConfig)
    import tl_kit

    def ready(address: str) -> None:
        console.entry("page", address)
        console.entry("interface", f"POST {address}predict, GET {address}metadata, {address}openapi.json")
        console.message("Ctrl-C stops the server")

    images = tl_kit.serve(config, reporter=console, ready=ready)
    console.line(f"stopped; {images:,} {'image' if images == 1 else 'images'} predicted")
