"""Images behind addresses: bounded, and from public hosts alone, whatever a name or a redirection says."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tl_kit.config import FetchConfig
from tl_kit.errors import ImageError
from tl_kit.inference.streaming import addresses, fetching
from tl_kit.inference.streaming.addresses import Address, is_public
from tl_kit.inference.streaming.fetching import fetch, fetched
from tl_kit.inference.streaming.named import Named

BODY = bytes(range(256)) * 8
HERE = FetchConfig(urls=True, allow_private=True, max_bytes=len(BODY), seconds=5, redirects=2)


class Handler(BaseHTTPRequestHandler):
    """Answers by the path, and notes what was asked for."""

    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["Host"]))
        name, _, rest = self.path[1:].partition("/")
        getattr(self, f"answer_{name}", self.answer_missing)(rest)

    def do_CONNECT(self) -> None:
        self.asked.append((self.path, self.headers["Proxy-Authorization"]))
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as there:
            self.send_response(200)
            self.end_headers()
            there.sendall(self.connection.recv(2**16))
            while piece := there.recv(2**16):
                self.connection.sendall(piece)
        self.close_connection = True

    def answer_image(self, _: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def answer_large(self, told: str) -> None:
        self.send_response(200)
        if told == "told":
            self.send_header("Content-Length", str(10**12))
        self.end_headers()
        self.wfile.write(BODY + b"x")

    def answer_short(self, _: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY[:100])

    def answer_slow(self, where: str) -> None:
        if where == "body":
            self.send_response(200)
            self.end_headers()
        for _ in range(600):
            self.wfile.write(b"H")
            self.wfile.flush()
            time.sleep(0.05)

    def answer_zipped(self, _: str) -> None:
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.end_headers()

    def answer_to(self, target: str) -> None:
        self.send_response(302)
        self.send_header("Location", target)
        self.end_headers()

    def answer_missing(self, _: str) -> None:
        self.send_error(404)

    def log_message(self, *_: Any) -> None: ...

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True  # the client has gone


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Quiet]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(Handler, "asked", [], raising=False)
    with Quiet(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def at(server: Quiet, path: str, host: str = "127.0.0.1") -> str:
    return f"http://{host}:{server.server_port}/{path}"


def test_an_image_and_the_redirections_to_it(server: Quiet) -> None:
    for path in ("image", "to//image", f"to/{at(server, 'image')}", f"to/{at(server, 'to//image')}", "image/x?a=b c#d"):
        assert fetch(at(server, path), HERE) == BODY, path
    assert Handler.asked[-1] == ("/image/x?a=b%20c", f"127.0.0.1:{server.server_port}")


FAULTS = {
    "nothing": "cannot be fetched: 404 ",
    "large": f"too large: more than the {len(BODY):,} bytes",
    "large/told": f"too large: more than the {len(BODY):,} bytes",
    "short": "the connection ended 1,948 bytes early",
    "zipped": "encoding gzip",
    "to/ftp://x.org/a": "only http and https",
    "to/file:///etc/passwd": "only http and https",
    "to/data:image/png,x": "only http and https",
    "to//to//to//image": "more than 2 redirections",
    "to/http://:80/x": "without a host",
    "a\r\nb": "cannot be fetched: 404",
}


@pytest.mark.parametrize("path", FAULTS)
def test_what_goes_wrong_is_a_reason(path: str, server: Quiet) -> None:
    with pytest.raises(ImageError, match=FAULTS[path]) as caught:
        fetch(at(server, path), HERE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("where", ["head", "body"])
def test_a_server_that_sends_a_byte_now_and_then_is_left_in_time(where: str, server: Quiet) -> None:
    started = time.monotonic()
    with pytest.raises(ImageError, match=r"took longer than 0\.3 s"):
        fetch(at(server, f"slow/{where}"), FetchConfig(urls=True, allow_private=True, seconds=0.3))
    assert time.monotonic() - started < 3


NOT_PUBLIC = [
    *("127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
    *("224.0.0.1", "239.255.255.250", "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1", "::", "::1"),
    *("fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1", "::127.0.0.1"),
    *("::ffff:10.0.0.1", "::ffff:169.254.169.254", "2002:7f00:1::", "2002:a00:1::", "64:ff9b::7f00:1"),
    *("64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "64:ff9b:1:a00:0:100:808:808", "2001:0:7f00:1::", "fec0::1"),
]


@pytest.mark.parametrize("ip", NOT_PUBLIC)
def test_addresses_that_are_not_public(ip: str) -> None:
    assert not is_public(ip)


@pytest.mark.parametrize("ip", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses(ip: str) -> None:
    assert is_public(ip)


def test_without_leave_no_connection_is_made_to_this_machine(server: Quiet) -> None:
    port = server.server_port
    for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "[::1]", "0"):
        with pytest.raises(ImageError, match=r"--allow-private allows it|no address of"):
            fetch(f"http://{host}:{port}/image", FetchConfig(urls=True))
    assert Handler.asked == []


def resolving(monkeypatch: pytest.MonkeyPatch, ips: Callable[[str, int], str]) -> list[str]:
    """Names are looked up here; returns the names that were."""
    looked_up: list[str] = []
    real = socket.getaddrinfo

    def answer(host: Any, port: Any, *more: Any, **options: Any) -> Any:
        if str(host).endswith(".test"):
            looked_up.append(host)
            host = ips(host, len(looked_up))
        return real(host, port, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return looked_up


def test_the_address_that_was_checked_is_the_one_connected_to(server: Quiet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that means another host at its second look-up (DNS rebinding) is looked up once."""
    monkeypatch.setattr(addresses, "is_public", lambda ip: ip == "127.0.0.1")
    names = resolving(monkeypatch, lambda _, time: "127.0.0.1" if time == 1 else "127.0.0.2")
    assert fetch(at(server, "image", "rebinding.test"), FetchConfig(urls=True)) == BODY
    assert names == ["rebinding.test"]
    assert Handler.asked == [("/image", f"rebinding.test:{server.server_port}")]


