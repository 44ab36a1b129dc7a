"""The server's application: its addresses, and what each of them answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from tl_kit._version import __version__
from tl_kit.config import ServeConfig, ServeLimits
from tl_kit.errors import ConfigError, ImageError
from tl_kit.inference.exported import ExportedModel
from tl_kit.inference.predictor import Predictor
from tl_kit.serving.access import Access
from tl_kit.serving.batching import Batcher
from tl_kit.serving.guard import Guard, answer_of
from tl_kit.serving.heat_pictures import heat_picture
from tl_kit.serving.refusal import RefusedError
from tl_kit.serving.replies import (
    ErrorReply,
    HealthReply,
    HeatMap,
    Metadata,
    PredictReply,
    best_of,
    members_of,
    metadata_of,
    votes_of,
)
from tl_kit.serving.request_images import images_of
from tl_kit.serving.two_steps import two_steps
from tl_kit.serving.web_page import page

__all__ = ["application"]

_BASE64 = {"type": "string", "contentEncoding": "base64"}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {
                            "type": "array",
                            "items": {
                                "anyOf": [
                                    _BASE64,
                                    {
                                        "type": "object",
                                        "required": ["data"],
                                        "properties": {"name": {"type": "string"}, "data": _BASE64},
                                    },
                                ]
                            },
                        }
                    },
                }
            },
        },
    }
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorReply, "description": text}
    for status, text in {
        401: "The server has a token, and it is not this one.",
        408: "The body came too slowly.",
        413: "Too many bytes or images.",
        415: "The body is neither a form nor JSON.",
        422: "No image, or an option out of range.",
        429: "Too much to do; Retry-After says when to ask again.",
        503: "No answer in time.",
    }.items()
}


def application(
    classifier: Predictor | ExportedModel, config: ServeConfig, *, access: Access, tell: Callable[[str], None]
) -> FastAPI:
    """The ASGI application of an opened classifier. ``tell`` is called with a line about each failure of the server."""
    batcher = Batcher(two_steps(classifier), _for_device(config.limits, classifier))

    @asynccontextmanager
    async def running(_app: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        try:
            yield
        finally:
            await batcher.stop()

    # no pages of documentation: they would load scripts from another server
    app = FastAPI(title="tl-kit", version=__version__, lifespan=running, docs_url=None, redoc_url=None)
    app.state.batcher = batcher
    app.add_middleware(Guard, access=access, limits=config.limits, tell=tell)
    _answer_errors(app)
    _add_page(app)
    _add_facts(app, metadata_of(classifier, config), batcher)
    _add_predict(app, classifier, config, batcher)
    return app


def _for_device(limits: ServeLimits, classifier: Predictor | ExportedModel) -> ServeLimits:
    """The limits with batches as large as the passes of a GPU, which are filled up to so many rows anyway."""
    scorers = classifier.scorers if isinstance(classifier, Predictor) else ()
    rows = [each.runtime.rows // classifier.crops.views for each in scorers if each.runtime.rows is not None]
    return replace(limits, batch=max(limits.batch, *rows, 1))


def _answer_errors(app: FastAPI) -> None:
    """Errors of the framework, in the form of all others."""

    async def of_http(_request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 500)
        texts = {404: "there is no such address; / is the page, /openapi.json lists the others"}
        return _refused(RefusedError(status, texts.get(status, str(getattr(error, "detail", "cannot be answered")))))

    async def of_option(_request: Request, error: Exception) -> Response:
        first: Any = next(iter(error.errors())) if isinstance(error, RequestValidationError) else {}
        name = first.get("loc", ("",))[-1]
        return _refused(RefusedError(422, f"{name}: {first.get('msg', 'is not valid')}"))

    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(RequestValidationError, of_option)


def _refused(error: RefusedError) -> Response:
    headers, text = answer_of(error)
    return Response(text, error.status, headers)


def _add_page(app: FastAPI) -> None:
    text, policy = page()

    @app.get("/", include_in_schema=False)
    async def show() -> Response:
        return Response(text, media_type="text/html", headers={"content-security-policy": policy})


def _add_facts(app: FastAPI, facts: Metadata, batcher: Batcher) -> None:
    content = _json(asdict(facts))

    @app.get("/health", response_model=HealthReply)
    async def health() -> Response:
        """Say that the server answers."""
        return Response(_json(asdict(HealthReply("ok", batcher.inside))), media_type="application/json")

    @app.get("/metadata", response_model=Metadata, responses={401: _REFUSALS[401]})
    async def metadata() -> Response:
        """Say what the classifier is: classes, members, limits."""
        return Response(content, media_type="application/json")


def _add_predict(app: FastAPI, classifier: Predictor | ExportedModel, config: ServeConfig, batcher: Batcher) -> None:
    classes, members = classifier.classes, members_of(classifier)

    @app.post("/predict", response_model=PredictReply, responses=_REFUSALS, openapi_extra=_BODY)
    async def predict(
        request: Request,
        top: Annotated[int, Query(ge=0, description="So many classes an image; 0: all.")] = 5,
        votes: Annotated[bool, Query(description="Each member's vote too.")] = False,
        heat_map: Annotated[bool, Query(description="Where the networks look, too.")] = False,
    ) -> Response:
        """Name images. One that cannot be decoded has an error in its place; 422 if that is so of all."""
        batcher.check_room()  # before the body is read
        uploads = await images_of(request, config.limits)
        _check_number(len(uploads), config.limits, heat_maps=heat_map)
        found = await batcher.predict([upload.read for upload in uploads])
        rows: list[dict[str, Any]] = []
        for upload, each in zip(uploads, found, strict=True):
            row: dict[str, Any] = {"name": upload.name, "label": None, "probability": None, "top": [], "error": None}
            if isinstance(each, str):
                row["error"] = each
            else:
                combined = classifier.combine(each[:, np.newaxis])[0]
                best = best_of(combined, classes, top)
                row |= {**best_of(combined, classes, 1)[0], "top": best}
                if votes:
                    row["members"] = votes_of(each, members, classes, top)
                if heat_map:
                    label = int(np.argmax(combined))
                    row["heat_map"] = await batcher.in_model_thread(partial(_heat_map, classifier, upload.read, label))
            rows.append(row)
        return _reply(rows)


def _check_number(images: int, limits: ServeLimits, *, heat_maps: bool) -> None:
    if images > limits.queue:
        raise RefusedError(413, f"too many images: at most {limits.queue} are taken at a time")
    if heat_maps and images > limits.heat_maps:
        raise RefusedError(413, f"too many images with a heat map: at most {limits.heat_maps} a request")


def _heat_map(classifier: Predictor | ExportedModel, read: Callable[[], bytes], label: int) -> dict[str, Any]:
    """A heat map as :class:`HeatMap` is in JSON."""
    try:
        if not isinstance(classifier, Predictor):
            raise ConfigError("an exported file has no heat maps: serve its checkpoint")
        found = heat_picture(classifier, read(), label)
    except (ConfigError, ImageError) as error:
        return asdict(HeatMap(None, 0, True, str(error)))
    return asdict(HeatMap(found.address, found.members, found.blank, None))


def _reply(rows: Sequence[Mapping[str, Any]]) -> Response:
    content: dict[str, Any] = {"predictions": rows}
    failed = all(row["error"] is not None for row in rows)
    if failed:
        first = f"{rows[0]['name']}: {rows[0]['error']}"
        content["error"] = first if len(rows) == 1 else f"no image could be decoded; the first: {first}"
    return Response(_json(content), 422 if failed else 200, media_type="application/json")


def _json(content: object) -> bytes:
    return json.dumps(content, allow_nan=False, ensure_ascii=False).encode("utf-8", errors="replace")
