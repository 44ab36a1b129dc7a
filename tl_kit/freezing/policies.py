"""Freezing policies: which parameters train, and the traits that the rest of a run follows from.

A new policy is one entry of ``POLICIES``: a name, a function of the model's parameter names, and its traits. Nothing
else knows a policy by name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias

from timm.models import group_parameters
from torch import nn

from tl_kit.errors import PolicyError, nearest
from tl_kit.freezing.adapters import adaptable_layers

__all__ = [
    "HEAD",
    "POLICIES",
    "Groups",
    "Layers",
    "Policy",
    "biases",
    "gradual",
    "head",
    "is_auto",
    "last",
    "low_rank",
    "norms",
    "parameter_groups",
    "parse_policy",
    "trains_head_alone",
]

AUTO = "auto"
Groups: TypeAlias = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Layers:
    """A model's parameters by name, as policies choose from them; ``classifier``: the names of its last layer's."""

    model: nn.Module
    classifier: frozenset[str]

    @property
    def names(self) -> frozenset[str]:
        """Every parameter."""
        return frozenset(name for name, _ in self.model.named_parameters())

    @cached_property
    def groups(self) -> Groups:
        """:func:`parameter_groups`. Raises PolicyError for a model that timm has no groups of."""
        return parameter_groups(self.model)


def head(layers: Layers, *, epoch: int, depth: int | None) -> frozenset[str]:
    """The classifier alone."""
    return layers.classifier


def last(layers: Layers, *, epoch: int, depth: int | None) -> frozenset[str]:
    """The classifier and the last ``depth`` groups, counted from the head; without a depth, every parameter."""
    return layers.names if depth is None else _last_groups(layers.groups, layers.classifier, depth)


def gradual(layers: Layers, *, epoch: int, depth: int | None) -> frozenset[str]:
    """The classifier and the group before it, and one group more every ``depth`` epochs (Howard & Ruder 2018)."""
    body = [group for group in layers.groups if not layers.classifier.issuperset(group)]
    return _last_groups(body, layers.classifier, 1 + epoch // (depth or 1))


def biases(layers: Layers, *, epoch: int, depth: int | None) -> frozenset[str]:
    """The classifier, and every bias (Ben Zaken et al. 2022, "BitFit"). Raises PolicyError where there is no other."""
    found = {name for name in layers.names if _is_bias(name)} - layers.classifier
    return layers.classifier | _some(found, layers, "bias", "bias outside its classifier")


def norms(layers: Layers, *, epoch: int, depth: int | None) -> frozenset[str]:
    """The classifier, and scale and shift of every normalization layer (Frankle et al. 2021).

    Raises PolicyError where there is none.
    """
    found = {
        f"{prefix}.{name}"
        for prefix, module in layers.model.named_modules()
        if "Norm" in type(module).__name__
        for name, _ in module.named_parameters(recurse=False)
    }
    return layers.classifier | _some(found - layers.classifier, layers, "norm", "normalization layer with parameters")


def low_rank(layers: Layers, *, epoch: int, depth: int | None) -> frozenset[str]:
    """The classifier, and the weights that low-rank adapters of rank ``depth`` are added to (Hu et al. 2022).

    Raises PolicyError where no layer can have any.
    """
    found = {f"{name}.weight" for name in adaptable_layers(layers.model, rank=depth or 1)} - layers.classifier
    what = f"linear layer or plain convolution that adapters of rank {depth} are smaller than"
    return layers.classifier | _some(found, layers, "lora", what)


def _is_bias(name: str) -> bool:
    """True for a bias's name; timm gives those of BEiT's queries and values names of their own."""
    return name.rpartition(".")[2] in ("bias", "q_bias", "k_bias", "v_bias")


def _some(found: set[str], layers: Layers, policy: str, what: str) -> frozenset[str]:
    if not found:
        raise PolicyError(
            f"--policy {policy}: {type(layers.model).__name__} has no {what}; use --policy full or last:K"
        )
    return frozenset(found)


def _last_groups(groups: Groups, classifier: Collection[str], count: int) -> frozenset[str]:
    return frozenset(classifier).union(*groups[max(0, len(groups) - count) :])


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A freezing policy. ``str(policy)`` is what ``--policy`` takes.

    ``trains`` gives the names of the parameters that train: (layers, epoch, depth) -> names. ``depth`` is a number that
    the user may give after a colon, here its default; ``depth_name`` stands for it in messages, ``depth_meaning`` says
    what it counts, ``depth_required`` that it has no default. A policy without ``depth_name`` takes no depth.

    The traits:

    - ``head_only``: the classifier alone trains, on images as evaluation sees them; it can be fitted in closed form.
    - ``trains_all``: every parameter trains from the first epoch on.
    - ``fits_head_first``: the head is fitted to the pretrained features before anything else trains.
    - ``grows``: more parameters train in later epochs than in the first.
    - ``keeps_statistics``: with few images, pretrained BatchNorm normalises by its running statistics.
    - ``mostly_new``: most of what trains is new, so that adaptive optimizers start at the rate of random weights.
    - ``adapters``: low-rank adapters of rank ``depth`` train, and not the weights that ``trains`` names, which they are
      merged into.
    - ``vectors``: of the pretrained parameters only vectors train, such as biases; like adapters they are few, and take
      a higher rate.
    """

    name: str
    trains: Callable[..., frozenset[str]] = field(repr=False)
    depth: int | None = None
    depth_name: str = ""
    depth_meaning: str = ""
    depth_required: bool = False
    head_only: bool = False
    trains_all: bool = False
    fits_head_first: bool = False
    grows: bool = False
    keeps_statistics: bool = False
    mostly_new: bool = False
    adapters: bool = False
    vectors: bool = False

    def __str__(self) -> str:
        return self.name if self.depth is None else f"{self.name}:{self.depth}"

    @property
    def usage(self) -> str:
        """The policy as a user writes it, such as ``last:K`` or ``lp-ft[:K]``."""
        if not self.depth_name:
            return self.name
        return f"{self.name}:{self.depth_name}" if self.depth_required else f"{self.name}[:{self.depth_name}]"

    def to_depth(self, depth: int) -> Policy:
        """The same policy with a depth; what trained every parameter without one no longer does."""
        return replace(self, depth=depth, trains_all=False)

    def trainable(self, layers: Layers, *, epoch: int = 0) -> frozenset[str]:
        """Names of the parameters that train in ``epoch``. Raises PolicyError where the model lacks the groups."""
        return self.trains(layers, epoch=epoch, depth=self.depth)


