"""The guard of all requests: access, sizes and times of bodies, safety headers, and errors as answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tl_kit.config import ServeLimits
from tl_kit.serving.access import Access
from tl_kit.serving.refusal import BusyError, RefusedError

__all__ = ["Guard", "answer_of"]

_SAFETY = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_STRICT = "default-src 'none'; frame-ancestors 'none'"  # the page has a policy of its own


class Guard:
    """An ASGI application around the server's. It answers what it refuses, and what fails, in one line of JSON.

    A body is counted as it comes, and cut off where it is longer than ``limits.request_bytes``, or comes too slowly;
    nothing reads it ahead. All bodies together hold at most ``limits.held_bytes``. ``tell`` is called with a line about
    each failure of our own.
    """

    def __init__(self, app: ASGIApp, *, access: Access, limits: ServeLimits, tell: Callable[[str], None]) -> None:
        self._app = app
        self._access = access
        self._limits = limits
        self._tell = tell
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        reply = _Reply(send)
        headers = dict(scope["headers"])
        body = _Body(receive, self._limits, self._hold, expects=b"expect" in headers)
        try:
            self._access.check(scope["path"], headers, (scope.get("client") or (None,))[0])
            body.check_length(headers.get(b"content-length"))
            await asyncio.wait_for(self._app(scope, body, reply), self._limits.seconds)
        except RefusedError as error:
            await self._refuse(error, body, reply)
        except ClientDisconnect:
            pass
        except asyncio.TimeoutError:
            text = f"no answer within {self._limits.seconds:g} seconds; send fewer images, or try again later"
            await self._refuse(RefusedError(503, text, retry=self._limits.retry_seconds), body, reply)
        except Exception as error:  # noqa: BLE001 - one request must not end the server
            reason = " ".join(str(error).split())[:200]
            self._tell(f"{scope['method']} {scope['path'][:60]!r} failed: {type(error).__name__}: {reason}")
            await self._refuse(
                RefusedError(500, "the server failed on this request; its console says more"), body, reply
            )
        finally:
            self._hold(-body.held)

    def _hold(self, size: int) -> None:
        if size > 0 and self._held + size > self._limits.held_bytes:
            raise BusyError("too many bytes are under way; send this again later", retry=self._limits.retry_seconds)
        self._held += size

    async def _refuse(self, error: RefusedError, body: _Body, reply: _Reply) -> None:
        if reply.begun:
            return
        await body.drain()
        headers, text = answer_of(error)
        if not body.ended:
            headers["connection"] = "close"  # else the rest of the body would be read before the next request
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await reply({"type": "http.response.start", "status": error.status, "headers": pairs})
        await reply({"type": "http.response.body", "body": text})


def answer_of(error: RefusedError) -> tuple[dict[str, str], bytes]:
    """The headers and the body of a refusal."""
    text = json.dumps({"error": error.text}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(text))}
    if error.retry is not None:
        headers["retry-after"] = str(error.retry)
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return headers, text


class _Reply:
    """The way back to the client: every answer has the safety headers, unless it has its own of that name."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            own = {name.lower() for name, _ in message["headers"]}
            wanted = {"content-security-policy": _STRICT, **_SAFETY}
            more = [(n.encode(), v.encode()) for n, v in wanted.items() if n.encode() not in own]
            message = {**message, "headers": [*message["headers"], *more]}
        await self._send(message)


class _Body:
    """A request's body as it comes, within the limits on bytes and time."""

    def __init__(self, receive: Receive, limits: ServeLimits, hold: Callable[[int], None], *, expects: bool) -> None:
        self._receive = receive
        self._limits = limits
        self._hold = hold
        self._until = asyncio.get_running_loop().time() + limits.body_seconds
        self._size = 0
        self._unasked = expects  # the client sends its body once somebody reads
        self.held = 0
        self.ended = False

    def check_length(self, declared: bytes | None) -> None:
        """Raises RefusedError for a body whose declared length is too large, before any of it is read."""
        if declared is not None and declared.isdigit() and int(declared[:20]) > self._limits.request_bytes:
            raise self._too_large()

    async def __call__(self) -> Message:
        self._unasked = False
        message = await self._next(self._until)
        size = len(message.get("body", b""))
        self._size += size
        if self._size > self._limits.request_bytes:
            raise self._too_large()
        self._hold(size)
        self.held += size
        return message

    async def drain(self) -> None:
        """Read and drop what a refused client still sends, up to a bound, so that it can read the answer."""
        until = min(self._until, asyncio.get_running_loop().time() + 1)
        dropped = 0
        try:
            while not self.ended and not self._unasked and dropped < self._limits.drain_bytes:
                dropped += len((await self._next(until)).get("body", b""))
        except RefusedError:
            pass

    async def _next(self, until: float) -> Message:
        if self.ended:
            return await self._receive()  # the news that the client has gone
        try:
            message: dict[str, Any] = dict(
                await asyncio.wait_for(self._receive(), max(0.0, until - asyncio.get_running_loop().time()))
            )
        except asyncio.TimeoutError as error:
            raise RefusedError(408, "the request came too slowly") from error
        self.ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    def _too_large(self) -> RefusedError:
        return RefusedError(413, f"the request is too large: at most {self._limits.request_bytes:,} bytes are taken")
