"""Connections: too many, too slow, and more than there are files."""

from __future__ import annotations

import asyncio
import errno
import selectors
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.serving.conftest import listening
from tests.serving.raw_clients import answer, ask, body_of, connect, head_of
from tl_kit.config import ServeLimits
from tl_kit.serving.uvicorn_server import _Complaints, within_files

GET = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


@contextmanager
def files_of(soft: int, hard: int | None = None) -> Iterator[Any]:
    """This process may open so many files; ``hard`` is what a test pretends, since it could not be raised again."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.MonkeyPatch.context() as patch:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
            if hard is not None:
                get, set_ = resource.getrlimit, resource.setrlimit
                patch.setattr(resource, "getrlimit", lambda kind: (get(kind)[0], hard))
                patch.setattr(resource, "setrlimit", lambda kind, pair: set_(kind, (pair[0], before[1])))
            yield lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        finally:
            patch.undo()
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_on_files_is_above_that_on_connections() -> None:
    said: list[str] = []
    with files_of(512) as now:
        assert within_files(ServeLimits(connections=600), tell=said.append) == ServeLimits(connections=600)
        assert now() == 600 + 256
        assert within_files(ServeLimits(connections=10), tell=said.append) == ServeLimits(connections=10)
        assert now() == 600 + 256, "it is not lowered"
    assert said == []


@pytest.mark.parametrize(("hard", "connections"), [(1024, 768), (600, 344), (300, 150), (512, 256)])
def test_where_files_are_few_there_are_fewer_connections(hard: int, connections: int) -> None:
    said: list[str] = []
    with files_of(256, hard) as now:
        assert within_files(ServeLimits(), tell=said.append) == ServeLimits(connections=connections)
        assert now() == hard
    assert said == [
        f"at most {connections:,} connections at a time, since this process may open {hard:,} files (ulimit -n)"
    ]


def test_a_lack_of_files_is_a_line_and_no_flood() -> None:
    said: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        complain = _Complaints(said.append)
        now = 1000.0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "time", lambda: now)
            for _ in range(500):
                complain(
                    loop, {"message": "socket.accept()", "exception": OSError(errno.EMFILE, "Too many open files")}
                )
            now += 61
            complain(loop, {"message": "socket.accept()", "exception": OSError(errno.EMFILE, "Too many open files")})
            other: list[Any] = []
            patch.setattr(loop, "default_exception_handler", other.append)
            complain(loop, {"message": "a fault of ours"})
            assert other == [{"message": "a fault of ours"}]

    asyncio.run(main())
    assert said == ["new connections wait: Too many open files"] * 2


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on files")
def test_connections_too_many_by_far_all_get_an_answer(ensemble: Path) -> None:
    """Eight hundred at once, of which half begin a request; forty are kept, and none of these is disturbed."""
    said: list[str] = []
    with files_of(2048), ExitStack() as stack:
        limits = ServeLimits(connections=40, header_seconds=60.0)
        port = stack.enter_context(listening(ensemble, limits, tell=said.append))
        selector = stack.enter_context(selectors.DefaultSelector())
        for place in range(800):
            connection = stack.enter_context(connect(port))
            selector.register(connection, selectors.EVENT_READ, place % 2)
            if place % 2:
                with suppress(ConnectionError):
                    connection.sendall(GET[:8])
        answered: dict[Any, bytes] = {}
        while len(answered) < 760 and (ready := selector.select(30)):
            for key, _ in ready:
                answered[key.fileobj] = rest_of(key.fileobj)  # type: ignore[arg-type]
                selector.unregister(key.fileobj)
        assert len(answered) == 760
        assert all(text.startswith(b"HTTP/1.1 429 ") for text in answered.values())
        assert selector.select(0.1) == []
        kept = next(iter(selector.get_map().values()))
        kept.fileobj.sendall(GET[8 * kept.data :])  # type: ignore[union-attr]
        assert rest_of(kept.fileobj).startswith(b"HTTP/1.1 200 ")  # type: ignore[arg-type]
    assert said == []


def rest_of(connection: socket.socket) -> bytes:
    """What comes until the other end closes."""
    pieces = []
    with suppress(ConnectionError):
        while piece := connection.recv(2**16):
            pieces.append(piece)
    return b"".join(pieces)


def test_a_connection_too_many_can_read_its_answer_though_it_sends(ensemble: Path) -> None:
    body = body_of("large.jpg") * 40
    with listening(ensemble, ServeLimits(connections=1)) as port, connect(port), connect(port) as more:
        with suppress(ConnectionError):
            more.sendall(head_of(len(body)) + body)
        assert answer(more)[0] == 429


def test_a_client_that_takes_no_answer_is_sent_away(ensemble: Path) -> None:
    """Answers for the page fill its buffers; the others are not held up, and what it does not take is dropped."""
    asked = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n" * 500
    with listening(ensemble, ServeLimits(answer_seconds=0.4)) as port, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.settimeout(30)
        deaf.connect(("127.0.0.1", port))
        deaf.sendall(asked)
        time.sleep(1.5)
        assert ask(port, "photo.jpg") == 200
        assert rest_of(deaf).count(b"<!doctype html>") < 500


def test_clients_that_say_nothing_are_sent_away(ensemble: Path) -> None:
    limits = ServeLimits(header_seconds=0.3, idle_seconds=30)
    with listening(ensemble, limits) as port, connect(port) as silent, connect(port) as slow, connect(port) as second:
        slow.sendall(b"POST /predict HT")
        second.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert answer(second)[0] == 200
        second.sendall(b"GET /hea")  # the second request of a connection has the same limit
        for connection in (silent, slow, second):
            assert connection.recv(100) == b""
        assert ask(port, "photo.jpg") == 200


def test_answers_do_not_wait_for_a_receipt(ensemble: Path) -> None:
    """The kernel holds back the second part of an answer for 40 ms, unless it is told not to (Nagle, RFC 896)."""
    with listening(ensemble) as port, connect(port) as connection:
        seconds = []
        for _ in range(40):
            started = time.perf_counter()
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert answer(connection)[0] == 200
            seconds.append(time.perf_counter() - started)
    assert min(seconds[5:]) < 0.035


def test_too_many_connections(ensemble: Path) -> None:
    with listening(ensemble, ServeLimits(connections=3)) as port:
        kept = [connect(port) for _ in range(3)]
        kept[0].sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert answer(kept[0])[0] == 200
        with connect(port) as more:
            assert answer(more) == (429, {"error": "too many connections"}, "1")
        for connection in kept:
            connection.close()
        deadline = time.monotonic() + 30
        while ask(port, "photo.jpg") != 200 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert ask(port, "photo.jpg") == 200
