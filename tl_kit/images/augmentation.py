"""Training augmentation on uint8 images: crops, flips, colour, erasing; its strength sized to the data.

Each image's numbers are drawn on the CPU under a seed of its own, before any pixel is touched (:class:`Drawn`). They
are then applied to one image at a time, by torchvision's kernels, or to a whole batch on a GPU (``batched``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from tl_kit.config import AugmentConfig, AugmentLevels
from tl_kit.errors import ConfigError
from tl_kit.images.quick_draws import crops_and_flips
from tl_kit.images.transforms import Preprocessing
from tl_kit.machine.random_state import own_random_state, seed_cpu
from tl_kit.optimization.rules import augmentation

__all__ = [
    "CROPS",
    "Drawn",
    "Piece",
    "TrainTransform",
    "augment",
    "draw_all",
    "level_of",
    "resolve_augment",
    "seeded_draws",
]

CROPS = ("resized", "short-side", "none")

_BILINEAR: dict[str, Any] = {"interpolation": InterpolationMode.BILINEAR, "antialias": True}

# The principal components of ImageNet's pixels (values in 0 to 1), published with AlexNet's reimplementations.
_EIGENVALUES = (0.2175, 0.0188, 0.0045)
_EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


def resolve_augment(
    level: AugmentConfig | str, options: Mapping[str, Any], *, images_per_class: float
) -> tuple[AugmentConfig, str]:
    """The augmentation that a run uses, and its name. ``options`` replace fields of it.

    "auto" follows from the images (:func:`tl_kit.optimization.rules.augmentation`). Raises ConfigError for an unknown
    level or a value out of range.
    """
    known = AugmentLevels()
    name = level if isinstance(level, str) else "custom"
    if name == "auto":
        name = augmentation(images_per_class, known).value
    if isinstance(level, str) and name not in known.levels:
        raise ConfigError(f"--augment {name}: known are auto, {', '.join(known.levels)}")
    base = known.levels[name] if isinstance(level, str) else level
    chosen = replace(base, **options)
    _check(chosen)
    changed = [f"{key}={value}" for key, value in options.items() if getattr(base, key) != value]
    return chosen, f"{name}, with {', '.join(changed)}" if changed else name


def level_of(name: str) -> str:
    """The level in a name that :func:`resolve_augment` gave; "custom" where the augmentation is of no level."""
    return name.partition(",")[0]


def _check(config: AugmentConfig) -> None:
    if config.crop not in CROPS:
        raise ConfigError(f"--aug crop={config.crop}: known are {', '.join(CROPS)}")
    for name in ("flip", "erasing", "brightness", "contrast"):
        if not 0 <= getattr(config, name) <= 1:
            raise ConfigError(f"--aug {name}={getattr(config, name)}: must be from 0 to 1")
    if not 0 <= config.lighting <= 10:
        raise ConfigError(f"--aug lighting={config.lighting}: must be from 0 to 10")
    for name in ("crop_scale", "crop_ratio", "short_side"):
        values = getattr(config, name)
        if len(values) != 2 or not 0 < values[0] <= values[1]:
            raise ConfigError(f"--aug {name}={values}: must be two positive numbers, the smaller one first")
    if config.crop_scale[1] > 1 or config.short_side[0] < 1 or config.short_side[1] > 4:
        raise ConfigError("--aug: crop_scale must be at most 1, short_side at least 1 and at most 4")


@dataclass(frozen=True)
class Piece:
    """A crop: a box of the image is resized to ``resized`` (rows, columns), and the view is cut out of that.

    ``box`` is (top, left, height, width) in pixels of the image; ``corner`` (row, column) the view's first pixel in the
    resized box. What of the view lies outside of it is black.
    """

    box: tuple[int, int, int, int]
    resized: tuple[int, int]
    corner: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Drawn:
    """One image's random numbers. None, or 1 for a factor, is what changes nothing.

    ``contrast_first``: contrast is changed before brightness. ``shift``: RGB, in levels. ``erased``: (top, left,
    height, width) in pixels of the view.
    """

    piece: Piece | None = None
    flip: bool = False
    brightness: float = 1.0
    contrast: float = 1.0
    contrast_first: bool = False
    shift: tuple[float, float, float] | None = None
    erased: tuple[int, int, int, int] | None = None


class TrainTransform:
    """Crop, mirror image, brightness and contrast, lighting, erasing: uint8 (3, h', w') -> uint8 (3, h, w).

    Crops are drawn of the whole image (:meth:`Preprocessing.whole`); where none is drawn (crop "none"), it takes images
    as evaluation crops them. The numbers are drawn by torchvision's transforms, from torch's generator for the CPU.

    The crop "short-side" is the lecture's (Simonyan & Zisserman 2015): the short side is resized to a random length,
    and a random rectangle of the input's size is cut. Lighting (Krizhevsky et al. 2012, section 4.1) adds
    ``[p1 p2 p3] [a1 l1, a2 l2, a3 l3]`` to each pixel, with p and l the eigenvectors and eigenvalues of ImageNet's RGB
    values between 0 and 1, and a normal, one draw an image.
    """

    def __init__(self, preprocessing: Preprocessing, config: AugmentConfig = AugmentConfig()) -> None:
        self.size = size = preprocessing.input_size[1:]
        self.config = config
        self.mean = [round(255 * value) for value in preprocessing.mean]
        low, high = (round(min(size) * sides) for sides in config.short_side)
        self._resized = v2.RandomResizedCrop(size, scale=config.crop_scale, ratio=config.crop_ratio, **_BILINEAR)
        self._short_side = v2.RandomShortestSize(list(range(low, high + 1)), **_BILINEAR)
        self._cut = v2.RandomCrop(size, pad_if_needed=True)
        self._colour = v2.ColorJitter(brightness=config.brightness, contrast=config.contrast)
        self._erasing = v2.RandomErasing(1.0, value=self.mean)
        others = (config.brightness, config.contrast, config.lighting, config.erasing)
        self.quick = config.crop == "resized" and not any(others)

    def draw(self, height: int, width: int) -> Drawn:
        """The numbers for an image of this size; from torch's generator for the CPU, always in the same order."""
        config = self.config
        drawn: dict[str, Any] = {"piece": self._piece(height, width)}
        if config.flip:
            drawn["flip"] = bool(torch.rand(1) < config.flip)
        if config.brightness or config.contrast:
            found = self._colour.make_params([])
            order = found["fn_idx"].tolist()  # of brightness (0), contrast (1) and two that are not used
            drawn["contrast_first"] = order.index(1) < order.index(0)
            for name in ("brightness", "contrast"):
                if (factor := found[f"{name}_factor"]) is not None:
                    drawn[name] = factor
        if config.lighting:
            draws = torch.randn(3) * config.lighting * torch.tensor(_EIGENVALUES)
            drawn["shift"] = tuple((torch.tensor(_EIGENVECTORS) @ draws * 255).tolist())
        if config.erasing and torch.rand(1) < config.erasing:
            found = self._erasing.make_params([_sized(*self.size)])
            drawn["erased"] = tuple(found[name] for name in "ijhw") if found["v"] is not None else None
        return Drawn(**drawn)

    def draw_quickly(self, seeds: Sequence[int], sizes: Sequence[tuple[int, int]]) -> list[Drawn]:
        """The numbers of a crop and a mirror image alone (``quick``): those of :meth:`draw` after each of the seeds."""
        config = self.config
        boxes, flips = crops_and_flips(seeds, sizes, scale=config.crop_scale, ratio=config.crop_ratio, flip=config.flip)
        pieces = [Piece((top, left, rows, columns), self.size) for top, left, rows, columns in boxes.tolist()]
        return [Drawn(piece, flip) for piece, flip in zip(pieces, flips.tolist(), strict=True)]

    def _piece(self, height: int, width: int) -> Piece | None:
        if not self.config.draws_crops:
            return None
        if self.config.crop == "resized":
            found = self._resized.make_params([_sized(height, width)])
            return Piece(tuple(found[name] for name in ("top", "left", "height", "width")), self.size)
        rows, columns = self._short_side.make_params([_sized(height, width)])["size"]
        cut = self._cut.make_params([_sized(rows, columns)])
        left, top, *_ = cut["padding"]
        return Piece((0, 0, height, width), (rows, columns), (cut["top"] - top, cut["left"] - left))

    def apply(self, image: Tensor, drawn: Drawn) -> Tensor:
        """One image under its numbers: uint8 (3, h', w') -> uint8 (3, h, w)."""
        out = image if drawn.piece is None else self._cropped(image, drawn.piece)
        if drawn.flip:
            out = functional.horizontal_flip(out)
        for name in ("contrast", "brightness") if drawn.contrast_first else ("brightness", "contrast"):
            if (factor := getattr(drawn, name)) != 1:
                out = getattr(functional, f"adjust_{name}")(out, factor)
        if drawn.shift is not None:
            out = (out + torch.tensor(drawn.shift).view(3, 1, 1)).round_().clamp_(0, 255).to(torch.uint8)
        if drawn.erased is not None:
            top, left, height, width = drawn.erased
            colour = torch.tensor(self.mean, dtype=out.dtype).view(3, 1, 1)
            out = functional.erase(out, top, left, height, width, colour)
        return out

    def _cropped(self, image: Tensor, piece: Piece) -> Tensor:
        out: Tensor
        if piece.resized == self.size:
            out = functional.resized_crop(image, *piece.box, size=list(self.size), **_BILINEAR)
        else:
            out = functional.resize(image, size=list(piece.resized), **_BILINEAR)
        if piece.resized != self.size or piece.corner != (0, 0):
            out = functional.crop(out, *piece.corner, *self.size)
        return out


