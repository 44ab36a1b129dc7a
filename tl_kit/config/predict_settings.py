"""Defaults of predict: its inputs, addresses that it fetches, and files that it writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from tl_kit.config.augment_settings import CropConfig
from tl_kit.config.data_settings import DecodeConfig
from tl_kit.config.machine_settings import RuntimeConfig
from tl_kit.config.shared_flags import CHECKPOINT_OR_FILE, DEVICE_ONLY, IMAGE_COLUMN, MC_DROPOUT
from tl_kit.flags import Flag
from tl_kit.number_ranges import AT_LEAST_ONE, OWN_CHECK, POSITIVE

__all__ = ["FetchConfig", "PredictConfig", "RowFormat", "StreamConfig"]

RowFormat: TypeAlias = Literal["csv", "jsonl", "parquet"]


@dataclass(frozen=True, kw_only=True)
class FetchConfig:
    """Images behind http and https addresses, fetched only with ``urls``.

    Each has at most ``max_bytes`` and takes at most ``seconds``, redirections included, of which there may be
    ``redirects``; ``at_once`` are under way together. Behind a slow one, ``ahead`` others may wait, with ``held_bytes``
    in memory. Without ``allow_private`` only public addresses are connected to.
    """

    urls: Annotated[bool, Flag(panel="Data", common=True, help="Fetch inputs that are http or https addresses.")] = (
        False
    )
    allow_private: Annotated[
        bool, Flag(panel="Data", help="With --urls: also from this machine and private networks.")
    ] = False
    max_bytes: Annotated[int, AT_LEAST_ONE] = 2**25
    seconds: Annotated[float, POSITIVE] = 30.0
    redirects: int = 5
    at_once: Annotated[int, AT_LEAST_ONE] = 8
    ahead: Annotated[int, AT_LEAST_ONE] = 512
    held_bytes: Annotated[int, AT_LEAST_ONE] = 2**26


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """Streams of images. After ``pause`` seconds without another path, those that came are predicted.

    A GPU gets ``gpu_batches`` batches at a time. Images that are in memory as files (of archives, and fetched ones)
    take at most ``held_bytes`` and one more. A line of a list has at most ``line_bytes``. A file of rows is secured
    every ``secure_seconds``, from which ``--resume`` goes on. A row group of Parquet has ``group_rows``.
    """

    pause: Annotated[float, POSITIVE] = 0.2
    gpu_batches: Annotated[int, AT_LEAST_ONE] = 8
    held_bytes: Annotated[int, AT_LEAST_ONE] = 2**26
    line_bytes: Annotated[int, AT_LEAST_ONE] = 2**20
    secure_seconds: float = 1.0
    group_rows: Annotated[int, AT_LEAST_ONE] = 10_000


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Predictions for ``images``: files, folders, wildcards, lists, archives. An unreadable one has a row that says so.

    ``top`` classes an image are shown. ``format`` None: a table, or as the name of ``out`` ends. ``crops`` and
    ``mc_dropout`` as for ``EvaluateConfig``.
    """

    checkpoint: Annotated[Path, CHECKPOINT_OR_FILE]
    images: Annotated[
        tuple[str, ...],
        Flag(
            panel="Data",
            name="PATH",
            common=True,
            help="Images, folders of them, wildcards (** is any folders), .csv and .parquet tables, .tar and .zip "
            "archives, or - for paths on standard input, one a line.",
        ),
    ]
    null: Annotated[bool, Flag(panel="Data", help="Paths on standard input end with NUL (find -print0).")] = False
    image_column: Annotated[str | None, IMAGE_COLUMN] = None
    fetch: FetchConfig = FetchConfig()
    top: Annotated[
        int, AT_LEAST_ONE, Flag(panel="Output", metavar="K", common=True, help="So many classes an image.")
    ] = 3
    format: Annotated[
        Literal["table", "csv", "jsonl", "parquet"] | None,
        Flag(
            panel="Output",
            common=True,
            help="For people, or for programs; default: table, or as the name of --out ends.",
        ),
    ] = None
    out: Annotated[
        Path | None,
        Flag(panel="Output", metavar="FILE", common=True, help="Write csv, jsonl or parquet there, as it comes."),
    ] = None
    resume: Annotated[bool, Flag(panel="Output", common=True, help="Go on with an --out that was interrupted.")] = False
    crops: CropConfig | None = None
    mc_dropout: Annotated[int | None, OWN_CHECK, MC_DROPOUT] = None
    decode: DecodeConfig = DecodeConfig()
    runtime: Annotated[RuntimeConfig, DEVICE_ONLY] = RuntimeConfig()
