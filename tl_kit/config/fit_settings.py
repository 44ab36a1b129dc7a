"""Defaults of ``fit``: the best classifier in a given time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from tl_kit.config.data_settings import DataConfig, DecodeConfig, StoreConfig
from tl_kit.config.machine_settings import CacheConfig, RuntimeConfig
from tl_kit.config.optimization_settings import Options
from tl_kit.config.shared_flags import DATA, OUT, STRICT
from tl_kit.config.tracking_settings import TrackingConfig
from tl_kit.flags import Flag
from tl_kit.number_ranges import AT_LEAST_ONE, FRACTION, NOT_NEGATIVE, POSITIVE

__all__ = [
    "BudgetConfig",
    "FitConfig",
    "FitResumeConfig",
    "LadderConfig",
    "Prefer",
    "SideConfig",
    "count_of",
    "seconds_of",
]

Prefer: TypeAlias = Literal["accuracy", "nll", "speed"]
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_THOUSANDS = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000}


def seconds_of(text: str | float) -> float:
    """Seconds of a duration: ``90``, ``"90s"``, ``"10m"``, ``"1h30m"``. Raises ValueError for anything else."""
    if not isinstance(text, str):
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(h|min|m|s|)", text.strip().lower())
    whole = "".join(number + unit for number, unit in parts)
    bare = sum(not unit for _, unit in parts)
    if not parts or whole != re.sub(r"\s", "", text.lower()) or (bare and len(parts) > 1):
        raise ValueError("give a duration such as 90s, 10m or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def count_of(text: str | float) -> float:
    """A number with or without a unit: ``5000000``, ``"5M"``, ``"300k"``. Raises ValueError for anything else."""
    if not isinstance(text, str):
        return float(text)
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmb]?)", text.strip().lower())
    if found is None:
        raise ValueError("give a number such as 5000000, 300k or 5M")
    return float(found[1]) * _THOUSANDS[found[2]]


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """The part of the time that is not for training, and the margin of an estimate.

    A step begins if ``margin`` times its estimate fits into the time that is left; ``first_margin`` for the first runs
    of a kind, which nothing has measured yet. ``finish`` seconds, and the prediction of the test images at ``margin``
    times its estimate, are kept for the end. A first head is priced by a trial; its fits are taken to last the share
    ``fits`` of its training images' passes and ``fits_class`` more for each class, at most as long (measured: 0.1 for
    5 classes, 0.17 for 10, 0.33 for 46). ``timed`` images measure a network's speed. A download is assumed to run at
    ``download`` megabytes a second; those that nobody named take at most ``download_share`` of the time that is left,
    and ``download_most`` megabytes.
    """

    margin: Annotated[float, POSITIVE] = 1.15
    first_margin: Annotated[float, POSITIVE] = 1.25
    finish: Annotated[float, POSITIVE] = 3.0
    fits: Annotated[float, NOT_NEGATIVE] = 0.1
    fits_class: Annotated[float, NOT_NEGATIVE] = 0.005
    timed: Annotated[int, AT_LEAST_ONE] = 16
    download: Annotated[float, POSITIVE] = 5.0
    download_share: Annotated[float, FRACTION] = 0.1
    download_most: Annotated[float, NOT_NEGATIVE] = 300.0


@dataclass(frozen=True, kw_only=True)
class LadderConfig:
    """The steps of a fit, from cheap to expensive.

    Of the networks, by their heads' NLL, the best share ``halved`` is trained for a ``short`` share of the epochs, but
    at most ``most_short`` networks (successive halving, Jamieson & Talwalkar 2016). The best of them trains in full.
    Where time is short, it trains for fewer epochs, but no less than the share ``least`` of them; where that is too
    long, the last layers of the fastest network train, on the same terms. The first network trains in full before the
    further heads where a probe of all stages, on at most ``stage_images`` training images, says that its last layers
    have dropped what matters here; where that is too long, the fewest groups that hold ``part_share`` of its parameters
    train, on ``part_views`` augmented views an image. After a run in full, further members follow, until ``patience``
    of them in a row have not lowered the ensemble's NLL by more than its standard error. An ensemble has at most
    ``members``. Before further members, and at the end, the runs that are members of the best ensemble train once more,
    on validation images too, where these are at least the share ``refit_from`` of the training images. Last of all, the
    heads of the best ``most_views`` networks see images cropped in other ways, where that matters.
    """

    halved: Annotated[float, FRACTION] = 0.5
    short: Annotated[float, FRACTION] = 1 / 3
    most_short: Annotated[int, AT_LEAST_ONE] = 4
    least: Annotated[float, FRACTION] = 0.5
    part_share: Annotated[float, FRACTION] = 0.25
    part_views: Annotated[int, AT_LEAST_ONE] = 2
    stage_images: Annotated[int, AT_LEAST_ONE] = 600
    patience: Annotated[int, AT_LEAST_ONE] = 2
    members: Annotated[int, AT_LEAST_ONE] = 8
    refit_from: Annotated[float, POSITIVE] = 0.1
    most_views: Annotated[int, AT_LEAST_ONE] = 4


@dataclass(frozen=True, kw_only=True)
class SideConfig:
    """Size at which the runs of a fit train, where ``--img-size`` says nothing.

    A network takes small images enlarged to its own size. Training nearer to theirs takes about half of the time and
    reaches almost as much (docs/fit.md has the figures): at the smallest multiple of ``step`` pixels that the longer
    side of a share ``share`` of the images does not exceed, but at least the share ``least`` of the network's own size.
    At most ``measured`` headers are read. Heads keep the network's own size: its pretrained features are best there,
    and a head alone cannot change them.
    """

    share: Annotated[float, FRACTION] = 0.9
    least: Annotated[float, FRACTION] = 4 / 7
    step: Annotated[int, AT_LEAST_ONE] = 32
    measured: Annotated[int, AT_LEAST_ONE] = 100


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """The best classifier of ``data`` in ``time``: networks, training and an ensemble, by validation.

    ``time``: seconds, or a text such as "10m"; None: until the next step's expected gain is below its noise.
    ``models``: "auto" for all whose weights are on this machine, or timm names and wildcards with commas between.
    ``max_latency``: milliseconds for one image, decoding included; ``max_params``: parameters, or a text such as "5M";
    both are limits on the whole result. ``augment_options``, ``strict`` and ``allow`` as for ``FinetuneConfig``.
    """

    data: Annotated[Path, DATA]
    time: Annotated[
        float | str | None,
        POSITIVE,
        Flag(
            panel="Search",
            common=True,
            metavar="90s|10m|1h",
            help="Time in all (default: until the next step promises no gain).",
            parse=seconds_of,
        ),
    ] = None
    models: Annotated[
        str,
        Flag(
            panel="Search",
            common=True,
            metavar="auto|NAMES",
            help="auto: all whose weights are on this machine; or timm names and wildcards with commas between.",
        ),
    ] = "auto"
    prefer: Annotated[
        Prefer,
        Flag(
            panel="Search",
            common=True,
            help="speed: the fastest of the results that validation cannot tell from the best.",
        ),
    ] = "accuracy"
    max_latency: Annotated[
        float | None,
        POSITIVE,
        Flag(panel="Search", common=True, metavar="MS", help="At most so many milliseconds for one image."),
    ] = None
    max_params: Annotated[
        float | str | None,
        POSITIVE,
        Flag(panel="Search", common=True, metavar="N", help="At most so many parameters, such as 5M.", parse=count_of),
    ] = None
    img_size: Annotated[
        int | None,
        AT_LEAST_ONE,
        Flag(
            panel="What trains",
            common=True,
            help="Pixels a side (default: each network's own, or less in training on small images).",
        ),
    ] = None
    augment_options: Annotated[
        Options,
        Flag(
            panel="What trains",
            common=True,
            name="--aug",
            metavar="KEY=VALUE",
            help="One setting of the augmentation, such as flip=0 (finetune --help-all has all); may be repeated.",
        ),
    ] = ()
    seed: Annotated[
        int, NOT_NEGATIVE, Flag(panel="Run", common=True, help="For new heads, the order of images and augmentation.")
    ] = 0
    split: DataConfig = DataConfig()
    allow: Annotated[
        tuple[str, ...],
        Flag(
            panel="Data",
            common=True,
            metavar="NAME",
            help="What shall not stop the work, as for finetune; may be repeated.",
        ),
    ] = ()
    strict: Annotated[bool, STRICT] = False
    out: Annotated[Path | None, OUT] = None
    tracking: TrackingConfig = TrackingConfig()
    default_out: str = "fits"
    decode: DecodeConfig = DecodeConfig()
    cache: CacheConfig = CacheConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    store: StoreConfig = StoreConfig()
    budget: BudgetConfig = BudgetConfig()
    ladder: LadderConfig = LadderConfig()
    side: SideConfig = SideConfig()


@dataclass(frozen=True, kw_only=True)
class FitResumeConfig:
    """A fit that ended early, or whose result shall get better."""

    resume: Annotated[
        Path | None,
        Flag(
            panel="Run",
            common=True,
            metavar="FIT",
            help="Go on with the work in this folder, with its own options; --time: so much more time.",
        ),
    ] = None
