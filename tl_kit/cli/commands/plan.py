"""``tlkit plan``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tl_kit.cli.command import Given, command
from tl_kit.cli.commands.finetune import USAGE, read_runs
from tl_kit.cli.console import Console
from tl_kit.config import FinetuneConfig, JsonConfig, ReportAtEndConfig, RunsConfig, VaryConfig

if TYPE_CHECKING:
    from tl_kit import Plan

__all__ = ["plan"]


@command(FinetuneConfig, RunsConfig, ReportAtEndConfig, JsonConfig, usage=USAGE.format("plan"))
def plan(given: Given, console: Console) -> None:
    """Say what finetune would do, why, and what it would cost. Trains nothing.

    Takes every option of finetune. Those that only say what is kept and shown of a run change nothing here: --out,
    --plot, --on-nan, --save-every, --late. --resume: the whole run of that folder is planned, with its own options.
    """
    import tl_kit

    runs, json = read_runs(given), given.read(JsonConfig).json
    if runs.resume is not None:
        config, runs = tl_kit.began_with(runs.resume, reporter=console)
    else:
        config = tl_kit.choose_network(given.read(FinetuneConfig), reporter=console)
    kinds, each = _kinds_of_runs(config, runs)
    series = _series(runs)
    plans = {name: tl_kit.plan(kind, **series, reporter=console) for name, kind in kinds.items()}
    count, seconds = each * len(plans), each * sum(planned.estimate.seconds for planned in plans.values())
    if json:
        found = [{"run": name, **planned.to_dict()} for name, planned in plans.items()]
        console.json({"runs": count, "seconds": seconds, "plans": found} if count > 1 else plans[""].to_dict())
        return
    for name, planned in plans.items():
        if len(plans) > 1:
            console.line(f"{name}:")
        _show(planned, console)
        if len(plans) > 1:
            console.line()
    if count > 1:
        console.line(f"{count} runs: about {seconds:.0f} s, less where they share features")


def _series(runs: RunsConfig) -> dict[str, Any]:
    """The options of ``tl_kit.plan`` for runs whose images are not those of one ordinary run."""
    if runs.folds is not None:
        return {"folds": runs.folds}
    return {"members": runs.members, "vary": runs.vary} if runs.vary in ("folds", "bootstrap") else {}


def _kinds_of_runs(config: FinetuneConfig, runs: RunsConfig) -> tuple[dict[str, FinetuneConfig], int]:
    """A configuration for each kind of run to plan, by name, and the number of runs of each kind."""
    import tl_kit

    if runs.folds is not None:
        return {"": config}, runs.folds
    if runs.members is None and runs.vary is None:
        return {"": config}, 1
    vary = runs.vary or VaryConfig.vary
    members = tl_kit.member_configs(config, runs.members, vary)
    if vary in ("model", "policy", "crop-mode"):
        return dict(members), 1
    return {"": members[0][1]}, len(members)


def _show(plan: Plan, console: Console) -> None:
    facts = plan.facts
    if facts.probes:
        rows = [
            [probe.stage, f"{probe.channels:,}", f"{probe.accuracy:.1%}", f"± {probe.error:.1%}"]
            for probe in (*facts.probes, *([] if facts.together is None else [facts.together]))
        ]
        console.table(["features of", "channels", "cross-validated", "s.e."], rows, align="lrrr")
        console.line()
        best, top = facts.best, facts.top
        assert best is not None
        assert top is not None
        where = f"{best.stage} is best" if facts.domain == "different" else "the last stage is best"
        kind = {"similar": "similar to", "different": "different from"}[facts.domain]
        console.line(f"your images are {kind} those of the pretraining: {where}")
        if facts.domain == "similar" and facts.stages_add:
            console.line("all stages together are better still")
        console.line()
    console.table(["", "", "why"], [[c.name, c.value, c.reason] for c in plan.choices], align="lww")
    for offer in plan.offers:
        console.line()
        console.line(offer)
    cost = plan.estimate
    stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in cost.stages.items() if seconds >= 0.05)
    gpu = "" if cost.gpu_bytes is None else f", {cost.gpu_bytes / 1e9:.1f} GB of them on the GPU"
    console.line()
    console.line(f"time: about {cost.seconds:.0f} s ({stages})")
    if cost.head_alone is not None:
        console.line(_head_alone(plan, cost.head_alone))
    console.line(f"memory: about {cost.bytes / 1e9:.1f} GB{gpu}")


def _head_alone(plan: Plan, seconds: float) -> str:
    """The cheaper alternative, and what the probes say of it, in a sentence."""
    facts = plan.facts
    known = "" if facts.top is None else f", {facts.top.accuracy:.1%} in cross-validation"
    found = f"--policy head alone: about {seconds:.0f} s{known}"
    more = facts.best if facts.domain == "different" else facts.together if facts.stages_add else None
    if more is None:
        return found
    verb = "show" if more is facts.together else "shows"
    return f"{found}; {more.stage}, at {more.accuracy:.1%}, {verb} what training the layers can gain"
