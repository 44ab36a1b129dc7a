"""Prefetching: a thread makes batches ready, read and decoded, while the caller works on the ones before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, TypeVar

import torch
from torch import Tensor

from tl_kit.reporting import note, take_notes

__all__ = ["Prefetched", "PrefetchedBatches", "prefetched"]

_AHEAD = 2  # one that is ready, and one under way
_Item = TypeVar("_Item")
_Made = TypeVar("_Made")
_Batch = TypeVar("_Batch", bound=Sequence[Tensor])


class Prefetched(Generic[_Item, _Made]):
    """An iterator over ``make`` of each item, in order; two are under way from the start, in one thread.

    An error is raised at its own turn. Lines that ``make`` notes for the user come to the caller's thread. One that is
    not used up must be closed.
    """

    def __init__(self, make: Callable[[_Item], _Made], items: Sequence[_Item]) -> None:
        self._make, self._rest = make, iter(items)
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tlkit-prefetch")
        self._coming: deque[Future[tuple[_Made, list[str]]]] = deque()
        self._submit(_AHEAD)

    def _submit(self, count: int) -> None:
        self._coming.extend(self._pool.submit(self._noted, item) for item in islice(self._rest, count))

    def _noted(self, item: _Item) -> tuple[_Made, list[str]]:
        return self._make(item), take_notes()

    def __iter__(self) -> Iterator[_Made]:
        return self

    def __next__(self) -> _Made:
        if not self._coming:
            self.close()
            raise StopIteration
        made, lines = self._coming.popleft().result()
        self._submit(1)
        for line in lines:
            note(line)
        return made

    def close(self) -> None:
        """Begin no more, and wait for the one under way."""
        self._rest = iter(())
        self._coming.clear()
        self._pool.shutdown(cancel_futures=True)


def prefetched(make: Callable[[_Item], _Made], items: Sequence[_Item]) -> Iterator[_Made]:
    """:class:`Prefetched` as a generator, which closes itself wherever it ends."""
    coming = Prefetched(make, items)
    try:
        yield from coming
    finally:
        coming.close()


class PrefetchedBatches(Generic[_Item, _Batch]):
    """:class:`Prefetched` for batches on a GPU: ``make`` queues its work on a CUDA stream of its own.

    The caller's stream waits for a batch before it reads the tensors. Without CUDA there is no stream.
    """

    def __init__(self, make: Callable[[_Item], _Batch], items: Sequence[_Item]) -> None:
        self._make, self._side = make, None
        if torch.cuda.is_available():
            self._side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            self._side.wait_stream(torch.cuda.current_stream())  # for what was put on the device before
        self._coming = Prefetched(self._queued, items)

    def _queued(self, item: _Item) -> tuple[_Batch, torch.cuda.Event | None]:
        if self._side is None:
            return self._make(item), None
        with torch.cuda.stream(self._side):
            return self._make(item), self._side.record_event()

    def __iter__(self) -> Iterator[_Batch]:
        return self

    def __next__(self) -> _Batch:
        batch, ready = next(self._coming)
        if ready is not None:
            current = torch.cuda.current_stream()
            current.wait_event(ready)
            for tensor in batch:
                if tensor.is_cuda:
                    tensor.record_stream(current)  # its memory is not given away before that stream has read it
        return batch

    def close(self) -> None:
        """As :meth:`Prefetched.close`."""
        self._coming.close()
