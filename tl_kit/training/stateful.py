"""The parts of a fit that change as it goes: each hands out its state, and takes it back exactly.

A state is a tree of mappings, lists, tuples, numbers, strings and tensors. Whatever has the two methods of
:class:`Stateful` can be saved with a run, under a name of its own.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

__all__ = ["OptimizerState", "RandomState", "Stateful", "TensorState"]

# What second-order optimizers keep on the parameters themselves.
_ON_PARAMETERS = ("hess",)


class Stateful(Protocol):
    """``load_state`` makes the object what it was when ``state`` was called, in a process that has made it anew.

    ``load_state`` raises ValueError, TypeError or KeyError for a state that is none of its own.
    """

    def state(self) -> object: ...

    def load_state(self, state: Any) -> None: ...


class TensorState:
    """Tensors of a module by name: parameters and persistent buffers."""

    def __init__(self, module: nn.Module, names: Collection[str]) -> None:
        self.module = module
        self.names = frozenset(names)

    def state(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in self.module.state_dict().items() if name in self.names}

    @torch.no_grad()
    def load_state(self, state: Any) -> None:
        own = self.state()
        check_tensors(own, state)
        for name, tensor in own.items():
            tensor.copy_(state[name])


def check_tensors(own: Mapping[str, Tensor], state: Any) -> None:
    """Raises ValueError unless ``state`` has tensors of the same names, shapes and types."""
    if not isinstance(state, Mapping) or state.keys() != own.keys():
        raise ValueError("the names of its tensors are others")
    for name, tensor in own.items():
        found = state[name]
        if not isinstance(found, Tensor) or (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
            raise ValueError(f"{name}: of another shape or type")


class OptimizerState:
    """All that an optimizer keeps: its groups' settings, each parameter's tensors and counters, its random numbers.

    ``Optimizer.load_state_dict`` would convert tensors to the parameters' types and lay them out anew. Groups that
    were added since the state was saved stay as they are: nothing in them had trained.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper has it inside

    def state(self) -> dict[str, object]:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        return {
            "groups": [_settings(group) for group in self.optimizer.param_groups],
            "parameters": [dict(self.optimizer.state[p]) if p in self.optimizer.state else None for p in parameters],
            "attributes": [{k: vars(p)[k] for k in _ON_PARAMETERS if k in vars(p)} for p in parameters],
            "random": {name: _random_state(value) for name, value in self._generators().items()},
        }

    def load_state(self, state: Any) -> None:
        groups = self.optimizer.param_groups[: len(state["groups"])]
        for group, saved in zip(groups, state["groups"], strict=True):
            if saved.keys() - {"step"} != _settings(group).keys() - {"step"}:  # which some begin to count later
                raise ValueError("its groups have other settings")
            group.update({key: _as(group.get(key), value) for key, value in saved.items()})
        parameters = [(p, group) for group in groups for p in group["params"]]
        for (parameter, group), saved, more in zip(parameters, state["parameters"], state["attributes"], strict=True):
            counters = parameter.device if group.get("fused") or group.get("capturable") else torch.device("cpu")
            if saved is not None:
                self.optimizer.state[parameter] = _on(parameter.device, saved, counters)
            for name in _ON_PARAMETERS:
                if name in more:
                    setattr(parameter, name, _on(parameter.device, more[name], counters))
        for name, generator in self._generators().items():
            _set_random_state(generator, state["random"][name])

    def _generators(self) -> dict[str, random.Random | torch.Generator]:
        kinds = (random.Random, torch.Generator)
        return {name: value for name, value in vars(self.optimizer).items() if isinstance(value, kinds)}


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    """All but the parameters, and what is fixed when the optimizer is made and is no number: types and functions."""
    return {k: v for k, v in group.items() if k != "params" and not isinstance(v, torch.dtype) and not callable(v)}


def _as(own: object, saved: object) -> object:
    """A rate that is a tensor stays the same tensor."""
    if isinstance(own, Tensor) and isinstance(saved, Tensor):
        return own.copy_(saved)
    return saved


def _on(device: torch.device, value: Any, counters: torch.device) -> Any:
    """A copy that belongs to nobody else; tensors without a dimension are ``counters``, on a device of their own."""
    if isinstance(value, Tensor):
        return value.to(device if value.ndim else counters, copy=True)
    if isinstance(value, Mapping):
        return {key: _on(device, item, counters) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on(device, item, counters) for item in value)
    return value


def _random_state(generator: random.Random | torch.Generator) -> object:
    return generator.getstate() if isinstance(generator, random.Random) else generator.get_state()


def _set_random_state(generator: random.Random | torch.Generator, state: Any) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)


class RandomState:
    """torch's own random numbers, on the CPU and on the device: dropout, stochastic depth and DropConnect draw them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def state(self) -> dict[str, Tensor]:
        found = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            found["cuda"] = torch.cuda.get_rng_state(self.device)
        return found

    def load_state(self, state: Any) -> None:
        torch.set_rng_state(state["cpu"].contiguous())
        if self.device.type == "cuda" and "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], self.device)
