"""What comes between a client and the model: batches of many requests, limits on bytes and time, and who may ask."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from tests.cli.helpers import tlkit
from tests.serving.conftest import client_of
from tests.serving.test_answers import GOOD, form
from tl_kit.config import ServeConfig, ServeLimits
from tl_kit.errors import ConfigError, ImageError
from tl_kit.serving.access import Access, access_of
from tl_kit.serving.batching import Batcher
from tl_kit.serving.guard import Guard
from tl_kit.serving.refusal import BusyError, RefusedError
from tl_kit.serving.request_images import _json
from tl_kit.serving.uvicorn_server import allow_files
from tl_kit.serving.web_page import page


class Steps:
    """A classifier whose probabilities are the file's two bytes; ``gate`` holds up its forward pass."""

    def __init__(self, *, open_gate: bool = True) -> None:
        self.gate = threading.Event()
        self.sizes: list[int] = []
        self.threads: set[int] = set()
        if open_gate:
            self.gate.set()

    def decode(self, data: bytes) -> Any:
        return "not an image" if data == b"bad" else np.frombuffer(data, dtype=np.uint8)

    def run(self, images: Sequence[Any]) -> Any:
        assert self.gate.wait(30)
        self.threads.add(threading.get_ident())
        self.sizes.append(len(images))
        if any(image[0] == 255 for image in images):
            raise RuntimeError("the network failed")
        return np.stack(images)[np.newaxis].astype(np.float64)


def batched(work: Callable[[Batcher], Any], steps: Steps, **limits: Any) -> Any:
    """The result of asynchronous work with a running batcher."""

    async def main() -> Any:
        batcher = Batcher(steps, ServeLimits(**limits))
        batcher.start()
        try:
            return await asyncio.wait_for(work(batcher), 30)
        finally:
            steps.gate.set()
            await batcher.stop()

    return asyncio.run(main())


def file(number: int) -> Callable[[], bytes]:
    return lambda: bytes([number, 255 - number])


async def waiting(batcher: Batcher, images: int) -> None:
    """Until so many images wait in the queue."""
    while batcher._queue.qsize() < images:
        await asyncio.sleep(0.001)


def test_requests_share_a_pass_and_get_their_own_answers() -> None:
    steps = Steps(open_gate=False)

    async def work(batcher: Batcher) -> list[Any]:
        first = asyncio.create_task(batcher.predict([file(0)]))  # the pass that the others wait for
        while batcher._queue.qsize() or not batcher.inside or batcher._decoding:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        tasks = [asyncio.create_task(batcher.predict([file(n), file(100 + n)])) for n in range(1, 11)]
        await waiting(batcher, 20)
        steps.gate.set()
        return [await task for task in (first, *tasks)]

    found = batched(work, steps, batch=8)
    assert [list(row[0][0]) for row in found] == [[n, 255 - n] for n in range(11)]
    assert [list(row[1][0]) for row in found[1:]] == [[100 + n, 155 - n] for n in range(1, 11)]
    assert steps.sizes == [1, 8, 8, 4]
    assert len(steps.threads) == 1


def test_a_single_client_waits_for_nobody() -> None:
    async def work(batcher: Batcher) -> float:
        start = asyncio.get_running_loop().time()
        for n in range(5):
            await batcher.predict([file(n)])
        return asyncio.get_running_loop().time() - start

    assert batched(work, Steps(), wait=20.0) < 20


def test_a_full_queue_refuses_and_empties_again() -> None:
    steps = Steps(open_gate=False)

    async def work(batcher: Batcher) -> None:
        tasks = [asyncio.create_task(batcher.predict([file(n)])) for n in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError) as caught:
            await batcher.predict([file(9)])
        assert (caught.value.status, caught.value.retry) == (429, 1)
        steps.gate.set()
        await asyncio.gather(*tasks)
        assert batcher.inside == 0
        assert len(await batcher.predict([file(9)])) == 1

    batched(work, steps, queue=4)


