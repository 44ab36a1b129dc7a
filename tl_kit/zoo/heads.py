"""The classifier of a timm model: finds it, and writes weights into it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["classifier_names", "in_modules", "linear_classifier", "linear_tensors", "set_linear"]


def in_modules(tensor_name: str, modules: Iterable[str]) -> bool:
    """True if a parameter or buffer belongs to one of the named modules."""
    return any(tensor_name.startswith(f"{module}.") for module in modules)


def classifier_names(model: nn.Module) -> tuple[str, ...]:
    """Module names of the classifier or, in distilled and multi-exit models, of all classifiers; empty without one.

    The names in timm's model card come first, because they are the most exact (``head.fc`` instead of ``head``).
    Further classifiers from ``get_classifier()`` are added, since some cards omit the distillation head.
    """
    modules = dict(model.named_modules())
    names = [name for name in _card_names(model) if _has_tensors(modules.get(name))]
    by_identity = {id(module): name for name, module in modules.items()}
    for module in _returned_classifiers(model):
        name = by_identity.get(id(module))
        if name and _has_tensors(module) and not _covered(name, names):
            names.append(name)
    return tuple(names)


def linear_classifier(model: nn.Module) -> tuple[str, nn.Linear] | None:
    """Name and module of the classifier if it is a single ``nn.Linear``; None for any other kind."""
    names = classifier_names(model)
    if len(names) != 1:
        return None
    module = model.get_submodule(names[0])
    return (names[0], module) if isinstance(module, nn.Linear) else None


def linear_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Copies, on the CPU, of the tensors of a classifier that is one linear layer, by their names in the model."""
    found = linear_classifier(model)
    assert found is not None
    name, layer = found
    return {f"{name}.{key}": tensor.detach().cpu().clone() for key, tensor in layer.state_dict().items()}


def set_linear(
    layer: nn.Linear, weight: Tensor | NDArray[np.floating], bias: Tensor | NDArray[np.floating] | None
) -> None:
    """Copy ``weight`` (classes, features) and ``bias`` (classes,) into a layer, in place; device and dtype are kept.

    Raises ValueError if a shape differs, or if only one of the layer and the arguments has a bias.
    """
    if (layer.bias is None) != (bias is None):
        raise ValueError("the layer has no bias" if layer.bias is None else "the layer needs a bias")
    new = {"weight": torch.as_tensor(weight)} | ({} if bias is None else {"bias": torch.as_tensor(bias)})
    for name, value in new.items():
        expected = getattr(layer, name).shape
        if value.shape != expected:
            raise ValueError(f"{name} has shape {tuple(value.shape)}, the layer needs {tuple(expected)}")
    with torch.no_grad():
        for name, value in new.items():
            getattr(layer, name).copy_(value)


def _card_names(model: nn.Module) -> tuple[str, ...]:
    card = getattr(model, "pretrained_cfg", None) or {}
    names = card.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _returned_classifiers(model: nn.Module) -> tuple[nn.Module, ...]:
    get_classifier = getattr(model, "get_classifier", None)
    try:
        found = get_classifier() if callable(get_classifier) else None
    except AttributeError:  # timm's pure encoders have the method, but no classifier
        return ()
    modules = found if isinstance(found, (tuple, list)) else (found,)
    return tuple(module for module in modules if isinstance(module, nn.Module))


def _has_tensors(module: nn.Module | None) -> bool:
    return module is not None and next(module.parameters(), None) is not None


def _covered(name: str, names: list[str]) -> bool:
    """True if ``name`` is, contains or is inside a module that is named already."""
    return any(f"{name}.".startswith(f"{other}.") or f"{other}.".startswith(f"{name}.") for other in names)
