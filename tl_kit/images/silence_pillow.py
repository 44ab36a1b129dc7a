"""Silence Pillow and its libraries: tl-kit reports faults of a file as errors of its own."""

from __future__ import annotations

import ctypes
import logging
import re
import warnings
from functools import lru_cache

from PIL import Image

from tl_kit.machine.forks import ForkLock

__all__ = ["hush_pillow"]

_PILLOW = re.compile(r"PIL\.")
_lock = ForkLock()


def hush_pillow() -> None:
    """Nothing on stderr, no warning, from what Pillow decodes; call it before each image.

    The filter list belongs to the process and ``catch_warnings`` is not safe among threads, so one narrow rule
    is put in front where it is not, and stays.
    """
    _hush_libraries()
    if _is_hushed():  # the usual case, without the lock
        return
    with _lock:
        if not _is_hushed():
            warnings.filterwarnings("ignore", module=_PILLOW.pattern)


def _is_hushed() -> bool:
    first = next(iter(warnings.filters), None)
    return first is not None and first[0] == "ignore" and first[3] == _PILLOW


@lru_cache(maxsize=1)
def _hush_libraries() -> None:
    """Pillow's loggers say nothing where nobody has asked for logs; libtiff prints no errors of its own."""
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    try:
        library = ctypes.CDLL(vars(Image)["core"].__file__)  # the loader finds what it is linked with, too
        handler = library.TIFFSetErrorHandler
    except (AttributeError, OSError, TypeError):  # linked statically, or a platform that looks no further
        return
    handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
    handler(None)
