"""The facts that a policy is sized to, and ``--policy auto`` by them."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

import numpy as np

from tl_kit.data.manifest import labels_of
from tl_kit.errors import PolicyError
from tl_kit.finetuning.checks import check_policy
from tl_kit.finetuning.choices.stage_rows import stage_rows
from tl_kit.finetuning.closed_form import head_can_be_fitted
from tl_kit.finetuning.run import Run
from tl_kit.freezing.auto import choose_policy
from tl_kit.freezing.facts import Facts, StageProbe
from tl_kit.freezing.policies import is_auto, parameter_groups
from tl_kit.freezing.probes import ALL_STAGES, all_stages, probe_stages
from tl_kit.machine.process_group import first_answer
from tl_kit.optimization.cases import AS_GIVEN
from tl_kit.zoo.heads import classifier_names, in_modules

__all__ = ["facts_of", "run_probes", "settle_policy"]


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