def test_each_redirection_is_checked(server: Quiet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "is_public", lambda ip: ip == "127.0.0.1")
    names = resolving(monkeypatch, lambda host, _: "127.0.0.1" if host == "public.test" else "127.0.0.2")
    target = at(server, "image", "private.test")
    with pytest.raises(ImageError, match=r"private\.test is in a private network \(127\.0\.0\.2\)"):
        fetch(at(server, f"to/{target}", "public.test"), FetchConfig(urls=True))
    assert names == ["public.test", "private.test"]
    assert len(Handler.asked) == 1


def test_a_proxy_tunnels_to_the_address_that_was_checked(server: Quiet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "is_public", lambda ip: ip == "127.0.0.1")
    names = resolving(monkeypatch, lambda host, _: "127.0.0.1" if host == "public.test" else "127.0.0.2")
    monkeypatch.setenv("http_proxy", f"http://me:p%40ss@127.0.0.1:{server.server_port}")
    assert fetch(at(server, "image", "public.test"), FetchConfig(urls=True)) == BODY
    tunnel, request = Handler.asked
    assert tunnel == (f"127.0.0.1:{server.server_port}", "Basic bWU6cEBzcw==")
    assert request == ("/image", f"public.test:{server.server_port}")
    with pytest.raises(ImageError, match="in a private network"):
        fetch(at(server, "image", "private.test"), FetchConfig(urls=True))
    assert len(Handler.asked) == 2
    monkeypatch.setenv("no_proxy", "public.test")
    assert fetch(at(server, "image", "public.test"), FetchConfig(urls=True)) == BODY
    assert len(Handler.asked) == 3
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(ImageError, match="only http proxies"):
        fetch(at(server, "image", "public.test"), FetchConfig(urls=True))
    assert names.count("private.test") == 1


def test_addresses_keep_their_places_and_are_fetched_together(server: Quiet) -> None:
    """A pause passes on all that came before; what is no address waits for its turn alone."""
    given: list[Named | None] = [Named("a", Address(at(server, "image"))), Named("b", b"b"), None]
    given += [Named(str(number), Address(at(server, "nothing"))) for number in range(20)]
    found = []
    taken = 0

    def items() -> Iterator[Named | None]:
        nonlocal taken
        for item in given:
            taken += 1
            yield item

    coming = fetched(items(), HERE)
    for expected in (BODY, b"b"):
        item = next(coming)
        assert item is not None
        assert item.source == expected
    assert taken <= 3
    assert next(coming) is None
    found = list(coming)
    assert [item.name for item in found if item is not None] == [str(number) for number in range(20)]
    assert all(isinstance(item.source, ImageError) for item in found if item is not None)


def test_nothing_is_waited_for_when_the_rest_is_not_wanted(server: Quiet) -> None:
    coming: Any = fetched(iter([Named("a", b"a"), *[Named("s", Address(at(server, "slow/body")))] * 3]), HERE)
    started = time.monotonic()
    assert next(coming) is not None
    coming.close()
    for thread in threading.enumerate():
        if thread.name.startswith("tlkit-fetch"):
            thread.join(3)
    assert time.monotonic() - started < 3
    assert fetching.fetch(at(server, "image"), HERE) == BODY
