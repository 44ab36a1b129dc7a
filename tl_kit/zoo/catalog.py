"""Search timm's models: name, size, input size, licence, and whether the weights are on this machine."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import timm
import torch
from huggingface_hub import constants
from timm.models import PretrainedCfg

from tl_kit.plain_values import takes_plain_values
from tl_kit.zoo import hub
from tl_kit.zoo.locate import hub_filenames
from tl_kit.zoo.silence_timm import quiet
from tl_kit.zoo.starter import STARTERS, find_starter, starter_path

__all__ = ["UNKNOWN_LICENCE", "ModelInfo", "all_names", "local_models", "models", "search"]

UNKNOWN_LICENCE = "unknown"


@dataclass(frozen=True)
class ModelInfo:
    """One model of the catalogue.

    ``name`` carries the pretrained tag. ``input_size`` is (channels, height, width). ``licence`` is the licence of the
    weights in their model card or wheel, or ``unknown``. ``weights`` is their location: ``starter`` and ``cache`` are
    on this machine, ``hub`` has to be downloaded, ``none`` means that there are none.
    """

    name: str
    input_size: tuple[int, int, int]
    licence: str
    weights: str

    @cached_property
    def parameters(self) -> int:
        """The number of parameters with the classifier of the weights. Takes up to half a second at first use."""
        return _count_parameters(self.name)


def search(pattern: str | None = None) -> list[ModelInfo]:
    """Models whose name matches ``pattern``, a shell wildcard or any part of a name, in timm's order.

    Without a pattern: the starter models and those in the local cache. A wildcard without a tag matches every tag.
    """
    if pattern is None:
        return local_models()
    return [_describe(name) for name in _matching(timm.list_models(include_tags=True), pattern)]


def local_models() -> list[ModelInfo]:
    """The starter models, installed or not, and all models whose weights are in the local caches."""
    starters = [f"{starter.architecture}.in1k" for starter in STARTERS]
    others = [name for name in timm.list_pretrained() if name not in starters]
    cached = [info for name in others if (info := _describe(name)).weights == "cache"]
    return [_describe(name) for name in starters] + cached


def all_names() -> list[str]:
    """The names of all of timm's models, without and with their tags, sorted."""
    return sorted({*timm.list_models(), *timm.list_models(include_tags=True)})


def _matching(names: Iterable[str], pattern: str) -> list[str]:
    wanted = pattern.lower()
    if not any(mark in wanted for mark in "*?["):
        return [name for name in names if wanted in name.lower()]
    return [n for n in names if fnmatch.fnmatchcase(n, wanted) or fnmatch.fnmatchcase(n.split(".")[0], wanted)]


def _describe(name: str) -> ModelInfo:
    card = timm.get_pretrained_cfg(name) or PretrainedCfg()
    starter, weights = find_starter(name), _whereabouts(name, card)
    licence = starter.licence if starter and weights == "starter" else card.license or UNKNOWN_LICENCE
    channels, height, width = card.input_size
    return ModelInfo(name, (channels, height, width), licence, weights)


def _whereabouts(name: str, card: PretrainedCfg) -> str:
    if starter_path(name) is not None:
        return "starter"
    if card.hf_hub_id:
        return "cache" if _in_hub_cache(card.hf_hub_id, card.hf_hub_filename) else "hub"
    if card.url:
        url = card.url[0] if isinstance(card.url, tuple) else card.url
        return "cache" if hub.cached_url(url) else "hub"
    return "none"


def _in_hub_cache(repository: str, filename: str | None) -> bool:
    folder = Path(constants.HF_HUB_CACHE) / f"models--{repository.partition('@')[0].replace('/', '--')}"
    return folder.is_dir() and hub.cached_file(repository, hub_filenames(filename)) is not None


@lru_cache(maxsize=4096)
def _count_parameters(name: str) -> int:
    with quiet(), torch.device("meta"):
        model = timm.create_model(name)
    return sum(parameter.numel() for parameter in model.parameters())


@takes_plain_values
def models(pattern: str | None = None) -> list[ModelInfo]:
    """Models whose name fits ``pattern``, a part of a name or a shell wildcard; without one, those on this machine."""
    return search(pattern)
