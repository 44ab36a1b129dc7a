"""Fetching of images over http and https: bounded in size and time, and only from hosts that may be connected to."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from tl_kit._version import __version__
from tl_kit.config import FetchConfig
from tl_kit.errors import ImageError
from tl_kit.inference.streaming.addresses import Address, Target, target_of
from tl_kit.inference.streaming.named import Named

__all__ = ["fetch", "fetched"]

_PIECE = 2**16
_HEADERS = {"User-Agent": f"tl-kit/{__version__}", "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}
_REDIRECTIONS = (301, 302, 303, 307, 308)


def fetched(items: Iterable[Named | None], config: FetchConfig) -> Iterator[Named | None]:
    """The items in order, with each address replaced by the bytes behind it, or by the reason why there are none.

    ``config.at_once`` addresses are fetched together. Before None (a pause) all that came before is passed on.
    """
    coming: deque[tuple[Named, Future[bytes | ImageError] | None]] = deque()
    under_way, live = 0, _Live()
    pool = ThreadPoolExecutor(config.at_once, thread_name_prefix="tlkit-fetch")
    try:
        for item in items:
            future = None
            if item is not None and isinstance(item.source, Address):
                future = pool.submit(_source_of, item.source.text, config, live)
                under_way += 1
            if item is not None:
                coming.append((item, future))
            while coming and (item is None or coming[0][1] is None or under_way >= config.at_once):
                under_way -= coming[0][1] is not None
                yield _done(*coming.popleft())
            if item is None:
                yield None
        while coming:
            yield _done(*coming.popleft())
    finally:
        live.stop()  # the interpreter waits for these threads before it ends
        pool.shutdown(wait=False, cancel_futures=True)


def _done(item: Named, future: Future[bytes | ImageError] | None) -> Named:
    return item if future is None else Named(item.name, future.result())


def _source_of(text: str, config: FetchConfig, live: _Live) -> bytes | ImageError:
    try:
        return fetch(text, config, live)
    except ImageError as error:
        return error


class _Live:
    """Connections under way, which another thread can end."""

    def __init__(self) -> None:
        self._lock, self._open, self._stopped = threading.Lock(), set[_Connection](), False

    @contextmanager
    def cut_after(self, connection: _Connection, seconds: float) -> Iterator[None]:
        """End the connection after so many seconds in all; a socket's own timeout starts anew with every byte."""
        watch = threading.Timer(max(0.0, seconds), connection.cut)
        watch.daemon = True
        with self._lock:
            if self._stopped:
                raise TimeoutError("stopped")
            self._open.add(connection)
        watch.start()
        try:
            yield
        finally:
            watch.cancel()
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def stop(self) -> None:
        """End all connections, and let no more begin."""
        with self._lock:
            self._stopped = True
            for connection in self._open:
                connection.cut()


def fetch(text: str, config: FetchConfig, live: _Live | None = None) -> bytes:
    """The bytes behind an address.

    Each redirection is checked as the address itself is, and every host is looked up once: the connection goes to the
    IP address that was checked. Through a proxy (of the environment) it is tunnelled to that IP address, too. Raises
    ImageError with the reason for everything that goes wrong.
    """
    until, live = time.monotonic() + config.seconds, live or _Live()
    try:
        for _ in range(config.redirects + 1):
            target = target_of(text, allow_private=config.allow_private)
            found = _get(target, config, until, live)
            if isinstance(found, bytes):
                return found
            text = target.after(found)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if time.monotonic() >= until:
            raise ImageError(f"cannot be fetched: took longer than {config.seconds:g} s") from error
        raise ImageError(f"cannot be fetched: {_reason(error)}") from error
    raise ImageError(f"cannot be fetched: more than {config.redirects} redirections")


def _get(target: Target, config: FetchConfig, until: float, live: _Live) -> bytes | str:
    """The bytes behind an address, or the address that it redirects to; from the first IP address that answers."""
    error: OSError = TimeoutError("timed out")
    for ip in target.ips:
        left = until - time.monotonic()
        if left <= 0:
            break
        connection = _Connection(target, ip, left)
        with live.cut_after(connection, left):
            try:
                connection.connect()
            except ssl.SSLError:
                raise
            except OSError as failed:
                error = failed
                continue
            return _answer(connection, target, config, until)
    raise error


def _answer(connection: _Connection, target: Target, config: FetchConfig, until: float) -> bytes | str:
    connection.request("GET", target.path, headers={"Host": target.host_header, **_HEADERS})
    with connection.getresponse() as answer:
        if answer.status in _REDIRECTIONS and (location := answer.getheader("Location")):
            return location
        if answer.status != 200:
            raise ImageError(f"cannot be fetched: {answer.status} {answer.reason:.60}".rstrip())
        encoding = answer.getheader("Content-Encoding", "identity").lower()
        if encoding != "identity":
            raise ImageError(f"cannot be fetched: sent with the encoding {encoding:.20}, which nobody asked for")
        return _body(answer, config, until)


def _body(answer: http.client.HTTPResponse, config: FetchConfig, until: float) -> bytes:
    pieces, size = [], 0
    while True:
        if size > config.max_bytes or (answer.length or 0) > config.max_bytes:
            raise ImageError(f"too large: more than the {config.max_bytes:,} bytes that are fetched")
        if time.monotonic() >= until:
            raise TimeoutError("timed out")
        piece = answer.read1(_PIECE)
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
    if answer.length:
        raise ImageError(f"cannot be fetched: the connection ended {answer.length:,} bytes early")
    return b"".join(pieces)


class _Connection(http.client.HTTPConnection):
    """A connection to an IP address, or to a proxy that tunnels to it, with TLS for the name of the host."""

    def __init__(self, target: Target, ip: str, timeout: float) -> None:
        proxy = _proxy(target)
        if proxy is None:
            super().__init__(ip, target.port, timeout=timeout)
        else:
            at, headers = proxy
            super().__init__(*at, timeout=timeout)
            self.set_tunnel(ip, target.port, headers=headers)
        self._secure = target.host if target.scheme == "https" else None

    def connect(self) -> None:
        super().connect()
        if self._secure is not None:
            wrapped = _tls().wrap_socket(self.sock, server_hostname=self._secure, do_handshake_on_connect=False)
            self.sock = wrapped  # before the handshake, which cut may have to end
            wrapped.do_handshake()

    def cut(self) -> None:
        """End the connection, from another thread."""
        with suppress(OSError, AttributeError):
            self.sock.shutdown(socket.SHUT_RDWR)


def _proxy(target: Target) -> tuple[tuple[str, int], dict[str, str]] | None:
    """Host and port of the proxy that the environment names for an address, and headers for it."""
    proxies = getproxies()
    given = proxies.get(target.scheme) or proxies.get("all")
    if not given or proxy_bypass(target.host):
        return None
    parts = urlsplit(given if "://" in given else f"http://{given}")
    if parts.scheme.lower() != "http" or not parts.hostname:
        raise ImageError(f"cannot be fetched: the proxy is one of {parts.scheme}, and only http proxies are used")
    headers = {}
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {b64encode(user.encode()).decode('ascii')}"
    return (parts.hostname, parts.port or 80), headers


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _reason(error: Exception) -> str:
    text = getattr(error, "verify_message", None) or getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split()) or type(error).__name__
