"""Heat maps for people: a grey picture of the image, coloured by how much each place speaks for the class."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tl_kit.errors import ConfigError, ImageError
from tl_kit.images.crops import decode_side
from tl_kit.images.decode import decode
from tl_kit.images.transforms import Preprocessing, normalize
from tl_kit.inference.class_maps import class_maps
from tl_kit.inference.predictor import Predictor
from tl_kit.machine.ambient import undisturbed

__all__ = ["HeatPicture", "heat_picture", "seen_part"]

_COLOURS = "inferno"  # lightness rises with the value: it reads in grey, and for all kinds of colour vision
_COLOUR = 0.6  # and the rest is the picture
_LONGEST = 448


@dataclass(frozen=True)
class HeatPicture:
    """A PNG as a data address, and the number of members whose maps it shows. ``blank``: no place speaks for it."""

    address: str
    members: int
    blank: bool


@undisturbed()
def heat_picture(predictor: Predictor, data: bytes, label: int) -> HeatPicture:
    """The mean class activation map of the members, for the class with index ``label``, over a whole image.

    What a member does not see counts as 0; with several crops it is the map of the first. Nothing else may use the
    predictor's members meanwhile. Raises ImageError for an image that cannot be decoded, ConfigError for networks
    without feature maps.
    """
    reader = predictor.reader([data])
    views = reader.read(0, 1)
    if reader.failures:
        raise ImageError(reader.failures[0])
    way = predictor.members[0].preprocessing
    image = decode(data, min_side=decode_side(way, predictor.crops), config=predictor.decode, ranges=way.ranges)
    image.thumbnail((_LONGEST, _LONGEST))
    maps = []
    with predictor.arranged.lock:
        for scorer, columns in zip(predictor.scorers, predictor.columns, strict=True):
            scorer.prepare()
            pixels = scorer.runtime.batch(views[scorer.preprocessing][:1])  # in fp32: maps need no more speed
            try:
                found = class_maps(scorer.model, normalize(pixels, scorer.preprocessing), [columns[label]])[0]
            except ConfigError:
                continue
            maps.append(_over(image.size, found, scorer.preprocessing))
    if not maps:
        raise ConfigError("these networks have no class activation maps")
    mean = np.mean(maps, axis=0)
    return HeatPicture(_png(image, mean), len(maps), not mean.any())


def _over(size: tuple[int, int], heat: NDArray[np.float32], way: Preprocessing) -> NDArray[np.float32]:
    """A map of a network's view (h, w), laid over an image of this width and height."""
    left, top, right, bottom = (round(edge) for edge in seen_part(*size, way))
    part = Image.fromarray(heat).resize((max(1, right - left), max(1, bottom - top)), Image.Resampling.BILINEAR)
    whole = Image.new("F", size)
    whole.paste(part, (left, top))
    return np.asarray(whole)


def seen_part(width: int, height: int, way: Preprocessing) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of the part of an image that a network sees, in pixels; beyond it where it is padded.

    Of a transform that is not known: the largest part of the input's shape, in the middle.
    """
    longest = way.most_aspect * min(width, height)  # of longer images the middle is taken first
    whole = min(width, longest), min(height, longest)
    rows, columns = way.input_size[1:]
    if way.geometry is None:
        share = min(whole[0] / columns, whole[1] / rows)
        part = columns * share, rows * share
    else:
        resized = way.geometry.size(round(whole[0]), round(whole[1]))
        part = columns * whole[0] / resized[0], rows * whole[1] / resized[1]
    left, top = (width - part[0]) / 2, (height - part[1]) / 2
    return left, top, left + part[0], top + part[1]


def _png(image: Image.Image, heat: NDArray[np.float32]) -> str:
    """The grey image, mixed with the colours of the map (h, w) in 0..1."""
    from matplotlib import colormaps

    grey = np.asarray(image.convert("L"), dtype=np.float32)[..., None]
    colours = colormaps[_COLOURS](heat)[..., :3] * 255
    mixed = (1 - _COLOUR) * grey + _COLOUR * colours
    stream = io.BytesIO()
    Image.fromarray(np.rint(mixed).clip(0, 255).astype(np.uint8)).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
