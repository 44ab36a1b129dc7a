"""The server's application: its addresses, and what each of them answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from tl_kit._version import __version__
from tl_kit.config import ServeConfig, ServeLimits
from tl_kit.inference.exported import ExportedModel
from tl_kit.inference.predictor import Predictor
from tl_kit.serving.access import Access
from tl_kit.serving.batching import Batcher
from tl_kit.serving.guard import Guard, answer_of
from tl_kit.serving.open_api import REFUSALS
from tl_kit.serving.predict_route import add_predict
from tl_kit.serving.refusal import RefusedError
from tl_kit.serving.replies import HealthReply, Metadata, as_json, metadata_of
from tl_kit.serving.two_steps import two_steps
from tl_kit.serving.web_page import page

__all__ = ["application"]


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
    app = FastAPI(
        title="tl-kit", version=__version__, lifespan=running, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.state.batcher = batcher
    app.add_middleware(Guard, access=access, limits=config.limits, tell=tell)
    _answer_errors(app)
    _add_page(app)
    _add_facts(app, metadata_of(classifier, config), batcher)
    add_predict(app, classifier, config, batcher)
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
        text = texts.get(status, str(getattr(error, "detail", "cannot be answered")))
        return _refused(RefusedError(status, text), getattr(error, "headers", None) or {})

    async def of_option(_request: Request, error: Exception) -> Response:
        first: Any = next(iter(error.errors())) if isinstance(error, RequestValidationError) else {}
        name = first.get("loc", ("",))[-1]
        return _refused(RefusedError(422, f"{name}: {first.get('msg', 'is not valid')}"))

    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(RequestValidationError, of_option)


def _refused(error: RefusedError, more: Mapping[str, str] = MappingProxyType({})) -> Response:
    headers, text = answer_of(error)
    return Response(text, error.status, {**headers, **more})


def _add_page(app: FastAPI) -> None:
    text, policy = page()

    @app.get("/", include_in_schema=False)
    async def show() -> Response:
        return Response(text, media_type="text/html", headers={"content-security-policy": policy})


def _add_facts(app: FastAPI, facts: Metadata, batcher: Batcher) -> None:
    content = as_json(asdict(facts))

    @app.head("/health", include_in_schema=False)
    @app.get("/health", response_model=HealthReply)
    async def health() -> Response:
        """Say that the server answers."""
        return Response(as_json(asdict(HealthReply("ok", batcher.inside))), media_type="application/json")

    @app.get("/metadata", response_model=Metadata, responses={401: REFUSALS[401]})
    async def metadata() -> Response:
        """Say what the classifier is: classes, members, limits."""
        return Response(content, media_type="application/json")
