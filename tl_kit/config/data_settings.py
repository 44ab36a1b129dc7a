"""Defaults of data sets: splits, decoding, the pixel store, the doctor and folds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from tl_kit.config.shared_flags import IMAGE_COLUMN, LABEL_COLUMN
from tl_kit.flags import Flag
from tl_kit.number_ranges import AT_LEAST_ONE, AT_LEAST_TWO, BELOW_ONE, POSITIVE, SHARE, Range

__all__ = [
    "BalanceConfig",
    "BalanceMethod",
    "DataConfig",
    "DecodeConfig",
    "DoctorConfig",
    "FoldsConfig",
    "LeftOutConfig",
    "LikenessConfig",
    "ShortcutConfig",
    "StoreConfig",
]

BalanceMethod: TypeAlias = Literal["auto", "none", "sampler", "loss"]

_BELOW_2_32 = Range("from 0 to 2^32 - 1", lambda value: 0 <= value < 2**32)  # scikit-learn's folds take no other


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Making of missing splits. Members of one ensemble must share ``split_seed``: it is not the run's seed.

    ``group_pattern`` is a regular expression: images in whose file names it finds the same text (that of its first
    bracketed part, where it has one) are one group, unless a CSV says otherwise. Near copies are kept on one side where
    there are at most ``near_images`` different files (their number squared is compared: 3 s for 20,000); 0: nowhere.
    ``image_column`` and ``label_column`` are those of a table; None: by their usual names.
    """

    val_fraction: Annotated[float, BELOW_ONE] = 0.2
    test_fraction: Annotated[float, BELOW_ONE] = 0.2
    split_seed: Annotated[
        int,
        _BELOW_2_32,
        Flag(panel="Data", help="For splits that the data lacks; the same for all members of an ensemble."),
    ] = 0
    group_pattern: Annotated[
        str | None,
        Flag(
            panel="Data",
            metavar="REGEX",
            help="File names with the same match, such as '^[^_]+' or 'patient([0-9]+)', stay in one split.",
        ),
    ] = None
    near_images: int = 20_000
    image_column: Annotated[str | None, IMAGE_COLUMN] = None
    label_column: Annotated[str | None, LABEL_COLUMN] = None


@dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    """Images of more pixels are refused: 5 to 25 bytes each must fit into memory while it is decoded, once a thread.

    So are JPEGs of more scans: a progressive one has about ten, and each goes over all pixels.
    Archives, images inside of tables and what an address names are copied into the user's cache, ``copy_gb`` in units
    of 10^9 bytes and ``copy_files`` files at most for one data set, and ``copy_gb`` in all where none is in use.
    ``copy_spares_gb`` of the disk stay free beside them, on a disk of less than 20 times as much a twentieth of it.
    """

    max_pixels: Annotated[
        int,
        AT_LEAST_ONE,
        Flag(panel="Data", metavar="N", help="Larger images are refused, before they fill the memory."),
    ] = 2**27
    max_scans: Annotated[int, AT_LEAST_ONE] = 500
    copy_gb: Annotated[
        float,
        POSITIVE,
        Flag(
            panel="Data",
            name="--copy-size",
            metavar="GB",
            help="Bound of local copies: of archives, images in Parquet, addresses.",
        ),
    ] = 20.0
    copy_files: Annotated[int, AT_LEAST_ONE] = 5_000_000
    copy_spares_gb: Annotated[float, POSITIVE] = 1.0


@dataclass(frozen=True, kw_only=True)
class LeftOutConfig:
    """Excluded files: a command shows at most ``shown``, a line each; the doctor lists all."""

    shown: int = 10


@dataclass(frozen=True, kw_only=True)
class LikenessConfig:
    """Images are alike if their perceptual hashes differ in at most ``hash_bits`` of 63 and their details correlate.

    The two thresholds were set by ``benchmarks/near_duplicates.py``; docs/data.md has its figures.
    """

    hash_bits: int = 12
    similarity: float = 0.97


@dataclass(frozen=True, kw_only=True)
class ShortcutConfig:
    """Shortcut detection: thresholds from which a class counts as recognisable without the image's content.

    ``excess``: recall minus false-positive rate, at least; ``false_alarms``: the share of data sets on which chance may
    raise one, at most. A tree has ``leaf`` images a leaf at least, and is cross-validated over ``folds``.
    """

    excess: float = 0.5
    false_alarms: float = 1e-3
    folds: Annotated[int, AT_LEAST_TWO] = 5
    leaf: Annotated[int, AT_LEAST_ONE] = 5


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """The doctor's thresholds: images a class, largest over smallest class, pixels on the short side.

    An image is near-empty if 98 % of its thumbnail lies within ``empty_levels`` of the 256 levels, in every channel.
    From a share of ``max_cut_off`` of an image's pixels on that a centre crop drops, by its shape, the doctor says so.
    """

    min_images: int = 5
    max_imbalance: Annotated[float, POSITIVE] = 10.0
    min_side: int = 32
    empty_levels: float = 12.0
    max_cut_off: Annotated[float, SHARE] = 0.3
    likeness: LikenessConfig = LikenessConfig()
    shortcuts: ShortcutConfig = ShortcutConfig()


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """Decoded images are kept in memory up to this share of the free memory; the rest is decoded again when needed.

    Every ``check_seconds`` the free memory is looked at: where less than ``reserve`` bytes are left (on a small
    machine, less than that share of what was free), half of the images are given up.

    On a GPU, the images that train are kept in its memory if they take at most ``device_share`` of what is free there,
    and plain JPEGs are decoded ``decoded_together`` at a time.
    ``training_scale``: the size at which images are kept for random crops, in sizes to which evaluation resizes them.
    """

    memory_share: Annotated[float, SHARE] = 0.3
    device_share: Annotated[float, SHARE] = 0.3
    decoded_together: Annotated[int, AT_LEAST_ONE] = 64
    reserve: int = 500_000_000
    check_seconds: float = 0.5
    training_scale: Annotated[float, POSITIVE] = 1.0


@dataclass(frozen=True, kw_only=True)
class BalanceConfig:
    """Class imbalance: ``auto`` acts from this ratio on of the largest class's training images to the smallest's."""

    uneven_from: Annotated[float, AT_LEAST_ONE] = 3.0


@dataclass(frozen=True, kw_only=True)
class FoldsConfig:
    """Cross-validation: the number of folds, and how many suspect labels are shown (the file has all)."""

    folds: Annotated[int, AT_LEAST_TWO] = 5
    shown: int = 10
