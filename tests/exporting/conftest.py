"""A hub of its own for each test, in this process without a network beyond the loopback; quicker exports."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from tests.exporting.hub_server import TOKEN, Hub, running


@pytest.fixture(scope="session", autouse=True)
def operators_are_read_once() -> Iterator[None]:
    """For each export torch parses the source of 500 operators again, which takes a fifth of a small network's time."""
    with pytest.MonkeyPatch.context() as patch:
        with suppress(ImportError, AttributeError):  # they are no public names
            from torch.onnx._internal.exporter import _registration

            apis = _registration.onnxscript_apis
            patch.setattr(apis, "get_torchlib_ops", functools.cache(apis.get_torchlib_ops))
        yield


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The stand-in, with a login; the client's cache is empty."""
    _forget_sessions()
    with running() as found:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", found.address)
        template = found.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # large files through Git LFS, over HTTP
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield found
    _forget_sessions()


def _forget_sessions() -> None:
    """A session keeps the way to the network that it was made with."""
    huggingface_hub.close_session()
