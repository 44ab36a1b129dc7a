"""Features of a run's images at every stage of its network, from one pass, which gives the head's input too."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tl_kit.data.manifest import Sample
from tl_kit.finetuning.closed_form import head_run
from tl_kit.finetuning.run import Run
from tl_kit.finetuning.trunk_reuse import EVAL, Reuse, image_batches, row_name
from tl_kit.freezing.probes import stage_features, stage_names
from tl_kit.inference.run_models import model_context
from tl_kit.machine.forward import forward_rows
from tl_kit.storage.feature_store import FeatureStore

__all__ = ["HEAD_INPUT", "fill_stages", "rows_of_views", "stage_rows"]

Floats = NDArray[np.float32]

HEAD_INPUT = "head input"


def stage_rows(run: Run) -> dict[str, Floats]:
    """Features (n, d) of the training images at each stage and, last, at the head's input, from the input up.

    Empty where the model has no cut before its head.
    """
    head, reuse = head_run(run)
    if reuse is None:
        return {}
    _, (rows,) = rows_of_views(head, reuse, run.manifest.split("train"), (EVAL,), name="train")
    return rows


def rows_of_views(
    run: Run, reuse: Reuse, samples: Sequence[Sample], views: tuple[str, ...], *, name: str
) -> tuple[tuple[Sample, ...], list[dict[str, Floats]]]:
    """The samples that can be decoded and, of each view, their features (n, d) at each stage and at the head's input.

    What the cache lacks is computed. ``name`` names the images for the user.
    """
    names = stage_names(run.model, most=run.config.probe.stages)
    store = fill_stages(run, reuse, names, samples, views, name=name)
    present = frozenset(run.manifest.samples)
    kept = tuple(sample for sample in samples if sample in present)
    widths = _widths(run, names)
    found = []
    for view in views:
        rows = {HEAD_INPUT: reuse.rows(kept, view).float().flatten(1).numpy()}
        if names:
            pooled = store.get([row_name(sample, view) for sample in kept]).numpy()
            rows = {**dict(zip(names, np.split(pooled, np.cumsum(widths)[:-1], axis=1), strict=True)), **rows}
        found.append(rows)
    return kept, found


def fill_stages(
    run: Run,
    reuse: Reuse,
    names: Sequence[str],
    samples: Sequence[Sample],
    views: tuple[str, ...] = (EVAL,),
    *,
    name: str = "train",
) -> FeatureStore:
    """Compute what the cache lacks of training images: the stages' pooled features and, in one pass, the head's input.

    Images that cannot be decoded leave the run. Without ``names``, the head's input alone. Returns the stages' store.
    """
    store = reuse.features.beside("stages", *names)
    wanted = {view: _lacking(store, samples, view) for view in views if names}
    every = {sample.digest: sample for lacking in wanted.values() for sample in lacking}
    if every:
        gone = run.decode(list(every.values()), crop=True)
        run.reporter.start(f"features of all stages, {name}", sum(map(len, wanted.values())))
        for view, lacking in wanted.items():
            _compute(run, reuse, store, names, [sample for sample in lacking if sample.digest not in gone], view)
    reuse.fill_some(samples, views, name=name)  # in every process: what is there already is not computed again
    return store


def _lacking(store: FeatureStore, samples: Sequence[Sample], view: str) -> list[Sample]:
    return [samples[i] for i in store.missing([row_name(sample, view) for sample in samples])]


def _compute(
    run: Run, reuse: Reuse, store: FeatureStore, names: Sequence[str], samples: list[Sample], view: str
) -> None:
    if not samples:
        return
    with run.clock("features"):
        pooled, inputs = _pass(run, reuse, names, samples, view)
    rows = [row_name(sample, view) for sample in samples]
    store.add(rows, iter([pooled]))
    new = reuse.features.store.missing(rows)
    reuse.features.store.add([rows[i] for i in new], iter([inputs[new]]))


def _pass(run: Run, reuse: Reuse, names: Sequence[str], samples: list[Sample], view: str) -> tuple[Tensor, Tensor]:
    """All stages' features side by side (n, sum of channels), and the head's inputs (n, ...)."""
    pooled, inputs = [], []
    with model_context([run.model], run.runtime):
        for batch in image_batches(run, samples, view):
            rows, found = stage_features(
                run.model, names, batch, call=partial(forward_rows, reuse.features.trunk, whole=True)
            )
            pooled.append(torch.cat([found[name] for name in names], dim=1).cpu())
            inputs.append(rows.cpu())
    return torch.cat(pooled), torch.cat(inputs)


def _widths(run: Run, names: Sequence[str]) -> list[int]:
    """Number of features of each stage, from a pass of blank images."""
    if not names:
        return []
    blank = run.runtime.batch(torch.zeros((2, *run.preprocessing.input_size)))
    with model_context([run.model], run.runtime):
        _, found = stage_features(run.model, names, blank)
    return [found[name].shape[1] for name in names]
