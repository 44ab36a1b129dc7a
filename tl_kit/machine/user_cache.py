"""The user's cache folder, and a temporary one if the home folder is missing or cannot be written."""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import sys
import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from platformdirs.unix import Unix

from tl_kit.errors import ResourceError
from tl_kit.reporting import note

__all__ = ["cache_line", "prepare_libraries", "user_cache"]

_OWN = "tl-kit"
_XDG = "XDG_CACHE_HOME"
# For each library: the variable that moves its files, other such variables, and its folder in the user's cache.
_LIBRARIES = (("HF_HOME", ("HF_HUB_CACHE",), "huggingface"), ("TORCH_HOME", (), "torch"))
_MATPLOTLIB = "MPLCONFIGDIR"
_SAID: set[str] = set()


def user_cache() -> Path:
    """``$XDG_CACHE_HOME/tl-kit`` or ``~/.cache/tl-kit``; a temporary folder of this process if neither is usable.

    The user is told about a temporary folder, once per process. Raises ResourceError if it cannot be made either.
    """
    line = _line()
    if line is not None and line not in _SAID:
        _SAID.add(line)
        note(line)
    place = _place()
    return place if isinstance(place, Path) else _temporary() / _OWN


def cache_line() -> str | None:
    """A line for the user if the cache cannot be in its usual place, with the reason and the other place; else None.

    The caller reports the line; :func:`user_cache` does not repeat it. Raises as :func:`user_cache` does.
    """
    line = _line()
    if line is not None:
        _SAID.add(line)
    return line


def _line() -> str | None:
    place, given = _place(), os.environ.get(_XDG)
    parts = [f"{_XDG}={given} is not an absolute path, and is ignored"] if given and _relative(_XDG) else []
    if not isinstance(place, Path):
        parts.append(
            f"{place}: the cache is {_temporary()}, and is removed when this command ends; set {_XDG} to keep it"
        )
    return "; ".join(parts) or None


def prepare_libraries() -> None:
    """Point libraries to a usable cache folder if their own is in an unusable home folder.

    huggingface_hub, torch and matplotlib read their variables when they are imported, so this is called first. Without
    a home folder, the first two would write into a folder named ``~`` in the working directory. The user's settings are
    kept.
    """
    with suppress(ResourceError):  # reported when a cache is needed
        for variable, others, name in _LIBRARIES:
            if not any(os.environ.get(each) for each in (variable, *others)):
                _point(variable, _place(name, written=False), name)
        if not os.environ.get(_MATPLOTLIB):
            _point(_MATPLOTLIB, _matplotlib(), "matplotlib")


def _point(variable: str, place: Path | str, name: str) -> None:
    """Set the variable if the library would not find the place by itself."""
    if not isinstance(place, Path):
        os.environ[variable] = str(_temporary() / name)
    elif _relative(_XDG) or _relative("HOME"):
        os.environ[variable] = str(place)


def _relative(variable: str) -> bool:
    """True if a variable is set to a path that is not absolute."""
    given = os.environ.get(variable)
    return given is not None and not Path(given).is_absolute()


def _place(name: str = _OWN, *, written: bool = True) -> Path | str:
    """The cache folder of ``name`` by the XDG rules, on every system; or the reason, in words, why it is not usable.

    With ``written`` False, an existing folder may be read-only.
    """
    try:
        place = Path(Unix(name).user_cache_dir)
    except RuntimeError:
        place = Path()
    if not place.is_absolute():
        return "no home folder: HOME names none, and the user has no entry in passwd"
    if _fits(place, written):
        return place
    given = os.environ.get(_XDG, "")
    by_xdg = place == Path(given, name)
    return f"{_XDG}: {given} cannot be written" if by_xdg else f"the home folder: {place} cannot be written"


def _matplotlib() -> Path | str:
    """matplotlib's cache folder; on Linux its settings have a separate folder, which must be usable too."""
    try:
        if not sys.platform.startswith(("linux", "freebsd")):
            return place if _fits(place := Path.home() / ".matplotlib", True) else "no home folder"
        settings = Path(Unix("matplotlib").user_config_dir)
    except RuntimeError:
        return "no home folder"
    return _place("matplotlib") if _fits(settings, True) else "no folder for settings"


def _fits(folder: Path, written: bool) -> bool:
    """True if a folder exists or can be made, and can be written; without ``written``, existence is enough."""
    for place in (folder, *folder.parents):
        try:
            mode = place.stat().st_mode
        except OSError:  # missing, or not accessible
            continue
        return stat.S_ISDIR(mode) and (os.access(place, os.W_OK | os.X_OK) or (place == folder and not written))
    return False


@lru_cache(maxsize=1)
def _temporary() -> Path:
    """A folder with an unpredictable name that only this user can enter; it is removed when the process ends."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="tlkit-cache-"))
    except OSError as error:
        raise ResourceError(
            f"no cache can be kept: neither {_XDG}, the home folder nor a temporary folder can be written "
            f"({error.strerror or error}); set {_XDG} or TMPDIR to a folder"
        ) from error
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: Path, owner: int) -> None:
    """Remove the folder, but only in the process that made it: forked processes end too."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
