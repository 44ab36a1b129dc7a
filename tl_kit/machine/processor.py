"""Processor and GPU: name and features as reported, which do not depend on how busy the machine is."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

__all__ = ["Processor", "device_name", "gpu_has_bf16", "processor"]

_CPU_INFO = Path("/proc/cpuinfo")
_LINES = ("model name", "flags", "CPU part", "Features")
# Instruction sets by their names in torch and Linux, with the functions of older torch versions that report them.
_AVX512, _AVX512_BF16, _AMX_BF16 = ("avx512_f", "avx512f"), ("avx512_bf16",), ("amx_bf16",)
_QUESTIONS = {
    "avx512_f": "_is_avx512_supported",
    "avx512_bf16": "_is_avx512_bf16_supported",
    "amx_bf16": "_is_amx_tile_supported",  # every processor with AMX has AMX-BF16
}


@dataclass(frozen=True)
class Processor:
    """``name`` with all flags that Linux lists; AVX-512; and the two instruction sets for bf16."""

    name: str
    avx512: bool
    avx512_bf16: bool
    amx_bf16: bool

    @property
    def bf16(self) -> str | None:
        """The name of the fastest instruction set for bf16; None without one."""
        return "AMX-BF16" if self.amx_bf16 else "AVX512-BF16" if self.avx512_bf16 else None


@lru_cache(maxsize=1)
def processor() -> Processor:
    """This machine's processor. Features that neither torch nor Linux reports count as missing."""
    lines = _described()
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    known = _capabilities()
    avx512, avx512_bf16, amx_bf16 = (
        any(known.get(name, name in flags) for name in names) for names in (_AVX512, _AVX512_BF16, _AMX_BF16)
    )
    name = "\n".join(lines) or f"{platform.machine()} {platform.processor()}"
    return Processor(name, avx512, avx512_bf16, amx_bf16)


def gpu_has_bf16() -> bool:
    """True if the CUDA device multiplies in bf16 in hardware; torch emulates it on older devices."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def device_name(device: torch.device) -> str:
    """The device's name, which determines torch's kernels; it is equal for equal machines."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()} {processor().name}"


def _described() -> list[str]:
    """The lines of ``/proc/cpuinfo`` with the processor's name and features, each once."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return list(dict.fromkeys(line for line in lines if line.startswith(_LINES)))


def _capabilities() -> dict[str, bool]:
    """The processor's features by torch's names, without those that this torch version cannot report."""
    whole: Any = getattr(torch.cpu, "get_capabilities", None)
    if whole is not None:
        return {str(name): bool(value) for name, value in whole().items()}
    asked = {name: getattr(torch.cpu, question, None) for name, question in _QUESTIONS.items()}
    return {name: bool(ask()) for name, ask in asked.items() if ask is not None}