def _sized(height: int, width: int) -> Tensor:
    """An image of this size, for a transform that asks for no more of it."""
    return torch.empty((3, height, width), device="meta")


def _seed_of(*parts: object) -> int:
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seeded_draws(*parts: object) -> None:
    """Seed the CPU's global generator from ``parts``; call it inside ``own_random_state``."""
    seed_cpu(_seed_of(*parts))


def draw_all(
    sizes: Sequence[tuple[int, int]], transform: TrainTransform, *, seed: int, epoch: int, keys: Sequence[str]
) -> list[Drawn]:
    """Each image's numbers, by its size (h', w') in pixels: (seed, epoch, key) decide, not the batch or the order.

    The global random state is left as it was.
    """
    if transform.quick:
        return transform.draw_quickly([_seed_of(seed, epoch, key) for key in keys], sizes)
    found = []
    with own_random_state():
        for size, key in zip(sizes, keys, strict=True):
            seeded_draws(seed, epoch, key)
            found.append(transform.draw(*size))
    return found


def augment(
    images: Sequence[Tensor], transform: TrainTransform, *, seed: int, epoch: int, keys: Sequence[str]
) -> Tensor:
    """Images (3, h', w') varied one by one, each by its own numbers (:func:`draw_all`): a uint8 batch (n, 3, h, w)."""
    sizes = [(image.shape[1], image.shape[2]) for image in images]
    drawn = draw_all(sizes, transform, seed=seed, epoch=epoch, keys=keys)
    return torch.stack([transform.apply(image, numbers) for image, numbers in zip(images, drawn, strict=True)])
