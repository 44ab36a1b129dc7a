"""The facts that a policy is sized to, and ``--policy auto`` by them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tl_kit.data.manifest import Sample, labels_of
from tl_kit.errors import PolicyError
from tl_kit.finetuning.checks import check_policy
from tl_kit.finetuning.closed_form import head_can_be_fitted, head_run
from tl_kit.finetuning.run import Run
from tl_kit.finetuning.trunk_reuse import EVAL, Reuse, pixels_of, row_name
from tl_kit.freezing.auto import choose_policy
from tl_kit.freezing.facts import Facts, StageProbe
from tl_kit.freezing.policies import is_auto, parameter_groups
from tl_kit.freezing.probes import ALL_STAGES, all_stages, probe_stages, stage_features, stage_names
from tl_kit.images.transforms import normalize
from tl_kit.inference.run_models import model_context
from tl_kit.machine.forward import forward_rows
from tl_kit.machine.process_group import first_answer
from tl_kit.optimization.cases import AS_GIVEN
from tl_kit.zoo.heads import classifier_names, in_modules

__all__ = ["HEAD_INPUT", "facts_of", "fill_stages", "run_probes", "settle_policy", "stage_rows"]


def facts_of(run: Run, *, probes: bool = True, together: bool = False) -> Facts:
    """Counts of the training images, and the probes of a pretrained network; the first process's in all of them.

    Without ``probes``, nothing is computed on images. ``together``: all stages side by side are probed too.
    """
    found = run_probes(run, together=together) if probes and run.weights.loaded else []
    counts = np.bincount(labels_of(run.manifest.split("train")), minlength=len(run.manifest.classes))
    return first_answer(
        Facts(
            images=int(counts.sum()),
            classes=len(counts),
            smallest=int(counts.min()),
            largest=int(counts.max()),
            pretrained=bool(run.weights.loaded),
            shares=_shares(run),
            linear_head=head_can_be_fitted(run),
            probes=tuple(probe for probe in found if probe.stage != ALL_STAGES),
            together=next((probe for probe in found if probe.stage == ALL_STAGES), None),
        )
    )


def settle_policy(run: Run, facts: Facts) -> tuple[Run, str]:
    """Under ``--policy auto``, the run under the policy that the facts ask for; and the reason in a sentence."""
    if not is_auto(run.config.policy):
        return run, AS_GIVEN
    policy, reason = choose_policy(facts, run.config.auto)
    run.reporter.message(f"policy {policy}: {reason}")
    check_policy(run.config, policy)
    return replace(run, policy=policy), reason


def _shares(run: Run) -> tuple[float, ...]:
    """The share of the parameters that the last groups hold, by their number; empty where timm has no groups."""
    try:
        groups = parameter_groups(run.model)
    except PolicyError:  # such a model can only be trained as a whole, or its head
        return ()
    heads = classifier_names(run.model)
    sizes = {name: p.numel() for name, p in run.model.named_parameters() if not in_modules(name, heads)}
    held = accumulate(sum(sizes.get(name, 0) for name in group) for group in reversed(groups))
    return tuple(count / max(1, sum(sizes.values())) for count in held)


HEAD_INPUT = "head input"


def run_probes(run: Run, *, together: bool = False) -> list[StageProbe]:
    """Linear probes of the training images at each stage and at the head's input, from the input up.

    ``together``: one of all stages side by side comes last. Empty where the model has no cut before its head, or a
    class has fewer than two training images.
    """
    features = stage_rows(run)
    if not features:
        return []
    labels = labels_of(run.manifest.split("train"))
    config, seed = run.config.probe, run.config.split.split_seed
    with run.clock("train"):
        found = probe_stages(features, labels, config=config, seed=seed)
    if together and len(features) > 1:  # a plan's alone: no run spends that time
        found += probe_stages({ALL_STAGES: all_stages(features)}, labels, config=config, seed=seed)
    return found


def stage_rows(run: Run) -> dict[str, NDArray[np.float32]]:
    """Features (n, d) of the training images at each stage and, last, at the head's input, from the input up.

    Empty where the model has no cut before its head.
    """
    head, reuse = head_run(run)
    if reuse is None:
        return {}
    stages = _stages(head, reuse, stage_names(run.model, most=run.config.probe.stages))
    return {**stages, HEAD_INPUT: reuse.rows(run.manifest.split("train")).float().flatten(1).numpy()}


def _stages(run: Run, reuse: Reuse, names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Pooled features (n, channels) of the training images by stage, from the cache or from one pass."""
    fill_stages(run, reuse, names, run.manifest.split("train"))
    if not names:
        return {}
    store = reuse.features.beside("stages", *names)
    kept = run.manifest.split("train")
    rows = store.get([row_name(sample, EVAL) for sample in kept]).numpy()
    return _split(run, names, rows)


def fill_stages(run: Run, reuse: Reuse, names: Sequence[str], samples: Sequence[Sample]) -> None:
    """Compute what the cache lacks of training images: the stages' pooled features and, in one pass, the head's input.

    Images that cannot be decoded leave the run. Without ``names``, the head's input alone.
    """
    store = reuse.features.beside("stages", *names)
    lacking = [samples[i] for i in store.missing([row_name(sample, EVAL) for sample in samples])] if names else []
    if lacking:
        gone = run.decode(lacking, crop=True)
        lacking = [sample for sample in lacking if sample.digest not in gone]
    if lacking:
        run.reporter.start("features of all stages", len(lacking))
        with run.clock("features"):
            pooled, inputs = _pass(run, reuse, names, lacking)
        store.add([row_name(sample, EVAL) for sample in lacking], iter([pooled]))
        new = reuse.features.store.missing([row_name(sample, EVAL) for sample in lacking])
        reuse.features.store.add([row_name(lacking[i], EVAL) for i in new], iter([inputs[new]]))
    reuse.fill_some(samples, name="train")  # in every process: what is there already is not computed again


def _pass(run: Run, reuse: Reuse, names: Sequence[str], samples: list[Sample]) -> tuple[Tensor, Tensor]:
    """All stages' features side by side (n, sum of channels), and the head's inputs (n, ...)."""
    pooled, inputs = [], []
    with model_context([run.model], run.runtime):
        for batch in _batches(run, samples):
            rows, found = stage_features(
                run.model, names, batch, call=partial(forward_rows, reuse.features.trunk, whole=True)
            )
            pooled.append(torch.cat([found[name] for name in names], dim=1).cpu())
            inputs.append(rows.cpu())
    return torch.cat(pooled), torch.cat(inputs)


def _batches(run: Run, samples: list[Sample]) -> Iterator[Tensor]:
    size = run.runtime.batch_size
    for start in range(0, len(samples), size):
        part = samples[start : start + size]
        yield normalize(run.runtime.batch(pixels_of(run, part, EVAL)), run.preprocessing)
        run.reporter.advance(len(part))


def _split(run: Run, names: Sequence[str], rows: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Columns by stage: their widths are those of one image's features."""
    blank = run.runtime.batch(torch.zeros((2, *run.preprocessing.input_size)))
    with model_context([run.model], run.runtime):
        _, found = stage_features(run.model, names, blank)
    ends = np.cumsum([found[name].shape[1] for name in names])
    return dict(zip(names, np.split(rows, ends[:-1], axis=1), strict=True))
