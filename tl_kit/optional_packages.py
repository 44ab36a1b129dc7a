"""Optional packages: one sentence says which are missing, and names the command that installs them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from tl_kit.errors import TlKitError

__all__ = ["check_packages", "needs", "pip_install"]


def check_packages(what: str, *names: str, extra: str, error: type[TlKitError]) -> None:
    """Raises ``error``, which begins with ``what``, where modules of these names are missing that ``extra`` brings."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise error(needs(what, missing, pip_install(extra)))


def needs(what: str, names: Sequence[str], command: str) -> str:
    """The sentence for packages that are missing: ``what: needs a and b; run COMMAND``."""
    return f"{what}: needs {' and '.join([', '.join(names[:-1]), names[-1]] if names[1:] else names)}; run {command}"


def pip_install(extra: str) -> str:
    """The command that installs extras of tl-kit, with commas between; in quotes, since shells read brackets."""
    return f'pip install "tl-kit[{extra}]"'
