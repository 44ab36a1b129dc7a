"""Low-rank adapters (Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models"), by the library peft.

A layer's weight W stays as it is, and a product of two small matrices, scaled, is added to it: W + (α / r) B A, with
ranks of at most r. The adapters train in a twin of the model, which shares all other tensors with it; merged, they are
in the model's own weights, whose names and shapes do not change.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

__all__ = ["Adapters", "adaptable_layers"]

# Of a layer that does more with its weight than to multiply by it (weight standardization), the sum is another one.
_KINDS = (nn.Linear, nn.Conv2d, Conv2dSame)
_MARK = "lora_"


def adaptable_layers(model: nn.Module, *, rank: int) -> list[str]:
    """Names of the linear layers and ungrouped convolutions whose adapters of this rank are smaller than they are."""
    return [
        name
        for name, module in model.named_modules()
        if type(module) in _KINDS and getattr(module, "groups", 1) == 1 and _adapter_size(module, rank) < _size(module)
    ]


def _size(module: nn.Module) -> int:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.numel()


def _adapter_size(module: nn.Module, rank: int) -> int:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return rank * (weight.shape[0] + weight[0].numel())


class Adapters:
    """The adapters of ``layers``, in ``module``: a twin of ``model`` that shares all tensors but these layers' weights.

    ``rank`` is r; α is ``alpha`` times as much. B starts at zero, so that the twin starts as the model; A is drawn from
    torch's generator. Only the adapters and the parameters of the model that require gradients train in the twin.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str], *, rank: int, alpha: int) -> None:
        from peft import LoraConfig, inject_adapter_in_model

        self.model = model
        self.layers = tuple(layers)
        own = {id(model.get_submodule(name).weight) for name in layers}
        shared = {id(t): t for t in (*model.parameters(), *model.buffers()) if id(t) not in own}
        trained = {name for name, p in model.named_parameters() if p.requires_grad and id(p) not in own}
        twin = copy.deepcopy(model, shared)
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha * rank,
            target_modules="|".join(re.escape(name) for name in layers),
            lora_dropout=0.0,
            bias="none",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of layers that peft would rather not merge: merging is checked below
            self.module: nn.Module = inject_adapter_in_model(config, twin)
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(_MARK in name or name.replace(".base_layer.", ".") in trained)
        self._wrapped: dict[str, Any] = {name: self.module.get_submodule(name) for name in layers}

    def parameters_of(self, layer: str) -> list[tuple[str, nn.Parameter]]:
        """A layer's adapters, by their names in the twin."""
        return [(f"{layer}.{n}", p) for n, p in self._wrapped[layer].named_parameters() if n.startswith(_MARK)]

    @torch.no_grad()
    def merge(self) -> None:
        """Write W + (α / r) B A into the model's weights."""
        for name, wrapped in self._wrapped.items():
            own: Any = self.model.get_submodule(name)
            own.weight.copy_(wrapped.base_layer.weight + wrapped.get_delta_weight("default"))

    def follow_modes(self) -> None:
        """Put each module of the twin into the mode, training or not, of the model's module of its name."""
        for name, module in self.module.named_modules():
            with_name = _own_name(name)
            if with_name is not None:
                module.training = self.model.get_submodule(with_name).training

    def in_place_of_weights(self, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """An optimizer's groups with the adapters of a layer instead of its weight, at the weight's rate and decay."""
        found = []
        for group in groups:
            pairs = zip(group["param_names"], group["params"], strict=True)
            entries = [entry for name, p in pairs for entry in self._entries(name, p)]
            found.append({**group, "params": [p for _, p in entries], "param_names": [name for name, _ in entries]})
        return found

    def _entries(self, name: str, parameter: nn.Parameter) -> list[tuple[str, nn.Parameter]]:
        layer = name.removesuffix(".weight")
        return self.parameters_of(layer) if layer in self._wrapped and layer != name else [(name, parameter)]

    def state(self) -> dict[str, Tensor]:
        """The adapters' tensors, by their names in the twin; for :meth:`load_state`."""
        return {name: parameter for layer in self.layers for name, parameter in self.parameters_of(layer)}

    @torch.no_grad()
    def load_state(self, state: Any) -> None:
        """Go on from a state. Raises ValueError for one of other tensors."""
        own = self.state()
        if not isinstance(state, Mapping) or state.keys() != own.keys():
            raise ValueError("the names of its adapters are others")
        for name, tensor in own.items():
            if state[name].shape != tensor.shape:
                raise ValueError(f"{name}: of another shape")
            tensor.copy_(state[name])


def _own_name(name: str) -> str | None:
    """The model's name of a twin's module; None for those of the adapters."""
    return None if _MARK in name or name.endswith(".base_layer") else name
