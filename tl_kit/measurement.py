"""Which precision is faster for a model on this machine: measured once, on a few images, and remembered.

bf16 halves the memory traffic, and CPUs with AVX512-BF16 or AMX multiply it faster; on others it is emulated and
slower. Data sheets do not tell which, so both are timed on a few images.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil
import torch
from torch import nn

from tl_kit.config import RuntimeConfig
from tl_kit.memory import is_out_of_memory
from tl_kit.runtime import PRECISIONS, Runtime, available_cores, detect, keep_memory

__all__ = ["Decision", "choose_precision", "peak_memory", "runtime_report", "user_cache"]

_IMAGES = 16
_REPEATS = 3
_SLOW = 0.05  # seconds an image; slower models are timed on two images, once


@dataclass(frozen=True)
class Decision:
    """Images a second of ``model`` in each precision, and the one chosen."""

    precision: str
    images_per_second: dict[str, float]
    model: str = ""

    def summary(self) -> str:
        """One line for people."""
        figures = ", ".join(f"{name} {rate:.0f}" for name, rate in self.images_per_second.items())
        return f"precision of inference: {self.precision} (images a second: {figures})"


def user_cache() -> Path:
    """``$XDG_CACHE_HOME/tl-kit`` or ``~/.cache/tl-kit``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tl-kit"


def choose_precision(
    model: nn.Module, input_size: Sequence[int], runtime: Runtime, *, name: str, config: RuntimeConfig
) -> tuple[Runtime, Decision | None]:
    """The runtime with its precision settled for one model, and the figures behind it.

    None for figures where the configuration names a precision. bf16 is chosen where it is ``config.bf16_from`` times as
    fast as fp32. The decision is kept in the user's cache under model, size, device and versions: later runs on this
    machine do not measure again, and so cannot decide differently.
    """
    if config.precision != "auto" or config.mode == "plain":
        return runtime, None
    parts = [name, list(input_size), _device_name(runtime.device), str(torch.__version__), torch.get_num_threads()]
    key = hashlib.sha256(json.dumps([*parts, config.bf16_from]).encode()).hexdigest()[:32]
    file = user_cache() / "runtime" / f"{key}.json"
    decision = _read(file)
    if decision is None:
        rates = _measure(model, input_size, runtime)
        better = rates["bf16"] >= config.bf16_from * rates["fp32"]
        label = f"{name}, {input_size[-1]} px"
        decision = Decision("bf16" if better else "fp32", rates, label)
        _write(file, decision)
    return replace(runtime, precision=decision.precision), decision


def peak_memory() -> int:
    """The most memory that this process has held so far, in bytes (resident set size)."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    with suppress(OSError):  # getrusage on Linux counts what the parent held when it started this process
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)  # getrusage(2): kilobytes on Linux


def runtime_report() -> list[str]:
    """What has been decided for this machine, in sentences: device, cores, memory, threads, precision by model."""
    config = RuntimeConfig()
    runtime = detect(config)
    device = torch.cuda.get_device_name(runtime.device) if runtime.device.type == "cuda" else "CPU"
    kept = "kept (mallopt)" if keep_memory() else "left to the system"
    spin = os.environ.get("GOMP_SPINCOUNT") or os.environ.get("OMP_WAIT_POLICY", "the system's")
    lines = [
        f"device: {device}, {available_cores()} cores, {torch.get_num_threads()} threads a model, spin count {spin}",
        f"memory: {kept}; layout: {'channels last' if runtime.channels_last else 'channels first'}",
        f"images a forward pass in inference: {runtime.batch_size}; precision of training: {runtime.train_precision}",
        f"torch.compile: {config.compile_seconds:.0f} s to gain {config.compile_gain:.0%} of the training time, "
        f"so used from {config.compile_seconds / config.compile_gain / 60:.0f} minutes of training on",
    ]
    remembered = [_read(file) for file in sorted((user_cache() / "runtime").glob("*.json"))]
    found = [decision for decision in remembered if decision is not None and decision.model]
    if not found:
        return [*lines, "precision of inference: measured with a model's first run"]
    return [*lines, *(f"{decision.model}: {decision.summary()}" for decision in found)]


def _measure(model: nn.Module, input_size: Sequence[int], runtime: Runtime) -> dict[str, float]:
    """The best of a few forward passes in each precision, taken in turn: noise only ever slows one down."""
    model = runtime.place(model).eval()
    images = runtime.batch(_noise(2, input_size))
    first = {precision: _seconds(model, images, replace(runtime, precision=precision)) for precision in PRECISIONS}
    if min(first.values()) > _SLOW * len(images):
        return {precision: len(images) / seconds for precision, seconds in first.items()}
    try:
        return _measure_many(model, input_size, runtime)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    return {precision: len(images) / seconds for precision, seconds in first.items()}


def _measure_many(model: nn.Module, input_size: Sequence[int], runtime: Runtime) -> dict[str, float]:
    images = runtime.batch(_noise(_IMAGES, input_size))
    best = dict.fromkeys(PRECISIONS, float("inf"))
    for repeat in range(_REPEATS):
        for precision in PRECISIONS:
            seconds = _seconds(model, images, replace(runtime, precision=precision))
            if repeat:  # the first pass chooses kernels
                best[precision] = min(best[precision], seconds)
    return {precision: _IMAGES / seconds for precision, seconds in best.items()}


def _noise(images: int, input_size: Sequence[int]) -> torch.Tensor:
    """Normalised pixels of no picture, the same every time."""
    return torch.randn((images, *input_size), generator=torch.Generator().manual_seed(0))


def _seconds(model: nn.Module, images: torch.Tensor, runtime: Runtime) -> float:
    with runtime.inference():
        started = time.perf_counter()
        total = model(images).float().sum().item()
    seconds = time.perf_counter() - started
    # low precision that overflows is no choice, however fast
    return seconds if math.isfinite(total) or runtime.precision == "fp32" else math.inf


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {platform.machine()} {torch.backends.cpu.get_cpu_capability()} {_cpu_model()}"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    kept = [line for line in lines if line.startswith(("model name", "flags"))]
    return "\n".join(dict.fromkeys(kept))


def _read(file: Path) -> Decision | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        rates = {str(k): float(v) for k, v in content["images_per_second"].items()}
        decision = Decision(str(content["precision"]), rates, str(content.get("model", "")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return decision if decision.precision in PRECISIONS else None


def _write(file: Path, decision: Decision) -> None:
    """A cache that cannot be written costs the next run a second, and is no reason to stop this one."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(asdict(decision)), encoding="utf-8")
        temporary.replace(file)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
