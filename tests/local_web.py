"""A web server on this machine, whose answers go by the path."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.exporting.checkpoints import photo

BODY = bytes(range(256)) * 8


def _photo() -> bytes:
    stream = io.BytesIO()
    photo(64, 48).save(stream, "JPEG")
    return stream.getvalue()


PHOTO = _photo()


class Handler(BaseHTTPRequestHandler):
    """Answers by the path, and notes what was asked for."""

    asked: list[tuple[str, str | None]]
    gate = threading.Event()

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
        self.send_body(BODY)

    def answer_photo(self, _: str) -> None:
        self.send_body(PHOTO)

    def answer_later(self, _: str) -> None:
        self.gate.wait(30)
        self.send_body(BODY)

    def send_body(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

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

    def answer_raw(self, target: str) -> None:
        """A redirection whose bytes are as they were given in hexadecimal, not quoted."""
        self.wfile.write(b"HTTP/1.0 302 Found\r\nLocation: " + bytes.fromhex(target) + b"\r\n\r\n")

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


@contextmanager
def local_web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Quiet]:
    """A server in a thread, to which no proxy leads."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(Handler, "asked", [], raising=False)
    monkeypatch.setattr(Handler, "gate", threading.Event())
    with Quiet(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        Handler.gate.set()
        running.shutdown()
        thread.join()


def at(server: Quiet, path: str, host: str = "127.0.0.1") -> str:
    return f"http://{host}:{server.server_port}/{path}"