def test_a_request_that_is_given_up_leaves_its_room_to_others() -> None:
    steps = Steps(open_gate=False)

    async def work(batcher: Batcher) -> list[Any]:
        first = asyncio.create_task(batcher.predict([file(0)]))
        while not batcher.inside or batcher._queue.qsize() or batcher._decoding:
            await asyncio.sleep(0.001)
        given_up = asyncio.create_task(batcher.predict([file(n) for n in range(3)]))
        await waiting(batcher, 3)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        other = asyncio.create_task(batcher.predict([file(n) for n in (4, 5, 6)]))
        await waiting(batcher, 6)
        steps.gate.set()
        await first
        return await other

    assert [row[0][0] for row in batched(work, steps, queue=4)] == [4, 5, 6]


def test_the_limit_on_files_is_above_that_on_connections() -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
        allow_files(600)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (600 + 256, hard)
        allow_files(10)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (600 + 256, hard), "it is not lowered"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_json_of_many_parts_is_refused_before_it_is_read() -> None:
    """Each of its objects would take a hundred bytes of memory."""
    body = b'{"images": [' + b"{}, " * 100_000 + b"{}]}"
    with pytest.raises(RefusedError, match="more parts") as caught:
        _json(body, ServeLimits())
    assert caught.value.status == 422
    many = json.dumps({"images": [{"name": "a, b: [c] {d}.jpg", "data": "data:image/jpeg;base64,aaaa"}] * 64}).encode()
    assert len(_json(many, ServeLimits())) == 64


def test_images_of_a_request_that_is_given_up_are_not_run() -> None:
    steps = Steps(open_gate=False)

    async def work(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.predict([file(0)]))
        while not batcher.inside or batcher._queue.qsize() or batcher._decoding:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        given_up = asyncio.create_task(batcher.predict([file(n) for n in range(5)]))
        kept = asyncio.create_task(batcher.predict([file(7)]))
        await waiting(batcher, 6)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        steps.gate.set()
        await first
        assert list((await kept)[0][0]) == [7, 248]
        assert batcher.inside == 0

    batched(work, steps)
    assert steps.sizes == [1, 1]


def test_a_failed_pass_fails_those_who_wait_for_it_alone() -> None:
    async def work(batcher: Batcher) -> None:
        with pytest.raises(RuntimeError, match="the network failed"):
            await batcher.predict([file(255)])
        assert (await batcher.predict([lambda: b"bad"])) == ["not an image"]
        assert list((await batcher.predict([file(1)]))[0][0]) == [1, 254]

    def broken() -> bytes:
        raise ImageError("is no base64 text")

    async def unreadable(batcher: Batcher) -> Any:
        return await batcher.predict([broken])

    batched(work, Steps())
    assert batched(unreadable, Steps()) == ["is no base64 text"]


def test_decoded_pixels_that_wait_are_bounded() -> None:
    class Large(Steps):
        def decode(self, data: bytes) -> Any:
            return {"way": torch.zeros(1000, dtype=torch.uint8)}

        def run(self, images: Sequence[Any]) -> Any:
            assert self.gate.wait(30)
            return np.zeros((1, len(images), 2))

    steps = Large(open_gate=False)

    async def work(batcher: Batcher) -> list[Any]:
        tasks = [asyncio.create_task(batcher.predict([file(n)])) for n in range(5)]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        assert all(isinstance(task.exception(), BusyError) for task in done)
        while sum(task.done() for task in tasks) < 2:
            await asyncio.sleep(0.001)
        steps.gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = batched(work, steps, held_bytes=3000)
    assert sum(isinstance(each, BusyError) for each in found) == 2


