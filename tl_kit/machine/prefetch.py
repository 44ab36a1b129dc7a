"""Prefetching: a thread makes batches ready, read and decoded, while the caller works on the ones before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from tl_kit.reporting import note, take_notes

__all__ = ["prefetched", "prefetched_batches"]

_AHEAD = 2  # one that is ready, and one under way
_Item = TypeVar("_Item")
_Made = TypeVar("_Made")
_Batch = TypeVar("_Batch", bound=Sequence[Tensor])


def prefetched(make: Callable[[_Item], _Made], items: Sequence[_Item]) -> Iterator[_Made]:
    """``make`` of each item, in order; the next two are already under way, in one thread.

    An error is raised at its own turn. Lines that ``make`` notes for the user come to the caller's thread.
    """

    def noted(item: _Item) -> tuple[_Made, list[str]]:
        return make(item), take_notes()

    rest = iter(items)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="tlkit-prefetch") as pool:
        coming: deque[Future[tuple[_Made, list[str]]]] = deque()
        coming.extend(pool.submit(noted, item) for item in islice(rest, _AHEAD))
        try:
            while coming:
                made, lines = coming.popleft().result()
                coming.extend(pool.submit(noted, item) for item in islice(rest, 1))
                for line in lines:
                    note(line)
                yield made
        finally:
            for other in coming:
                other.cancel()


def prefetched_batches(make: Callable[[_Item], _Batch], items: Sequence[_Item]) -> Iterator[_Batch]:
    """The same of batches on a GPU: ``make`` queues its work on a CUDA stream of its own, beside that of the caller.

    The caller's stream waits for a batch before it reads the tensors. Without CUDA there is no stream.
    """
    if not torch.cuda.is_available():
        yield from prefetched(make, items)
        return
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())  # for what was put on the device before

    def queued(item: _Item) -> tuple[_Batch, torch.cuda.Event]:
        with torch.cuda.stream(side):
            return make(item), side.record_event()

    for batch, ready in prefetched(queued, items):
        current = torch.cuda.current_stream()
        current.wait_event(ready)
        for tensor in batch:
            if tensor.is_cuda:
                tensor.record_stream(current)  # its memory is not given away before that stream has read it
        yield batch
