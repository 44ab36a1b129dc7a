"""Defaults of the machine and of what lies on disk: device, precision, threads, caches, limits on foreign files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tl_kit.flags import Flag
from tl_kit.number_ranges import AT_LEAST_ONE, SHARE

__all__ = ["CacheConfig", "MembersConfig", "ProcessConfig", "ReadConfig", "RuntimeConfig", "SaveConfig", "TrustConfig"]


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """The device (``auto``: a GPU if there is one), the batch sizes and the precision of inference.

    ``precision`` is fp32, bf16 or ``auto``: bf16 where the processor has it and the network gains by it.
    ``mode`` "plain" turns off all that makes the hardware fast (memory that is kept, channels_last, bf16, trunk reuse),
    for comparison and for when it is suspected.

    ``decoder`` of plain JPEGs: nvjpeg, on a GPU, or pillow; "auto": what a model was trained with, and for a new one
    nvjpeg where it is there. ``loss_lag``: on a GPU, a step's loss is read when so many later steps are under way.

    ``compile`` "auto" uses torch.compile for training where it pays back within the run: it takes ``compile_seconds``
    and then saves ``compile_gain`` of the training time, in which ``compile_rate`` images of ``compile_side`` pixels a
    side are trained a second (all of it measured once, on 2 cores with EfficientNet-Lite0; nothing is timed in a run).
    """

    mode: Annotated[
        Literal["auto", "plain"],
        Flag(
            panel="Run",
            name="--runtime",
            help="plain: no cache, no bf16, no channels_last, memory as the system has it.",
        ),
    ] = "auto"
    device: Annotated[
        str,
        Flag(
            panel="Run",
            common=True,
            metavar="auto|cpu|cuda[:N]|mps",
            complete=("auto", "cpu", "cuda", "mps"),
            help="Where it computes; auto: a GPU if there is one.",
        ),
    ] = "auto"
    batch_size: Annotated[int, AT_LEAST_ONE] = 32
    gpu_batch_size: Annotated[int, AT_LEAST_ONE] = 256
    precision: str = "auto"
    loss_lag: Annotated[int, AT_LEAST_ONE] = 2
    decoder: Literal["auto", "pillow", "nvjpeg"] = "auto"
    compile: Annotated[
        Literal["auto", "on", "off"],
        Flag(panel="Run", help="torch.compile for training; auto: where it pays back within the run."),
    ] = "auto"
    compile_backend: str = "inductor"
    compile_seconds: float = 121.0
    compile_gain: float = 0.05
    compile_rate: float = 45.0
    compile_side: int = 224


@dataclass(frozen=True, kw_only=True)
class TrustConfig:
    """Limits on files that somebody else wrote: larger demands are refused before any memory is taken.

    ``json_bytes`` of ``tlkit.json`` and its like (it names every image that was trained on); ``side`` is that of a
    model's images, in pixels; ``number`` the largest whole number, ``items`` the most numbers and texts, among a
    model's arguments; ``text`` the longest text, in characters; ``modules`` the most layers and tensors of a model.
    """

    json_bytes: int = 2**28
    side: int = 4096
    number: int = 1_000_000
    items: int = 10_000
    text: int = 1000
    modules: int = 200_000


@dataclass(frozen=True, kw_only=True)
class MembersConfig:
    """Members that share nothing take turns, each on as many decoded images as ``pixel_bytes`` hold.

    Their weights stay in memory while all but the largest member's take at most ``keep_bytes``, and are read again for
    each turn where they take more. Together both are a fifth of what torch and one member's activations take.
    """

    keep_bytes: int = 50_000_000
    pixel_bytes: int = 50_000_000


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """The trunk's outputs on disk. ``directory`` None: ``$XDG_CACHE_HOME/tl-kit`` or ``~/.cache/tl-kit``.

    ``size_gb`` bounds all of it, in units of 10^9 bytes; 0 turns the cache off. ``views`` is the number of augmented
    views an image that ``last:K`` trains on; None: ``default_views``, fewer where the epochs or the bound ask for it.
    """

    directory: Path | None = None
    size_gb: Annotated[
        float,
        Flag(
            panel="Run",
            name="--cache-size",
            metavar="GB",
            help="Bound of the cache of frozen networks' outputs; 0: no cache.",
        ),
    ] = 4.0
    views: Annotated[
        int | None,
        AT_LEAST_ONE,
        Flag(panel="Run", metavar="V", help="Augmented views an image for last:K (default: by epochs and memory)."),
    ] = None
    default_views: Annotated[int, AT_LEAST_ONE] = 4


def _seconds(text: str) -> float:
    try:
        seconds = 0.0 if text == "none" else float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError("must be a number of seconds, or none")
    return seconds


@dataclass(frozen=True, kw_only=True)
class SaveConfig:
    """Saving of a run's state, from which ``--resume`` goes on.

    ``every`` so many seconds, between two steps; 0: never. Less often where saving would take more than ``most_share``
    of the time.
    """

    every: Annotated[
        float,
        Flag(
            panel="Output",
            name="--save-every",
            metavar="SECONDS",
            help="How often the run's state is saved for --resume; 0 or none: never.",
            parse=_seconds,
        ),
    ] = 30.0
    most_share: Annotated[float, SHARE] = 0.05


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """Threads that read files: ``few`` of them where that is quick work, most of it Python, ``turn`` files at a time.

    Work is quick if the first ``tried`` files take less than ``quick`` seconds each. On 2 cores, two threads read as
    many files of 40 KB as more do; on 16 cores, sixteen threads wake each other for the interpreter lock all the time.
    """

    tried: Annotated[int, AT_LEAST_ONE] = 16
    quick: float = 5e-4
    few: Annotated[int, AT_LEAST_ONE] = 2
    turn: Annotated[int, AT_LEAST_ONE] = 512


@dataclass(frozen=True, kw_only=True)
class ProcessConfig:
    """OpenMP's spin count: how often a thread looks for work before it sleeps (GNU's GOMP_SPINCOUNT).

    GNU's own default of 300,000 outlasts a time slice: with one core of two taken by another process, every
    operation waits for the scheduler, and inference takes 30 times longer. A setting of the user's is kept.

    ``fork_seconds``: the longest that a fork waits until other threads' networks have come to the end of a batch.
    """

    spin_count: int = 1000
    fork_seconds: float = 60.0
