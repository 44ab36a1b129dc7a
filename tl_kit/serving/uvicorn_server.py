"""uvicorn, which stops on SIGTERM and Ctrl-C once the running requests have their answers."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import uvicorn

from tl_kit.config import ServeLimits
from tl_kit.serving.connections import connections_within
from tl_kit.stopping import restored_handlers

__all__ = ["run", "server_of", "within_files"]

_OTHER_FILES = 256  # weights, fetched images, and connections that are accepted to be refused
_AT_ONCE = 32  # connections are accepted before the first of them is looked at
_LACKS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_MINUTE = 60.0


class _Server(uvicorn.Server):
    """The server. A signal that it has obeyed does not end the process: its caller has something to say."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(socket.SOMAXCONN)  # the queue in the kernel, to which asyncio gives the length below
        self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        with restored_handlers() as before:
            for number, handler in before.items():
                if handler is not signal.SIG_IGN:  # a shell's background job ignores Ctrl-C
                    signal.signal(number, self.handle_exit)
            yield


def server_of(app: Any, limits: ServeLimits, *, ready: Callable[[], None]) -> uvicorn.Server:
    """The server of an ASGI application; ``ready`` is called once it answers. Setting ``should_exit`` stops it too."""
    config = uvicorn.Config(
        app,
        http=connections_within(limits),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",  # whatever a client can cause is an answer, and no line on the console
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_AT_ONCE,
        timeout_keep_alive=max(1, round(limits.idle_seconds)),
        timeout_graceful_shutdown=max(1, round(limits.seconds)),
        h11_max_incomplete_event_size=2**15,
    )
    return _Server(config, ready)


def run(server: uvicorn.Server, listener: socket.socket, *, tell: Callable[[str], None] = lambda _: None) -> None:
    """Serve at an open socket until a signal. ``tell`` is called with a line where connections cannot be accepted."""
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # as log_level above

    async def serving() -> None:
        asyncio.get_running_loop().set_exception_handler(_Complaints(tell))
        await server.serve(sockets=[listener])

    asyncio.run(serving())


class _Complaints:
    """The event loop's complaints. A lack of files or memory, which each connection meets, is told once a minute."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell, self._told = tell, -_MINUTE

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in _LACKS:
            loop.default_exception_handler(context)
        elif loop.time() - self._told >= _MINUTE:
            self._told = loop.time()
            self._tell(f"new connections wait: {error.strerror}")


def within_files(limits: ServeLimits, *, tell: Callable[[str], None]) -> ServeLimits:
    """The limits, with as many connections as the process may open files; ``tell`` is called if they are fewer.

    The process's own limit is raised where it may be. Without a file for it a connection cannot be accepted and
    refused, and asyncio tries it again and again.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return limits
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return limits
    fewer = max(1, soft - min(_OTHER_FILES, soft // 2))
    tell(f"at most {fewer:,} connections at a time, since this process may open {soft:,} files (ulimit -n)")
    return replace(limits, connections=fewer)
