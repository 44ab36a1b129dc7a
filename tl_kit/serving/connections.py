"""Connections: a client that opens one and says nothing, or takes no answer, or opens too many, holds up nobody."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from tl_kit.config import ServeLimits
from tl_kit.serving.guard import answer_of
from tl_kit.serving.refusal import BusyError

__all__ = ["connections_within"]

_LOOKS = 4  # at a connection in the time that an answer may take


def connections_within(limits: ServeLimits) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with limits on the time of heads and answers, and on the number of connections."""
    return type("Limited", (_Limited,), {"limits": limits})


class _Limited(H11Protocol):
    """One connection of a client."""

    limits: ServeLimits
    _deadline: asyncio.TimerHandle | None = None
    _look: asyncio.TimerHandle | None = None
    _unsent: tuple[object, float] | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # asyncio does so only for sockets that name their protocol; else each answer waits 40 ms for a receipt
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch()
        if len(self.connections) > self.limits.connections:
            headers, text = answer_of(BusyError("too many connections", retry=self.limits.retry_seconds))
            lines = [f"{name}: {value}\r\n" for name, value in {**headers, "connection": "close"}.items()]
            transport.write(b"HTTP/1.1 429 Too Many Requests\r\n" + "".join(lines).encode() + b"\r\n" + text)
            transport.close()
            return
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._end()  # a request is under way, and the guard watches its body
        elif self._deadline is None:
            self._begin()

    def _begin(self) -> None:
        self._deadline = self.loop.call_later(self.limits.header_seconds, self._give_up)

    def _end(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()

    def _watch(self) -> None:
        """Now and then: end the connection of a client that does not take its answer, which it would hold up."""
        if not self.transport.get_write_buffer_size():
            self._unsent = None
        elif self._unsent is None or self._unsent[0] is not self.cycle:
            self._unsent = self.cycle, self.loop.time()
        elif self.loop.time() - self._unsent[1] >= self.limits.answer_seconds:
            self.transport.abort()
            return
        self._look = self.loop.call_later(self.limits.answer_seconds / _LOOKS, self._watch)
