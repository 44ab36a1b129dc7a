"""The batches of an epoch, of which the first are made while the epoch before is still validated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from tl_kit.machine.prefetch import PrefetchedBatches
from tl_kit.training.task import Indices, Task

__all__ = ["BatchesAhead"]

Batch = tuple[Tensor, Tensor]


class BatchesAhead:
    """A task's batches epoch by epoch; without ``Task.prefetch`` each is made when it is asked for. To be closed."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._coming: PrefetchedBatches[Indices, Batch] | None = None
        self._shares: Sequence[Indices] = ()
        self._of: object = None

    def of(self, shares: Sequence[Indices], epoch: int) -> Iterator[Batch]:
        """The batches of these images in this epoch, in order: those under way, if they are the same."""
        if not self.task.prefetch:
            batch = self.task.batch
            return (batch(indices, epoch) for indices in shares)
        same = self._of == (self.task.batch, epoch, len(shares))
        if not same or not all(map(np.array_equal, self._shares, shares)):
            self.begin(shares, epoch)
        found, self._of = self._coming, None
        assert found is not None
        return found

    def begin(self, shares: Sequence[Indices], epoch: int) -> None:
        """Let a thread begin with the first of them."""
        self.close()
        if self.task.prefetch:
            batch = self.task.batch
            self._coming = PrefetchedBatches(lambda indices: batch(indices, epoch), shares)
            self._shares, self._of = shares, (batch, epoch, len(shares))

    def close(self) -> None:
        """Give up those that are under way."""
        if self._coming is not None:
            self._coming.close()
        self._coming = self._of = None
