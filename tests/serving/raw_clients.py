"""Clients that write their requests themselves, byte for byte."""

from __future__ import annotations

import http.client
import json
import socket

from tests.serving.test_answers import BAD, GOOD

BOUNDARY = "abc"


def body_of(*names: str) -> bytes:
    parts = [
        f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
        + {**GOOD, **BAD}[name]
        + b"\r\n"
        for name in names
    ]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def head_of(length: int | None, path: str = "/predict") -> bytes:
    size = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    kind = f"content-type: multipart/form-data; boundary={BOUNDARY}"
    return f"POST {path} HTTP/1.1\r\nhost: localhost\r\n{size}\r\n{kind}\r\n\r\n".encode()


def in_json(content: object) -> bytes:
    """A whole request in JSON."""
    body = json.dumps(content).encode()
    lines = f"host: localhost\r\ncontent-length: {len(body)}\r\ncontent-type: application/json"
    return f"POST /predict HTTP/1.1\r\n{lines}\r\n\r\n".encode() + body


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def answer(connection: socket.socket) -> tuple[int, dict[str, object], str | None]:
    reply = http.client.HTTPResponse(connection)
    reply.begin()
    return reply.status, json.loads(reply.read()), reply.getheader("retry-after")


def ask(port: int, *names: str) -> int:
    with connect(port) as connection:
        body = body_of(*names)
        connection.sendall(head_of(len(body)) + body)
        return answer(connection)[0]
