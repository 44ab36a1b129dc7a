"""Clients that go away before their answer: their images are not run, and make room for others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from tests.local_web import Handler, Quiet, at, local_web
from tests.serving.conftest import make_app, running
from tests.serving.raw_clients import answer, ask, body_of, connect, head_of, in_json
from tl_kit.config import ServeLimits
from tl_kit.inference.predictor import Predictor

LIMITS = ServeLimits(queue=8, files=8, batch=16)


class Gate:
    """Holds up every forward pass until it is opened, and notes how many images each has."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.open = threading.Event()
        work = Predictor.read_probabilities

        def held(predictor: Predictor, reader: Any, *more: Any, **options: Any) -> Any:
            self.sizes.append(len(reader))
            assert self.open.wait(30)
            return work(predictor, reader, *more, **options)

        patch.setattr(Predictor, "read_probabilities", held)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    found = Gate(monkeypatch)
    yield found
    found.open.set()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_images_of_a_client_that_went_away_are_not_run(ensemble: Path, gate: Gate) -> None:
    app = make_app(ensemble, limits=LIMITS)
    batcher = app.state.batcher
    body = body_of(*["photo.jpg"] * 7)
    with running(app, LIMITS) as port, connect(port) as first:
        one = body_of("photo.jpg")
        first.sendall(head_of(len(one)) + one)
        until(lambda: gate.sizes == [1])
        with connect(port) as gone:
            gone.sendall(head_of(len(body)) + body)
            until(lambda: batcher._queue.qsize() == 7)
            assert ask(port, "photo.jpg") == 429, "the queue is full"
        until(lambda: batcher.inside == 1)
        with connect(port) as second:  # has room now
            second.sendall(head_of(len(body)) + body)
            until(lambda: batcher.inside == 8)
            gate.open.set()
            assert answer(first)[0] == 200
            status, content, _ = answer(second)
        assert (status, len(content["predictions"])) == (200, 7)  # type: ignore[arg-type]
    assert gate.sizes == [1, 7]
    assert batcher.inside == 0


def test_a_client_that_reads_until_the_end_has_its_answer(ensemble: Path, gate: Gate) -> None:
    """The news of its end is waited for beside the work, for one request after another of one connection."""
    body = body_of("photo.jpg")
    gate.open.set()
    app = make_app(ensemble, limits=LIMITS)
    with running(app, LIMITS) as port, connect(port) as connection:
        for _ in range(3):
            connection.sendall(head_of(len(body)) + body)
            assert answer(connection)[0] == 200
        connection.sendall((head_of(len(body)) + body) * 3)  # pipelined: all come before the first answer
        found = b""
        while found.count(b"HTTP/1.1 200 ") < 3 and (piece := connection.recv(2**16)):
            found += piece
        assert found.count(b"HTTP/1.1 200 ") == 3


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Quiet]:
    with local_web(monkeypatch) as found:
        yield found


def test_nothing_is_fetched_for_a_client_that_went_away(ensemble: Path, web: Quiet) -> None:
    app: FastAPI = make_app(ensemble, limits=LIMITS, urls=True, allow_private=True)
    with running(app, LIMITS) as port:
        with connect(port) as gone:
            gone.sendall(in_json({"urls": [at(web, "slow/body")] * 2}))
            until(lambda: len(Handler.asked) == 2)
            assert app.state.remote.inside == 2
        until(lambda: app.state.remote.inside == 0)
        until(lambda: not [each for each in threading.enumerate() if each.name == "tlkit-fetch"])
        assert app.state.batcher.images == 0
