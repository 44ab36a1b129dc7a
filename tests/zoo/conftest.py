"""A machine without a network, with an empty model cache; and a small model hub on the loopback interface."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No test of this folder can reach the network or see the user's caches. Gives the empty hub cache."""
    cache = tmp_path / "hub-cache"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch-home"))
    return cache


@pytest.fixture
def local_hub(monkeypatch: pytest.MonkeyPatch, offline: Path) -> Iterator[Callable[[str, str, bytes], list[str]]]:
    """A hub that serves what is handed to it: ``publish(repository, filename, content)``; gives the requests seen."""
    _forget_sessions()
    files: dict[str, bytes] = {}
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self, body: bool) -> None:
            requests.append(f"{self.command} {self.path}")
            content = files.get(self.path)
            self.send_response(200 if content is not None or self.path == "/" else 404)
            if content is None:
                self.send_header("X-Error-Code", "EntryNotFound")
            content = content or b""
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")

    def publish(repository: str, filename: str, content: bytes) -> list[str]:
        files[f"/{repository}/resolve/main/{filename}"] = content
        return requests

    yield publish
    server.shutdown()
    server.server_close()
    _forget_sessions()


def _forget_sessions() -> None:
    """A session of huggingface_hub before 1.0 is for ever with or without a network, as it was when it was made."""
    forget = getattr(huggingface_hub.utils, "reset_sessions", None)
    if forget is not None:
        forget()
