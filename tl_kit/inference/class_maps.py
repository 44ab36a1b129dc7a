"""Class activation maps: the places of an image that speak for a class (Grad-CAM, Selvaraju et al. 2017).

The map is relu(Σ_k w_k A_k): A_k is channel k of the network's last feature map, and w_k the mean over its positions of
the score's gradient. timm's ``forward_intermediates`` gives the feature maps of every family in one layout, (n,
channels, rows, columns), but the scores are not computed from these copies. So the map is taken at the module whose
output holds the same values.

``deletion_score`` says how much of a class's probability remains while the highest places of a map are removed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tl_kit.errors import ConfigError

__all__ = ["class_maps", "deletion_score"]

_UNLIKE = (RuntimeError, TypeError, ValueError, IndexError, AttributeError, AssertionError)


_Layout: TypeAlias = Callable[[Tensor, Sequence[int]], Tensor]


def _channels_first(output: Tensor, _shape: Sequence[int]) -> Tensor:
    return output


def _channels_last(output: Tensor, _shape: Sequence[int]) -> Tensor:
    return output.permute(0, 3, 1, 2) if output.ndim == 4 else output


def _tokens(output: Tensor, shape: Sequence[int]) -> Tensor:
    """The last h·w tokens; before them stand those that belong to no place."""
    channels, rows, columns = shape[-3:]
    if output.ndim != 3 or output.shape[1] < rows * columns or output.shape[2] != channels:
        return output
    return output[:, -rows * columns :].transpose(1, 2).reshape(-1, channels, rows, columns)


_LAYOUTS: tuple[_Layout, ...] = (_channels_first, _channels_last, _tokens)


@dataclass(frozen=True)
class _Site:
    """A module whose output, or this element of it, is a feature map; ``layout`` makes (n, channels, rows, columns)."""

    module: str
    element: int | None
    layout: _Layout
    shape: tuple[int, ...]


_SITES: WeakKeyDictionary[nn.Module, dict[tuple[int, ...], _Site]] = WeakKeyDictionary()


def class_maps(model: nn.Module, pixels: Tensor, classes: Sequence[int]) -> NDArray[np.float32]:
    """The class activation map of each image, float32 (n, h, w) in 0..1, as large as the image.

    ``pixels`` are normalized images (n, c, h, w) of at least one row; ``classes`` are n class indices. The largest
    value of a map is 1; a map is 0 everywhere if no place speaks for the class. The network runs in evaluation mode,
    and its weights, statistics, modes and gradients are as before afterwards. Do not run it in another thread
    meanwhile.

    Raises ConfigError if the network has no feature map that its scores depend on.
    """
    wanted = torch.as_tensor(list(classes), device=pixels.device)
    if len(wanted) != len(pixels):
        raise ValueError(f"want one class for each image, got {len(wanted)} for {len(pixels)}")
    with _as_in_evaluation(model):
        known = _SITES.setdefault(model, {})
        size = tuple(pixels.shape[1:])
        if size not in known:
            known[size] = _find_site(model, pixels[:1])
        features, gradient = _features_and_gradient(
            model, known[size], pixels, lambda scores: scores.gather(1, wanted[:, None]).sum()
        )
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    maps = functional.relu((weights * features).sum(dim=1, keepdim=True))
    maps = functional.interpolate(maps, size=pixels.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    highest = maps.amax(dim=(1, 2), keepdim=True)
    found: NDArray[np.float32] = torch.where(highest > 0, maps / highest, 0.0).clamp(0, 1).float().cpu().numpy()
    return found


def deletion_score(
    model: nn.Module, pixels: Tensor, classes: Sequence[int], maps: NDArray[np.floating], *, steps: int = 10
) -> NDArray[np.float64]:
    """The mean probability of each image's class while its map's highest pixels are removed first, (n,) in 0..1.

    It is the area under the curve of the probability over the share of pixels that are removed (Petsiuk et al. 2018):
    the lower, the more the class depends on the map's high places. Removed pixels become 0, the mean colour of
    normalized images. ``maps`` are (n, h, w); the network runs as in :func:`class_maps`.
    """
    wanted = torch.as_tensor(list(classes), device=pixels.device)
    order = torch.as_tensor(maps, device=pixels.device).flatten(1).argsort(dim=1, descending=True, stable=True)
    counts = [round(step * order.shape[1] / steps) for step in range(steps + 1)]
    curve = []
    with _as_in_evaluation(model):
        for count in counts:
            kept = torch.ones_like(order, dtype=pixels.dtype).scatter_(1, order[:, :count], 0)
            scores = model(pixels * kept.view(len(pixels), 1, *pixels.shape[2:]))
            curve.append(scores.double().softmax(dim=1).gather(1, wanted[:, None])[:, 0])
    shares = torch.tensor(counts, dtype=torch.float64, device=pixels.device) / order.shape[1]
    found: NDArray[np.float64] = torch.trapezoid(torch.stack(curve, dim=1), shares, dim=1).cpu().numpy()
    return found


@contextmanager
def _as_in_evaluation(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _features_and_gradient(
    model: nn.Module, site: _Site, pixels: Tensor, score: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Feature maps and the scores' gradient for them, both (n, channels, rows, columns).

    What comes before the site is computed without gradients: there the memory of a forward pass is enough.
    """
    held: list[Tensor] = []

    def hold(_module: nn.Module, _args: Any, output: Any) -> Any:
        before = output if site.element is None else output[site.element]
        held.append(before.detach().requires_grad_())
        torch.set_grad_enabled(True)  # until the surrounding no_grad ends
        changed = held[-1].clone()  # later modules may change it in place
        if site.element is None:
            return changed
        return tuple(changed if place == site.element else other for place, other in enumerate(output))

    handle = model.get_submodule(site.module).register_forward_hook(hold)
    try:
        scores = model(pixels)
    finally:
        handle.remove()
    (gradient,) = torch.autograd.grad(score(scores), held, materialize_grads=True)
    torch.set_grad_enabled(False)
    return site.layout(held[0].detach(), site.shape), site.layout(gradient, site.shape)


