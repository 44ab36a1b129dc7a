"""A tiny checkpoint, an ensemble of two, and a client that asks them without a network."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from tests.exporting.checkpoints import write_checkpoint
from tests.exporting.saved import together
from tl_kit.config import DecodeConfig, RuntimeConfig, ServeConfig, ServeLimits
from tl_kit.inference.exported import open_classifier
from tl_kit.serving.access import access_of
from tl_kit.serving.application import application
from tl_kit.serving.uvicorn_server import run, server_of

FP32 = RuntimeConfig(precision="fp32")
DEFAULTS = ServeLimits()


def make_app(checkpoint: Path, *, tell: Callable[[str], None] = print, **options: Any) -> FastAPI:
    config = ServeConfig(checkpoint=checkpoint, runtime=FP32, **options)
    decode = DecodeConfig(max_pixels=config.limits.pixels)
    classifier = open_classifier(
        checkpoint, crops=config.crops, mc_dropout=config.mc_dropout, decode=decode, runtime=FP32
    )
    return application(classifier, config, access=access_of(config), tell=tell)


@contextmanager
def client_of(checkpoint: Path, **options: Any) -> Iterator[TestClient]:
    with TestClient(make_app(checkpoint, **options), base_url="http://localhost") as client:
        yield client


@contextmanager
def listening(checkpoint: Path, limits: ServeLimits = DEFAULTS, **options: Any) -> Iterator[int]:
    """The port of a real server in a thread of this process."""
    with running(make_app(checkpoint, limits=limits, **options), limits) as port:
        yield port


@contextmanager
def running(app: FastAPI, limits: ServeLimits = DEFAULTS) -> Iterator[int]:
    """The port of a real server of an application, in a thread of this process."""
    ready = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        server: uvicorn.Server = server_of(app, limits, ready=ready.set)
        thread = threading.Thread(target=run, args=(server, listener), daemon=True)
        thread.start()
        assert ready.wait(60)
        try:
            yield port
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("serving") / "one")


@pytest.fixture(scope="session")
def ensemble(checkpoint: Path) -> Path:
    other = write_checkpoint(checkpoint.parent / "two", seed=1)
    return together(checkpoint.parent / "both", checkpoint, other)


@pytest.fixture(scope="session")
def client(ensemble: Path) -> Iterator[TestClient]:
    with client_of(ensemble) as found:
        yield found