def asked(app: Any, pieces: Sequence[bytes], *, delay: float = 0.0, headers: Any = (), **limits: Any) -> Any:
    """The status, headers and body of the guard's answer to a POST in pieces, and how many pieces it took."""
    taken = 0
    sent: list[dict[str, Any]] = []

    async def main() -> None:
        async def receive() -> dict[str, Any]:
            nonlocal taken
            await asyncio.sleep(delay)
            taken += 1
            return {"type": "http.request", "body": pieces[(taken - 1) % len(pieces)], "more_body": True}

        async def send(message: Any) -> None:
            sent.append(message)

        access = Access(frozenset({"localhost"}), any_address=False)
        guard = Guard(app, access=access, limits=ServeLimits(**limits), tell=print)
        scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"host", b"localhost"), *headers]}
        await guard(scope, receive, send)
        assert guard._held == 0

    asyncio.run(main())
    start, body = sent
    return start["status"], dict(start["headers"]), json.loads(body["body"])["error"], taken


async def reads_all(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass


MEGABYTE = 2**20


def test_an_endless_body_is_cut_off() -> None:
    limits = {"request_bytes": 4 * MEGABYTE, "drain_bytes": 2 * MEGABYTE}
    status, headers, text, taken = asked(reads_all, [bytes(MEGABYTE)], **limits)
    assert (status, taken, headers[b"connection"]) == (413, 7, b"close")
    assert text == "the request is too large: at most 4,194,304 bytes are taken"


def test_a_declared_length_is_refused_before_the_body() -> None:
    size = (b"content-length", b"10000000000")
    status, *_, taken = asked(reads_all, [bytes(MEGABYTE)], headers=[size, (b"expect", b"100-continue")])
    assert (status, taken) == (413, 0)
    assert asked(reads_all, [bytes(MEGABYTE)], headers=[size], drain_bytes=MEGABYTE)[3] == 1


def test_a_slow_body_is_given_up() -> None:
    status, _, text, _ = asked(reads_all, [b"x"], delay=0.02, body_seconds=0.1)
    assert (status, text) == (408, "the request came too slowly")


def test_a_slow_answer_is_given_up() -> None:
    async def sleeps(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(30)

    status, headers, text, _ = asked(sleeps, [b""], seconds=0.05, drain_bytes=0)
    assert (status, headers[b"retry-after"]) == (503, b"1")
    assert text.startswith("no answer within 0.05 seconds")


def test_all_bodies_together_are_bounded() -> None:
    status, headers, *_ = asked(reads_all, [bytes(MEGABYTE)], held_bytes=3 * MEGABYTE, drain_bytes=0)
    assert (status, headers[b"retry-after"]) == (429, b"1")


def test_a_full_queue_is_an_answer(ensemble: Path) -> None:
    with client_of(ensemble, limits=ServeLimits(queue=3)) as client:
        reply = client.post("/predict", files=form(GOOD))
        assert (reply.status_code, reply.json()["error"]) == (413, "too many images: at most 3 are taken at a time")
        client.app.state.batcher._inside = 3  # type: ignore[attr-defined]
        reply = client.post("/predict", files=form({"a.jpg": GOOD["photo.jpg"]}))
        assert (reply.status_code, reply.headers["retry-after"]) == (429, "1")
        client.app.state.batcher._inside = 0  # type: ignore[attr-defined]
        assert client.post("/predict", files=form({"a.jpg": GOOD["photo.jpg"]})).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost:8000"}, 200),
        ({"host": "127.0.0.1:8000"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"host": "LOCALHOST."}, 200),
        ({"host": "evil.example"}, 421),
        ({"host": "localhost.evil.example"}, 421),
        ({"host": "127.0.0.1.nip.io:8000"}, 421),
        ({"host": "192.168.1.2"}, 421),
        ({"host": ""}, 421),
        ({"host": "localhost:8000", "origin": "http://localhost:8000"}, 200),
        ({"host": "localhost:8000", "origin": "http://localhost:9000"}, 403),
        ({"host": "localhost:8000", "origin": "https://evil.example"}, 403),
        ({"host": "localhost:8000", "origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
    ],
)
def test_hosts_and_pages_of_elsewhere(client: TestClient, headers: dict[str, str], status: int) -> None:
    reply = client.get("/metadata", headers=headers)
    assert reply.status_code == status
    assert not [name for name in reply.headers if name.startswith("access-control")]
    assert client.options("/predict", headers={"origin": "https://evil.example"}).status_code == 403


def test_the_token(ensemble: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("open sesame\n".replace(" ", "-"))
    with client_of(ensemble, token_file=tmp_path / "token") as client:
        assert [client.get(path).status_code for path in ("/", "/health")] == [200, 200]
        for path in ("/metadata", "/openapi.json", "/nothing"):
            reply = client.get(path)
            assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
        assert client.post("/predict", files=form(GOOD)).status_code == 401
        for given, status in (("open-sesame", 200), ("open-sesamé", 401), ("open-sesam", 401), ("", 401)):
            header = {"authorization": f"Bearer {given}".encode()}
            assert client.get("/metadata", headers=header).status_code == status  # type: ignore[arg-type]
        assert client.get("/metadata", headers={"authorization": "Basic open-sesame"}).status_code == 401
    monkeypatch.setenv("TLKIT_TOKEN", "from-the-environment")
    with client_of(ensemble) as client:
        assert client.get("/metadata").status_code == 401
        assert client.get("/metadata", headers={"authorization": "bearer from-the-environment"}).status_code == 200


def config(**options: Any) -> ServeConfig:
    return ServeConfig(checkpoint=Path("x"), **options)


def test_the_network_needs_a_token_or_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.2", "example.org"):
        with pytest.raises(ConfigError, match=r"--host .*: everybody who can reach this machine"):
            access_of(config(host=host))
        assert access_of(config(host=host, without_token=True)).token is None
    for host in ("127.0.0.1", "::1", "localhost", "127.1.2.3"):
        assert access_of(config(host=host)).any_address is False
    monkeypatch.setenv("TLKIT_TOKEN", "long-enough")
    access = access_of(config(host="0.0.0.0", allow_host=("Pets.Example",)))
    token = {b"authorization": b"Bearer long-enough"}
    for host in (b"192.168.1.2:8000", b"[fe80::1]", b"pets.example:80"):  # an address cannot be another's name
        access.check("/metadata", {**token, b"host": host})
    with pytest.raises(RefusedError, match="--allow-host"):
        access.check("/metadata", {**token, b"host": b"evil.example"})
    for bad in ("short", "with a space", "ü" * 10, ""):
        (tmp_path / "token").write_text(bad, encoding="utf-8")
        with pytest.raises(ConfigError, match=r"--token-file .*: a token has 8 or more"):
            access_of(config(token_file=tmp_path / "token"))
    with pytest.raises(ConfigError, match=r"--token-file .*nowhere: cannot be read"):
        access_of(config(token_file=tmp_path / "nowhere"))


def test_every_answer_has_the_safety_headers(client: TestClient) -> None:
    replies = [client.get(path) for path in ("/", "/health", "/nothing", "/predict", "/metadata")]
    replies.append(client.get("/", headers={"host": "evil.example"}))
    for reply in replies:
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["x-frame-options"] == "DENY"
        assert reply.headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
        assert "server" not in reply.headers
    assert replies[1].headers["content-security-policy"].startswith("default-src 'none'; frame")


def test_the_page_asks_nobody_else() -> None:
    text, policy = page()
    assert "://" not in text
    assert not [mark for mark in (" style=", " onclick=", " src=", "unsafe") if mark in text.partition("<script>")[0]]
    assert "unsafe" not in policy
    assert policy.count("'sha256-") == text.count("<script") + text.count("<style") == 2


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--host", "0.0.0.0"), "error: --host 0.0.0.0: everybody who can reach this machine could use the server"),
        (("--host", "no.such.invalid", "--without-token"), "error: --host no.such.invalid: no such address"),
        (("--port", "70000"), "error: --port 70000: must be from 0 (any free one) to 65535"),
        (("--files", "0"), "error: --files 0: must be at least 1"),
    ],
)
def test_mistakes_are_a_line(checkpoint: Path, options: tuple[str, ...], text: str) -> None:
    done = tlkit("serve", checkpoint, *options)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(text), done.err
