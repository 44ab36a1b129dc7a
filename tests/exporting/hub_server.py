"""A stand-in for the Hugging Face hub on the loopback interface, which speaks what huggingface_hub asks for.

Creation of repositories, validation of model cards, upload modes, Git LFS, commits, and downloads. What is private is
shown to nobody without the token.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from huggingface_hub import ModelCard

TOKEN = "hf_stand_in"
LICENCES = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "other", "unknown")


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    lfs: set[str] = field(default_factory=set)
    commits: int = 0

    @property
    def sha(self) -> str:
        return f"{self.commits:040x}"


@dataclass
class Hub:
    """What the stand-in holds and what it was asked. ``breaks``: paths of which it sends half, or other bytes."""

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)
    cut: set[str] = field(default_factory=set)
    swapped: set[str] = field(default_factory=set)

    def publish(self, name: str, files: dict[str, bytes]) -> None:
        """Put files into a public repository; those of tensors through Git LFS."""
        lfs = {path for path in files if path.endswith(".safetensors")}
        self.repositories[name] = Repository(private=False, files=dict(files), lfs=lfs, commits=1)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _send(self, status: int, content: bytes | dict[str, Any] | list[Any] = b"", **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", headers.get("Size", str(len(data))))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, {"error": code}, X_Error_Code=code, X_Error_Message=code)

    @property
    def _allowed(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repository(self, name: str) -> Repository | None:
        found = self.hub.repositories.get(name)
        return None if found is None or (found.private and not self._allowed) else found

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if path == "/":
            self._send(200)
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+?)(/revision/[^/]+|/tree/[^/]+)?", path):
            repository = self._repository(found[1])
            if repository is None:
                self._refuse(404, "RepoNotFound")
            elif (found[2] or "").startswith("/tree"):
                self._send(200, [self._entry(repository, name) for name in sorted(repository.files)])
            else:
                self._send(200, self._info(found[1], repository))
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(found[1], found[3])
        else:
            self._refuse(404, "EntryNotFound")

    def _entry(self, repository: Repository, name: str) -> dict[str, Any]:
        content = repository.files[name]
        entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": _git_digest(content)}
        if name in repository.lfs:
            entry["lfs"] = {"oid": _digest(content), "size": len(content), "pointerSize": 130}
        return entry

    def _info(self, name: str, repository: Repository) -> dict[str, Any]:
        siblings = [{"rfilename": path} for path in sorted(repository.files)]
        return {
            **{"_id": "0", "id": name, "modelId": name, "private": repository.private, "sha": repository.sha},
            **{"siblings": siblings, "tags": [], "downloads": 0, "likes": 0, "gated": False, "disabled": False},
        }

    def _file(self, name: str, path: str) -> None:
        repository = self._repository(name)
        if repository is None:
            self._refuse(404, "RepoNotFound")
            return
        if path not in repository.files:
            self._send(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=repository.sha)
            return
        content = repository.files[path]
        etag = _digest(content) if path in repository.lfs else _git_digest(content)
        if path in self.hub.swapped:
            content = bytes(len(content))
        size = str(len(content))
        sent = content[: len(content) // 2] if path in self.hub.cut and self.command == "GET" else content
        self._send(200, sent, ETag=f'"{etag}"', X_Repo_Commit=repository.sha, Size=size)
        self.close_connection = len(sent) < len(content)

    def do_PUT(self) -> None:
        path, body = urlsplit(self.path).path, self._body()
        self.hub.requests.append(f"PUT {path}")
        self.hub.received.append(body)
        if path.rpartition("/")[2] != _digest(body):
            self._refuse(422, "WrongDigest")
            return
        self.hub.objects[_digest(body)] = body
        self._send(200)

    def do_POST(self) -> None:
        path, body = unquote(urlsplit(self.path).path), self._body()
        self.hub.requests.append(f"POST {path}")
        self.hub.received.append(body)
        if path == "/api/validate-yaml":
            self._validate(json.loads(body)["content"])
        elif not self._allowed:
            self._refuse(401, "Unauthorized")
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            files = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": _mode(f["path"]), "shouldIgnore": False} for f in files]
            self._send(200, {"files": modes})
        elif found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            self._send(200, {"transfer": "basic", "objects": [self._place(o) for o in json.loads(body)["objects"]]})
        elif path == "/lfs/verify":
            self._send(200, {})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            self._commit(found[1], [json.loads(line) for line in body.splitlines()])
        else:
            self._refuse(404, "EntryNotFound")

    def _validate(self, content: str) -> None:
        data = ModelCard(content).data.to_dict()
        problems = [] if data.get("license", "mit") in LICENCES else ['"license" must be one of those of the hub']
        problems += [f'"{key}" is missing' for key in ("tags", "pipeline_tag") if key not in data]
        self._send(400 if problems else 200, {"errors": [{"message": p} for p in problems], "warnings": []})

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        url = {"url": f"{self.hub.address}/{name}", "id": name, "name": name}
        if name in self.hub.repositories:
            self._send(409, {"error": "exists", **url})
            return
        private = asked.get("private", asked.get("visibility") == "private")
        self.hub.repositories[name] = Repository(private=private)
        self._send(200, url)

    def _place(self, wanted: dict[str, Any]) -> dict[str, Any]:
        oid, size = wanted["oid"], wanted["size"]
        if oid in self.hub.objects:
            return {"oid": oid, "size": size}
        verify = {"href": f"{self.hub.address}/lfs/verify", "header": {"Authorization": f"Bearer {TOKEN}"}}
        upload = {"href": f"{self.hub.address}/lfs/{oid}"}
        return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        repository = self.hub.repositories[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repository.files[value["path"]] = self.hub.objects[value["oid"]]
                repository.lfs.add(value["path"])
            elif line["key"] == "deletedFile":
                del repository.files[value["path"]]
        repository.commits += 1
        commit = f"{self.hub.address}/{name}/commit/{repository.sha}"
        self._send(200, {"success": True, "commitOid": repository.sha, "commitUrl": commit, "hookOutput": ""})


def _mode(path: str) -> str:
    return "lfs" if path.endswith(".safetensors") else "regular"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _git_digest(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def running() -> Iterator[Hub]:
    """The stand-in, on a free port of 127.0.0.1."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
