"""uvicorn, which stops on SIGTERM and Ctrl-C once the running requests have their answers."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from tl_kit.config import ServeLimits
from tl_kit.serving.connections import connections_within
from tl_kit.stopping import restored_handlers

__all__ = ["allow_files", "run", "server_of"]

_OTHER_FILES = 256  # weights, images under way, libraries


class _Server(uvicorn.Server):
    """The server. A signal that it has obeyed does not end the process: its caller has something to say."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
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
        backlog=limits.connections,
        timeout_keep_alive=max(1, round(limits.idle_seconds)),
        timeout_graceful_shutdown=max(1, round(limits.seconds)),
        h11_max_incomplete_event_size=2**15,
    )
    return _Server(config, ready)


def run(server: uvicorn.Server, listener: socket.socket) -> None:
    """Serve at an open socket until a signal."""
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # as log_level above
    allow_files(server.config.backlog)
    asyncio.run(server.serve(sockets=[listener]))


def allow_files(connections: int) -> None:
    """Raise the process's limit on open files so far that the limit on connections comes first, if it may be raised.

    Without a file for it a connection cannot be accepted and refused; asyncio tries it again and again.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
