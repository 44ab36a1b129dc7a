"""Addresses of images: fetched where this is allowed, from public hosts, within bounds; each failure has its reason."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import tl_kit
from tests.cli.helpers import tlkit
from tests.local_web import BODY, PHOTO, Handler, Quiet, at, local_web
from tests.serving.conftest import FP32, client_of
from tl_kit.config import ServeLimits
from tl_kit.inference.streaming import addresses
from tl_kit.serving.refusal import BusyError
from tl_kit.serving.remote_images import RemoteImages
from tl_kit.serving.request_images import Remote, Upload


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Quiet]:
    with local_web(monkeypatch) as found:
        yield found


@pytest.fixture(scope="module")
def here(ensemble: Path) -> Iterator[TestClient]:
    with client_of(ensemble, urls=True, allow_private=True) as client:
        yield client


def test_addresses_are_answered_in_order_each_failure_in_its_place(
    here: TestClient, ensemble: Path, web: Quiet
) -> None:
    paths = ["photo", "nothing", "to//photo", "image", "to/ftp://x.org/a", f"to/{at(web, 'photo')}", "zipped", "short"]
    urls = [*(at(web, path) for path in paths), "data:image/png;base64,AAAA", "x" * 3000, "", "http://[", "\u00e9"]
    reply = here.post("/predict?top=0", json={"urls": urls})
    assert reply.status_code == 200
    rows = reply.json()["predictions"]
    assert [row["name"] for row in rows] == [url[:2048] for url in urls]
    expected = tl_kit.load(ensemble, runtime=FP32).predict([PHOTO])[0]
    for row in (rows[0], rows[2], rows[5]):
        assert row["error"] is None
        assert {each["label"]: each["probability"] for each in row["top"]} == pytest.approx(
            expected.probabilities, abs=1e-6
        )
    reasons = ["404", "not an image", "only http and https", "encoding gzip", "ended 1,948 bytes early"]
    reasons += ["only http and https", "more than 2,048 characters", "neither http://", "not an address (", "neither"]
    failed = [row for row in rows if row["error"] is not None]
    assert len(failed) == len(reasons)
    for row, reason in zip(failed, reasons, strict=True):
        assert reason in row["error"]
        assert (row["label"], row["probability"], row["top"]) == (None, None, [])


def test_without_any_image_the_reason_is_the_answer(here: TestClient, web: Quiet) -> None:
    reply = here.post("/predict", json={"urls": [at(web, "nothing")] * 2})
    assert reply.status_code == 422
    assert reply.json()["error"].startswith(
        f"no image could be read; the first: {at(web, 'nothing')}: cannot be fetched"
    )


def test_votes_and_heat_maps_of_fetched_images(here: TestClient, web: Quiet) -> None:
    row = here.post("/predict?votes=true&heat_map=true", json={"urls": [at(web, "photo")]}).json()["predictions"][0]
    assert len(row["members"]) == 2
    assert row["heat_map"]["image"].startswith("data:image/png")
    assert len(Handler.asked) == 1, "it is fetched once"


@pytest.mark.parametrize(
    ("content", "status", "text"),
    [
        ({"urls": [1]}, 422, "address 0 is no text"),
        ({"urls": []}, 422, "no image in the request"),
        ({"urls": "http://x.org"}, 422, 'an object with "images" or "urls" alone'),
        ({"urls": [], "images": []}, 422, 'an object with "images" or "urls" alone'),
        ({"urls": ["http://x.org/"] * 65}, 413, "at most 64 a request"),
    ],
)
def test_refused_lists(here: TestClient, content: Any, status: int, text: str) -> None:
    reply = here.post("/predict", json=content)
    assert (reply.status_code, list(reply.json())) == (status, ["error"])
    assert text in reply.json()["error"]


def test_nothing_is_fetched_unless_it_is_allowed(client: TestClient, web: Quiet) -> None:
    reply = client.post("/predict", json={"urls": [at(web, "photo")]})
    assert reply.status_code == 403
    assert "without --urls" in reply.json()["error"]
    assert Handler.asked == []


def test_private_addresses_are_refused_however_they_are_named(
    ensemble: Path, web: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also behind a redirection of a public host; the answer does not tell the address of a name of this network."""
    port = web.server_port
    hosts = ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1"]
    with client_of(ensemble, urls=True) as client:
        reply = client.post("/predict", json={"urls": [f"http://{host}:{port}/photo" for host in hosts]})
        assert reply.status_code == 422
        errors = [row["error"] for row in reply.json()["predictions"]]
        assert all(error.startswith(("not fetched: ", "cannot be fetched: no address of")) for error in errors)
        assert errors[1] == "not fetched: localhost is in a private network"
        assert Handler.asked == []
        monkeypatch.setattr(addresses, "is_public", lambda ip: ip == "127.0.0.1")
        urls = [at(web, "photo"), at(web, f"to/http://127.0.0.2:{port}/photo")]
        rows = client.post("/predict", json={"urls": urls}).json()["predictions"]
    assert [row["error"] for row in rows] == [None, "not fetched: 127.0.0.2 is in a private network"]
    assert len(Handler.asked) == 2


