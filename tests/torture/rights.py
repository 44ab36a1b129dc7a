"""Rights that bind the superuser too, so that a folder without the right to write is one, whoever runs the tests."""

from __future__ import annotations

import ctypes
import os

__all__ = ["bound_by_rights"]

# capabilities(7), capset(2)
_VERSION_3 = 0x20080522
_MAY_WRITE_AND_READ_ANYTHING = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def bound_by_rights() -> None:
    """For :class:`Command`: give up the capabilities that make the superuser's files writable whatever their mode."""
    if not hasattr(os, "getuid") or os.getuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = _Header(_VERSION_3, 0), (_Data * 2)()
    if libc.capget(ctypes.byref(header), data) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    data[0].effective &= ~_MAY_WRITE_AND_READ_ANYTHING
    if libc.capset(ctypes.byref(header), data) != 0:
        raise OSError(ctypes.get_errno(), "capset")
