"""Output of ``tlkit finetune --folds``, and of ``tlkit ensemble`` for the folds of a cross-validation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tl_kit.cli.cells import figure, figures
from tl_kit.cli.console import Console
from tl_kit.config import FoldsConfig
from tl_kit.display import marked

if TYPE_CHECKING:
    from tl_kit import CrossValidation, EnsembleResult

__all__ = ["is_of_folds", "show_fold_scores", "show_folds"]

SHOWN = ("accuracy", "macro_f1", "nll")
ENSEMBLE_SHOWN = ("accuracy", "nll", "ece")


def show_folds(result: CrossValidation, console: Console, *, json: bool) -> None:
    """Show one JSON object, or a table of the folds, the scores over all of them, the first suspects and the files."""
    if json:
        console.json(result.to_dict())
        return
    rows = []
    for fold in result.folds:
        scores = [figure(name, fold.test[name]) if fold.test else "" for name in SHOWN]
        rows.append([f"fold {fold.fold}", f"{fold.images['test']:,}", *scores, f"{fold.seconds:.1f} s"])
    scores = [figure(name, result.out_of_fold[name]) for name in SHOWN]
    rows.append(["out of fold", f"{result.images:,}", *scores, f"{result.seconds['total']:.1f} s"])
    names = [name.replace("_", " ") for name in SHOWN]
    console.table(["", "images", *names, "time"], rows, align="lr" + "r" * len(SHOWN) + "r")
    console.line()
    if result.standard_error:
        console.line("over folds: " + ", ".join(f"{name.replace('_', ' ')} {_spread(result, name)}" for name in SHOWN))
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
            f"One member, out of fold, {outside['images']:,} predictions: {shown}; not scores of the ensemble."
        )
    if not tested:
        console.line(
            "The ensemble on val and test: none, every image was seen by a member; name other images with --data."
        )
