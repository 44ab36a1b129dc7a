"""Runtime settings for speed: kept memory, memory format, precision, threads and device.

``prepare_process`` is called once before the first large allocation. A ``Runtime`` is passed through the library; it
holds the memory format and device of tensors, and the precision in which a model runs.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from tl_kit.config import RuntimeConfig
from tl_kit.errors import ConfigError, ResourceError
from tl_kit.machine.forks import is_forked
from tl_kit.machine.hush import hush

__all__ = [
    "PRECISIONS",
    "Runtime",
    "available_cores",
    "check_gradients",
    "compile_from",
    "detect",
    "keep_memory",
    "prepare_process",
    "present_device",
    "send",
]

PRECISIONS = ("fp32", "bf16")

_FORKED = "this process was forked from one that"
_SPAWN = 'start it with multiprocessing.get_context("spawn")'
# torch 2.11 warns of its own thread for gradients, whose first call may make the CUDA context.
_OWN_THREAD = "Attempting to run cuBLAS, but there was no current CUDA context"
_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")

# mallopt(3), from malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_memory() -> bool:
    """Tell glibc to keep freed memory instead of returning it to the kernel; True if that was possible.

    A convolution's output is several megabytes: by default each one is mapped, zeroed page by page and unmapped again,
    which takes longer than the arithmetic on a CPU.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl has no mallopt
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))


@lru_cache(maxsize=1)
def prepare_process() -> None:
    """Apply settings to the whole process; safe to call more than once.

    torch counts the machine's cores: in a container with two of 64 cores, 64 threads would wait for each other.
    """
    keep_memory()
    torch.set_num_threads(min(torch.get_num_threads(), available_cores()))


def available_cores() -> int:
    """Cores that this process may use: an affinity mask or a container may allow fewer than the machine has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _CPU_LIMIT.read_text().split()  # cgroup v2: "max 100000", or microseconds in each period
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A model's runtime: device, memory format and precision. ``batch_size`` and ``precision`` are for inference.

    ``train_precision`` is bf16 on GPUs that have it. On CPUs it stays fp32: measured on one with AVX512-BF16, bf16
    slowed down the training of all layers by a quarter; the last two groups of layers trained 1.3 times as fast, but to
    0.6 points less validation accuracy.
    """

    device: torch.device
    channels_last: bool
    batch_size: int
    precision: str = "fp32"
    train_precision: str = "fp32"

    @property
    def on_gpu(self) -> bool:
        """True if work is queued on a CUDA device while the CPU continues."""
        return self.device.type == "cuda"

    @property
    def rows(self) -> int | None:
        """The rows of every pass in inference: ``batch_size`` on a GPU (:func:`tl_kit.machine.forward.forward_rows`).

        None on a CPU, where shapes cost nothing, and rows do.
        """
        return self.batch_size if self.on_gpu else None

    @property
    def gpu(self) -> torch.device | None:
        """The CUDA device, if there is one."""
        return self.device if self.on_gpu else None

    def place(self, model: nn.Module) -> nn.Module:
        """Move a model to the device, in the memory format of this runtime.

        Raises ResourceError in a forked process whose parent had used the device, as do :meth:`batch` and
        :func:`detect`.
        """
        _check_forked(self.device)
        model = model.to(self.device)
        if self.channels_last:
            model = model.to(memory_format=torch.channels_last)
        return model

    def batch(self, images: Tensor) -> Tensor:
        """Move a batch (n, c, h, w) to the device, in the memory format of this runtime."""
        _check_forked(self.device)
        images = send(images, self.device)
        if self.channels_last and images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        return images

    @contextmanager
    def inference(self) -> Iterator[None]:
        """A context without gradients, in this runtime's precision."""
        low = self.precision == "bf16"
        with torch.inference_mode(), torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=low):
            yield

    @contextmanager
    def training(self) -> Iterator[None]:
        """A context with this runtime's precision for a forward pass in training; gradients need no scaling."""
        low = self.train_precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=low):
            yield


