"""Batches of many requests: shared passes, own answers, and room that is given back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from tl_kit.config import ServeLimits
from tl_kit.errors import ImageError
from tl_kit.serving import batching
from tl_kit.serving.batching import Batcher
from tl_kit.serving.refusal import BusyError


class Steps:
    """A classifier whose probabilities are the file's two bytes; ``gate`` holds up its forward pass."""

    def __init__(self, *, open_gate: bool = True) -> None:
        self.gate = threading.Event()
        self.sizes: list[int] = []
        self.threads: set[int] = set()
        if open_gate:
            self.gate.set()

    def decode(self, data: bytes) -> Any:
        return "not an image" if data == b"bad" else np.frombuffer(data, dtype=np.uint8)

    def run(self, images: Sequence[Any]) -> Any:
        assert self.gate.wait(30)
        self.threads.add(threading.get_ident())
        self.sizes.append(len(images))
        if any(image[0] == 255 for image in images):
            raise RuntimeError("the network failed")
        return np.stack(images)[np.newaxis].astype(np.float64)


def batched(work: Callable[[Batcher], Any], steps: Steps, **limits: Any) -> Any:
    """The result of asynchronous work with a running batcher."""

    async def main() -> Any:
        batcher = Batcher(steps, ServeLimits(**limits))
        batcher.start()
        try:
            return await asyncio.wait_for(work(batcher), 30)
        finally:
            steps.gate.set()
            await batcher.stop()

    return asyncio.run(main())


def file(number: int) -> Callable[[], bytes]:
    return lambda: bytes([number, 255 - number])


async def waiting(batcher: Batcher, images: int) -> None:
    """Until so many images wait in the queue."""
    while batcher._queue.qsize() < images:
        await asyncio.sleep(0.001)


def test_requests_share_a_pass_and_get_their_own_answers() -> None:
    steps = Steps(open_gate=False)

    async def work(batcher: Batcher) -> list[Any]:
        first = asyncio.create_task(batcher.predict([file(0)]))  # the pass that the others wait for
        while batcher._queue.qsize() or not batcher.inside or batcher._decoding:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        tasks = [asyncio.create_task(batcher.predict([file(n), file(100 + n)])) for n in range(1, 11)]
        await waiting(batcher, 20)
        steps.gate.set()
        return [await task for task in (first, *tasks)]

    found = batched(work, steps, batch=8)
    assert [list(row[0][0]) for row in found] == [[n, 255 - n] for n in range(11)]
    assert [list(row[1][0]) for row in found[1:]] == [[100 + n, 155 - n] for n in range(1, 11)]
    assert steps.sizes == [1, 8, 8, 4]
    assert len(steps.threads) == 1


def test_a_single_client_waits_for_nobody() -> None:
    async def work(batcher: Batcher) -> float:
        start = asyncio.get_running_loop().time()
        for n in range(5):
            await batcher.predict([file(n)])
        return asyncio.get_running_loop().time() - start

    assert batched(work, Steps(), wait=20.0) < 20


def test_a_full_queue_refuses_and_empties_again() -> None:
    steps = Steps(open_gate=False)

    async def work(batcher: Batcher) -> None:
        tasks = [asyncio.create_task(batcher.predict([file(n)])) for n in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError) as caught:
            await batcher.predict([file(9)])
        assert (caught.value.status, caught.value.retry) == (429, 1)
        steps.gate.set()
        await asyncio.gather(*tasks)
        assert batcher.inside == 0
        assert len(await batcher.predict([file(9)])) == 1

    batched(work, steps, queue=4)


def test_a_request_that_is_given_up_leaves_its_room_to_others() -> None:
    steps = Steps(open_gate=False)

    async def work(batcher: Batcher) -> list[Any]:
        first = asyncio.create_task(batcher.predict([file(0)]))
        while not batcher.inside or batcher._queue.qsize() or batcher._decoding:
            await asyncio.sleep(0.001)
        given_up = asyncio.create_task(batcher.predict([file(n) for n in range(3)]))
        await waiting(batcher, 3)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        other = asyncio.create_task(batcher.predict([file(n) for n in (4, 5, 6)]))
        await waiting(batcher, 6)
        steps.gate.set()
        await first
        return await other

    assert [row[0][0] for row in batched(work, steps, queue=4)] == [4, 5, 6]


