"""Trunk and tail: the model is cut at the first module that trains, and the frozen part below is computed once.

The cut module's input is the trunk's output. ``Trunk`` stops a forward pass there; ``Tail`` takes captured outputs
through the rest. A cut is proved against the whole model, bit for bit on a real batch, before it is used: where
branches bypass the cut (Inception, HRNet) or later modules ask for the batch's shape, the plain path must be taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Tail", "Trunk", "find_cut", "prove_cut"]

_SMALL_BLANK = 64  # pixels a side: at 224, the blank image's way through the trunk takes a tenth of a training step


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
        # before all other hooks: those that are undone after the module's forward pass must not have begun
        handle = self.model.get_submodule(self.cut).register_forward_pre_hook(_stop, prepend=True)
        try:
            self.model(images)
        except _CutReachedError as reached:
            return reached.value
        finally:
            handle.remove()
        raise RuntimeError(f"the forward pass never enters {self.cut}")


def _stop(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
    raise _CutReachedError(args[0])


class Tail(nn.Module):
    """The model from ``cut`` on: captured trunk outputs (n, ...) -> the model's output (n, classes).

    With ``direct``, the cut module's output is the model's, and it alone is called. Otherwise the whole forward pass
    runs on one empty image, and the captured batch takes its place at the cut: no code of the model is repeated here.
    """

    def __init__(self, model: nn.Module, cut: str, *, image_shape: Sequence[int], direct: bool) -> None:
        super().__init__()
        self.model = model
        self.cut = cut
        self.direct = direct
        self.image_shape = tuple(image_shape)

    def forward(self, captured: Tensor) -> Tensor:
        """Gradients reach the parameters of the tail; the captured batch is a constant."""
        module = self.model.get_submodule(self.cut)
        if self.direct:
            result: Tensor = module(captured)
            return result
        blank = torch.zeros((1, *self.image_shape), device=captured.device)
        handle = module.register_forward_pre_hook(lambda _module, args: (captured, *args[1:]), prepend=True)
        try:
            result = self.model(blank)
        finally:
            handle.remove()
        return result


def find_cut(model: nn.Module, order: Sequence[str]) -> str | None:
    """The largest module below the root that trains as a whole and is entered before anything else that trains.

    ``order``: module names as a forward pass enters them. None if nothing trains, or nothing below it is frozen.
    """
    frozen_below = False
    for name in order:
        own = list(model.get_submodule(name).parameters(recurse=False))
        if not any(p.requires_grad for p in own):
            frozen_below = frozen_below or bool(own)
            continue
        if not frozen_below:
            return None
        parts = name.split(".") if name else []
        for length in range(1, len(parts) + 1):
            candidate = ".".join(parts[:length])
            if all(p.requires_grad for p in model.get_submodule(candidate).parameters()):
                return candidate
        return None
    return None


def prove_cut(model: nn.Module, cut: str, images: Tensor) -> Tail | None:
    """A tail that gives the model's own output on ``images`` (n, c, h, w), n > 1, bit for bit; None if none does.

    The model must be in eval mode; the surrounding autocast applies to both.
    """
    channels, *sides = images.shape[1:]
    whole = (channels, *sides)
    small = (channels, *(min(side, _SMALL_BLANK) for side in sides))
    with torch.inference_mode():
        expected = model(images)
        try:
            captured = Trunk(model, cut)(images)
        except (RuntimeError, IndexError):  # never entered under its own name, or with keywords only
            return None
        if not isinstance(captured, Tensor):  # several branches arrive at the cut (HRNet, CrossViT)
            return None
        for shape, direct in ((whole, True), (small, False), (whole, False)):
            tail = Tail(model, cut, image_shape=shape, direct=direct).eval()
            try:
                found = tail(captured)
            except (RuntimeError, TypeError, ValueError, IndexError, AttributeError, AssertionError):
                continue  # the tail depends on more than its input
            if isinstance(expected, Tensor) and isinstance(found, Tensor) and torch.equal(found, expected):
                return tail
    return None
