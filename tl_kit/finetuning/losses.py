"""A run's loss and its regularizers: class weights, distillation, penalties, dropped paths and weights."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn import functional

from tl_kit.data.manifest import labels_of
from tl_kit.errors import ConfigError
from tl_kit.finetuning.run import Run
from tl_kit.optimization.class_weights import class_weights
from tl_kit.optimization.dropconnect import apply_dropconnect
from tl_kit.optimization.param_groups import no_weight_decay
from tl_kit.optimization.penalties import l1_penalty, l2_penalty, l2_sp_penalty
from tl_kit.training.distillation_loss import distillation_loss
from tl_kit.training.task import Loss
from tl_kit.training.weighted_loss import total_weight, weighted_cross_entropy
from tl_kit.zoo.heads import classifier_names

__all__ = ["build_loss", "check_drop_path", "drop_connect"]


def build_loss(run: Run) -> Loss:
    """Cross-entropy and, where the run asks for them, class weights, label smoothing, a teacher's loss and penalties.

    Label smoothing is that of Szegedy et al. (2016). With class weights, a teacher's loss is another mean than that on
    the labels, and batches cannot be divided.
    """
    smoothing, weights, distill = run.config.regularization.label_smoothing, _balancing(run), run.config.distill
    objective: Callable[[Tensor, Tensor], Tensor] = partial(functional.cross_entropy, label_smoothing=smoothing)
    weigh: Callable[[Tensor], float] | None = len
    if weights is not None:
        objective = partial(weighted_cross_entropy, weights=weights, label_smoothing=smoothing)
        weigh = None if distill is not None else partial(total_weight, weights=weights)
    if distill is not None:
        objective = partial(
            distillation_loss, on_labels=objective, temperature=distill.temperature, weight=distill.weight
        )
    return Loss(objective=objective, penalty=_penalty(run), weigh=weigh)


def _balancing(run: Run) -> Tensor | None:
    """The weight of each class, where the run has a balanced loss and the classes are uneven."""
    if run.balance.value != "loss":
        return None
    found = class_weights(labels_of(run.manifest.split("train")), len(run.manifest.classes))
    if (found == 1).all():  # nothing is to be balanced, and the sums need not be rounded otherwise
        return None
    return torch.from_numpy(found).float().to(run.runtime.device)


def _penalty(run: Run) -> Callable[[], Tensor] | None:
    """The sum of the run's penalties on the weights that train; None without any."""
    config, model = run.config.regularization, run.model
    exempt = tuple(no_weight_decay(model))
    terms: list[Callable[[], Tensor]] = []
    if config.l1:
        terms.append(lambda: l1_penalty(model.named_parameters(), strength=config.l1, exempt=exempt))
    if config.l2:
        terms.append(lambda: l2_penalty(model.named_parameters(), strength=config.l2, exempt=exempt))
    if config.l2_sp:
        start = _pretrained(run)
        terms.append(
            lambda: l2_sp_penalty(model.named_parameters(), start, alpha=config.l2_sp, beta=config.l2_sp, exempt=exempt)
        )
    if not terms:
        return None
    return lambda: torch.stack([term() for term in terms]).sum()


def _pretrained(run: Run) -> Mapping[str, Tensor]:
    """The pretrained weights; a new head, which is not among them, is pulled to zero."""
    loaded = set(run.weights.loaded)
    return {name: p.detach().clone() for name, p in run.model.named_parameters() if name in loaded}


def check_drop_path(run: Run, order: Sequence[str]) -> None:
    """Raises ConfigError where ``--drop-path`` would drop nothing: no branch that a forward pass enters ever trains.

    ``order``: the modules that a forward pass enters.
    """
    if not run.config.regularization.drop_path:
        return
    modules = dict(run.model.named_modules())
    above = order[_first_trainable(run, order) :]
    if not any(isinstance(modules[name], DropPath) and modules[name].drop_prob for name in above):
        raise ConfigError(f"--drop-path: no residual branch of {run.config.model} trains under --policy {run.policy}")


def _first_trainable(run: Run, order: Sequence[str]) -> int:
    """Position in the forward order of the first module that trains, now or in a later epoch."""
    trainable = run.trainable(sys.maxsize)
    for position, name in enumerate(order):
        own = [key for key, _ in run.model.get_submodule(name).named_parameters(recurse=False)]
        if any((f"{name}.{key}" if name else key) in trainable for key in own):
            return position
    return len(order)


def drop_connect(run: Run, order: Sequence[str]) -> None:
    """Drop weights of the linear layers that train, now or in a later epoch; undone when the run is cleaned up.

    A layer that is frozen yet is in evaluation mode, and keeps its weights. ``order``: the modules that a forward pass
    enters; layers whose weights are read by others (BEiT's qkv) are not among them, and cannot drop theirs.
    """
    p = run.config.regularization.drop_connect
    if not p:
        return
    heads, trainable = classifier_names(run.model), run.trainable(sys.maxsize)
    names = [
        name
        for name, module in run.model.named_modules()
        if (isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and name in heads))
        and f"{name}.weight" in trainable
        and name in order
    ]
    if not names:
        raise ConfigError("--drop-connect: no linear layer of this model trains under this policy")
    run.cleanup.callback(apply_dropconnect(run.model, names, p=p).remove)
