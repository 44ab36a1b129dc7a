"""Run options: ``config.yaml``, the options with which a folder was made, for ``--config``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from tl_kit.options_file import OPTIONS, options_text
from tl_kit.storage.atomic import write_text
from tl_kit.zoo.names import HUB_PREFIX, absolute_names

__all__ = ["save_options"]

_OF_ONE_FOLDER = ("out", "resume")


def save_options(folder: Path, *configs: Any, command: str) -> None:
    """Write the options of a command that made the folder; all but those that name a folder to write.

    A file that is there stays: a run that is taken up again keeps the options that it began with.
    """
    if (folder / OPTIONS).exists():
        return
    anchored = [_anchored(config) for config in configs]
    write_text(folder / OPTIONS, options_text(anchored, command=command, without=_OF_ONE_FOLDER))


def _anchored(config: Any) -> Any:
    """The options with absolute paths in the texts that may hold some: they are read again from any folder."""
    names = {entry.name for entry in fields(config)}
    changes = {name: change(getattr(config, name)) for name, change in _TEXTS.items() if name in names}
    return replace(config, **changes)


def _weights(text: str) -> str:
    """Source of weights: a word, an address on the hub, or an absolute path."""
    return text if text in ("auto", "none") or text.startswith(HUB_PREFIX) else str(Path(text).expanduser().absolute())


_TEXTS: Mapping[str, Callable[[str], str]] = {"model": absolute_names, "models": absolute_names, "weights": _weights}
