"""Data sets at an address (``s3://``, ``gs://``, ``hf://``, ``https://`` ...): a bounded local copy, by fsspec."""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path, PurePosixPath
from typing import Any

from tl_kit.data.forms.local_copies import CopyTerms, Megabytes, Room, copy_of
from tl_kit.errors import DataError, first_line
from tl_kit.optional_packages import check_packages, needs, pip_install
from tl_kit.untrusted import is_plain_relative

__all__ = ["fetch", "hidden_login"]

_CHUNK = 1 << 20
_WEB = ("http", "https")
_CONNECT, _SILENCE = 30.0, 60.0  # seconds in which a web server must answer, and send the next bytes
_INSTALL = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss"), "adlfs"),
}


def fetch(address: str, terms: CopyTerms) -> Path:
    """The local copy of the file or folder at an address.

    Its key is the address with the tags, sizes and times by which the store tells versions of the files: what has not
    changed there is not loaded again. A store that names none of them is asked for the bytes each time.

    Raises DataError if fsspec or the store's package is missing, if there is nothing at the address or it cannot be
    read, for names that lead out of the folder, and beyond ``copy_gb`` and ``copy_files``.
    """
    shown, bounds = hidden_login(address), terms.bounds
    check_packages(shown, "fsspec", extra="data", error=DataError)
    store, root = _store(address, shown)
    try:
        files = _files(store, root)
    except Exception as error:  # each store raises of its own kinds
        raise DataError(f"{shown}: cannot be read ({_reason(error)})") from error
    if not files:
        raise DataError(f"{shown}: there is nothing")
    total = sum(int(info.get("size") or 0) for _, info in files)
    if total > bounds.copy_gb * 1e9 or len(files) > bounds.copy_files:
        large = f"{total / 1e9:.3g} GB, more than --copy-size {bounds.copy_gb:g}"
        many = f"{len(files):,} files, more than DecodeConfig.copy_files allows"
        which = large if total > bounds.copy_gb * 1e9 else many
        raise DataError(f"{shown}: holds {which}; raise it, or copy the files yourself and name the folder")
    prefix = root.rstrip("/") + "/"
    alone = len(files) == 1 and files[0][0].rstrip("/") == root.rstrip("/")
    names = [_name(path, prefix, alone, address, shown) for path, _ in files]

    def fill(folder: Path, room: Room) -> None:
        told = Megabytes(terms.reporter, "download", total)
        for (path, facts), name in zip(files, names, strict=True):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            room.file()
            try:
                with _open(store, path) as stream, target.open("wb") as output:
                    while chunk := stream.read(_CHUNK):
                        room.take(len(chunk))
                        output.write(chunk)
                        told.add(len(chunk))
                    size = output.tell()
            except DataError:
                raise
            except Exception as error:  # as above
                raise DataError(f"{shown}: {name}: cannot be read ({_reason(error)})") from error
            if facts.get("size") not in (None, size):
                raise DataError(f"{shown}: {name}: ended after {size:,} of {facts['size']:,} bytes; try again")
        told.finish()

    try:
        key = _key(store, address, files, terms)
    except Exception as error:  # as above
        raise DataError(f"{shown}: cannot be read ({_reason(error)})") from error
    folder = copy_of(shown, key, fill=fill, terms=terms)
    return folder / names[0] if alone else folder


def hidden_login(address: str) -> str:
    """The address, or each of a chain (``::``), without user, password and query, which may hold keys."""
    links = [re.sub(r"^([\w.+-]+):/+(?=[^/])", r"\1://", link) for link in address.split("::")]
    return "::".join(re.sub(r"(?<=://)[^/]*@", "", link).partition("?")[0] for link in links)


def _store(address: str, shown: str) -> tuple[Any, str]:
    import fsspec

    scheme = address.partition("://")[0].lower()
    try:
        store, root = fsspec.core.url_to_fs(address, **(_patience() if scheme in _WEB else {}))
    except (ImportError, ValueError) as error:
        if scheme in _WEB and isinstance(error, ImportError):
            raise DataError(needs(shown, ["aiohttp"], pip_install("data"))) from error
        if (package := _INSTALL.get(scheme)) is not None:
            raise DataError(needs(shown, [package], f"pip install {package}")) from error
        raise DataError(f"{shown}: there is no reader of {scheme}:// addresses ({first_line(error)})") from error
    except Exception as error:  # a store may look at logins here
        raise DataError(f"{shown}: cannot be opened ({_reason(error)})") from error
    _hush(type(store).__module__.partition(".")[0])
    return store, str(root)


def _hush(package: str) -> None:
    """Keep a store's package from writing tracebacks to the terminal, as Python does for loggers without a handler.

    Handlers that the program has set up still get them.
    """
    logger = logging.getLogger(package)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


def _patience() -> dict[str, Any]:
    """Options for web servers; without them a download may take five minutes in all, and so may a silent server."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=_SILENCE)
    return {"client_kwargs": {"timeout": timeout}}


def _files(store: Any, root: str) -> list[tuple[str, dict[str, Any]]]:
    """Path and facts of each file at or below ``root``, sorted; hidden ones are left out."""
    info = store.info(root)
    if info.get("type") == "file":
        return [(root, info)]
    found = store.find(root, detail=True)
    inner = {
        path: facts
        for path, facts in found.items()
        if facts.get("type", "file") == "file" and not path.endswith("/")  # objects that stand for folders
    }
    hidden = [path for path in inner if any(part.startswith(".") for part in path[len(root) :].split("/"))]
    return sorted((path, facts) for path, facts in inner.items() if path not in hidden)


def _name(path: str, prefix: str, alone: bool, address: str, shown: str) -> str:
    """The path of a file's copy, below its folder."""
    name = PurePosixPath(hidden_login(address).rstrip("/")).name if alone else path.removeprefix(prefix)
    if alone and not name:
        name = "data"
    if not is_plain_relative(name) or name == path:
        raise DataError(f"{shown}: a file's name leads out of it: {path}")
    return name


def _key(store: Any, address: str, files: list[tuple[str, dict[str, Any]]], terms: CopyTerms) -> str:
    digest = hashlib.sha256(address.encode())
    told = None
    for path, facts in files:
        known = [facts.get(name) for name in ("ETag", "etag", "md5Hash", "blob_id", "mtime", "LastModified", "updated")]
        if not any(known):
            if told is None:
                told = Megabytes(terms.reporter, "digest", sum(int(each.get("size") or 0) for _, each in files))
            known = ["checked", _content(store, path, told)]
        digest.update(f"\n{path}\t{facts.get('size')}\t{known}".encode(errors="surrogatepass"))
    return digest.hexdigest()[:32]


def _open(store: Any, path: str) -> Any:
    """The file's bytes, from the first to the last: not every web server can begin elsewhere."""
    scheme = store.protocol if isinstance(store.protocol, str) else store.protocol[0]
    return store.open(path, "rb", **({"block_size": 0} if scheme in _WEB else {}))


def _content(store: Any, path: str, told: Megabytes) -> str:
    """SHA-256 of the bytes of a file that has no tag."""
    digest = hashlib.sha256()
    with _open(store, path) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            told.add(len(chunk))
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    """The reason in words, and the remedy where a login is missing."""
    if isinstance(error, FileNotFoundError):
        return "nothing is there, or nothing answers"
    text = first_line(error)
    if isinstance(error, PermissionError) or "credentials" in text.lower():
        return f"{text}; log in as the store's package is told: by the environment, or its own files"
    return text
