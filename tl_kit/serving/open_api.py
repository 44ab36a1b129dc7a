"""OpenAPI: the description of the interface for programs, as far as the framework does not make it of types."""

from __future__ import annotations

from typing import Any

from tl_kit.serving.replies import ErrorReply

__all__ = ["REFUSALS", "body_of"]

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorReply, "description": text}
    for status, text in {
        401: "The server has a token, and it is not this one.",
        403: "A page of another address asks, or images are named by addresses where none are fetched.",
        408: "The body came too slowly.",
        413: "Too many bytes or images, or too many figures in the answer.",
        415: "The body is neither a form nor JSON.",
        421: "The server is called by a name that is not its own.",
        422: "No image that can be read, or an option that is not one, or out of range.",
        429: "Too much to do; Retry-After says when to ask again.",
        503: "No answer in time.",
    }.items()
}
"""The statuses of refusals, and what they mean."""

_BASE64 = {"type": "string", "contentEncoding": "base64"}
_NAMED = {"type": "object", "required": ["data"], "properties": {"name": {"type": "string"}, "data": _BASE64}}
_URL = {"type": "string", "format": "uri"}


def body_of(*, urls: bool, most: int) -> dict[str, Any]:
    """The body of ``POST /predict``: at most so many files, images in base64, or, with ``urls``, addresses."""
    in_json = [_list_of("images", {"anyOf": [_BASE64, _NAMED]}, most)]
    if urls:
        in_json.append(
            {**_list_of("urls", _URL, most), "description": "The server fetches them, from public hosts unless told."}
        )
    form = _list_of("files", {"type": "string", "format": "binary"}, most)
    schemas = {"multipart/form-data": form, "application/json": in_json[0] if len(in_json) == 1 else {"oneOf": in_json}}
    content = {kind: {"schema": schema} for kind, schema in schemas.items()}
    return {"requestBody": {"required": True, "content": content}}


def _list_of(name: str, items: dict[str, Any], most: int) -> dict[str, Any]:
    images = {"type": "array", "items": items, "minItems": 1, "maxItems": most}
    return {"type": "object", "required": [name], "properties": {name: images}}
