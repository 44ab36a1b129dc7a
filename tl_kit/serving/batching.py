"""Dynamic batching: images of requests that come at the same time share one forward pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tl_kit.config import ServeLimits
from tl_kit.errors import ImageError
from tl_kit.machine.runtime import available_cores
from tl_kit.serving.refusal import BusyError
from tl_kit.serving.two_steps import Decoded, TwoSteps, bytes_of

__all__ = ["Batcher"]

_Found = TypeVar("_Found")


@dataclass
class _Waiting:
    """A decoded image, None once nobody waits for it, and the place for its probabilities (members, classes)."""

    image: Decoded | None
    answer: asyncio.Future[NDArray[np.float64]]


class Batcher:
    """Decodes images in threads, and runs them in one thread, which owns the model.

    While a forward pass runs, decoded images gather; the next pass takes them all, up to ``limits.batch``. It waits at
    most ``limits.wait`` seconds for images that are being decoded, so that one client alone waits for nobody. At most
    ``limits.queue`` images are here at a time.

    Use it in one event loop, between :meth:`start` and :meth:`stop`. ``batches`` and ``images`` count what has run.
    """

    def __init__(self, steps: TwoSteps, limits: ServeLimits) -> None:
        self._steps = steps
        self._limits = limits
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()  # check_room bounds it
        # Two at least: on one core too, a large image must not keep the small ones waiting.
        self._decoders = ThreadPoolExecutor(max(2, available_cores()), thread_name_prefix="tlkit-read")
        self._model = ThreadPoolExecutor(1, thread_name_prefix="tlkit-model")
        self._worker: asyncio.Task[None] | None = None
        self._decoded = asyncio.Event()  # one more image is, or cannot be
        self._inside = self._decoding = self._held = 0
        self.batches = self.images = 0

    @property
    def inside(self) -> int:
        """Images that are decoded, wait or run."""
        return self._inside

    def start(self) -> None:
        """Begin to take batches."""
        self._worker = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Take no more batches, and end the threads once they have done what they are doing."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        for pool in (self._decoders, self._model):
            await asyncio.to_thread(pool.shutdown, wait=True, cancel_futures=True)

    def check_room(self, images: int = 1) -> None:
        """Check the queue's room: raises BusyError if so many more images do not fit."""
        if self._inside + images > self._limits.queue:
            raise BusyError(
                f"too many images wait ({self._inside}); send this request again later",
                retry=self._limits.retry_seconds,
            )

    async def predict(self, files: Sequence[Callable[[], bytes]]) -> list[NDArray[np.float64] | str]:
        """For each image its probabilities (members, classes), or the reason why it cannot be decoded.

        ``files`` give the bytes of an image file, or raise ImageError; a decoding thread calls them. Raises
        BusyError where there is no room, before anything is decoded, and what the forward pass raises. If it is
        cancelled, images that have not been run are left out.
        """
        self.check_room(len(files))
        self._inside += len(files)  # here, before the tasks begin: two requests must not both see the room
        tasks = [asyncio.create_task(self._image(file)) for file in files]
        for task in tasks:
            task.add_done_callback(self._left)
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    async def in_model_thread(self, work: Callable[[], _Found]) -> _Found:
        """Do other work with the model between two batches; it counts as an image. Raises BusyError."""
        self.check_room()
        self._inside += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._model, work)
        finally:
            self._inside -= 1

    def _left(self, _task: object) -> None:
        self._inside -= 1

    async def _image(self, file: Callable[[], bytes]) -> NDArray[np.float64] | str:
        loop = asyncio.get_running_loop()
        self._decoding += 1
        try:
            decoded = await loop.run_in_executor(self._decoders, self._decode, file)
        finally:
            self._decoding -= 1
            self._decoded.set()
        if isinstance(decoded, str):
            return decoded
        size = bytes_of(decoded)
        if self._held and self._held + size > self._limits.held_bytes:
            raise BusyError(
                "too many large images wait; send this request again later", retry=self._limits.retry_seconds
            )
        self._held += size
        waiting = _Waiting(decoded, loop.create_future())
        del decoded
        try:
            self._queue.put_nowait(waiting)
            return await waiting.answer
        finally:
            waiting.image = None  # where the request was given up, it stays in the queue until the next batch
            self._held -= size

    def _decode(self, file: Callable[[], bytes]) -> Decoded | str:
        try:
            return self._steps.decode(file())
        except ImageError as error:
            return str(error)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._queue.get()]
            self._take(batch)
            await self._fill(batch)
            batch = [each for each in batch if not each.answer.done()]  # others are of requests that were given up
            images = [each.image for each in batch if each.image is not None]
            if not batch:
                continue
            try:
                found = await loop.run_in_executor(self._model, self._steps.run, images)
                rows = [found[:, place] for place in range(len(batch))]
            except Exception as error:  # noqa: BLE001 - it belongs to those who wait for it
                for each in batch:
                    if not each.answer.done():
                        each.answer.set_exception(error)
                continue
            self.batches, self.images = self.batches + 1, self.images + len(batch)
            for each, row in zip(batch, rows, strict=True):
                if not each.answer.done():
                    each.answer.set_result(row)

    async def _fill(self, batch: list[_Waiting]) -> None:
        """Fill up the batch with what is decoded within ``limits.wait`` seconds."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._limits.wait
        while self._decoding and len(batch) < self._limits.batch and (left := end - loop.time()) > 0:
            self._decoded.clear()
            waiter = loop.create_task(self._decoded.wait())
            try:
                await asyncio.wait({waiter}, timeout=left)  # wait_for swallows a cancellation before Python 3.12
            finally:
                waiter.cancel()
            self._take(batch)

    def _take(self, batch: list[_Waiting]) -> None:
        """Fill up the batch with what is decoded."""
        while len(batch) < self._limits.batch and not self._queue.empty():
            batch.append(self._queue.get_nowait())
