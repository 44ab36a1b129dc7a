"""Random numbers of torch, drawn within a block that restores the global random state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tl_kit.machine.forks import unforked

__all__ = ["own_random_state", "restored_random_state", "seed_cpu"]


@contextmanager
def own_random_state() -> Iterator[None]:
    """Restore the CPU's global random state after the block.

    A fork waits until the block ends: torch locks its generator for each draw, and a child would find it locked.
    """
    with unforked(), torch.random.fork_rng(devices=[]):
        yield


@contextmanager
def restored_random_state(device: torch.device) -> Iterator[None]:
    """Restore the global random state of the CPU and of ``device`` after the block, in which both may be seeded.

    Other GPUs are left alone: to read their state would open a context on each, of hundreds of megabytes.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def seed_cpu(seed: int) -> None:
    """Seed the CPU's global generator; call it inside :func:`own_random_state`.

    ``torch.manual_seed`` would also seed the GPU's generator, which that block does not restore.
    """
    torch.default_generator.manual_seed(seed)
