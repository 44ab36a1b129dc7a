"""The user's cache folder, and a temporary one for a process whose home folder is missing or cannot be written."""

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
# The variable that moves a library's files, others that do so too, and their folder below the user's cache.
_LIBRARIES = (("HF_HOME", ("HF_HUB_CACHE",), "huggingface"), ("TORCH_HOME", (), "torch"))
_MATPLOTLIB = "MPLCONFIGDIR"
_SAID: set[str] = set()


def user_cache() -> Path:
    """``$XDG_CACHE_HOME/tl-kit`` or ``~/.cache/tl-kit``; a temporary folder of this process where neither can be had.

    That is noted for the user, once a process. Raises ResourceError where no temporary folder can be made either.
    """
    line = _line()
    if line is not None and line not in _SAID:
        _SAID.add(line)
        note(line)
    place = _place()
    return place if isinstance(place, Path) else _temporary() / _OWN


def cache_line() -> str | None:
    """One line for the user: what is wrong with the cache's place, and where it is instead; None if nothing is.

    Whoever asks says it: :func:`user_cache` does not note the same again. Raises as :func:`user_cache` does.
    """
    line = _line()
    if line is not None:
        _SAID.add(line)
    return line


def _line() -> str | None:
    place, given = _place(), os.environ.get(_XDG)
    parts = [f"{_XDG}={given} is no absolute path, and is ignored"] if given and _relative(_XDG) else []
    if not isinstance(place, Path):
        parts.append(f"{place}: the cache is {_temporary()}, and goes when this command ends; set {_XDG} to keep one")
    return "; ".join(parts) or None


def prepare_libraries() -> None:
    """Point libraries to a folder that can be used where their own lies in a home folder that cannot be.

    huggingface_hub, torch and matplotlib look at their variables when they are imported, so this comes first. Without
    a home the first two would write into a folder named ``~`` below the working directory. What a user has set stays.
    """
    with suppress(ResourceError):  # it is told where a cache is needed
        for variable, others, name in _LIBRARIES:
            if not any(os.environ.get(each) for each in (variable, *others)):
                _point(variable, _place(name, written=False), name)
        if not os.environ.get(_MATPLOTLIB):
            _point(_MATPLOTLIB, _matplotlib(), "matplotlib")


def _point(variable: str, place: Path | str, name: str) -> None:
    """Set the variable where the library would not find the place by itself."""
    if not isinstance(place, Path):
        os.environ[variable] = str(_temporary() / name)
    elif _relative(_XDG) or _relative("HOME"):
        os.environ[variable] = str(place)


def _relative(variable: str) -> bool:
    """True where a variable is set to a path that is not absolute."""
    given = os.environ.get(variable)
    return given is not None and not Path(given).is_absolute()


def _place(name: str = _OWN, *, written: bool = True) -> Path | str:
    """The cache folder of ``name`` by the XDG rules, on every system; or in words, why it cannot be there.

    With ``written`` False, a folder that is there may be one that can only be read.
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
    """matplotlib's cache folder; on Linux its settings have a folder of their own, which must be usable too."""
    try:
        if not sys.platform.startswith(("linux", "freebsd")):
            return place if _fits(place := Path.home() / ".matplotlib", True) else "no home folder"
        settings = Path(Unix("matplotlib").user_config_dir)
    except RuntimeError:
        return "no home folder"
    return _place("matplotlib") if _fits(settings, True) else "no folder for settings"


def _fits(folder: Path, written: bool) -> bool:
    """True where a folder exists or can be made, and can be written; without ``written``, existing is enough."""
    for place in (folder, *folder.parents):
        try:
            mode = place.stat().st_mode
        except OSError:  # not there, or not to be seen
            continue
        return stat.S_ISDIR(mode) and (os.access(place, os.W_OK | os.X_OK) or (place == folder and not written))
    return False


@lru_cache(maxsize=1)
def _temporary() -> Path:
    """A folder that only this user can enter, under a name that nobody can foresee; it goes with the process."""
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
    """Only in the process that made it: a forked one ends too."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
