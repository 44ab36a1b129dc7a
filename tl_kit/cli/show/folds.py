"""Output of ``tlkit finetune`` for several runs: folds, members of an ensemble; and of ``tlkit ensemble`` for folds."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tl_kit.cli.cells import figure, figures
from tl_kit.cli.console import Console
from tl_kit.config import FoldsConfig
from tl_kit.display import marked

if TYPE_CHECKING:
    from tl_kit import CrossValidation, EnsembleResult, FinetuneResult, MemberRuns

__all__ = ["is_of_folds", "show_fold_scores", "show_folds", "show_members", "show_snapshots"]

OF_FOLDS = ("accuracy", "macro_f1", "nll")
ENSEMBLE_SHOWN = ("accuracy", "nll", "ece")
MEMBER_SHOWN = ("accuracy", "nll")


def show_folds(result: CrossValidation, console: Console, *, json: bool) -> None:
    """Show one JSON object, or a table of the folds, the scores over all of them, the first suspects and the files."""
    if json:
        console.json(result.to_dict())
        return
    rows = []
    for fold in result.folds:
        scores = [figure(name, fold.test[name]) if fold.test else "" for name in OF_FOLDS]
        rows.append([f"fold {fold.fold}", f"{fold.images['test']:,}", *scores, f"{fold.seconds:.1f} s"])
    scores = [figure(name, result.out_of_fold[name]) for name in OF_FOLDS]
    rows.append(["out of fold", f"{result.images:,}", *scores, f"{result.seconds['total']:.1f} s"])
    names = [name.replace("_", " ") for name in OF_FOLDS]
    console.table(["", "images", *names, "time"], rows, align="lr" + "r" * len(OF_FOLDS) + "r")
    console.line()
    if result.standard_error:
        console.line(
            "over folds: " + ", ".join(f"{name.replace('_', ' ')} {_spread(result, name)}" for name in OF_FOLDS)
        )
    _show_suspects(result, console)
    console.entry("predictions", str(result.files["predictions"]))
    console.entry("summary", str(result.files["summary"]))
    console.entry("checkpoints", f"{result.folder}/fold-1 to fold-{len(result.folds)}")


def _spread(result: CrossValidation, name: str) -> str:
    """Mean ± standard error, with the unit only once."""
    mean, error = (figure(name, values[name]) for values in (result.mean, result.standard_error))
    return f"{mean.removesuffix(' %')} ± {error}"


def _show_suspects(result: CrossValidation, console: Console) -> None:
    shown = result.suspects[: FoldsConfig.shown]
    share = len(result.suspects) / result.images
    first = f"; the first {len(shown)} of them" if len(shown) < len(result.suspects) else ""
    console.line(f"suspect labels: {len(result.suspects)} ({100 * share:.1f} % of the images){first}")
    if not shown:
        return
    console.line()
    rows = [[s.path, s.label, f"{100 * s.p_label:.1f} %", s.suggested, f"{100 * s.p_suggested:.1f} %"] for s in shown]
    console.table(["image", "label", "probability", "suggested", "probability"], rows, align="llrlr")
    console.line()
    console.entry("suspects", str(result.files["suspects"]))


def is_of_folds(result: EnsembleResult) -> bool:
    """True if the members are the folds of a cross-validation."""
    return "out_of_fold" in result.receipt


def show_fold_scores(result: EnsembleResult, console: Console) -> None:
    """Table of scores: each member's out-of-fold scores, and those of members and ensemble on separate test images."""
    receipt = result.to_dict()
    outside, tested = receipt["out_of_fold"], receipt["ensemble"]["test"] is not None
    header = ["", *(["images", *(f"out of fold {name}" for name in ENSEMBLE_SHOWN)] if outside else [])]
    test = marked("test", [result.receipt["kinds"]])
    header += [f"{test} {name}" for name in ENSEMBLE_SHOWN] if tested else []
    rows = []
    for index, member in enumerate(receipt["members"]):
        own = outside["members"][index] if outside else None
        cells = [f"{own['images']:,}", *(figure(name, own["scores"][name]) for name in ENSEMBLE_SHOWN)] if own else []
        rows.append(
            [member["checkpoint"], *cells, *(figure(name, member["test"][name]) for name in ENSEMBLE_SHOWN if tested)]
        )
    none = ["", *("none" for _ in ENSEMBLE_SHOWN)] if outside else []
    scores = [figure(name, receipt["ensemble"]["test"][name]) for name in ENSEMBLE_SHOWN] if tested else []
    rows.append([f"ensemble ({receipt['rule']})", *none, *scores])
    console.table(header, rows, align="l" + "r" * (len(header) - 1))
    console.notes(result.notes, json=False)
    console.line()
    if outside:
        shown = figures({name: outside["scores"][name] for name in ENSEMBLE_SHOWN})
        console.line(
            f"One member, out of fold, over {outside['images']:,} images: {shown}; not scores of the ensemble."
        )
    if not tested:
        console.line(
            "The ensemble on val and test: none, every image was seen by a member; name other images with --data."
        )


def show_members(runs: MemberRuns, console: Console, *, json: bool) -> None:
    """Show one JSON object, or a table of the members and the command that combines them."""
    if json:
        console.notes(runs.notes, json=True)
        console.json(runs.to_dict())
        return
    rows = [
        [Path(m.checkpoint).name, m.varied, f"{m.images['train']:,}", *_scores(m.val, m.test), f"{m.seconds:.1f} s"]
        for m in runs.members
    ]
    header = _header([member.kinds for member in runs.members])
    console.table(["", "varied", "images", *header, "time"], rows, align="llr" + "r" * 2 * len(MEMBER_SHOWN) + "r")
    console.line()
    console.notes(runs.notes, json=False)
    console.line(f"time: {runs.seconds['total']:.1f} s")
    console.entry("members", str(runs.folder))
    console.entry("combine them", runs.command)


def show_snapshots(result: FinetuneResult, console: Console) -> None:
    """Show the checkpoints saved during the run, and the commands that combine them; nothing if there are none."""
    if not result.snapshots:
        return
    rows = [[Path(s.checkpoint).name, f"{s.step:,}", *_scores(s.val, s.test)] for s in result.snapshots]
    console.line()
    header = _header([snapshot.kinds for snapshot in result.snapshots])
    console.table(["", "step", *header], rows, align="lr" + "r" * 2 * len(MEMBER_SHOWN))
    console.line()
    kinds = Counter(Path(s.checkpoint).name.partition("-")[0] for s in result.snapshots)
    for kind, count in kinds.items():
        if count > 1:
            console.entry("combine them", f"tlkit ensemble {shlex.quote(result.checkpoint)}/{kind}-*")


def _header(kinds: Sequence[Mapping[str, str]]) -> list[str]:
    return [f"{marked(split, kinds)} {name}" for split in ("val", "test") for name in MEMBER_SHOWN]


def _scores(*splits: Mapping[str, float] | None) -> list[str]:
    return ["" if scores is None else figure(name, scores[name]) for scores in splits for name in MEMBER_SHOWN]
