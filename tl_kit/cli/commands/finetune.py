"""``tlkit finetune``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tl_kit.cli.cells import figure
from tl_kit.cli.command import Given, command
from tl_kit.cli.commands.report import before_report, report_at_end
from tl_kit.cli.console import Console
from tl_kit.cli.session import INTERRUPTED, answering_signals
from tl_kit.cli.show.folds import show_folds
from tl_kit.cli.show.members import show_members, show_snapshots
from tl_kit.cli.startup import with_startup
from tl_kit.config import FinetuneConfig, JsonConfig, ReportAtEndConfig, RunsConfig, VaryConfig
from tl_kit.display import marked
from tl_kit.errors import ConfigError

if TYPE_CHECKING:
    from tl_kit import CrossValidation, FinetuneResult, MemberRuns

__all__ = ["USAGE", "finetune", "read_runs"]

USAGE = "tlkit {0} MODEL --data PATH, or tlkit {0} --resume RUN"


@command(FinetuneConfig, RunsConfig, ReportAtEndConfig, JsonConfig, usage=USAGE.format("finetune"))
def finetune(given: Given, console: Console) -> None:
    """Fine-tune a timm model on a folder of images. Writes a checkpoint folder."""
    runs, json = read_runs(given), given.read(JsonConfig).json
    at_end = given.read(ReportAtEndConfig).report
    if at_end and (runs.members is not None or runs.vary is not None):
        raise ConfigError("--report: several members have no report; combine them: tlkit ensemble ... --report")
    with answering_signals(), before_report(at_end):
        if runs.resume is not None:
            import tl_kit

            _report(tl_kit.resume(runs.resume, reporter=console), runs.resume, console, json=json, at_end=at_end)
            return
        import tl_kit

        config = given.read(FinetuneConfig)
        if runs.folds is not None and config.model == "auto":
            raise ConfigError("--folds: auto would choose the network on the images of every fold; name one")
        config = tl_kit.choose_network(config, reporter=console)
        _report(_train(config, runs, console), config.out, console, json=json, at_end=at_end, config=config)


def read_runs(given: Given) -> RunsConfig:
    """Read the options for several runs. Raises ConfigError for options that exclude each other."""
    runs = given.read(RunsConfig)
    if runs.resume is not None:
        given.refuse_others(
            "--resume",
            "--resume continues with the options that the run began with; leave this option out",
            "--report",
        )
    if runs.folds is not None and (runs.members is not None or runs.vary is not None):
        raise ConfigError("--folds: scores one model on every image, and --members trains several; leave one out")
    return runs


def _train(config: FinetuneConfig, runs: RunsConfig, console: Console) -> FinetuneResult | CrossValidation | MemberRuns:
    """Train one run, one run per fold, or one run per member."""
    import tl_kit

    if runs.folds is not None:
        return tl_kit.cross_validate(config, folds=runs.folds, reporter=console)
    if runs.members is not None or runs.vary is not None:
        vary = runs.vary or VaryConfig.vary
        return tl_kit.finetune_members(config, members=runs.members, vary=vary, reporter=console)
    return tl_kit.finetune(config, reporter=console)


def _report(
    result: FinetuneResult | CrossValidation | MemberRuns | None,
    folder: Path | None,
    console: Console,
    *,
    json: bool,
    at_end: bool,
    config: FinetuneConfig | None = None,
) -> None:
    """Show the result; ``result`` is None if the run in ``folder`` was finished before.

    ``config``: the run's, for its report; None where another command began it.
    """
    if result is None:
        if json:
            console.json({"checkpoint": str(folder), "status": "finished"})
        return
    import tl_kit
    from tl_kit import leads

    if leads():  # of several processes that trained together, only one shows the result
        if isinstance(result, tl_kit.MemberRuns):
            show_members(result, console, json=json)
        elif isinstance(result, tl_kit.CrossValidation):
            show_folds(result, console, json=json)
        elif json:
            console.notes(result.notes, json=True)
            console.json({**result.to_dict(), "seconds": with_startup(result.seconds)})
        else:
            _show(result, console)
        if at_end and not isinstance(result, tl_kit.MemberRuns) and getattr(result, "status", "finished") == "finished":
            where = result.folder if isinstance(result, tl_kit.CrossValidation) else result.checkpoint
            how: dict[str, Any] = {} if config is None else {"decode": config.decode, "runtime": config.runtime}
            report_at_end(where, console, json=json, **how)
    if isinstance(result, tl_kit.FinetuneResult) and result.status == "interrupted":
        console.error(f"interrupted: the best checkpoint so far is in {result.checkpoint}")
        raise typer.Exit(INTERRUPTED)


def _cross_validated(found: Mapping[str, Any]) -> str:
    return (
        f"cross-validated over the {found['images']:,} training and validation images ({found['folds']} folds): "
        f"accuracy {figure('accuracy', found['accuracy'])}, NLL {figure('nll', found['nll'])}"
    )


def _kept(guard: Mapping[str, Any]) -> str:
    """The network that validation kept, with its figures, and those of head and trained network."""
    names = {name: name for name in dict.fromkeys((guard["kept"], "trained", "head")) if name in guard["compared"]}
    rows = [
        f"{name} (val {figure('accuracy', row['accuracy'])}, NLL {figure('nll', row['nll'])})"
        for name, row in ((name, guard["compared"][name]) for name in names)
    ]
    how = "; the head's figures are cross-validated over train and val" if guard.get("out_of_fold") else ""
    return " over ".join([rows[0], " and ".join(rows[1:])] if rows[1:] else rows) + how


def _show(result: FinetuneResult, console: Console) -> None:
    scores = {name: values for name, values in (("val", result.val), ("test", result.test)) if values is not None}
    names = list(next(iter(scores.values()), {}))
    rows = [[name.replace("_", " "), *(figure(name, values[name]) for values in scores.values())] for name in names]
    console.table(["", *(marked(name, [result.kinds]) for name in scores)], rows, align="l" + "r" * len(scores))
    if result.cross_validated is not None:
        console.line(_cross_validated(result.cross_validated))
    console.notes(result.notes, json=False)
    audit = result.audit
    verdict = "none of them changed" if audit["ok"] else f"{audit['changed_tensors']} of them CHANGED"
    spent = with_startup(result.seconds)
    stages = (f"{n} {s:.1f}" for n, s in spent.items() if n not in ("total", "first_batch") and s >= 0.05)
    console.line()
    how = f"{result.epochs} epochs" if result.epochs else "in closed form"
    console.line(f"policy {result.policy}: {result.trainable_parameters:,} parameters trained, {how}")
    if result.guard is not None:
        console.line(f"kept: {_kept(result.guard)}")
    console.line(f"audit: {audit['frozen_tensors']} frozen tensors, {verdict}")
    first = f"; first batch after {spent['first_batch']:.1f}" if "first_batch" in spent else ""
    console.line(f"time: {spent['total']:.1f} s ({', '.join(stages)}{first})")
    console.entry("checkpoint", str(result.checkpoint))
    show_snapshots(result, console)
    if result.guard is not None and result.guard["beside"] is not None:
        console.entry("better together", result.guard["together"]["command"])
