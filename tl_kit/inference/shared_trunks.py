"""Shared trunks: the first layers, which members have in common, run once.

Models of one kind are compared tensor by tensor, by content, in the order in which a forward pass enters their modules.
They are cut at the first difference; members that still agree behind that cut continue together to the next difference.
So three members with a common trunk, two of which share more, make a tree. Every cut is verified (``freezing.trunk``),
and the whole tree is compared with the members run separately. If the outputs differ, nothing is shared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from tl_kit.freezing.audit import tensor_digest
from tl_kit.freezing.train_mode import forward_order
from tl_kit.freezing.trunk import Tail, Trunk, prove_cut
from tl_kit.storage.fingerprint import network_settings
from tl_kit.zoo.heads import linear_classifier

__all__ = ["Layers", "SharedNetwork", "entered", "groups", "layers", "share", "structure"]

_TOLERANCE = 1e-5  # relative to the largest output, or to 1: a stacked product may round differently than its parts
_UNLIKE = (RuntimeError, TypeError, ValueError, IndexError, AttributeError, AssertionError)
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Layers:
    """A model's modules in forward order: names, and for each the digest and bytes of the tensors that it owns."""

    names: tuple[str, ...]
    digests: tuple[str, ...]
    sizes: tuple[int, ...]

    def beyond(self, other: Layers) -> int:
        """Bytes of the tensors that ``other`` does not have in the same place."""
        rows = zip(self.digests, other.digests, self.sizes, strict=True)
        return sum(size for mine, theirs, size in rows if mine != theirs)


def structure(model: nn.Module) -> Hashable:
    """Modules with names, types and settings, and parameters with shapes, except what only acts in training."""
    return network_settings(model), tuple((name, tuple(p.shape)) for name, p in model.named_parameters())


def entered(model: nn.Module, images: Tensor) -> tuple[str, ...]:
    """Names of modules in the order in which a forward pass of ``images`` (n, c, h, w) first enters them."""
    return tuple(dict.fromkeys(forward_order(model, images)))


def layers(model: nn.Module, names: Sequence[str]) -> Layers:
    """Parameters and buffers of each of the modules ``names``, without BatchNorm's count of batches.

    Tensors of modules that no forward pass enters (a weight used by a function) count for the enclosing module.
    """
    owned: dict[str, list[tuple[str, Tensor]]] = {name: [] for name in names}
    for name, module in model.named_modules():
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        place = name
        while place not in owned:
            place = place.rpartition(".")[0]
        owned[place] += [(f"{name}.{key}", tensor) for key, tensor in own if key != _COUNTER]
    sizes = tuple(sum(tensor.nbytes for _, tensor in tensors) for tensors in owned.values())
    return Layers(tuple(names), tuple(map(_digest, owned.values())), sizes)


def _digest(tensors: Sequence[tuple[str, Tensor]]) -> str:
    """Digest of the tensors; empty if there are none."""
    text = "\n".join(f"{name} {tensor_digest(tensor)}" for name, tensor in tensors)
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


def groups(kinds: Sequence[Hashable], members: Sequence[Layers]) -> list[list[int]]:
    """Groups of the indices, in order, of members that have one structure and equal tensors in the first layers."""
    found: dict[Hashable, list[int]] = {}
    for index, (kind, member) in enumerate(zip(kinds, members, strict=True)):
        found.setdefault((kind, next(filter(None, member.digests), "")), []).append(index)
    return list(found.values())


class Part(Protocol):
    """A section of the network: it puts the members' outputs (n, classes) into ``found``."""

    @property
    def members(self) -> Sequence[int]: ...

    def __call__(self, value: Tensor, found: dict[int, Tensor]) -> None: ...


@dataclass(frozen=True)
class _Stretch:
    """A section that ``members`` share: up to the beginning of its ``parts`` or, without parts, to the output."""

    network: nn.Module
    members: tuple[int, ...]
    parts: tuple[Part, ...] = ()

    def __call__(self, value: Tensor, found: dict[int, Tensor]) -> None:
        result: Tensor = self.network(value)
        for part in self.parts:
            part(result, found)
        if not self.parts:
            found.update(dict.fromkeys(self.members, result))


@dataclass(frozen=True)
class _Heads:
    """Linear classifiers on the same features (n, f), as one product in fp32: weight (heads * classes, f)."""

    weight: Tensor
    bias: Tensor | None
    owners: tuple[tuple[int, ...], ...]

    @property
    def members(self) -> tuple[int, ...]:
        return tuple(member for owners in self.owners for member in owners)

    def __call__(self, value: Tensor, found: dict[int, Tensor]) -> None:
        with torch.autocast(value.device.type, enabled=False):
            rows = functional.linear(value.float(), self.weight, self.bias)
        for owners, result in zip(self.owners, rows.chunk(len(self.owners), dim=1), strict=True):
            found.update(dict.fromkeys(owners, result))


@dataclass(frozen=True)
class SharedNetwork:
    """Several models as one: images (n, c, h, w) -> outputs (n, members, classes)."""

    parts: tuple[Part, ...]
    members: int

    def __call__(self, images: Tensor) -> Tensor:
        found: dict[int, Tensor] = {}
        for part in self.parts:
            part(images, found)
        return torch.stack([found[member] for member in range(self.members)], dim=1)

    def cuts(self) -> list[tuple[str, tuple[int, ...]]]:
        """Cuts at which members separate, from the input up: the module, and the members that share its input."""
        return list(_cuts(self.parts))


