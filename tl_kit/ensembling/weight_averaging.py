"""Averages of weights: which checkpoints may be averaged, and the average (Wortsman et al. 2022, "Model soups").

Fine-tuned from the same pretrained weights, models often lie in one basin of the loss, and so does their average. From
different ones they do not: a neuron of one means nothing in the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from tl_kit.errors import MemberError
from tl_kit.inference.shared_trunks import structure
from tl_kit.storage.checkpoint import Checkpoint
from tl_kit.zoo.heads import classifier_names, in_modules

__all__ = ["aligned_state", "average_weights", "check_ingredients", "differ_below_the_head"]

_COUNTER = "num_batches_tracked"
_SAME_START = "only runs from the same pretrained file can be averaged"


def average_weights(states: Iterable[Mapping[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    """Σ_j w_j θ_j / Σ_j w_j for every tensor name, summed in float64 and cast back to the first state's types.

    Tensors of integers (BatchNorm's count of batches) keep their type: the largest values are taken. States are read
    one after the other, and none is changed; beside the sum no more than one need be in memory. The result is on the
    CPU.

    Args:
        states: of equal names and shapes.
        weights: one a state, not negative, not all 0.
    """
    total: dict[str, Tensor] = {}
    types: dict[str, torch.dtype] = {}
    for state, weight in zip(states, weights, strict=True):
        for name, tensor in state.items():
            value = tensor.detach().cpu()
            types.setdefault(name, value.dtype)
            if not value.is_floating_point():
                total[name] = torch.maximum(total[name], value) if name in total else value.clone()
            elif name in total:
                total[name].add_(value.double(), alpha=weight)
            else:
                total[name] = value.double() * weight
    scale = sum(weights)
    return {n: (t / scale).to(types[n]) if t.is_floating_point() else t for n, t in total.items()}


def aligned_state(checkpoint: Checkpoint, columns: Sequence[int]) -> dict[str, Tensor]:
    """The checkpoint's tensors, the rows of its classifier in the order ``columns``. They share the model's memory.

    Raises MemberError if the rows must change places in a classifier that is no linear layer or convolution.
    """
    state = checkpoint.model.state_dict()
    if list(columns) == list(range(len(columns))):
        return state
    for name in classifier_names(checkpoint.model):
        if not isinstance(checkpoint.model.get_submodule(name), (nn.Linear, nn.Conv2d)):
            raise MemberError(
                f"{checkpoint.path}: has its classes in another order, and its classifier is no linear layer whose "
                "rows could change places; train it on the same folder names"
            )
        for key in (f"{name}.weight", f"{name}.bias"):
            if key in state:
                state[key] = state[key][list(columns)]
    return state


def check_ingredients(members: Sequence[Checkpoint]) -> None:
    """Raises MemberError, in one line, unless all members are one architecture, see images alike and started alike.

    That is: equal tensor names and shapes, equal modules with equal settings, equal preprocessing, and pretrained
    weights from a file of the same content.
    """
    first, *others = members
    kind = structure(first.model)
    shapes = {name: tuple(tensor.shape) for name, tensor in first.model.state_dict().items()}
    for member in others:
        where = f"{member.path}: cannot be averaged with {first.path}"
        found = {name: tuple(tensor.shape) for name, tensor in member.model.state_dict().items()}
        for name in (*shapes, *found):
            if shapes.get(name) != found.get(name):
                there, here = (f"{s[name]}" if name in s else "missing" for s in (shapes, found))
                raise MemberError(f"{where}: {name} is {here} here and {there} there")
        if structure(member.model) != kind:
            raise MemberError(f"{where}: another architecture, of equal tensors")
        if member.preprocessing != first.preprocessing:
            raise MemberError(f"{where}: another preprocessing (size, crop or normalisation)")
    origin = _origin(first)
    for member in others:
        if _origin(member) != origin:
            raise MemberError(
                f"{member.path}: cannot be averaged with {first.path}: other pretrained weights; {_SAME_START}"
            )


def _origin(member: Checkpoint) -> str:
    """The content hash of the weights file from which the run started."""
    weights = member.meta.get("weights")
    found = weights if isinstance(weights, Mapping) else {}
    digest = found.get("sha256")
    if isinstance(digest, str) and digest:
        return digest
    source = found.get("source")
    what = f"started from weights that are {source}" if source else "does not say which weights it started from"
    raise MemberError(f"{member.path}: {what}; {_SAME_START}")


def differ_below_the_head(members: Sequence[Checkpoint]) -> bool:
    """True where members of one architecture differ in more than the classifier and BatchNorm's count of batches."""
    heads = classifier_names(members[0].model)
    first = members[0].model.state_dict()
    names = [name for name in first if not in_modules(name, heads) and not name.endswith(_COUNTER)]
    for member in members[1:]:
        state = member.model.state_dict()
        if any(not torch.equal(first[name].cpu(), state[name].cpu()) for name in names):
            return True
    return False
