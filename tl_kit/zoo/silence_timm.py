"""Keep timm's and the hub client's log lines and warnings off the user's terminal, for the length of a block."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet"]

_LOGGERS = ("timm", "huggingface_hub")


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block neither library logs or warns; levels and filters are put back afterwards.

    What matters in their messages (a tensor that is missing, a file that cannot be had) is checked by the caller and
    raised as an error instead.
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
