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
    base = _base()
    return (base if isinstance(base, Path) else _temporary()) / _OWN


def cache_line() -> str | None:
    """One line for the user: what is wrong with the cache's place, and where it is instead; None if nothing is.

    Whoever asks says it: :func:`user_cache` does not note the same again. Raises as :func:`user_cache` does.
    """
    line = _line()
    if line is not None:
        _SAID.add(line)
    return line


def _line() -> str | None:
    base, given = _base(), os.environ.get(_XDG)
    parts = [f"{_XDG}={given} is no absolute path, and is ignored"] if given and not Path(given).is_absolute() else []
    if not isinstance(base, Path):
        parts.append(f"{base}: the cache is {_temporary()}, and goes when this command ends; set {_XDG} to keep one")
    return "; ".join(parts) or None


def prepare_libraries() -> None:
    """Point libraries to a folder that can be used where their own lies in a home folder that cannot be.

    huggingface_hub, torch and matplotlib look at their variables when they are imported, so this comes first. Without
    a home the first two would write into a folder named ``~`` below the working directory. What a user has set stays.
    """
    with suppress(ResourceError):  # it is told where a cache is needed
        for variable, others, name in _LIBRARIES:
            if not any(os.environ.get(each) for each in (variable, *others)):
                _point(variable, _base(name, written=False), name)
        if not os.environ.get(_MATPLOTLIB):
            _point(_MATPLOTLIB, _matplotlib(), "matplotlib")


def _point(variable: str, base: Path | str, name: str) -> None:
    """Set the variable where the library would not find the place by itself."""
    odd = os.environ.get(_XDG) is not None and not Path(os.environ[_XDG]).is_absolute()
    if not isinstance(base, Path):
        os.environ[variable] = str(_temporary() / name)
    elif odd:
        os.environ[variable] = str(base / name)


def _base(name: str = _OWN, *, written: bool = True) -> Path | str:
    """Where caches are by the XDG rules, or in words, why ``name`` cannot be there.

    With ``written`` False, a folder that is there may be one that can only be read.
    """
    given = os.environ.get(_XDG, "")
    if Path(given).is_absolute():
        return Path(given) if _fits(Path(given, name), written) else f"{_XDG}: {given} cannot be written"
    home = _home()
    if home is None:
        return "no home folder: HOME names none, and the user has no entry in passwd"
    cache = home / ".cache"
    return cache if _fits(cache / name, written) else f"the home folder: {cache / name} cannot be written"


def _home() -> Path | None:
    try:
        home = Path.home()
    except (RuntimeError, KeyError):
        return None
    return home if home.is_absolute() else None


def _matplotlib() -> Path | str:
    """Its settings and its cache are in two folders on Linux, in one elsewhere; both must be there or be made."""
    home, given = _home(), os.environ.get("XDG_CONFIG_HOME")
    if not sys.platform.startswith(("linux", "freebsd")):
        return home if home is not None and _fits(home / ".matplotlib", True) else "no home folder"
    config = Path(given) if given else None if home is None else home / ".config"
    fits = config is not None and _fits(config / "matplotlib", True)
    return _base("matplotlib") if fits else "no folder for settings"


def _fits(folder: Path, written: bool) -> bool:
    """Whether a folder is there or can be made, and can be written; or is there at all where it need not be."""
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
