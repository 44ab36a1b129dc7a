"""Model cards: a model folder's ``config.json``, in timm's form, checked before timm builds anything from it.

A card determines the architecture, its arguments and the preprocessing, and nothing else: no other file and no address
in it is opened, and no size in it allocates memory before it is compared with the actual files.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import timm

from tl_kit.config import CROP_MODES, TrustConfig
from tl_kit.errors import TlKitError
from tl_kit.untrusted import is_plain_relative, plain_number, read_json

__all__ = ["CONFIG", "outputs", "preprocessing_problems", "read_card"]

CONFIG = "config.json"
# Arguments of timm's factory besides the model's own. In a card, each of them could open another file or an address.
_RESERVED = frozenset(
    {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_model_args", "pretrained_filter_fn"}
    | {"pretrained_strict", "model_name", "checkpoint_path", "cache_dir", "model_cls", "model_cfg", "variant"}
    | {"feature_cfg", "feature_cls", "features_only", "kwargs_filter", "scriptable", "exportable", "no_jit"}
    | {"device", "dtype"}
)
_INTERPOLATIONS = frozenset({"nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"})
_SIZES = ("input_size", "test_input_size", "min_input_size")
_CHANNELS = 3
_DEPTH = 4
_CROP_PCT = (0.05, 10.0)


def read_card(path: Path, *, error: type[TlKitError], folder: Path | None = None) -> dict[str, Any]:
    """The content of a ``config.json`` from which timm may build a model.

    Raises ``error``, in one line that names the file, for an architecture that timm does not have, unknown model
    arguments, and impossible sizes or preprocessing. ``folder``: links must not lead out of it.
    """
    content = read_json(path, error=error, folder=folder)
    architecture = content.get("architecture")
    if not isinstance(architecture, str) or not timm.is_model(architecture):
        raise error(f"{path}: names no architecture of timm's, so timm cannot build it")
    problem = next(_problems(content), None)
    if problem is not None:
        raise error(f"{path}: {problem}")
    return content


def _problems(content: Mapping[str, Any]) -> Iterator[str]:
    card, arguments = content.get("pretrained_cfg", content), content.get("model_args", {})
    if not isinstance(card, dict) or not isinstance(arguments, dict):
        yield "pretrained_cfg or model_args is not a JSON object"
        return
    for classes in (content.get("num_classes"), card.get("num_classes"), arguments.get("num_classes")):
        if classes is not None and (type(classes) is not int or not 0 <= classes <= TrustConfig.number):
            yield f"num_classes is {_shown(classes)}, not a number of classes"
    yield from _wrong_arguments(arguments)
    yield from preprocessing_problems(card)
    for key in ("first_conv", "classifier", "label_names"):
        if not _is_names(card.get(key)):
            yield f"{key} is {_shown(card[key])}, not names"
    file = card.get("hf_hub_filename")
    if file is not None and not (isinstance(file, str) and is_plain_relative(file)):
        yield f"hf_hub_filename {_shown(file)} is not a file name"


def _wrong_arguments(arguments: Mapping[str, Any]) -> Iterator[str]:
    for name in arguments:
        if name in _RESERVED or not name.isidentifier():
            yield f"model_args holds {_shown(name)}, which is not an argument of a model"
    if arguments.get("in_chans") not in (None, _CHANNELS):
        yield f"in_chans is {_shown(arguments['in_chans'])}; tl-kit feeds images of {_CHANNELS} channels"
    if arguments.get("img_size") is not None and not _is_side(arguments["img_size"]):
        yield f"img_size is {_shown(arguments['img_size'])}, not 1 to {TrustConfig.side} pixels"
    left = TrustConfig.items
    waiting: list[tuple[str, object, int]] = [(name, value, 0) for name, value in arguments.items()]
    while waiting:
        name, value, depth = waiting.pop()
        inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        left -= 1 + len(inner)
        if left < 0 or depth > _DEPTH or not _is_plain(value):
            yield f"model_args: {_shown(name)} has a value that no model takes ({_shown(value)})"
            return
        waiting += [(name, item, depth + 1) for item in inner]


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= TrustConfig.text and value.isprintable()
    if isinstance(value, (int, float)):
        return abs(value) <= TrustConfig.number
    return value is None or isinstance(value, (list, dict))


def preprocessing_problems(card: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each entry that no preprocessing of images has; entries may be missing."""
    for name in _SIZES:
        size = card.get(name)
        if size is None:
            continue
        if not isinstance(size, list) or len(size) != 3 or not _is_side(size[1:]):
            yield f"{name} is {_shown(size)}, not channels and sides of 1 to {TrustConfig.side} pixels"
        elif size[0] != _CHANNELS:
            yield f"{name} is {_shown(size)}; tl-kit feeds images of {_CHANNELS} channels"
    for name in ("crop_pct", "test_crop_pct"):
        if card.get(name) is not None and not plain_number(card[name], *_CROP_PCT):
            yield f"{name} is {_shown(card[name])}, not a number from {_CROP_PCT[0]:g} to {_CROP_PCT[1]:g}"
    for name, low in (("mean", -1e3), ("std", 1e-6)):
        values = card.get(name)
        if values is not None and not (
            isinstance(values, list) and len(values) == _CHANNELS and all(plain_number(v, low, 1e3) for v in values)
        ):
            yield f"{name} is {_shown(values)}, not {_CHANNELS} numbers{' above 0' if low > 0 else ''}"
    for name, known in (("interpolation", _INTERPOLATIONS), ("crop_mode", CROP_MODES)):
        value = card.get(name)
        if value is not None and not (isinstance(value, str) and value in known):
            yield f"{name} is {_shown(value)}; known are {', '.join(sorted(known))}"
    if not isinstance(card.get("fixed_input_size", False), bool):
        yield f"fixed_input_size is {_shown(card['fixed_input_size'])}, not true or false"


def _is_side(value: object) -> bool:
    sides = value if isinstance(value, list) else [value]
    return len(sides) in (1, 2) and all(type(side) is int and 1 <= side <= TrustConfig.side for side in sides)


def _is_names(value: object) -> bool:
    items = value if isinstance(value, list) else [] if value is None else [value]
    return all(isinstance(item, str) and "\0" not in item for item in items)


def _shown(value: object) -> str:
    return reprlib.repr(value)


def outputs(card: Mapping[str, Any]) -> int | None:
    """Number of outputs of a checked card's model; None if the card does not say."""
    arguments, preprocessing = card.get("model_args") or {}, card.get("pretrained_cfg", card)
    found: int | None = arguments.get("num_classes", card.get("num_classes", preprocessing.get("num_classes")))
    return found
