"""The guard: limits on the bytes and the time of bodies, and headers of every answer."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.formparsers import MultiPartParser
from starlette.testclient import TestClient

from tests.serving.conftest import client_of, listening
from tests.serving.raw_clients import answer, body_of, connect, head_of
from tests.serving.test_answers import GOOD, form
from tl_kit.config import ServeLimits
from tl_kit.serving.access import Access
from tl_kit.serving.guard import Guard
from tl_kit.serving.refusal import RefusedError
from tl_kit.serving.request_images import _json
from tl_kit.serving.web_page import page


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


def test_json_of_many_parts_is_refused_before_it_is_read() -> None:
    """Each of its objects would take a hundred bytes of memory."""
    body = b'{"images": [' + b"{}, " * 100_000 + b"{}]}"
    with pytest.raises(RefusedError, match="more parts") as caught:
        _json(body, ServeLimits())
    assert caught.value.status == 422
    many = json.dumps({"images": [{"name": "a, b: [c] {d}.jpg", "data": "data:image/jpeg;base64,aaaa"}] * 64}).encode()
    assert len(_json(many, ServeLimits())) == 64


def test_the_server_answers_while_it_reads_a_large_form(ensemble: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, answered = threading.Event(), threading.Event()
    work = MultiPartParser.parse

    async def slow(parser: MultiPartParser) -> Any:
        reading.set()
        assert answered.wait(10)
        return await work(parser)

    monkeypatch.setattr(MultiPartParser, "parse", slow)
    body = body_of("photo.jpg")
    with listening(ensemble) as port, connect(port) as sender, connect(port) as other:
        sender.sendall(head_of(len(body)) + body)
        assert reading.wait(10)
        other.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert answer(other)[0] == 200
        answered.set()
        assert answer(sender)[0] == 200


def test_an_answer_of_too_many_figures_is_refused(ensemble: Path) -> None:
    """Three classes and two members: an image has 3 probabilities, and with the votes 9."""
    some = form({f"{n}.jpg": GOOD["photo.jpg"] for n in range(5)})
    with client_of(ensemble, limits=ServeLimits(figures=15)) as client:
        assert client.post("/predict", files=some).status_code == 200
        assert client.post("/predict?top=1&votes=true", files=some).status_code == 200
        for options in ("votes=true", "top=0&votes=true", "top=2&votes=true"):
            reply = client.post(f"/predict?{options}", files=some)
            assert reply.status_code == 413, options
            assert "at most 15 are given; send fewer images" in reply.json()["error"]


def test_an_option_that_is_none_is_named(client: TestClient) -> None:
    reply = client.post("/predict?heatmap=true", files=form(GOOD))
    assert (reply.status_code, reply.json()["error"]) == (
        422,
        "heatmap: there is no such option; there are top, votes, heat_map",
    )
