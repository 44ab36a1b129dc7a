"""The facts that a policy is sized to, and ``--policy auto`` by them."""

from __future__ import annotations

import numpy as np
from accelerate.utils import broadcast_object_list

from tl_kit.api.closed_form import head_can_be_fitted
from tl_kit.api.options import check_policy
from tl_kit.api.probing import run_probes
from tl_kit.api.run import Run, labels_of
from tl_kit.errors import PolicyError
from tl_kit.freezing.auto import choose_policy
from tl_kit.freezing.facts import Facts
from tl_kit.freezing.policies import parameter_groups

__all__ = ["facts_of", "settle_policy"]


def facts_of(run: Run) -> Facts:
    """Counts of the training images, and the probes of a pretrained network; the first process's in all of them."""
    probes = run_probes(run) if run.weights.loaded else []
    counts = np.bincount(labels_of(run.manifest.split("train")), minlength=len(run.manifest.classes))
    answer = [
        Facts(
            images=int(counts.sum()),
            classes=len(counts),
            smallest=int(counts.min()),
            largest=int(counts.max()),
            pretrained=bool(run.weights.loaded),
            groups=_groups(run),
            linear_head=head_can_be_fitted(run),
            probes=tuple(probes),
        )
    ]
    broadcast_object_list(answer)
    return answer[0]


def settle_policy(run: Run, facts: Facts) -> str:
    """Under ``--policy auto`` the run takes the policy that the facts ask for; returns the reason in a sentence."""
    if run.config.policy != "auto":
        return "as you said"
    run.policy, reason = choose_policy(facts, run.config.auto)
    run.reporter.message(f"policy {run.policy}: {reason}")
    check_policy(run.config, run.policy)
    return reason


def _groups(run: Run) -> int:
    try:
        return len(parameter_groups(run.model))
    except PolicyError:  # a model that timm has no groups of can only be trained as a whole, or its head
        return 0
