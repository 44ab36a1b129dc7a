"""Report on this machine: device, cores, memory, threads and precision, in sentences."""

from __future__ import annotations

import os

import torch

from tl_kit.config import RuntimeConfig
from tl_kit.machine.precision import precision_report
from tl_kit.machine.runtime import available_cores, compile_from, detect, keep_memory

__all__ = ["runtime_report"]


def runtime_report() -> list[str]:
    """The decisions that depend on this machine, in sentences: device, cores, memory, threads, precision."""
    config = RuntimeConfig()
    runtime = detect(config)
    on_cuda = runtime.device.type == "cuda"
    device = torch.cuda.get_device_name(runtime.device) if on_cuda else runtime.device.type.upper()
    kept = "kept (mallopt)" if keep_memory() else "left to the system"
    spin = os.environ.get("GOMP_SPINCOUNT") or os.environ.get("OMP_WAIT_POLICY", "the system's")
    return [
        f"device: {device}, {available_cores()} cores, {torch.get_num_threads()} threads a model, spin count {spin}",
        f"memory: {kept}; layout: {'channels last' if runtime.channels_last else 'channels first'}",
        f"images a forward pass in inference: {runtime.batch_size}; precision of training: {runtime.train_precision}",
        f"torch.compile: takes {config.compile_seconds:.0f} s and saves {config.compile_gain:.0%} of training time, "
        f"so used from {compile_from(config):,.0f} training images of {config.compile_side} px on, over all epochs",
        precision_report(runtime),
    ]
