"""Images behind addresses that clients name: fetched within bounds on number, bytes and time, from public hosts."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from functools import partial

from tl_kit.config import FetchConfig, ServeLimits
from tl_kit.errors import ImageError
from tl_kit.inference.streaming.addresses import PrivateHostError
from tl_kit.inference.streaming.fetching import Live, begin
from tl_kit.serving.refusal import BusyError
from tl_kit.serving.request_images import LONGEST_ADDRESS, Remote, Upload

__all__ = ["RemoteImages"]


class RemoteImages:
    """Fetches images for many requests, in threads of their own: no slow host holds up a decoder.

    At most ``limits.queue`` addresses are here at a time, of which ``limits.fetches`` are fetched, and the images that
    came have ``limits.held_bytes``. Those of one request have ``limits.request_bytes``, as if they were its body, and
    ``limits.fetch_seconds`` together. Use it in one event loop.
    """

    def __init__(self, limits: ServeLimits, *, allow_private: bool) -> None:
        self._limits = limits
        self._config = FetchConfig(
            urls=True,
            allow_private=allow_private,
            max_bytes=limits.image_bytes,
            seconds=min(limits.fetch_seconds, limits.seconds / 2),
        )
        self._room = _Room(limits)
        self._threads = asyncio.Semaphore(limits.fetches)
        self.inside = 0

    @asynccontextmanager
    async def fetched(self, images: Sequence[Upload | Remote]) -> AsyncIterator[list[Upload]]:
        """The images of a request, with each address replaced by what is behind it, or why there is nothing.

        Raises BusyError where there is no room. At the end, also if it is cancelled, nothing is fetched any more.
        """
        addresses = [image.address for image in images if isinstance(image, Remote)]
        if self.inside + len(addresses) > self._limits.queue:
            raise BusyError(
                f"too many addresses wait ({self.inside}); send this request again later",
                retry=self._limits.retry_seconds,
            )
        self.inside += len(addresses)
        share = _Share(self._room, self._limits)
        try:
            found = iter(await self._all(addresses, share) if addresses else ())
            yield [
                image if isinstance(image, Upload) else Upload(image.name, partial(_given, next(found)))
                for image in images
            ]
        finally:
            share.close()
            self.inside -= len(addresses)

    async def _all(self, addresses: Sequence[str], share: _Share) -> list[bytes | ImageError]:
        live, seconds = Live(), self._config.seconds
        turns = asyncio.Semaphore(self._limits.fetches_each)
        one = partial(self._one, live=live, until=time.monotonic() + seconds, turns=turns, share=share)
        tasks = [asyncio.create_task(one(address)) for address in addresses]
        late = ImageError(f"cannot be fetched: the addresses of a request took longer than {seconds:g} s")
        try:
            await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
            return [task.result() if task.done() else late for task in tasks]
        finally:
            live.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(
        self, address: str, *, live: Live, until: float, turns: asyncio.Semaphore, share: _Share
    ) -> bytes | ImageError:
        if len(address) > LONGEST_ADDRESS:
            return ImageError(f"an address of more than {LONGEST_ADDRESS:,} characters")
        async with turns:
            await self._threads.acquire()
            piece = _Piece(share)
            try:
                future = begin(address, self._config, live, until=until, hold=piece.take)
            except BaseException:
                self._threads.release()
                raise
            # when the thread has ended, which may be after this request: a name that is looked up cannot be cut short
            future.add_done_callback(partial(self._ended, asyncio.get_running_loop()))
            found = await asyncio.wrap_future(future)
        if isinstance(found, ImageError):
            piece.give_back()
        if isinstance(found, PrivateHostError):  # its text tells the host's IP address, and what to do on the server
            return ImageError(f"not fetched: {found.host} is in a private network")
        return found

    def _ended(self, loop: asyncio.AbstractEventLoop, _: Future[bytes | ImageError]) -> None:
        with suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(self._threads.release)


class _Room:
    """Bytes of all images that were fetched and are needed."""

    def __init__(self, limits: ServeLimits) -> None:
        self.lock, self.taken, self.limits = threading.Lock(), 0, limits


class _Share:
    """The part of the room that one request takes."""

    def __init__(self, room: _Room, limits: ServeLimits) -> None:
        self._room, self._most, self._taken, self._closed = room, limits.request_bytes, 0, False

    def add(self, size: int) -> None:
        """Count bytes that came, from any thread. Raises ImageError for too many of this request, BusyError of all."""
        with self._room.lock:
            if self._closed:
                raise ImageError("not needed any more")
            if size > 0 and self._taken + size > self._most:
                raise ImageError(f"too large: the images of a request have at most {self._most:,} bytes together")
            if size > 0 and self._room.taken + size > self._room.limits.held_bytes:
                raise BusyError(
                    "too many bytes are under way; send this again later", retry=self._room.limits.retry_seconds
                )
            self._taken += size
            self._room.taken += size

    def close(self) -> None:
        with self._room.lock:
            self._closed = True
            self._room.taken -= self._taken
            self._taken = 0


class _Piece:
    """The part of its request's share that one image takes."""

    def __init__(self, share: _Share) -> None:
        self._share, self._taken = share, 0

    def take(self, size: int) -> None:
        self._share.add(size)
        self._taken += size

    def give_back(self) -> None:
        self._share.add(-self._taken)
        self._taken = 0


def _given(found: bytes | ImageError) -> bytes:
    if isinstance(found, ImageError):
        raise found
    return found
