"""Places that models look at: class activation maps of the shown images, and whether they beat random maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tl_kit.config import DecodeConfig, ReportLimits, RuntimeConfig
from tl_kit.errors import ConfigError, ImageError
from tl_kit.images.decode import decode
from tl_kit.images.transforms import Preprocessing, normalize
from tl_kit.inference.class_maps import class_maps, deletion_score
from tl_kit.machine.runtime import detect
from tl_kit.report_page.saved_results import Saved
from tl_kit.report_page.scored import Scored
from tl_kit.reporting import Reporter
from tl_kit.storage.checkpoint import Checkpoint, load_checkpoint

__all__ = ["Looked", "Worth", "look"]

_TOGETHER = 8  # images in a pass: gradients need more memory than a prediction
_SEED = 0


@dataclass(frozen=True)
class Looked:
    """An image as the model sees it, uint8 (h, w, 3), and the class activation map of its predicted class (h, w)."""

    pixels: NDArray[np.uint8]
    places: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Worth:
    """Mean probability of the predicted class while a map's, or a random map's, highest pixels are removed.

    ``gain``: random minus map, its mean over ``images`` images, with the 95 % interval of a paired t-test.
    """

    images: int
    found: float
    chance: float
    gain: float
    interval: tuple[float, float]

    @property
    def beats_chance(self) -> bool:
        """True if the interval of the gain lies above 0."""
        return self.interval[0] > 0


def look(
    saved: Saved,
    scored: Scored,
    images: Sequence[int],
    *,
    limits: ReportLimits,
    decoding: DecodeConfig,
    runtime: RuntimeConfig,
    reporter: Reporter,
) -> tuple[dict[int, Looked], Worth | None, str]:
    """Class activation maps of ``images`` (indices of ``scored``), by index; their worth; a sentence about them.

    An ensemble's map is the mean over those members that see the same part of an image as its first. The worth is that
    of the first member's maps. A network without maps gives none, and the sentence says why.
    """
    reporter.start("maps", len(images))
    found: dict[int, Looked] = {}
    scores: list[tuple[float, float]] = []
    left = limits.deleted
    device = detect(runtime).device
    try:
        for folders, chosen in _who_sees(saved, scored, images):
            first: Checkpoint | None = None
            for folder in folders:
                member = load_checkpoint(folder, mapped=True, held_out=scored.own and scored.split == "val")
                if first is not None and not _same_view(first.preprocessing, member.preprocessing):
                    continue
                tensors = _pixels(member.preprocessing, [scored.paths[index] for index in chosen], decoding)
                known = [index for index, tensor in zip(chosen, tensors, strict=True) if tensor is not None]
                stack = torch.stack([tensor for tensor in tensors if tensor is not None]) if known else None
                if stack is None:
                    break
                classes = [member.classes.index(scored.classes[int(scored.predicted[index])]) for index in known]
                model = member.model.to(device)
                maps = np.concatenate(
                    [
                        class_maps(model, _ready(stack[some], member, device), classes[some])
                        for some in _pieces(len(known))
                    ]
                )
                if first is None:
                    first = member
                    for index, tensor, places in zip(known, stack, maps, strict=True):
                        found[index] = Looked(tensor.permute(1, 2, 0).numpy(), places)
                    some = slice(0, max(0, left))
                    if left > 0:
                        scores += _deletions(
                            model, _ready(stack[some], member, device), classes[some], maps[some], limits
                        )
                        left -= len(classes[some])
                else:
                    for index, places in zip(known, maps, strict=True):
                        before = found[index]
                        found[index] = Looked(before.pixels, before.places + _sized(places, before.places.shape))
            reporter.advance(len(chosen))
    except ConfigError as error:
        return {}, None, f"There are no maps: {error}."
    peaked = {index: Looked(one.pixels, _peaked(one.places)) for index, one in found.items()}
    return peaked, _worth(scores), ""


def _who_sees(saved: Saved, scored: Scored, images: Sequence[int]) -> list[tuple[list[Path], list[int]]]:
    """The checkpoints that predicted images, and the images: for folds, those of each fold."""
    if scored.models is None:
        assert scored.predictor is not None
        return [([member.path for member in scored.predictor.members], list(images))]
    folds: Mapping[int, list[int]] = {
        int(number): [index for index in images if scored.models[index] == number] for number in set(scored.models)
    }
    return [([saved.folder / f"fold-{number}"], chosen) for number, chosen in sorted(folds.items()) if chosen]


def _same_view(one: Preprocessing, other: Preprocessing) -> bool:
    return (one.crop_mode, round(one.crop_pct, 2)) == (other.crop_mode, round(other.crop_pct, 2))


def _pixels(preprocessing: Preprocessing, paths: Sequence[Path], decoding: DecodeConfig) -> list[Tensor | None]:
    found: list[Tensor | None] = []
    for path in paths:
        try:
            picture = decode(path, min_side=preprocessing.min_side, config=decoding, ranges=preprocessing.ranges)
        except ImageError:
            found.append(None)
        else:
            found.append(preprocessing.evaluate(picture))
    return found


def _ready(stack: Tensor, member: Checkpoint, device: torch.device) -> Tensor:
    return normalize(stack.to(device), member.preprocessing)


def _pieces(images: int) -> list[slice]:
    return [slice(first, first + _TOGETHER) for first in range(0, images, _TOGETHER)]


def _deletions(
    model: torch.nn.Module, pixels: Tensor, classes: list[int], maps: NDArray[np.float32], limits: ReportLimits
) -> list[tuple[float, float]]:
    """For each image, the deletion score of its map, and the mean of those of random maps as coarse as a map is."""
    generator = torch.Generator().manual_seed(_SEED)
    found = deletion_score(model, pixels, classes, maps, steps=limits.steps)
    chance = np.zeros(len(classes))
    for _ in range(limits.chance):
        coarse = torch.rand(len(classes), 1, limits.chance_grid, limits.chance_grid, generator=generator)
        random = functional.interpolate(coarse, size=pixels.shape[2:], mode="bilinear")[:, 0].numpy()
        chance += deletion_score(model, pixels, classes, random, steps=limits.steps) / limits.chance
    return list(zip(found.tolist(), chance.tolist(), strict=True))


def _worth(scores: Sequence[tuple[float, float]]) -> Worth | None:
    if len(scores) < 2:
        return None
    from scipy.stats import ttest_1samp

    found, chance = np.array(scores).T
    gain = chance - found
    interval = ttest_1samp(gain, 0).confidence_interval() if gain.std() > 0 else None
    return Worth(
        images=len(scores),
        found=float(found.mean()),
        chance=float(chance.mean()),
        gain=float(gain.mean()),
        interval=(float(gain.mean()),) * 2 if interval is None else (float(interval.low), float(interval.high)),
    )


def _sized(places: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    tensor = torch.from_numpy(places)[None, None]
    found: NDArray[np.float32] = functional.interpolate(tensor, size=shape, mode="bilinear")[0, 0].numpy()
    return found


def _peaked(places: NDArray[np.float32]) -> NDArray[np.float32]:
    highest = float(places.max())
    return places / np.float32(highest) if highest > 0 else places