HEAD = Policy(name="head", trains=head, head_only=True)

POLICIES: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        HEAD,
        Policy(
            name="last",
            trains=last,
            depth_name="K",
            depth_meaning="a number of groups",
            depth_required=True,
            mostly_new=True,
        ),
        Policy(name="full", trains=last, trains_all=True, keeps_statistics=True),
        # Kumar et al. 2022, "Fine-tuning can distort pretrained features"
        Policy(
            name="lp-ft",
            trains=last,
            depth_name="K",
            depth_meaning="a number of groups",
            trains_all=True,
            fits_head_first=True,
            keeps_statistics=True,
        ),
        Policy(
            name="gradual",
            trains=gradual,
            depth=1,
            depth_name="EPOCHS",
            depth_meaning="the epochs until the next group trains",
            fits_head_first=True,
            grows=True,
            keeps_statistics=True,
        ),
        Policy(
            name="lora",
            trains=low_rank,
            depth=8,
            depth_name="R",
            depth_meaning="the rank of the adapters",
            fits_head_first=True,
            keeps_statistics=True,
            adapters=True,
        ),
        Policy(name="bias", trains=biases, fits_head_first=True, keeps_statistics=True, vectors=True),
        Policy(name="norm", trains=norms, fits_head_first=True, keeps_statistics=True, vectors=True),
    )
}
"""Every policy by name, with its default depth."""


def parse_policy(text: str) -> Policy:
    """``head``, ``last:K``, ``full``, ``lp-ft[:K]``, ``gradual[:EPOCHS]`` or another of ``POLICIES``.

    Raises PolicyError with the nearest known name.
    """
    name, separator, depth = text.partition(":")
    policy = POLICIES.get(name)
    if policy is None:
        near = nearest(name, [*POLICIES, AUTO])
        hint = "" if near is None else f"did you mean {near}? "
        *known, end = [AUTO, *(policy.usage for policy in POLICIES.values())]
        raise PolicyError(f"--policy {text}: {hint}known are {', '.join(known)} and {end}")
    if not policy.depth_name:
        if separator:
            raise PolicyError(f"--policy {text}: {name} takes no depth")
        return policy
    if not separator and not policy.depth_required:
        return policy
    if not depth.isascii() or not depth.isdigit() or int(depth) < 1:
        raise PolicyError(f"--policy {text}: {name} takes {policy.depth_meaning}, from 1, for example {name}:2")
    return policy.to_depth(int(depth))


def is_auto(text: str) -> bool:
    """True for ``auto``, under which the images choose the policy."""
    return text == AUTO


def trains_head_alone(text: object) -> bool:
    """True where a recorded policy trains the classifier alone; False for text that names no policy."""
    try:
        return parse_policy(str(text)).head_only
    except PolicyError:
        return False


def parameter_groups(model: nn.Module) -> list[list[str]]:
    """timm's coarse groups (stem, stages, head) of a model's parameter names, from the input up."""
    matcher = getattr(model, "group_matcher", None)
    if matcher is None:
        raise PolicyError(f"{type(model).__name__} has no groups in timm; use --policy head or full")
    by_layer: dict[int, list[str]] = group_parameters(model, matcher(coarse=True))
    return [by_layer[index] for index in sorted(by_layer)]
