"""Heat maps for people: the part of an image that the network sees, bright where it speaks for the class."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tl_kit.errors import ConfigError, ImageError
from tl_kit.images.transforms import Preprocessing, normalize
from tl_kit.inference.class_maps import class_maps
from tl_kit.inference.predictor import Predictor
from tl_kit.machine.ambient import undisturbed

__all__ = ["HeatPicture", "heat_picture"]

_TINT = np.array((255, 140, 0), dtype=np.float32)  # lighter than nearly every photo, for all kinds of colour vision
_GREY = np.array((0.299, 0.587, 0.114), dtype=np.float32)  # ITU-R BT.601
_STRONGEST = 0.8


@dataclass(frozen=True)
class HeatPicture:
    """A PNG as a data address, and the number of members whose maps it shows. ``blank``: no place speaks for it."""

    address: str
    members: int
    blank: bool


@undisturbed()
def heat_picture(predictor: Predictor, data: bytes, label: int) -> HeatPicture:
    """The mean class activation map of the members, for the class with index ``label``, over their view of an image.

    Members that crop or resize differently see other places: the map is that of those, the most, which see the same,
    and of the first crop. Nothing else may use the predictor's members meanwhile. Raises ImageError for an image that
    cannot be decoded, ConfigError for networks without feature maps.
    """
    reader = predictor.reader([data])
    views = reader.read(0, 1)
    if reader.failures:
        raise ImageError(reader.failures[0])
    alike: dict[Preprocessing, list[int]] = defaultdict(list)
    for place, member in enumerate(predictor.members):
        alike[member.preprocessing].append(place)
    way, places = max(alike.items(), key=lambda pair: len(pair[1]))
    pixels = views[way][:1]
    with predictor.arranged.lock:
        maps = [_map(predictor, place, pixels, label) for place in places]
    found = [each for each in maps if each is not None]
    if not found:
        raise ConfigError("these networks have no class activation maps")
    mean = np.mean(found, axis=0)
    return HeatPicture(_png(pixels[0].cpu(), mean), len(found), not mean.any())


def _map(predictor: Predictor, place: int, pixels: Tensor, label: int) -> NDArray[np.float32] | None:
    """One member's map (h, w); None for a network without feature maps. In fp32: maps need no more speed."""
    scorer = predictor.scorers[place]
    scorer.prepare()
    images = normalize(scorer.runtime.batch(pixels), scorer.preprocessing)
    try:
        found: NDArray[np.float32] = class_maps(scorer.model, images, [predictor.columns[place][label]])[0]
    except ConfigError:
        return None
    return found


def _png(view: Tensor, heat: NDArray[np.float32]) -> str:
    """A grey picture of the view (3, h, w), uint8, tinted by the map (h, w)."""
    grey = (view.permute(1, 2, 0).to(torch.float32).numpy() @ _GREY)[..., None]
    share = _STRONGEST * heat[..., None]
    mixed = grey * (1 - share) + _TINT * share
    stream = io.BytesIO()
    Image.fromarray(np.rint(mixed).clip(0, 255).astype(np.uint8)).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