def test_images_of_a_request_that_is_given_up_are_not_run() -> None:
    steps = Steps(open_gate=False)

    async def work(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.predict([file(0)]))
        while not batcher.inside or batcher._queue.qsize() or batcher._decoding:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        given_up = asyncio.create_task(batcher.predict([file(n) for n in range(5)]))
        kept = asyncio.create_task(batcher.predict([file(7)]))
        await waiting(batcher, 6)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        steps.gate.set()
        await first
        assert list((await kept)[0][0]) == [7, 248]
        assert batcher.inside == 0

    batched(work, steps)
    assert steps.sizes == [1, 1]


def test_a_failed_pass_fails_those_who_wait_for_it_alone() -> None:
    async def work(batcher: Batcher) -> None:
        with pytest.raises(RuntimeError, match="the network failed"):
            await batcher.predict([file(255)])
        assert (await batcher.predict([lambda: b"bad"])) == ["not an image"]
        assert list((await batcher.predict([file(1)]))[0][0]) == [1, 254]

    def broken() -> bytes:
        raise ImageError("is no base64 text")

    async def unreadable(batcher: Batcher) -> Any:
        return await batcher.predict([broken])

    batched(work, Steps())
    assert batched(unreadable, Steps()) == ["is no base64 text"]


def test_a_pass_with_too_few_rows_does_not_end_the_server() -> None:
    class Short(Steps):
        def run(self, images: Sequence[Any]) -> Any:
            return super().run(images)[:, : 1 if images[0][0] == 1 else 0]

    async def work(batcher: Batcher) -> None:
        with pytest.raises(IndexError):
            await batcher.predict([file(2)])
        assert list((await batcher.predict([file(1)]))[0][0]) == [1, 254]

    batched(work, Short())


def test_decoded_pixels_that_wait_are_bounded() -> None:
    class Large(Steps):
        def decode(self, data: bytes) -> Any:
            return {"way": torch.zeros(1000, dtype=torch.uint8)}

        def run(self, images: Sequence[Any]) -> Any:
            assert self.gate.wait(30)
            return np.zeros((1, len(images), 2))

    steps = Large(open_gate=False)

    async def work(batcher: Batcher) -> list[Any]:
        tasks = [asyncio.create_task(batcher.predict([file(n)])) for n in range(5)]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        assert all(isinstance(task.exception(), BusyError) for task in done)
        while sum(task.done() for task in tasks) < 2:
            await asyncio.sleep(0.001)
        steps.gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = batched(work, steps, held_bytes=3000)
    assert sum(isinstance(each, BusyError) for each in found) == 2


class Slow(Steps):
    """The image of the file ``slow`` is decoded once ``decoded`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.decoded = threading.Event()

    def decode(self, data: bytes) -> Any:
        if data == b"slow":
            assert self.decoded.wait(30)
            return np.array([1, 2], dtype=np.uint8)
        return super().decode(data)


def test_on_one_core_too_a_slow_image_does_not_hold_a_quick_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "available_cores", lambda: 1)
    steps = Slow()

    async def work(batcher: Batcher) -> None:
        slow = asyncio.create_task(batcher.predict([lambda: b"slow"]))
        while not batcher._decoding:
            await asyncio.sleep(0.001)
        await asyncio.wait_for(batcher.predict([file(7)]), 20)
        assert not slow.done()
        steps.decoded.set()
        await slow

    batched(work, steps, wait=0.01)


@pytest.mark.parametrize(("wait", "sizes"), [(30.0, [2]), (0.01, [1, 1])])
def test_a_batch_waits_a_while_for_images_that_are_being_decoded(wait: float, sizes: list[int]) -> None:
    steps = Slow()

    async def work(batcher: Batcher) -> None:
        slow = asyncio.create_task(batcher.predict([lambda: b"slow"]))
        while not batcher._decoding:
            await asyncio.sleep(0.001)
        quick = asyncio.create_task(batcher.predict([file(7)]))
        if wait < 1:
            await quick
        else:
            await asyncio.sleep(0.05)
            assert not quick.done()
        steps.decoded.set()
        await asyncio.gather(slow, quick)

    batched(work, steps, wait=wait)
    assert steps.sizes == sizes


@pytest.mark.parametrize("ticks", range(4))
def test_it_stops_while_a_batch_waits_for_an_image_that_nobody_wants_any_more(ticks: int) -> None:
    steps = Slow()

    async def work(batcher: Batcher) -> None:
        tasks = [asyncio.create_task(batcher.predict([each])) for each in (lambda: b"slow", file(7))]
        await asyncio.sleep(0.05)
        tasks[0].cancel()
        for _ in range(ticks):
            await asyncio.sleep(0)
        steps.decoded.set()
        stopping = asyncio.create_task(batcher.stop())
        done, _ = await asyncio.wait({stopping}, timeout=10)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert done

    batched(work, steps, wait=30.0)
