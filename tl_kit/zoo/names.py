"""Model names: a timm architecture and pretrained tag, a hub repository, or a folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from timm.models import get_deprecated_models

from tl_kit.errors import ConfigError, WeightsError
from tl_kit.zoo import hub
from tl_kit.zoo.model_card import CONFIG, read_card
from tl_kit.zoo.spelling import (
    FOLDER_PREFIX,
    HUB_PREFIX,
    expanded,
    is_repository,
    looks_like_a_file,
    meant,
    shown,
    suggestions,
)
from tl_kit.zoo.starter import WAYS_OUT

__all__ = [
    "FOLDER_PREFIX",
    "HUB_PREFIX",
    "ModelSource",
    "absolute_names",
    "check_name",
    "local_folder",
    "resolve",
    "suggestions",
]

_FORMS = f"give a timm name such as resnet18, {HUB_PREFIX}OWNER/NAME or {FOLDER_PREFIX}FOLDER"


@dataclass(frozen=True)
class ModelSource:
    """``name`` as the user wrote it; ``factory_name`` for ``timm.create_model``, which then needs no network.

    ``repository`` (``owner/name[@revision]``), ``folder`` and ``url``: locations of its weights, as far as known.
    ``sized``: the model is built for one image size. ``side`` is its own image size, in pixels.
    """

    name: str
    factory_name: str
    sized: bool
    side: int
    repository: str | None = None
    weights_name: str | None = None
    folder: Path | None = None
    url: str | None = None


def resolve(name: str) -> ModelSource:
    """Resolve a model name; for ``hf-hub:`` names the repository's config.json is downloaded.

    Raises ConfigError, with the nearest names, for a name that timm does not know, and for a folder or repository that
    is not a timm model; WeightsError if a config.json is not available.
    """
    check_name(name)
    if name.startswith(HUB_PREFIX):
        repository = name.removeprefix(HUB_PREFIX)
        return _from_config(name, _hub_config(name, repository), repository=repository)
    if name.startswith(FOLDER_PREFIX):
        folder = _folder(name)
        return _from_config(name, folder / CONFIG, folder=folder)
    return _from_registry(name)


def check_name(name: str) -> None:
    """Raises ConfigError, which says what to write, for an impossible model name. Uses no network."""
    if not isinstance(name, str):
        raise ConfigError(f"the model is given as {type(name).__name__}, not as a text: {_FORMS}")
    if not name.strip():
        raise ConfigError(f"the model's name is empty: {_FORMS}; tlkit models PATTERN searches")
    if name == "auto":
        raise ConfigError("auto: name a network here; tl_kit.choose_network chooses one, as tlkit finetune auto does")
    if name.startswith(HUB_PREFIX):
        repository = name.removeprefix(HUB_PREFIX)
        if not is_repository(repository):
            better = meant(name)
            hint = better if better not in (None, name) else f"{HUB_PREFIX}OWNER/NAME"
            raise ConfigError(f"{shown(name)}: names no repository of the hub; write {hint}")
    elif name.startswith(FOLDER_PREFIX):
        folder = _folder(name)
        if not (folder / CONFIG).is_file():
            raise ConfigError(f"{name}: {_no_model_folder(name, folder)}")
    else:
        known = get_deprecated_models().get(name) or name
        if any(mark in name for mark in "/\\:") or not timm.is_model(known):
            raise ConfigError(_unknown(name))
        try:
            timm.get_pretrained_cfg(known)
        except RuntimeError as error:
            tags = ", ".join(timm.list_pretrained(f"{known.split('.')[0]}.*")) or "none"
            raise ConfigError(f"{shown(name)}: timm has no such pretrained tag; it has {tags}") from error


def local_folder(name: str) -> Path | None:
    """The folder that a ``local-dir:`` name names; None for a name of another kind."""
    return _folder(name) if name.startswith(FOLDER_PREFIX) else None


def _folder(name: str) -> Path:
    return expanded(Path(name.removeprefix(FOLDER_PREFIX)))


def _no_model_folder(name: str, folder: Path) -> str:
    if name == FOLDER_PREFIX:
        return f"names no folder; write {FOLDER_PREFIX}FOLDER"
    if not folder.is_dir():
        return "is a file; name its folder" if folder.is_file() else "no such folder"
    return f"{folder / CONFIG} is missing, so this is no model folder of timm's form"


def _hub_config(name: str, repository: str) -> Path:
    cached = hub.cached_file(repository, ["config.json"])
    if cached is not None:
        return cached
    try:
        return hub.download(repository, ["config.json"])
    except WeightsError as error:
        raise WeightsError(f"{name}: its config.json is not on this machine, and {error}; {WAYS_OUT}") from error


def _from_registry(name: str) -> ModelSource:
    known = get_deprecated_models().get(name) or name
    card = timm.get_pretrained_cfg(known)
    if card is None:
        return ModelSource(name, known, sized=False, side=224)
    url = card.url[0] if isinstance(card.url, tuple) else card.url
    return ModelSource(
        name,
        known,
        sized=card.fixed_input_size,
        side=card.input_size[-1],
        repository=card.hf_hub_id,
        weights_name=card.hf_hub_filename,
        url=url or None,
    )


def _unknown(name: str) -> str:
    if os.path.isdir(name):  # noqa: PTH112 - Path.is_dir raises for names that are too long
        return f"{name}: a folder; write {FOLDER_PREFIX}{name} to start from the model in it"
    better = None if looks_like_a_file(name) and "://" not in name else meant(name)
    if better is not None:
        return f"{shown(name)}: timm knows no model of this name; write {better}"
    if "://" in name:
        return f"{name}: an address; {_FORMS}"
    if looks_like_a_file(name):
        return f"{name}: a file of weights; give the name of its architecture, and the file as --weights {name}"
    if name.startswith((".", "/", "~", "\\")):
        return f"{name}: no such folder; {_FORMS}"
    if "/" in name:
        return f"{name}: not a timm name; write {HUB_PREFIX}{name} for the hub or {FOLDER_PREFIX}{name} for a folder"
    near = suggestions(name)
    return f"{shown(name)}: timm knows no such model" + (
        f"; did you mean {' or '.join(near)}?" if near else "; tlkit models PATTERN searches"
    )


def _from_config(name: str, config: Path, *, repository: str | None = None, folder: Path | None = None) -> ModelSource:
    """The model source of a config.json; ``timm.create_model`` reads this file through its ``local-dir:`` form."""
    content = read_card(config, error=ConfigError)
    card: dict[str, Any] = content.get("pretrained_cfg") or content
    size = card.get("input_size") or (3, 224, 224)
    sized = bool(card.get("fixed_input_size")) or "img_size" in (content.get("model_args") or {})
    return ModelSource(
        name,
        f"{FOLDER_PREFIX}{config.parent}",
        sized=sized,
        side=int(size[-1]),
        repository=repository,
        weights_name=card.get("hf_hub_filename"),
        folder=folder,
    )


def absolute_names(names: str) -> str:
    """The same names, with commas between them, with absolute folders: they may be read again from another one."""
    parts = [part.strip() for part in names.split(",")]
    folders = {part: part.removeprefix(FOLDER_PREFIX) for part in parts if part.startswith(FOLDER_PREFIX)}
    return ",".join(f"{FOLDER_PREFIX}{Path(folders[p]).expanduser().absolute()}" if p in folders else p for p in parts)
