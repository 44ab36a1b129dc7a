"""Names of timm's models, kept in the cache: a shell that completes a name cannot wait for timm's import."""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import version

from tl_kit.machine.user_cache import user_cache

__all__ = ["known_models"]


def known_models() -> list[str]:
    """All names of timm's models, with and without tags, sorted; written down once for each version of timm."""
    file = user_cache() / f"models-{version('timm')}.txt"
    with suppress(OSError):
        return file.read_text(encoding="utf-8").split()
    from tl_kit.storage.atomic import write_text
    from tl_kit.zoo.catalog import all_names

    names = all_names()
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, "\n".join(names) + "\n")
    return names
