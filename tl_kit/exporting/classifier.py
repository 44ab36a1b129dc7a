"""The whole classifier as one network: from the pixels of an image to the ensemble's probabilities."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.config import CropConfig
from tl_kit.errors import ConfigError
from tl_kit.exporting.resample import KERNELS, Views
from tl_kit.images.transforms import Preprocessing
from tl_kit.inference.predictor import Predictor

__all__ = ["POOLS", "Classifier", "Member", "Uncut", "any_size", "build_classifier"]

_EPS = float(np.finfo(np.float64).eps)  # where the rules clip logarithms
_CORNERS = ((0.5, 0.5), (0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))  # in the order of test-time crops


def _logs(probabilities: Tensor) -> Tensor:
    return probabilities.clamp(min=_EPS).log()


class _Mean(nn.Module):
    def forward(self, stack: Tensor) -> Tensor:
        return stack.mean(dim=0)


class _LogitMean(nn.Module):
    def forward(self, stack: Tensor) -> Tensor:
        return _logs(stack).mean(dim=0).softmax(dim=1)


class _Vote(nn.Module):
    def forward(self, stack: Tensor) -> Tensor:
        members, _, classes = stack.shape
        pooled = stack.mean(dim=0)
        highest = stack == stack.amax(dim=2, keepdim=True)
        winners = torch.where(highest, pooled, torch.full_like(pooled, -1)).argmax(dim=2)
        votes = (winners[:, :, None] == torch.arange(classes)).to(stack.dtype).sum(dim=0)
        return (votes + pooled) / (members + 1)


class _Weighted(nn.Module):
    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float64).view(-1, 1, 1))

    def forward(self, stack: Tensor) -> Tensor:
        return (self.get_buffer("weights") * stack).sum(dim=0)


class _Stack(nn.Module):
    def __init__(self, coefficients: Sequence[object], intercepts: Sequence[float], c: float) -> None:
        super().__init__()
        table = torch.tensor(coefficients, dtype=torch.float64)  # (class, member, class)
        self.register_buffer("table", table.permute(1, 2, 0).contiguous())
        self.register_buffer("intercepts", torch.tensor(intercepts, dtype=torch.float64))

    def forward(self, stack: Tensor) -> Tensor:
        logits = (_logs(stack) @ self.get_buffer("table")).sum(dim=0) + self.get_buffer("intercepts")
        return logits.softmax(dim=1)


POOLS: dict[str, type[nn.Module]] = {
    "mean": _Mean,
    "logit-mean": _LogitMean,
    "vote": _Vote,
    "weighted": _Weighted,
    "greedy": _Weighted,
    "stack": _Stack,
}
"""Of each rule that an ensemble may have: float64 (members, n, classes) -> (n, classes), made of its parameters."""


class _Rule(nn.Module):
    """A fitted rule: its pool, and its temperature."""

    def __init__(self, rule: FittedRule) -> None:
        super().__init__()
        self.pool = POOLS[rule.rule](**rule.parameters)
        self.temperature = rule.temperature

    def forward(self, stack: Tensor) -> Tensor:
        pooled: Tensor = self.pool(stack)
        return pooled if self.temperature == 1 else (_logs(pooled) / self.temperature).softmax(dim=1)


class Uncut(nn.Module):
    """Pixels that are cropped already, as the one crop of an image."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float()[:, None]