def _find_site(model: nn.Module, pixels: Tensor) -> _Site:
    """The last feature map that changes the scores; a class token's last block reads no other position any more."""
    sites = _sites(model, pixels)
    for site in sites:
        _, gradient = _features_and_gradient(model, site, pixels, _uneven)
        if gradient.any():
            return site
    if not sites:
        raise ConfigError(f"{type(model).__name__}: has no feature maps, so it has no class activation maps")
    return sites[0]  # a classifier of zeros: all maps are 0


def _uneven(scores: Tensor) -> Tensor:
    """A sum of scores in which no classifier's rows cancel out."""
    return (scores * torch.linspace(1, 2, scores.shape[1], device=scores.device)).sum()


def _sites(model: nn.Module, pixels: Tensor) -> list[_Site]:
    """For each feature map, the last first, the first module whose output holds the same values."""
    maps = [*_intermediates(model, pixels, norm=False), *_intermediates(model, pixels, norm=True)[-1:]]
    found: list[list[_Site]] = [[] for _ in maps]
    calls: Counter[str] = Counter()
    with ExitStack() as stack:
        for name, module in model.named_modules():

            def compare(_module: nn.Module, _args: Any, output: Any, name: str = name) -> None:
                calls[name] += 1
                outputs = dict(enumerate(output)) if isinstance(output, tuple) else {None: output}
                for place, values in enumerate(maps):
                    for element, one in outputs.items():
                        layout = _layout_of(one, values)
                        if layout is not None:
                            found[place].append(_Site(name, element, layout, tuple(values.shape[1:])))

            stack.callback(module.register_forward_hook(compare).remove)
        model(pixels)
    once = [[site for site in sites if calls[site.module] == 1] for sites in reversed(found)]
    return [sites[0] for sites in once if sites]


def _intermediates(model: nn.Module, pixels: Tensor, *, norm: bool) -> list[Tensor]:
    """timm's intermediates (n, c, h, w), the first layer's first; with ``norm``, after the last norm where it can be.

    Scores that are computed from a norm's output do not change with the scale of its input: a gradient taken before the
    norm is orthogonal to the features there, and the map would show next to nothing.
    """
    method: Any = getattr(model, "forward_intermediates", None)
    try:
        found: list[Tensor] = method(pixels, norm=norm, output_fmt="NCHW", intermediates_only=True)
    except _UNLIKE:  # no such method, not with this layout, or not with a norm
        return []
    return found


def _layout_of(output: Any, values: Tensor) -> _Layout | None:
    """The layout in which a module's output holds the feature map ``values`` (n, c, h, w); None if it does not."""
    if not isinstance(output, Tensor) or len(output) != len(values):
        return None
    return next((lay for lay in _LAYOUTS if torch.equal(lay(output, values.shape), values)), None)
