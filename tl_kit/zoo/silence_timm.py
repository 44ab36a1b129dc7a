"""Silencing of timm and the hub client: their log lines and warnings stay off the terminal within a block."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet"]

_LOGGERS = ("timm", "huggingface_hub")


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block neither library logs or warns; levels and filters are restored afterwards.

    The caller checks what their important messages would report (a missing tensor, an unavailable file), and raises an
    error instead.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
