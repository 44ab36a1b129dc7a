"""Refusals: what a client is told when its request is not answered."""

from __future__ import annotations

__all__ = ["BusyError", "RefusedError"]


class RefusedError(Exception):
    """A request that is not answered: the HTTP status, and one line in plain words. It names no file of the server.

    ``retry``: seconds after which the same request may succeed.
    """

    def __init__(self, status: int, text: str, *, retry: int | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.retry = retry


class BusyError(RefusedError):
    """The server has as much to do as it takes on."""

    def __init__(self, text: str, *, retry: int) -> None:
        super().__init__(429, text, retry=retry)
