"""The command line: it parses, calls ``tl_kit.api`` and prints. Nothing here imports torch before a command runs."""

from tl_kit.cli.app import main

__all__ = ["main"]
