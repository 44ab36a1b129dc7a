"""Construction of a timm model from a seed, and of timm's function that converts checkpoints for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import _builder
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tl_kit.errors import ConfigError, first_line
from tl_kit.machine.forks import ForkLock, unforked
from tl_kit.machine.memory import free_memory
from tl_kit.machine.random_state import own_random_state, seed_cpu
from tl_kit.zoo.heads import classifier_names
from tl_kit.zoo.meta_model import folder_outline
from tl_kit.zoo.names import FOLDER_PREFIX, ModelSource
from tl_kit.zoo.silence_timm import quiet

__all__ = ["CheckpointFilter", "construct", "undrawn"]

CheckpointFilter = Callable[[dict[str, Any], nn.Module], dict[str, Any]]
# The CPU's random state, the log levels and the hook into timm belong to the process, so threads take turns.
_LOCK = ForkLock()
# What all of torch's and timm's random initialisation comes down to.
_DRAWING = (Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_)


def construct(
    source: ModelSource,
    num_classes: int,
    *,
    img_size: int | None,
    dropout: float | None = None,
    drop_path: float | None = None,
    seed: int,
) -> tuple[nn.Module, CheckpointFilter]:
    """A model with all weights drawn from ``seed``, and timm's checkpoint filter for it. No weights file is read.

    The global random state is not changed. Raises ConfigError if timm cannot build the model as a classifier, or not at
    ``img_size``.
    """
    arguments: dict[str, Any] = {"num_classes": num_classes}
    if img_size is not None and source.sized:
        arguments["img_size"] = img_size
    dropping = {"drop_rate": ("--dropout", dropout), "drop_path_rate": ("--drop-path", drop_path)}
    arguments |= {name: value for name, (_, value) in dropping.items() if value is not None}
    with unforked(), _LOCK, quiet(), own_random_state(), _recorded_filter() as filters:
        seed_cpu(seed)
        try:
            if source.factory_name.startswith(FOLDER_PREFIX):
                _check_extent(
                    Path(source.factory_name.removeprefix(FOLDER_PREFIX)), forward=img_size is None, **arguments
                )
            model: nn.Module = timm.create_model(source.factory_name, pretrained=True, **arguments)
            if img_size is not None:
                _try_size(model, img_size)
        except Exception as error:
            reason = first_line(error)
            for name, (flag, value) in dropping.items():
                if value is not None and name in reason:
                    raise ConfigError(f"{flag} {value}: {source.name} has none ({reason})") from error
            if img_size is not None:
                raise ConfigError(
                    f"--img-size {img_size}: does not fit {source.name}, whose own size is {source.side} ({reason})"
                ) from error
            raise ConfigError(f"{source.name}: timm cannot build it for {num_classes} classes ({reason})") from error
    if not classifier_names(model):
        raise ConfigError(f"{source.name}: an encoder without a classifier; choose another model")
    return model, filters[0] if filters else _unchanged


def undrawn(folder: Path) -> nn.Module:
    """The model of a folder's checked card, with zeros where timm draws values: its weights are to be loaded next.

    To draw them takes most of the time in which a large network is built. Raises timm's error if timm cannot build it.
    """
    with _Zeros():
        model: nn.Module = timm.create_model(f"{FOLDER_PREFIX}{folder}", pretrained=False)
    return model


class _Zeros(TorchFunctionMode):
    """In this thread, tensors that would be filled with random numbers are filled with zeros."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if func not in _DRAWING:
            return func(*args, **named)
        tensor: Tensor = args[0] if args else named["tensor"]
        with torch.no_grad():
            return tensor.zero_()


def _check_extent(folder: Path, *, forward: bool, **arguments: Any) -> None:
    """Raises ValueError if a model that a file describes would need more than the free memory."""
    outline = folder_outline(folder, error=ConfigError, forward=forward, **arguments)
    needed, free = outline.size, free_memory()
    if needed > free:
        raise ValueError(f"its weights take {needed / 1e9:,.1f} GB of memory, {free / 1e9:,.1f} GB are free")


def _try_size(model: nn.Module, img_size: int) -> None:
    """Run a forward pass, the only way to detect sizes that are too small or not a multiple of a stride."""
    training = model.training
    model.eval()
    with torch.no_grad():
        model(torch.zeros(1, 3, img_size, img_size))
    model.train(training)


@contextmanager
def _recorded_filter() -> Iterator[list[CheckpointFilter]]:
    """Record the filter that an entry point passes to timm's ``load_pretrained``, instead of loading weights.

    The filter (renaming, resampling of position embeddings) differs between entry points, may be a closure, and is not
    stored by timm. tl-kit loads weights itself, because timm downloads without a timeout and only logs missing tensors.
    """
    filters: list[CheckpointFilter] = []

    def record(model: nn.Module, *_: object, filter_fn: CheckpointFilter | None = None, **__: object) -> None:
        if filter_fn is not None:
            filters.append(_with_two_arguments(filter_fn))

    original = _builder.load_pretrained
    _builder.load_pretrained = record
    try:
        yield filters
    finally:
        _builder.load_pretrained = original


def _with_two_arguments(function: Callable[..., dict[str, Any]]) -> CheckpointFilter:
    """Adapt a filter to two arguments; some of timm's older filters take only the tensors."""
    if len(inspect.signature(function).parameters) == 1:
        return lambda tensors, model: function(tensors)
    return function


def _unchanged(tensors: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    return tensors
