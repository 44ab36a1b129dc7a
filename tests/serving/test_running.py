"""A server that listens: it stops when asked, once what runs is done, and no client ends it or holds up the others."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

import tl_kit
from tests.cli.helpers import start, tlkit
from tests.serving.conftest import listening
from tests.serving.raw_clients import answer, ask, body_of, connect, head_of
from tl_kit.config import ServeConfig, ServeLimits


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_a_signal_lets_what_runs_finish_and_refuses_the_rest(ensemble: Path) -> None:
    process = start("serve", ensemble, "--port", 0)
    assert process.stdout is not None
    port = int(re.findall(r":(\d+)/", process.stdout.readline())[0])
    assert tlkit("serve", ensemble, "--port", port).err == (
        f"error: --port {port}: is used by another program; choose another, or 0 for any free one\n"
    )
    body = body_of("photo.jpg", "large.jpg")
    with connect(port) as running, connect(port) as idle:
        running.sendall(head_of(len(body)) + body[:100])
        idle.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert answer(idle)[0] == 200
        os.kill(process.pid, signal.SIGTERM)
        assert idle.recv(1) == b""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                connect(port).close()
            except ConnectionRefusedError:
                break
            time.sleep(0.02)
        else:
            pytest.fail("new connections are taken")
        running.sendall(body[100:])
        status, content, _ = answer(running)
        assert (status, len(content["predictions"])) == (200, 2)  # type: ignore[arg-type]
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "Ctrl-C stops the server\n")
    assert out.splitlines()[-1] == "stopped; 2 images predicted"


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_ctrl_c_ends_the_call_and_leaves_the_handlers_as_they_were(ensemble: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    found: list[int] = []

    def client(address: str) -> None:
        found.append(ask(int(address.rpartition(":")[2].strip("/")), "photo.jpg"))
        os.kill(os.getpid(), signal.SIGINT)

    thread: list[threading.Thread] = []

    def ready(address: str) -> None:
        thread.append(threading.Thread(target=client, args=(address,)))
        thread[0].start()

    try:
        assert tl_kit.serve(ServeConfig(checkpoint=ensemble, port=0), ready=ready) == 1
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    thread[0].join()
    assert found == [200]


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_ten_gigabytes_are_cut_off_and_not_kept(ensemble: Path, declared: bool) -> None:
    limits = ServeLimits(request_bytes=2**22, drain_bytes=2**20)
    piece = bytes(2**16)
    piece = piece if declared else b"%x\r\n%s\r\n" % (len(piece), piece)
    with listening(ensemble, limits) as port, connect(port) as connection:
        before = psutil.Process().memory_info().rss
        connection.sendall(head_of(10 * 2**30 if declared else None))
        sent = 0
        try:
            while sent < 2**28:
                connection.sendall(piece)
                sent += len(piece)
        except (ConnectionError, TimeoutError):
            pass
        assert sent < 2**26  # what the kernel buffers included
        assert psutil.Process().memory_info().rss - before < 2**27
        assert ask(port, "photo.jpg") == 200


def test_the_answer_to_a_body_that_is_a_bit_too_long_can_be_read(ensemble: Path) -> None:
    with listening(ensemble, ServeLimits(request_bytes=2**16)) as port, connect(port) as connection:
        connection.sendall(head_of(2**20) + bytes(2**20))
        status, content, _ = answer(connection)
    assert (status, content["error"]) == (413, "the request is too large: at most 65,536 bytes are taken")


def test_two_hundred_clients_at_once_all_get_an_answer(ensemble: Path) -> None:
    """Some send what is no image, some go away in the middle; the queue is short."""
    names = ["photo.jpg", "text.jpg", "cut.jpg", "bomb.png", "deep.tif"]

    def client(place: int) -> int:
        if place % 10 == 9:
            with connect(port) as connection:
                body = body_of("large.jpg")
                connection.sendall(head_of(len(body)) + body[: len(body) // 2])
            return 0
        return ask(port, names[place % len(names)])

    with listening(ensemble, ServeLimits(queue=8, files=8)) as port:
        with ThreadPoolExecutor(50) as pool:
            found = list(pool.map(client, range(200)))
        allowed = {"photo.jpg": {200, 429}, "deep.tif": {200, 429}}
        for place, status in enumerate(found):
            wanted = {0} if place % 10 == 9 else allowed.get(names[place % len(names)], {422, 429})
            assert status in wanted, (place, status)
        assert 200 in found
        assert ask(port, "photo.jpg") == 200


def test_what_is_no_http_is_refused(ensemble: Path) -> None:
    with listening(ensemble) as port:
        for nonsense in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9.9\r\n\r\n", b"x" * 100_000):
            with connect(port) as connection:
                connection.sendall(nonsense + b"\r\n\r\n")
                assert connection.recv(12) in (b"HTTP/1.1 400", b"HTTP/1.1 421", b"")
        assert ask(port, "photo.jpg") == 200
    assert threading.active_count() < 100
