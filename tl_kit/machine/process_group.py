"""Distributed training: the group of processes that train one model, and this process's place in it.

A scheduler or a launcher sets RANK, WORLD_SIZE and similar variables for every program of a job, even if it trains
nothing. Only a complete and valid set, for more than one process, makes a group, and only for training. Other values
are hidden from accelerate, which reads each variable separately.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import broadcast_object_list
from torch import distributed
from torch.distributed.rendezvous import rendezvous

from tl_kit.config import GroupConfig
from tl_kit.errors import ConfigError, first_line
from tl_kit.reporting import Reporter

__all__ = ["alone", "first_answer", "group_of_environment", "join", "leads"]

# The names that accelerate knows for each variable, PyTorch's own first.
_RANK = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
_SIZE = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_LOCAL_RANK = ("LOCAL_RANK", "MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK")
_LOCAL_SIZE = ("LOCAL_WORLD_SIZE", "MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE")
_PORTS = range(1, 1 << 16)

Answer = TypeVar("Answer")

_alone: ContextVar[bool] = ContextVar("alone", default=False)


@dataclass(frozen=True)
class Group:
    """A place in a group of ``size`` processes that meet at ``address``, ``port``; ``local_rank`` on this machine."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str
    port: int

    def __str__(self) -> str:
        return f"RANK={self.rank} WORLD_SIZE={self.size} MASTER_ADDR={self.address} MASTER_PORT={self.port}"


def group_of_environment() -> Group | None:
    """The group that the environment describes; None unless it has several processes."""
    rank, size = _number(_RANK), _number(_SIZE)
    address, port = os.environ.get("MASTER_ADDR", "").strip(), _number(("MASTER_PORT",), GroupConfig.port)
    if rank is None or size is None or not address or port is None:
        return None
    if port not in _PORTS or not 0 <= rank < size or size < 2:
        return None
    local_rank, local_size = _number(_LOCAL_RANK, 0), _number(_LOCAL_SIZE, 1)
    if local_rank is None or local_size is None:
        return None
    return Group(rank, size, local_rank, local_size, address, port)


def leads() -> bool:
    """True if this process reports and writes: it is alone, or the first of its group."""
    return not (distributed.is_available() and distributed.is_initialized() and distributed.get_rank() > 0)


def first_answer(answer: Answer) -> Answer:
    """The first process's answer in every process of the group; by itself, a process keeps its own."""
    held = [answer]
    broadcast_object_list(held)
    return held[0]


@contextmanager
def alone() -> Iterator[None]:
    """Within the block this process joins no group, whatever the environment says; an existing group stays."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def join(*, cpu: bool, reporter: Reporter) -> Accelerator:
    """The accelerator for training: with the environment's process group once it is complete, or else alone.

    Raises ConfigError if the other processes do not join within ``GroupConfig.wait`` seconds.
    """
    if not distributed.is_available():
        return _by_itself(cpu)
    if distributed.is_initialized():
        return Accelerator(cpu=cpu, mixed_precision="no")
    group = None if _alone.get() else group_of_environment()
    if group is None:
        if not _alone.get() and (said := _half_said()):
            reporter.message(f"{said}: no group of processes can be made of that, so this process trains alone")
        return _by_itself(cpu)
    if AcceleratorState._shared_state or PartialState._shared_state:  # left by an earlier run in this process alone
        AcceleratorState._reset_state(reset_partial_state=True)
    _meet(group, cpu=cpu, reporter=reporter)
    return Accelerator(cpu=cpu, mixed_precision="no")


def _by_itself(cpu: bool) -> Accelerator:
    if PartialState._shared_state and (PartialState().device.type == "cpu") is not cpu:  # of a run on another device
        AcceleratorState._reset_state(reset_partial_state=True)
    names = (*_RANK, *_SIZE, *_LOCAL_RANK, *_LOCAL_SIZE)
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        return Accelerator(cpu=cpu, mixed_precision="no")
    finally:
        os.environ.update(hidden)


def _meet(group: Group, *, cpu: bool, reporter: Reporter) -> None:
    """Start torch.distributed once every process has reached the group's address."""
    os.environ.update(
        RANK=str(group.rank),
        WORLD_SIZE=str(group.size),
        LOCAL_RANK=str(group.local_rank),  # without it accelerate trains on each GPU alone
        LOCAL_WORLD_SIZE=str(group.local_size),
        MASTER_ADDR=group.address,
        MASTER_PORT=str(group.port),
    )
    start, notice = time.monotonic(), f"{group}: waiting for the other processes, {GroupConfig.wait:g} s at most"
    timer = threading.Timer(GroupConfig.patience, reporter.message, [notice])
    timer.daemon = True
    timer.start()
    try:
        _reach(group, until=start + GroupConfig.wait)
        wait = timedelta(seconds=max(1.0, start + GroupConfig.wait - time.monotonic()))
        store, rank, size = next(iter(rendezvous("env://", group.rank, group.size, timeout=wait)))
        store.set(f"tlkit/{rank}", "here")
        store.wait([f"tlkit/{other}" for other in range(size)], wait)
        backend = "gloo" if cpu or not torch.cuda.is_available() else "nccl"
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size)
    except (RuntimeError, ValueError, OSError) as error:  # torch.distributed's own errors are RuntimeErrors
        reason = first_line(error).rstrip(".")
        raise ConfigError(
            f"{group}: the other processes did not join ({reason}); start all of them within {GroupConfig.wait:g} s of "
            "each other, or take RANK and WORLD_SIZE out of the environment to train in this process alone"
        ) from error
    finally:
        timer.cancel()


def _reach(group: Group, *, until: float) -> None:
    """Wait until something answers at the address: torch would try twice as long, and block all other threads.

    Raises OSError when the time is up. The first process does not wait: it is the one that answers.
    """
    while group.rank > 0:
        try:
            socket.create_connection((group.address, group.port), timeout=max(0.1, until - time.monotonic())).close()
        except OSError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.2)
        else:
            return


def _half_said() -> str:
    """Variables of an incompletely described process group, as text; empty where the environment means no group."""
    size = next((os.environ[name].strip() for name in _SIZE if os.environ.get(name, "").strip()), "")
    if size in ("", "0", "1"):
        return ""
    names = (*_RANK, *_SIZE, "MASTER_ADDR", "MASTER_PORT")
    return " ".join(f"{name}={os.environ[name]}" for name in names if name in os.environ)


def _number(names: tuple[str, ...], default: int | None = None) -> int | None:
    """The first of these variables that is set and not empty, as an integer; None if it is not an integer."""
    for name in names:
        text = os.environ.get(name, "").strip()
        if text:
            return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
    return default
