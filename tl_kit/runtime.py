"""What makes the hardware fast: memory that is kept, the memory format, precision, threads and the device.

``prepare_process`` is called once before the first large allocation; ``Runtime`` travels through the library and
says how tensors are laid out, where they live, and in which precision a model runs.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from tl_kit.config import RuntimeConfig
from tl_kit.errors import ConfigError

__all__ = [
    "PRECISIONS",
    "Runtime",
    "available_cores",
    "compile_from",
    "decode_pool",
    "detect",
    "keep_memory",
    "prepare_process",
]

PRECISIONS = ("fp32", "bf16")

_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")

# mallopt(3), from malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_memory() -> bool:
    """Tell glibc to keep freed memory instead of returning it to the kernel; True where that was possible.

    A convolution's output is several megabytes: by default each one is mapped, zeroed page by page and unmapped again,
    which takes longer than the arithmetic on a CPU.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl has none
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))


@lru_cache(maxsize=1)
def prepare_process() -> None:
    """Settings that hold for the whole process; safe to call more than once.

    torch counts the machine's cores: in a container that may use two of 64, 64 threads would wait for one another.
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


@lru_cache(maxsize=1)
def decode_pool() -> ThreadPoolExecutor:
    """The threads that read and decode images; Pillow releases the interpreter lock while it works."""
    return ThreadPoolExecutor(max_workers=available_cores(), thread_name_prefix="tlkit-decode")


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Where and how a model runs. ``batch_size`` and ``precision`` are those of inference.

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
        """Whether work is queued on a CUDA device while the CPU goes on."""
        return self.device.type == "cuda"

    def place(self, model: nn.Module) -> nn.Module:
        """Move a model to the device, in the memory format of this runtime."""
        model = model.to(self.device)
        if self.channels_last:
            model = model.to(memory_format=torch.channels_last)
        return model

    def batch(self, images: Tensor) -> Tensor:
        """Move a batch (n, c, h, w) to the device, in the memory format of this runtime."""
        if self.on_gpu and not images.is_cuda:
            images = images.pin_memory()
        images = images.to(self.device, non_blocking=True)
        if self.channels_last and images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        return images

    @contextmanager
    def inference(self) -> Iterator[None]:
        """No gradients, and this runtime's precision."""
        low = self.precision == "bf16"
        with torch.inference_mode(), torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=low):
            yield

    @contextmanager
    def training(self) -> Iterator[None]:
        """This runtime's precision for a forward pass in training; its gradients need no scaling."""
        low = self.train_precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=low):
            yield


def compile_from(config: RuntimeConfig) -> float:
    """From how many training images of ``config.compile_side`` pixels on, over all epochs, compilation pays back."""
    return config.compile_seconds / config.compile_gain * config.compile_rate


def detect(config: RuntimeConfig = RuntimeConfig()) -> Runtime:
    """The runtime of this machine: a GPU if there is one, else all cores of the CPU.

    With ``precision`` "auto" it says fp32; ``precision.choose_precision`` may change that for a model.
    Raises ConfigError for a precision that is not known.
    """
    if config.precision not in ("auto", *PRECISIONS):
        raise ConfigError(f"precision {config.precision!r}: known are auto, {', '.join(PRECISIONS)}")
    if config.mode != "plain":
        prepare_process()
    if config.device != "auto":
        device = torch.device(config.device)
    elif torch.cuda.is_available():
        device = torch.device("cuda")
    elif torch.backends.mps.is_available():
        device = torch.device("mps")
    else:
        device = torch.device("cpu")
    low = device.type == "cuda" and config.mode != "plain" and torch.cuda.is_bf16_supported(including_emulation=False)
    return Runtime(
        device=device,
        channels_last=device.type != "mps" and config.mode != "plain",
        batch_size=config.batch_size if device.type == "cpu" else config.gpu_batch_size,
        precision=config.precision if config.precision in PRECISIONS else "fp32",
        train_precision="bf16" if low and config.precision != "fp32" else "fp32",
    )
