"""Optional packages that forms of data need."""

from __future__ import annotations

from importlib.util import find_spec

from tl_kit.errors import DataError

__all__ = ["needed"]


def needed(package: str, what: str) -> None:
    """Raises DataError, with the command that installs it, if a package is missing that reads ``what``."""
    if find_spec(package) is None:
        raise DataError(f'{what} is read by the package {package}, which is missing: pip install "tl-kit[data]"')
