"""Trunk and tail: the model is cut at the first module that trains, and the frozen part below is computed once.

The cut module's input is the trunk's output. ``capture`` stops a forward pass there; ``classify`` puts a captured batch
through a head alone. Both are proved against the whole model on a real batch before they are used.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Trunk", "head_trunk"]


class _CutReachedError(Exception):
    """Carries the cut module's input out of the forward pass."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value


class Trunk(nn.Module):
    """A model up to the input of the module ``cut``: images (n, c, h, w) -> that input (n, ...)."""

    def __init__(self, model: nn.Module, cut: str) -> None:
        super().__init__()
        self.model = model
        self.cut = cut

    def forward(self, images: Tensor) -> Tensor:
        """Raises RuntimeError if the forward pass never enters the cut module."""
        handle = self.model.get_submodule(self.cut).register_forward_pre_hook(_stop)
        try:
            self.model(images)
        except _CutReachedError as reached:
            return reached.value
        finally:
            handle.remove()
        raise RuntimeError(f"the forward pass never enters {self.cut}")


def _stop(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
    raise _CutReachedError(args[0])


def head_trunk(model: nn.Module, cut: str, images: Tensor) -> Trunk | None:
    """The trunk below the classifier ``cut``, proved on ``images`` (n, c, h, w).

    None if the classifier on the captured features does not give the model's own output bit for bit (something follows
    it, or the features are no flat vectors): then the plain path must be used.
    """
    trunk = Trunk(model, cut).eval()
    classifier = model.get_submodule(cut)
    with torch.inference_mode():
        expected = model(images)
        features = trunk(images)
        if features.ndim != 2 or not isinstance(expected, Tensor):
            return None
        exact = torch.equal(classifier(features), expected)
    return trunk if exact else None