def send(values: Tensor, device: torch.device) -> Tensor:
    """Values on the device. To a GPU they go through pinned memory, from which it reads while the CPU goes on."""
    if device.type == "cuda" and not values.is_cuda and not values.is_pinned():
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def compile_from(config: RuntimeConfig) -> float:
    """The number of training images of ``config.compile_side`` px, over all epochs, at which compilation pays off."""
    return config.compile_seconds / config.compile_gain * config.compile_rate


def detect(config: RuntimeConfig = RuntimeConfig()) -> Runtime:
    """The runtime of this machine: a GPU if there is one, else all cores of the CPU.

    With ``precision`` "auto" the runtime has fp32; ``precision.choose_precision`` may change that for a model. Raises
    ConfigError for an unknown precision or device, and for a device that this machine lacks. Raises ResourceError,
    instead of falling back to the CPU, in a process that cannot use the GPU because it was forked from one that had
    used it.
    """
    if config.precision not in ("auto", *PRECISIONS):
        raise ConfigError(f"precision {config.precision!r}: known are auto, {', '.join(PRECISIONS)}")
    if config.mode != "plain":
        prepare_process()
    given = _named_device(config.device)
    if given is not None:
        device = given
    elif (_in_bad_fork() and torch.cuda.device_count() > 0) or torch.cuda.is_available():
        device = torch.device("cuda")
    elif torch.backends.mps.is_available():
        device = torch.device("mps")
    else:
        device = torch.device("cpu")
    _check_forked(device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device.index)  # else parts of torch and accelerate would use the first
    if device.type == "cuda":
        hush(_OWN_THREAD)
    low = device.type == "cuda" and config.mode != "plain" and torch.cuda.is_bf16_supported(including_emulation=False)
    return Runtime(
        device=device,
        channels_last=device.type != "mps" and config.mode != "plain",
        batch_size=config.batch_size if device.type == "cpu" else config.gpu_batch_size,
        precision=config.precision if config.precision in PRECISIONS else "fp32",
        train_precision="bf16" if low and config.precision != "fp32" else "fp32",
    )


def _named_device(name: str) -> torch.device | None:
    """The device of ``--device``; None for auto. Raises ConfigError for one that is not known, or not there."""
    if name == "auto":
        return None
    found = re.fullmatch(r"(cpu|mps|cuda)(?::(0|[1-9][0-9]*))?", name)
    if found is None or (found[2] is not None and found[1] != "cuda"):
        raise ConfigError(f"--device {name}: known are auto, cpu, cuda, cuda:N (N from 0) and mps")
    if found[1] == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"--device {name}: torch finds no Apple GPU here; use --device auto")
    if found[1] == "cuda" and not _in_bad_fork():
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            built = "" if torch.version.cuda or torch.version.hip else ", and this torch is built without CUDA"
            raise ConfigError(f"--device {name}: torch finds no CUDA GPU here{built}; use --device auto")
        if int(found[2] or 0) >= count:
            has = "1 GPU, cuda:0" if count == 1 else f"{count} GPUs, numbered from 0"
            raise ConfigError(f"--device {name}: this machine has {has}")
    return torch.device(name)


def present_device(config: RuntimeConfig) -> tuple[RuntimeConfig, str | None]:
    """The same with a device that this machine has, for a run that began elsewhere; and a line if that is another."""
    try:
        _named_device(config.device)
    except ConfigError:
        return replace(config, device="auto"), f"the run began with --device {config.device}, which is not here: auto"
    return config, None


def check_gradients() -> None:
    """Raises ResourceError in a forked process that lacks its parent's threads for gradients."""
    if not is_forked():
        return
    try:
        torch.zeros(1, requires_grad=True).sum().backward()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise ResourceError(
            f"{_FORKED} had trained with a GPU at hand, after which torch trains nothing: {_SPAWN}"
        ) from error


def _check_forked(device: torch.device) -> None:
    if device.type == "cuda" and _in_bad_fork():
        raise ResourceError(
            f"{_FORKED} had used the GPU, which CUDA does not allow: {_SPAWN}, or use the GPU in forked processes alone"
        )


def _in_bad_fork() -> bool:
    """True if torch refuses GPUs to this process, because its parent had used one before the fork."""
    found: Callable[[], bool] = getattr(torch.cuda, "_is_in_bad_fork", lambda: False)
    return found()