def test_the_interface_says_whether_addresses_are_fetched(here: TestClient, client: TestClient) -> None:
    for asked, urls in ((here, True), (client, False)):
        assert asked.get("/metadata").json()["urls"] is urls
        body = asked.get("/openapi.json").json()["paths"]["/predict"]["post"]["requestBody"]["content"]
        schema = body["application/json"]["schema"]
        forms = schema.get("oneOf", [schema])
        assert [form["required"] for form in forms] == [["images"], ["urls"]][: 1 + urls]


def test_one_slow_address_costs_the_others_nothing(ensemble: Path, web: Quiet) -> None:
    limits = ServeLimits(fetch_seconds=2.0, fetches_each=2)
    with client_of(ensemble, limits=limits, urls=True, allow_private=True) as client:
        started = time.monotonic()
        urls = [at(web, "slow/body"), *[at(web, "photo")] * 6, at(web, "slow/head")]
        rows = client.post("/predict", json={"urls": urls}).json()["predictions"]
        assert time.monotonic() - started < 10
    assert [row["error"] for row in rows[1:-1]] == [None] * 6
    assert "took longer than 2 s" in rows[0]["error"]
    assert "took longer than 2 s" in rows[-1]["error"]


def fetched(limits: ServeLimits, work: Callable[[RemoteImages], Any]) -> Any:
    """The result of asynchronous work with images that may come from this machine."""

    async def main() -> Any:
        return await asyncio.wait_for(work(RemoteImages(limits, allow_private=True)), 30)

    return asyncio.run(main())


def test_images_that_came_take_room_until_the_request_ends(web: Quiet) -> None:
    size = len(BODY)
    limits = ServeLimits(held_bytes=5 * size, request_bytes=3 * size)
    two, four = [Remote(at(web, "image"))] * 2, [Remote(at(web, "image"))] * 4

    async def work(remote: RemoteImages) -> None:
        async with remote.fetched(four) as found:  # one has no room within the request
            got = [read_of(upload) for upload in found]
            assert got.count(BODY) == 3
            assert (
                sorted(map(str, got))[-1]
                == f"too large: the images of a request have at most {3 * size:,} bytes together"
            )
            assert remote._room.taken == 3 * size
            async with remote.fetched(two) as found:
                assert [read_of(upload) for upload in found] == [BODY] * 2
                with pytest.raises(BusyError):
                    async with remote.fetched(two):
                        pass
            assert remote._room.taken == 3 * size
        assert (remote._room.taken, remote.inside) == (0, 0)

    fetched(limits, work)


def read_of(upload: Upload) -> bytes | str:
    try:
        return upload.read()
    except tl_kit.errors.ImageError as error:
        return str(error)


def test_what_failed_gives_its_room_back(web: Quiet) -> None:
    limits = ServeLimits(request_bytes=len(BODY) + 150, fetches_each=1)
    given = [Remote(at(web, path)) for path in ("short", "short", "image")]

    async def work(remote: RemoteImages) -> None:
        async with remote.fetched(given) as found:
            assert read_of(found[2]) == BODY

    fetched(limits, work)


def test_addresses_that_wait_are_bounded(web: Quiet) -> None:
    limits = ServeLimits(queue=3, fetches=2)

    async def work(remote: RemoteImages) -> None:
        async def all_of(*paths: str) -> list[bytes | str]:
            async with remote.fetched([Remote(at(web, path)) for path in paths]) as found:
                return [read_of(upload) for upload in found]

        first = asyncio.create_task(all_of("later", "later", "image"))
        while len(Handler.asked) < 2:
            await asyncio.sleep(0.005)
        with pytest.raises(BusyError, match="too many addresses wait"):
            await all_of("image")
        await asyncio.sleep(0.1)
        assert len(Handler.asked) == 2, "two at a time"
        Handler.gate.set()
        assert await first == [BODY] * 3
        assert await all_of("image") == [BODY]

    fetched(limits, work)


def test_a_name_that_is_looked_up_for_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does its thread's place go to another before it ends."""
    look = threading.Event()
    monkeypatch.setattr(addresses, "_resolved", lambda *_, **__: look.wait(20) and ())
    limits = ServeLimits(fetch_seconds=0.3, fetches=1)

    async def work(remote: RemoteImages) -> None:
        started = time.monotonic()
        for _ in range(2):
            async with remote.fetched([Remote("http://slow.test/")]) as found:
                assert "took longer than 0.3 s" in str(read_of(found[0]))
        assert time.monotonic() - started < 5
        assert remote._threads.locked()
        look.set()
        while remote._threads.locked():
            await asyncio.sleep(0.005)

    fetched(limits, work)


def test_mistakes_are_a_line(checkpoint: Path) -> None:
    done = tlkit("serve", checkpoint, "--allow-private")
    assert (done.code, done.err) == (
        2,
        "error: --allow-private: is for addresses that the server fetches; give --urls too\n",
    )
