"""Checkpoints that may be averaged (Wortsman et al. 2022, "Model soups").

Fine-tuned from the same pretrained weights, models often lie in one basin of the loss, and so does their average. From
different ones they do not: a neuron of one means nothing in the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tl_kit.errors import MemberError
from tl_kit.inference.shared_trunks import structure
from tl_kit.storage.checkpoint import Checkpoint
from tl_kit.zoo.heads import classifier_names, in_modules

__all__ = ["aligned_state", "check_ingredients", "differ_below_the_head"]

_COUNTER = "num_batches_tracked"
_SAME_START = "only runs from the same pretrained file can be averaged"


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
            raise MemberError(f"{where}: another preprocessing (size, crop, normalisation or decoder of JPEGs)")
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
