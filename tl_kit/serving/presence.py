"""Presence: work for a client ends when the client goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

__all__ = ["while_there"]

_Found = TypeVar("_Found")


async def while_there(request: Request, work: Coroutine[Any, Any, _Found]) -> _Found:
    """The result of work for a request whose body has been read. Raises what the work raises.

    If the client closes its connection first, the work is cancelled, and this raises ClientDisconnect.
    """
    task, gone = asyncio.create_task(work), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
