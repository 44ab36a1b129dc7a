"""The images of one request: files of a form, base64 in JSON, or addresses."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import Request
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from tl_kit.config import ServeLimits
from tl_kit.errors import ImageError
from tl_kit.serving.refusal import RefusedError

__all__ = ["LONGEST_ADDRESS", "Remote", "Upload", "images_of"]

_LONGEST_NAME = 255
LONGEST_ADDRESS = 2048
"""Longer addresses are not fetched."""

_STRUCTURE = (b",", b":", b"{", b"[")  # base64 has none of them
_PARTS = 64  # of one image: more than its name and its data need
_FORMS = (
    'send image files as a form (multipart/form-data), or JSON: {"images": [base64, ...]} or '
    '{"images": [{"name": ..., "data": base64}, ...]}'
)
_URLS = '{"urls": ["https://...", ...]}'
_NO_URLS = "this server fetches no addresses (it was started without --urls): send the images themselves"


@dataclass(frozen=True)
class Upload:
    """One image of a request: the client's name for it, and its file's bytes, which a thread asks for."""

    name: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Remote:
    """One image of a request that the server fetches."""

    address: str

    @property
    def name(self) -> str:
        """The address, cut short if it is longer than any that is fetched."""
        return self.address[:LONGEST_ADDRESS]


class _InMemory(MultiPartParser):
    """The parser of forms; it writes no file, since the size of a body is limited. ``ended``: it met the form's end."""

    spool_max_size = 2**40
    ended = False

    def on_end(self) -> None:
        super().on_end()
        self.ended = True


async def images_of(request: Request, limits: ServeLimits, *, urls: bool) -> Sequence[Upload | Remote]:
    """Every image of a request, in order. Raises RefusedError (413, 415, 422) for any other body.

    Without ``urls``, addresses are refused (403).
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    found: Sequence[Upload | Remote]
    if kind == "multipart/form-data":
        # in a thread: the parser is written in Python, and takes seconds for the largest body
        found = await asyncio.to_thread(asyncio.run, _form(await request.body(), request.headers, limits))
    elif kind == "application/json":
        found = await asyncio.to_thread(_json, await request.body(), limits, urls=urls)
    else:
        raise RefusedError(415, f"the content type {kind[:60] or '(none)'} is not taken: {_FORMS}")
    if not found:
        raise RefusedError(422, f"no image in the request: {_FORMS}")
    return found


async def _form(body: bytes, headers: Headers, limits: ServeLimits) -> list[Upload]:
    async def whole() -> AsyncGenerator[bytes, None]:
        yield body
        if body and not parser.ended:  # it would drop the last file without a word
            raise RefusedError(422, "the form is cut off: the boundary at its end is missing; send it again, whole")

    parser = _InMemory(headers, whole(), max_files=limits.files, max_fields=limits.files)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise _too_many(limits) from error
        raise RefusedError(422, f"the form cannot be read: {error.message[:100]}") from error
    except (LookupError, ValueError) as error:  # no boundary, or a character set that is none
        raise RefusedError(422, "the form cannot be read: its content type or its parts are damaged") from error
    try:
        return [_file(item, place, limits) for place, (_, item) in enumerate(form.multi_items())]
    finally:
        await form.close()


def _file(item: UploadFile | str, place: int, limits: ServeLimits) -> Upload:
    if not isinstance(item, UploadFile):
        raise RefusedError(422, "the form has a field that is no file: send each image as a file")
    _check_size(item.size or 0, item.filename or f"image {place}", limits)
    return Upload(_short(item.filename, place), partial(bytes, item.file.read()))


def _json(body: bytes, limits: ServeLimits, *, urls: bool = False) -> Sequence[Upload | Remote]:
    forms = f"{_FORMS} or {_URLS}" if urls else _FORMS
    if sum(map(body.count, _STRUCTURE)) > _PARTS * (limits.files + 1):
        raise RefusedError(422, f"the JSON has more parts than {limits.files} images need: {forms}")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError(422, f"the body cannot be read as JSON: {forms}") from error
    if not urls and isinstance(content, dict) and "urls" in content:
        raise RefusedError(403, _NO_URLS)
    name, items = next(iter(content.items()), ("", None)) if isinstance(content, dict) else ("", None)
    readers: dict[str, Callable[[Any, int, ServeLimits], Upload | Remote]] = {"images": _encoded, "urls": _address}
    if not isinstance(items, list) or len(content) != 1 or name not in readers:
        names = '"images" or "urls"' if urls else '"images"'
        raise RefusedError(422, f"the JSON must be an object with {names} alone: {forms}")
    if len(items) > limits.files:
        raise _too_many(limits)
    return [readers[name](item, place, limits) for place, item in enumerate(items)]


def _address(item: Any, place: int, limits: ServeLimits) -> Remote:
    if not isinstance(item, str):
        raise RefusedError(422, f"address {place} is no text: {_URLS}")
    return Remote(item)


def _encoded(item: Any, place: int, limits: ServeLimits) -> Upload:
    name, data = (item.get("name"), item.get("data")) if isinstance(item, dict) else (None, item)
    if not isinstance(data, str) or not isinstance(name, str | None):
        raise RefusedError(422, f"image {place} is no base64 text: {_FORMS}")
    if data.startswith("data:"):
        data = data.partition(",")[2]
    _check_size(len(data) * 3 // 4, name or f"image {place}", limits)
    return Upload(_short(name, place), partial(_bytes, data))


def _bytes(data: str) -> bytes:
    for space in "\r\n \t":  # base64 is often written in lines
        data = data.replace(space, "")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError("is no base64 text") from error


def _check_size(size: int, name: str, limits: ServeLimits) -> None:
    if size > limits.image_bytes:
        raise RefusedError(
            413, f"{name[:_LONGEST_NAME]}: too large, {size:,} bytes; at most {limits.image_bytes:,} are taken"
        )


def _too_many(limits: ServeLimits) -> RefusedError:
    return RefusedError(413, f"too many images: at most {limits.files} a request")


def _short(name: str | None, place: int) -> str:
    return (name or f"image {place}")[:_LONGEST_NAME]
