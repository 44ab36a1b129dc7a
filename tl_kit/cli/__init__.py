"""The command line: it parses options, calls the functions of tl_kit and prints what they return."""

from tl_kit.cli.app import main

__all__ = ["main"]
