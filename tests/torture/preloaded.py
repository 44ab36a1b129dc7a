"""Imported once, by the process that all others are forked from: nothing here may start a thread."""

import tl_kit
import tl_kit.cli

__all__ = ["tl_kit"]