def _cuts(parts: Sequence[Part]) -> Iterator[tuple[str, tuple[int, ...]]]:
    for part in parts:
        if isinstance(part, _Stretch) and isinstance(part.network, Trunk):
            yield part.network.cut.removeprefix("model."), part.members
        if isinstance(part, _Stretch):
            yield from _cuts(part.parts)


def share(models: Sequence[nn.Module], members: Sequence[Layers], images: Tensor) -> SharedNetwork | None:
    """One network for models of one structure, in eval mode; None if nothing is shared or the outputs differ.

    ``members`` are the models' layers by the same names; ``images`` (n, c, h, w), n > 1, is the batch of the
    verification. The precision of the surrounding context applies. Outputs equal those of the separate models, except
    for the rounding of stacked classifiers.
    """
    with torch.inference_mode():
        try:
            grown = _Grower(models, members, images).grow(range(len(models)), _Level(0, images, None))
            network = SharedNetwork(tuple(grown), len(models))
            if all(len(part.members) == 1 for part in grown):
                return None
            found = network(images)
            expected = torch.stack([model(images) for model in models], dim=1)
        except _UNLIKE:  # outputs that are not tensors, or have other shapes
            return None
    allowed = _TOLERANCE * max(1.0, float(expected.abs().max()))
    equal = found.shape == expected.shape and torch.allclose(found, expected, rtol=0, atol=allowed)
    return network if equal else None


_Groups: TypeAlias = list[list[int]]


@dataclass(frozen=True)
class _Level:
    """Start of sections: the input, or the cut of ``tail``, with ``value`` as their input."""

    position: int
    value: Tensor
    tail: Tail | None

    def rest(self, model: nn.Module) -> nn.Module:
        """The model from here on."""
        tail = self.tail
        if tail is None:
            return model
        return Tail(model, tail.cut, image_shape=tail.image_shape, direct=tail.direct).eval()

    def until(self, model: nn.Module, cut: str) -> Trunk:
        """The model from here to a cut."""
        return Trunk(self.rest(model), cut if self.tail is None else f"model.{cut}").eval()


@dataclass(frozen=True)
class _Grower:
    models: Sequence[nn.Module]
    layers: Sequence[Layers]
    images: Tensor

    def grow(self, members: Sequence[int], level: _Level) -> list[Part]:
        """The sections that begin at ``level``: one for all members if there is a cut, otherwise one for each group."""
        model = self.models[members[0]]
        apart, parts = self._part(members)
        if apart is None:
            return [_Stretch(level.rest(model), tuple(members))]
        for position in self._candidates(apart, level):
            cut = self.layers[0].names[position]
            tail = prove_cut(model, cut, self.images)
            if tail is None:
                continue
            trunk = level.until(model, cut)
            try:
                below = _Level(position, trunk(level.value), tail)
            except _UNLIKE:
                continue
            return [_Stretch(trunk, tuple(members), self._below(parts, below))]
        return [part for group in parts for part in self.grow(group, level)]

    def _below(self, parts: _Groups, level: _Level) -> tuple[Part, ...]:
        heads = self._heads(parts, level)
        return (heads,) if heads is not None else tuple(part for group in parts for part in self.grow(group, level))

    def _part(self, members: Sequence[int]) -> tuple[int | None, _Groups]:
        """Position of the first module in which the members differ, and the groups of members that agree there."""
        for position, column in enumerate(zip(*(self.layers[m].digests for m in members), strict=True)):
            if len(set(column)) > 1:
                agreeing: dict[str, list[int]] = {}
                for member, digest in zip(members, column, strict=True):
                    agreeing.setdefault(digest, []).append(member)
                return position, list(agreeing.values())
        return None, [list(members)]

    def _candidates(self, apart: int, level: _Level) -> list[int]:
        """Candidate cuts: the module that differs, then its enclosing modules, if anything is shared before them.

        A module within a residual branch cannot be a cut, but the enclosing block can.
        """
        names = self.layers[0].names
        steps = names[apart].split(".")
        around = [".".join(steps[:length]) for length in range(len(steps), 0, -1) if names[apart]]
        found = [names.index(name) for name in around if name in names]
        return [p for p in found if p > level.position and any(self.layers[0].digests[level.position : p])]

    def _heads(self, parts: _Groups, level: _Level) -> _Heads | None:
        assert level.tail is not None
        cut = level.tail.cut
        first = linear_classifier(self.models[parts[0][0]])
        if first is None or first[0] != cut or not level.tail.direct or level.value.ndim != 2:
            return None
        found = [self.models[group[0]].get_submodule(cut) for group in parts]
        linear = [module for module in found if isinstance(module, nn.Linear)]
        biases = [module.bias for module in linear if module.bias is not None]
        if len(linear) < len(found) or len(biases) not in (0, len(found)):
            return None
        weight = torch.cat([module.weight.detach() for module in linear]).float()
        bias = torch.cat([b.detach() for b in biases]).float() if biases else None
        return _Heads(weight, bias, tuple(map(tuple, parts)))
