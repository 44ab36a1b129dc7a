"""Fetching of images over http and https: bounded in size and time, and only from hosts that may be connected to."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from tl_kit._version import __version__
from tl_kit.config import FetchConfig
from tl_kit.errors import ImageError
from tl_kit.inference.streaming.addresses import Address, Target, target_of
from tl_kit.inference.streaming.named import Named

__all__ = ["Live", "begin", "fetch", "fetched"]

_PIECE = 2**16
_EARLY = 0.02  # a timer may fire so many seconds too soon
_SECOND = 1.0  # Windows answers Ctrl-C between two waits alone
_HEADERS = {"User-Agent": f"tl-kit/{__version__}", "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}
_CODINGS = ("gzip", "x-gzip", "deflate", "compress", "br", "zstd")
_REDIRECTIONS = (301, 302, 303, 307, 308)


def fetched(items: Iterable[Named | None], config: FetchConfig) -> Iterator[Named | None]:
    """The items in order, with each address replaced by the bytes behind it, or by the reason why there are none.

    ``config.at_once`` addresses are fetched together. While one is slow, those behind it are fetched too, until
    ``config.ahead`` items wait for it, or ``config.held_bytes`` in memory. Before None (a pause) all that came before
    is passed on.
    """
    coming: deque[_Coming] = deque()
    live = Live()
    try:
        for item in items:
            if item is not None:
                address = item.source.text if isinstance(item.source, Address) else None
                coming.append(_Coming(item, None if address is None else begin(address, config, live)))
            while coming:
                addresses = [each.future for each in coming if each.future is not None]
                under_way = [future for future in addresses if not future.done()]
                turn = coming[0].future is None or (coming[0].done and len(addresses) >= config.at_once)
                if turn or item is None or _is_full(coming, config):
                    yield coming.popleft().named()
                elif len(under_way) >= config.at_once:
                    _wait_for_one_of(under_way)
                else:
                    break
            if item is None:
                yield None
        while coming:
            yield coming.popleft().named()
    finally:
        live.stop()


@dataclass(frozen=True)
class _Coming:
    """An item whose turn has not come, and its fetching if it is an address."""

    item: Named
    future: Future[bytes | ImageError] | None

    @property
    def done(self) -> bool:
        return self.future is None or self.future.done()

    @property
    def size(self) -> int:
        """Bytes in memory."""
        source = self.item.source if self.future is None else self.future.result() if self.future.done() else None
        return len(source) if isinstance(source, bytes) else 0

    def named(self) -> Named:
        """The item with what is behind its address, which this waits for."""
        if self.future is None:
            return self.item
        _wait_for_one_of([self.future])
        return Named(self.item.name, self.future.result())


def _is_full(coming: deque[_Coming], config: FetchConfig) -> bool:
    return len(coming) >= config.ahead or sum(each.size for each in coming) >= config.held_bytes


def _wait_for_one_of(futures: Sequence[Future[bytes | ImageError]]) -> None:
    while not wait(futures, timeout=_SECOND, return_when=FIRST_COMPLETED).done:
        pass


def begin(
    text: str,
    config: FetchConfig,
    live: Live,
    *,
    until: float | None = None,
    hold: Callable[[int], None] | None = None,
) -> Future[bytes | ImageError]:
    """Begin to fetch an address, as :func:`fetch` does, in a thread for which the interpreter does not wait at its end.

    The future has the bytes, or an ImageError as its result.
    """
    future: Future[bytes | ImageError] = Future()
    future.set_running_or_notify_cancel()

    def work() -> None:
        try:
            future.set_result(fetch(text, config, live, until=until, hold=hold))
        except ImageError as error:
            future.set_result(error)
        except BaseException as error:  # noqa: BLE001 - it belongs to those who wait for it
            future.set_exception(error)

    # a pool's threads would be waited for: a name that is looked up, and a connection that is made, cannot be cut
    threading.Thread(target=work, name="tlkit-fetch", daemon=True).start()
    return future


class Live:
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


def fetch(
    text: str,
    config: FetchConfig,
    live: Live | None = None,
    *,
    until: float | None = None,
    hold: Callable[[int], None] | None = None,
) -> bytes:
    """The bytes behind an address.

    Each redirection is checked as the address itself is, and every host is looked up once: the connection goes to the
    IP address that was checked. Through a proxy (of the environment) it is tunnelled to that IP address, too.
    ``until``: a moment of time.monotonic() at which it is given up, by default after ``config.seconds``. ``hold`` is
    called with the size of each piece that comes, and may raise. Raises ImageError with the reason for everything that
    goes wrong.
    """
    asked = _Asked(config, time.monotonic() + config.seconds if until is None else until, live or Live(), hold)
    try:
        for _ in range(config.redirects + 1):
            target = target_of(text, allow_private=config.allow_private)
            found = _get(target, asked)
            if isinstance(found, bytes):
                return found
            text = target.after(found)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if time.monotonic() >= asked.until:
            raise ImageError(f"cannot be fetched: took longer than {config.seconds:g} s") from error
        raise ImageError(f"cannot be fetched: {_reason(error)}") from error
    raise ImageError(f"cannot be fetched: more than {config.redirects} redirections")


@dataclass(frozen=True)
class _Asked:
    """The bounds of one address, redirections included."""

    config: FetchConfig
    until: float
    live: Live
    hold: Callable[[int], None] | None


def _get(target: Target, asked: _Asked) -> bytes | str:
    """The bytes behind an address, or the address that it redirects to; from the first IP address that answers.

    Each IP address has an equal share of the time for its connection.
    """
    error: OSError = TimeoutError("timed out")
    for others, ip in zip(reversed(range(len(target.ips))), target.ips, strict=True):
        left = asked.until - time.monotonic()
        if left <= 0:
            break
        connection = _Connection(target, ip, left / (others + 1))
        with asked.live.cut_after(connection, left):
            try:
                connection.connect()
            except ssl.SSLError:
                raise
            except OSError as failed:
                error = failed
                continue
            connection.sock.settimeout(left)
            found = _answer(connection, target, asked)
            if connection.ended:  # a body without a length seems whole then
                raise TimeoutError("timed out")
            return found
    raise error


def _answer(connection: _Connection, target: Target, asked: _Asked) -> bytes | str:
    connection.request("GET", target.path, headers={"Host": target.host_header, **_HEADERS})
    with connection.getresponse() as answer:
        if answer.status in _REDIRECTIONS and (location := answer.getheader("Location")):
            return location
        if answer.status != 200:
            raise ImageError(f"cannot be fetched: {answer.status} {answer.reason:.60}".rstrip())
        encoding = answer.getheader("Content-Encoding", "").strip().lower()
        if encoding in _CODINGS:
            raise ImageError(f"cannot be fetched: sent with the encoding {encoding:.20}, which nobody asked for")
        return _body(answer, asked)


def _body(answer: http.client.HTTPResponse, asked: _Asked) -> bytes:
    most = asked.config.max_bytes
    pieces, size = [], 0
    while True:
        if size > most or (answer.length or 0) > most:
            raise ImageError(f"too large: more than the {most:,} bytes that are fetched")
        if time.monotonic() >= asked.until:
            raise TimeoutError("timed out")
        piece = answer.read1(_PIECE)
        if not piece:
            break
        if asked.hold is not None:
            asked.hold(len(piece))
        pieces.append(piece)
        size += len(piece)
    if answer.length:
        if time.monotonic() >= asked.until - _EARLY:  # the timer has ended the connection
            raise TimeoutError("timed out")
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
        self.ended = False
        self._made: socket.socket | None = None

    def connect(self) -> None:
        super().connect()
        self._made = self.sock  # which http.client forgets before it has read a body without a length
        if self.ended:
            raise TimeoutError("timed out")
        if self._secure is not None:
            wrapped = _tls().wrap_socket(self.sock, server_hostname=self._secure, do_handshake_on_connect=False)
            self.sock = self._made = wrapped  # before the handshake, which cut may have to end
            wrapped.do_handshake()

    def cut(self) -> None:
        """End the connection, from another thread; one that is still being made ends once it is there."""
        self.ended = True
        for made in (self.sock, self._made):
            if made is not None:
                with suppress(OSError):
                    made.shutdown(socket.SHUT_RDWR)


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
