"""The route ``POST /predict``: from a request's body to the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Query, Request
from numpy.typing import NDArray
from starlette.responses import Response

from tl_kit.config import ServeConfig, ServeLimits
from tl_kit.errors import ConfigError, ImageError
from tl_kit.inference.exported import ExportedModel
from tl_kit.inference.predictor import Predictor
from tl_kit.serving.batching import Batcher
from tl_kit.serving.heat_pictures import heat_picture
from tl_kit.serving.open_api import REFUSALS, body_of
from tl_kit.serving.presence import while_there
from tl_kit.serving.refusal import RefusedError
from tl_kit.serving.remote_images import RemoteImages
from tl_kit.serving.replies import HeatMap, PredictReply, as_json, best_of, members_of, votes_of
from tl_kit.serving.request_images import Remote, Upload, images_of

__all__ = ["add_predict"]

_Found = NDArray[np.float64] | str


def add_predict(app: FastAPI, classifier: Predictor | ExportedModel, config: ServeConfig, batcher: Batcher) -> None:
    """Add the route to an application."""
    limits = config.limits
    remote = RemoteImages(limits, allow_private=config.allow_private)
    answers = _Answers(classifier, limits, batcher, remote)
    app.state.remote = remote

    @app.post(
        "/predict",
        response_model=PredictReply,
        responses=REFUSALS,
        openapi_extra=body_of(urls=config.urls, most=min(limits.files, limits.queue)),
    )
    async def predict(
        request: Request,
        top: Annotated[int, Query(ge=0, description="So many classes an image; 0: all.")] = 5,
        votes: Annotated[bool, Query(description="Each member's vote too.")] = False,
        heat_map: Annotated[bool, Query(description="Where the networks look, too.")] = False,
    ) -> Response:
        """Name images. One that cannot be read has an error in its place; 422 if that is so of all."""
        _check_options(request, ("top", "votes", "heat_map"))
        batcher.check_room()  # before the body is read
        images = await images_of(request, limits, urls=config.urls)
        asked = _Asked(top, votes, heat_map)
        answers.check(len(images), asked)
        return await while_there(request, answers.answer(images, asked))


def _check_options(request: Request, known: Sequence[str]) -> None:
    for name in request.query_params:
        if name not in known:
            raise RefusedError(422, f"{name[:60]}: there is no such option; there are {', '.join(known)}")


@dataclass(frozen=True)
class _Asked:
    """The options of a request."""

    top: int
    votes: bool
    heat_map: bool


@dataclass(frozen=True)
class _Answers:
    """Answers of one classifier."""

    classifier: Predictor | ExportedModel
    limits: ServeLimits
    batcher: Batcher
    remote: RemoteImages

    def check(self, images: int, asked: _Asked) -> None:
        """Raises RefusedError (413) for a request that asks for too much, before anything is done for it."""
        limits, classes = self.limits, len(self.classifier.classes)
        if images > limits.queue:
            raise RefusedError(413, f"too many images: at most {limits.queue} are taken at a time")
        if asked.heat_map and isinstance(self.classifier, Predictor) and images > limits.heat_maps:
            raise RefusedError(413, f"too many images with a heat map: at most {limits.heat_maps} a request")
        members = len(members_of(self.classifier)) if asked.votes else 0
        figures = images * min(asked.top or classes, classes) * (1 + members)
        if figures > limits.figures:
            text = f"too long an answer: {figures:,} probabilities, and at most {limits.figures:,} are given"
            raise RefusedError(413, f"{text}; send fewer images, or ask for fewer classes (top)")

    async def answer(self, images: Sequence[Upload | Remote], asked: _Asked) -> Response:
        """The answer for the images of a request. Raises RefusedError if there is no room for them."""
        async with self.remote.fetched(images) as uploads:
            found = await self.batcher.predict([upload.read for upload in uploads])
            pairs = zip(uploads, found, strict=True)
            maps = [await self._map(*pair) if asked.heat_map else None for pair in pairs]
        names = [upload.name for upload in uploads]
        return await asyncio.to_thread(self._reply, names, found, maps, asked)

    async def _map(self, upload: Upload, found: _Found) -> dict[str, Any] | None:
        if isinstance(found, str):
            return None
        label = int(np.argmax(self._combined(found)))
        return await self.batcher.in_model_thread(partial(_heat_map, self.classifier, upload.read, label))

    def _combined(self, found: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities (classes,) of the members' probabilities (members, classes)."""
        combined: NDArray[np.float64] = self.classifier.combine(found[:, np.newaxis])[0]
        return combined

    def _reply(
        self, names: Sequence[str], found: Sequence[_Found], maps: Sequence[dict[str, Any] | None], asked: _Asked
    ) -> Response:
        """The answer as JSON. With all classes of many images this takes as long as to compute them."""
        rows = [self._row(*each, asked) for each in zip(names, found, maps, strict=True)]
        content: dict[str, Any] = {"predictions": rows}
        failed = all(row["error"] is not None for row in rows)
        if failed:
            first = f"{names[0]}: {rows[0]['error']}"
            content["error"] = first if len(rows) == 1 else f"no image could be read; the first: {first}"
        return Response(as_json(content), 422 if failed else 200, media_type="application/json")

    def _row(self, name: str, found: _Found, heat_map: dict[str, Any] | None, asked: _Asked) -> Mapping[str, Any]:
        row: dict[str, Any] = {"name": name, "label": None, "probability": None, "top": [], "error": None}
        if isinstance(found, str):
            return {**row, "error": found}
        classes, combined = self.classifier.classes, self._combined(found)
        row |= {**best_of(combined, classes, 1)[0], "top": best_of(combined, classes, asked.top)}
        if asked.votes:
            row["members"] = votes_of(found, members_of(self.classifier), classes, asked.top)
        if heat_map is not None:
            row["heat_map"] = heat_map
        return row


def _heat_map(classifier: Predictor | ExportedModel, read: Callable[[], bytes], label: int) -> dict[str, Any]:
    """A heat map as :class:`HeatMap` is in JSON."""
    try:
        if not isinstance(classifier, Predictor):
            raise ConfigError("an exported file has no heat maps: serve its checkpoint")
        found = heat_picture(classifier, read(), label)
    except (ConfigError, ImageError) as error:
        return asdict(HeatMap(None, 0, True, str(error)))
    return asdict(HeatMap(found.address, found.members, found.blank, None))
