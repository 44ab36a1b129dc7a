"""``serve``: a classifier as a page and an HTTP interface, until somebody stops it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tl_kit.config import DecodeConfig, ServeConfig
from tl_kit.errors import ConfigError
from tl_kit.inference.exported import open_classifier
from tl_kit.optional_packages import check_packages
from tl_kit.plain_values import takes_plain_values
from tl_kit.reporting import SILENT, Reporter, tell
from tl_kit.serving.access import access_of

__all__ = ["serve"]

_NEEDED = ("fastapi", "uvicorn", "python_multipart")


@takes_plain_values
def serve(config: ServeConfig, *, reporter: Reporter = SILENT, ready: Callable[[str], None] | None = None) -> int:
    """Serve a checkpoint, an ensemble or an exported ONNX file over HTTP until SIGTERM or Ctrl-C.

    Both let running requests finish, refuse new ones, and end the call, which returns the number of images predicted;
    a second Ctrl-C does not wait. ``ready`` is called with the server's address once it listens. Raises ConfigError if
    the extra ``serve`` is not installed, for an address that cannot be had, and for a server that everybody on the
    network could use unasked; what ``load`` raises. Handlers of signals are set in the main thread alone; in another
    thread the call ends with the process.
    """
    check_packages("serve", *_NEEDED, extra="serve", error=ConfigError)
    if config.allow_private and not config.urls:
        raise ConfigError("--allow-private: is for addresses that the server fetches; give --urls too")
    access = access_of(config)
    with _listening(config) as listener:  # first: whether there is room at the address is known at once
        classifier = open_classifier(
            Path(config.checkpoint),
            crops=config.crops,
            mc_dropout=config.mc_dropout,
            decode=DecodeConfig(max_pixels=config.limits.pixels),
            runtime=config.runtime,
        )
        tell(reporter)
        from tl_kit.serving.application import application
        from tl_kit.serving.uvicorn_server import run, server_of, within_files

        config = replace(config, limits=within_files(config.limits, tell=reporter.message))
        app = application(classifier, config, access=access, tell=reporter.message)
        address = _address(config, listener)
        server = server_of(app, config.limits, ready=lambda: None if ready is None else ready(address))
        run(server, listener, tell=reporter.message)
    return int(app.state.batcher.images)


@contextmanager
def _listening(config: ServeConfig) -> Iterator[socket.socket]:
    """An open socket at the configured address. Raises ConfigError where there can be none."""
    try:
        kind, _, _, _, place = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.create_server(place[:2], family=kind, backlog=socket.SOMAXCONN)
    except socket.gaierror as error:
        raise ConfigError(f"--host {config.host}: no such address ({error.strerror})") from error
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            why = "is used by another program" if error.errno == errno.EADDRINUSE else "needs more rights"
            raise ConfigError(f"--port {config.port}: {why}; choose another, or 0 for any free one") from error
        raise ConfigError(f"--host {config.host}: cannot be listened at ({error.strerror})") from error
    with listener:
        yield listener


def _address(config: ServeConfig, listener: socket.socket) -> str:
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"http://{host}:{listener.getsockname()[1]}/"