class Member(nn.Module):
    """A network with its normalisation: crops, float32 (n, crops, 3, h, w) -> probabilities, float64 (n, classes)."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, columns: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.columns = list(columns)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(preprocessing, name)).view(3, 1, 1))

    def forward(self, views: Tensor) -> Tensor:
        crops = views.shape[1]
        pixels = (views.flatten(0, 1) / 255 - self.get_buffer("mean")) / self.get_buffer("std")
        found = self.network(pixels).double().softmax(dim=1)
        if crops > 1:
            found = found.unflatten(0, (-1, crops)).mean(dim=1)
        if self.columns != sorted(self.columns):
            found = found[:, self.columns]
        probabilities: Tensor = found
        return probabilities


class Classifier(nn.Module):
    """uint8 RGB images (n, h, w, 3) -> probabilities, float32 (n, classes).

    ``views``: the ways of an image into the members' inputs; ``uses[m]`` is the number of member m's.
    """

    def __init__(
        self, views: Sequence[nn.Module], uses: Sequence[int], members: Sequence[Member], rule: FittedRule
    ) -> None:
        super().__init__()
        self.views = nn.ModuleList(views)
        self.uses = list(uses)
        self.members = nn.ModuleList(members)
        self.rule = _Rule(rule)

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.permute(0, 3, 1, 2)
        views = [each(pixels) for each in self.views]
        stack = torch.stack([member(views[use]) for member, use in zip(self.members, self.uses, strict=True)])
        found: Tensor = self.rule(stack).float()
        return found


def any_size(predictor: Predictor, form: str) -> str | None:
    """None if a file of this format can resize images as all members do; else the reason, as a part of a sentence."""
    if form == "openvino":
        return "OpenVINO computes a resize that depends on the image's size wrongly at times"
    for member in predictor.members:
        geometry = member.preprocessing.geometry
        if geometry is None:
            return f"{member.path} has a resize that is not known"
        if geometry.resample not in KERNELS:
            return f"{member.path} resizes by {geometry.resample.name.lower()}"
    return None


def build_classifier(predictor: Predictor, *, resizes: bool) -> Classifier:
    """The classifier that predicts as ``predictor`` does, in float32. Without ``resizes``, of images cropped already.

    Raises ConfigError for what no graph computes: passes with dropout; and for several crops, or members with different
    crops, where the images come cropped.
    """
    if predictor.mc_dropout:
        raise ConfigError(
            f"{predictor.path}: averages {predictor.mc_dropout} passes with dropout, whose random numbers no file has; "
            "make the ensemble again without --mc-dropout"
        )
    if not resizes:
        _check_alike(predictor)
    kinds = [_kind(member.preprocessing) if resizes else None for member in predictor.members]
    distinct = list(dict.fromkeys(kinds))
    first = [predictor.members[kinds.index(kind)].preprocessing for kind in distinct]
    members = [
        Member(member.model.float(), member.preprocessing, columns)
        for member, columns in zip(predictor.members, predictor.columns, strict=True)
    ]
    for member in members[1:]:
        _tie(member, members[0])
    views = [_views(each, predictor.crops) if resizes else Uncut() for each in first]
    found = Classifier(views, [distinct.index(kind) for kind in kinds], members, predictor.rule)
    return found.eval().requires_grad_(False)


def _kind(preprocessing: Preprocessing) -> Hashable:
    """Equal for preprocessings whose crops have the same pixels."""
    return preprocessing.input_size, preprocessing.geometry, preprocessing.most_aspect


def _tie(twin: nn.Module, first: nn.Module) -> None:
    """Let a module hold the tensors of another where theirs are equal, so that they are written once."""
    theirs = dict(first.named_modules())
    for name, module in twin.named_modules():
        other = theirs.get(name)
        if other is None:
            continue
        for mine, its in ((module._parameters, other._parameters), (module._buffers, other._buffers)):
            for key, tensor in mine.items():
                same = its.get(key)
                if tensor is not None and same is not None and tensor.shape == same.shape and torch.equal(tensor, same):
                    mine[key] = same


def _check_alike(predictor: Predictor) -> None:
    """Raises ConfigError where one crop of an image is not the input of all members."""
    inputs = {_kind(member.preprocessing) for member in predictor.members}
    if len(inputs) > 1 or predictor.crops != CropConfig():
        why = "its members see different crops" if len(inputs) > 1 else f"it averages {predictor.crops}"
        raise ConfigError(
            f"{predictor.path}: {why}, so there is no one crop to take as input; use --format onnx without "
            "--input model: that file makes the crops itself"
        )


def _views(preprocessing: Preprocessing, crops: CropConfig) -> nn.Module:
    """The crops of :func:`tl_kit.images.crops.crop_views`, in their order."""
    size = preprocessing.input_size[1:]
    if crops == CropConfig():
        assert preprocessing.geometry is not None
        return Views(preprocessing.geometry, size, preprocessing.most_aspect)
    corners = _CORNERS[: min(crops.crops, 5)]
    mirrored = (False, True) if crops.crops == 10 else (False,)
    places = [(above, before, flip) for flip in mirrored for above, before in corners]
    found = []
    for scale in sorted(crops.scales):
        scaled = preprocessing.scaled(scale)
        assert scaled.geometry is not None
        found.append(Views(scaled.geometry, size, scaled.most_aspect, places))
    return _Scales(found)


class _Scales(nn.Module):
    """The crops of all scales behind each other: uint8 (n, 3, h, w) -> (n, crops, 3, ...)."""

    def __init__(self, scales: Sequence[nn.Module]) -> None:
        super().__init__()
        self.scales = nn.ModuleList(scales)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([scale(images) for scale in self.scales], dim=1)
