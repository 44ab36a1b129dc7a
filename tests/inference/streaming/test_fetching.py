"""Images behind addresses: bounded, and from public hosts alone, whatever a name or a redirection says."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import children
from tests.local_web import BODY, Handler, Quiet, at, local_web
from tl_kit.config import FetchConfig
from tl_kit.errors import ImageError
from tl_kit.inference.streaming import addresses, fetching
from tl_kit.inference.streaming.addresses import Address, is_public
from tl_kit.inference.streaming.fetching import fetch, fetched
from tl_kit.inference.streaming.named import Named

HERE = FetchConfig(urls=True, allow_private=True, max_bytes=len(BODY), seconds=5, redirects=2)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Quiet]:
    with local_web(monkeypatch) as running:
        yield running


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
    given = [Named("a", Address(at(server, "image"))), *[Named("s", Address(at(server, "slow/body")))] * 3]
    coming = fetched(iter(given), replace(HERE, at_once=4, seconds=30))
    assert next(coming) == Named("a", BODY)
    until = time.monotonic() + 5
    while len(Handler.asked) < 4 and time.monotonic() < until:
        time.sleep(0.005)
    threads = [thread for thread in threading.enumerate() if thread.name == "tlkit-fetch"]
    assert len(threads) == 3
    started = time.monotonic()
    coming.close()  # type: ignore[attr-defined]
    for thread in threads:
        thread.join(10)
    assert time.monotonic() - started < 10
    assert fetch(at(server, "image"), HERE) == BODY


def test_a_slow_address_holds_up_none_of_those_behind_it(server: Quiet) -> None:
    def items() -> Iterator[Named | None]:
        yield Named("slow", Address(at(server, "later")))
        for number in range(20):
            yield Named(str(number), Address(at(server, f"image/{number}")))
        until = time.monotonic() + 4
        while len(Handler.asked) < 21 and time.monotonic() < until:
            time.sleep(0.005)
        asked.append(len(Handler.asked))
        Handler.gate.set()

    asked: list[int] = []
    found = list(fetched(items(), replace(HERE, at_once=2)))
    assert asked == [21]
    assert found == [Named(name, BODY) for name in ("slow", *map(str, range(20)))]


@pytest.mark.parametrize(
    ("source", "bounds", "most"),
    [
        (lambda server: bytes(1000), {"held_bytes": 10_000}, 11),
        (lambda server: Path("x.png"), {"ahead": 30}, 30),
        (lambda server: Address(at(server, "image")), {"held_bytes": 10 * len(BODY)}, 14),
        (lambda server: Address(at(server, "nothing")), {"ahead": 30}, 30),
    ],
    ids=["bytes", "paths", "addresses", "errors"],
)
def test_what_waits_for_a_slow_address_is_bounded(
    source: Callable[[Quiet], Any], bounds: dict[str, int], most: int, server: Quiet
) -> None:
    taken = 0

    def items() -> Iterator[Named | None]:
        nonlocal taken
        yield Named("slow", Address(at(server, "later")))
        while True:
            taken += 1
            yield Named("x", source(server))

    def open_gate() -> None:
        until = time.monotonic() + 20
        while taken < most - 4 and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(0.2)  # for more than the bound, if there were none
        Handler.gate.set()

    threading.Thread(target=open_gate).start()
    coming = fetched(items(), replace(HERE, at_once=4, seconds=30, **bounds))
    assert next(coming) == Named("slow", BODY)
    assert most - 4 <= taken <= most
    coming.close()  # type: ignore[attr-defined]


@pytest.fixture
def deaf() -> Iterator[int]:
    """The port of a listener whose queue is full: a connection to it is neither made nor refused."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        time.sleep(0.05)
        with socket.socket() as probe:
            probe.settimeout(0.2)
            try:
                probe.connect(listener.getsockname())
            except TimeoutError:
                pass
            else:
                pytest.skip("this system has no full queue")
        yield listener.getsockname()[1]


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_ctrl_c_waits_for_no_connection(deaf: int) -> None:
    process = children.start(
        "import sys\n"
        "from tl_kit.config import FetchConfig\n"
        "from tl_kit.inference.streaming.addresses import Address\n"
        "from tl_kit.inference.streaming.fetching import fetched\n"
        "from tl_kit.inference.streaming.named import Named\n"
        "print('ready', flush=True)\n"
        "list(fetched([Named('a', Address(sys.argv[1]))], FetchConfig(urls=True, allow_private=True)))\n",
        f"http://127.0.0.1:{deaf}/",
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=40)
    assert time.monotonic() - started < 15, "the connection has 30 seconds"
    assert err.rstrip().endswith("KeyboardInterrupt")


def test_each_address_of_a_name_has_a_share_of_the_time(
    deaf: int, server: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host whose first address (that of a broken network) says nothing is reached at its second."""
    real = fetching._Connection.__init__

    def here(self: Any, target: Any, ip: str, timeout: float) -> None:
        real(self, replace(target, port=deaf if ip == "127.0.0.2" else target.port), "127.0.0.1", timeout)

    monkeypatch.setattr(fetching._Connection, "__init__", here)
    monkeypatch.setattr(addresses, "_resolved", lambda *_, **__: ("127.0.0.2", "127.0.0.1"))
    assert fetch(at(server, "image", "two.test"), replace(HERE, seconds=4)) == BODY


@pytest.mark.parametrize(
    ("sent", "path"),
    [
        ("/image/caf\u00e9 \u00c5".encode(), "/image/caf%C3%A9%20%C3%85"),
        (b"/image/caf%C3%A9", "/image/caf%C3%A9"),
        ("/image/caf\u00e9".encode("latin-1"), "/image/caf%E9"),
        ("/image/?q=\u65e5".encode(), "/image/?q=%E6%97%A5"),
    ],
)
def test_a_redirection_in_raw_bytes_is_quoted_once(sent: bytes, path: str, server: Quiet) -> None:
    assert fetch(at(server, f"raw/{sent.hex()}"), HERE) == BODY
    assert Handler.asked[-1][0] == path
