"""Output of ``tlkit finetune --folds``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tl_kit.cli.cells import figure
from tl_kit.cli.console import Console
from tl_kit.config import FoldsConfig

if TYPE_CHECKING:
    from tl_kit import CrossValidation

__all__ = ["show_folds"]

SHOWN = ("accuracy", "macro_f1", "nll")


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
