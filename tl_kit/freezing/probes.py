"""Pooled features at every stage of a network, from one forward pass, and how well a linear probe does on each.

Alain & Bengio 2017, "Understanding intermediate layers using linear classifier probes": on images like those of the
pretraining, the last stage separates the classes best; where an earlier one does, the last stages have learned to
ignore what matters here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from tl_kit.config import ProbeConfig
from tl_kit.freezing.facts import StageProbe
from tl_kit.machine.runtime import available_cores
from tl_kit.optimization.feature_scaling import fit_scaling
from tl_kit.optimization.penalty_choice import Folds, choose, drawn_folds, out_of_fold, stratified_part
from tl_kit.optimization.side_by_side import one_thread, side_by_side
from tl_kit.optimization.softmax_regression import rotate

__all__ = ["ALL_STAGES", "all_stages", "probe_stages", "stage_features", "stage_names"]

ALL_STAGES = "all stages"
"""The name of the probe of all stages side by side."""


def stage_names(model: nn.Module, *, most: int) -> list[str]:
    """Modules at the ends of timm's stages, from the input up: at most ``most``, evenly spread, the last among them.

    Empty for a model that timm has no stages of.
    """
    info = getattr(model, "feature_info", None)
    modules = dict(model.named_modules())
    entries = info if isinstance(info, list) else []
    names = list(dict.fromkeys(entry["module"] for entry in entries if entry.get("module") in modules))
    if len(names) <= most:
        return names
    return [names[round(index)] for index in np.linspace(0, len(names) - 1, most)]


def stage_features(
    model: nn.Module, names: Sequence[str], images: Tensor, *, call: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The output (n, ...) and, by name, each stage's output averaged over positions (n, channels), float32.

    Outputs are (n, c, h, w), (n, h, w, c) or (n, tokens, c), as timm's card of the stage says. ``call``: what runs the
    model on images (n, 3, h, w), where it is not the model itself.
    """
    channels = {entry["module"]: int(entry["num_chs"]) for entry in getattr(model, "feature_info", ())}
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                found[name] = _pool(output.float(), channels.get(name, -1))

        return hook

    hooks = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        output = (call or model)(images)
    finally:
        for hook in hooks:
            hook.remove()
    return output, {name: rows[: len(images)] for name, rows in found.items()}


def _pool(output: Tensor, channels: int) -> Tensor:
    if output.ndim == 4 and output.shape[1] != channels and output.shape[3] == channels:
        return output.mean((1, 2))
    return output.mean((2, 3)) if output.ndim == 4 else output.mean(1) if output.ndim == 3 else output.flatten(1)


def all_stages(features: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Stages' features (n, d) side by side (n, sum of d), each stage with the same weight (Evci et al. 2022)."""
    return np.concatenate([_of_equal_weight(rows) for rows in features.values()], axis=1)


def _of_equal_weight(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """A stage's features (n, d) with mean 0, and a mean square of 1 over each row's sum."""
    centred = rows - rows.mean(axis=0)
    spread = float(np.sqrt(np.square(centred).sum(axis=1).mean()))
    result: NDArray[np.float32] = centred / max(spread, float(np.finfo(np.float32).tiny))
    return result


def probe_stages(
    features: Mapping[str, NDArray[np.float32]], labels: NDArray[np.int64], *, config: ProbeConfig, seed: int
) -> list[StageProbe]:
    """Cross-validate a logistic regression on each stage's features (n, d); the same stratified folds for all.

    At most ``config.images`` of the images are looked at, in the classes' proportions. Empty where a class has fewer
    than two images: there is nothing to validate on.
    """
    folds = min(config.folds, int(np.bincount(labels)[np.unique(labels)].min()))
    if folds < 2:
        return []
    kept = stratified_part(labels, max(config.images, folds * len(np.unique(labels))), least=folds, seed=seed)
    _, labels = np.unique(labels[kept], return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    drawn = drawn_folds(labels, folds, units=order)
    threads = available_cores()
    each = max(1, threads // max(1, len(features)))

    def probe(name: str) -> StageProbe | None:
        return _probe(name, features[name][kept], labels, drawn, threads=each, config=config)

    with one_thread():
        return [found for found in side_by_side(probe, list(features), threads=threads) if found is not None]


def _probe(
    name: str,
    values: NDArray[np.float32],
    labels: NDArray[np.int64],
    folds: Folds,
    *,
    threads: int,
    config: ProbeConfig,
) -> StageProbe | None:
    """None where no fit converges in the steps that are allowed."""
    classes = int(labels.max()) + 1
    rows = rotate(fit_scaling(values)(values), most=config.rotate_up_to, threads=threads).rows
    found = out_of_fold(rows, labels, classes, folds, threads=threads, config=config)
    position = choose(found, units=folds.units, config=config)
    if position is None:
        return None
    right = found.right[position]
    scores = [right[folds.numbers[found.images] == number].mean() for number in folds.held_out]
    error = float(np.std(scores, ddof=1) / np.sqrt(len(scores)))
    return StageProbe(name, values.shape[1], float(right.mean()), error, found.strengths[position])
