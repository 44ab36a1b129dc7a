"""Output of ``tlkit ensemble`` for an ensemble of folds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tl_kit.cli.cells import figure, figures
from tl_kit.cli.console import Console
from tl_kit.display import marked

if TYPE_CHECKING:
    from tl_kit import EnsembleResult

__all__ = ["is_of_folds", "show_fold_scores"]

SHOWN = ("accuracy", "nll", "ece")


def is_of_folds(result: EnsembleResult) -> bool:
    """True if the members are the folds of a cross-validation."""
    return "out_of_fold" in result.receipt


def show_fold_scores(result: EnsembleResult, console: Console) -> None:
    """Table of scores: each member's out-of-fold scores, and those of members and ensemble on separate test images."""
    receipt = result.to_dict()
    outside, tested = receipt["out_of_fold"], receipt["ensemble"]["test"] is not None
    header = ["", *(["images", *(f"out of fold {name}" for name in SHOWN)] if outside else [])]
    test = marked("test", [result.receipt["kinds"]])
    header += [f"{test} {name}" for name in SHOWN] if tested else []
    rows = []
    for index, member in enumerate(receipt["members"]):
        own = outside["members"][index] if outside else None
        cells = [f"{own['images']:,}", *(figure(name, own["scores"][name]) for name in SHOWN)] if own else []
        rows.append([member["checkpoint"], *cells, *(figure(name, member["test"][name]) for name in SHOWN if tested)])
    none = ["", *("none" for _ in SHOWN)] if outside else []
    scores = [figure(name, receipt["ensemble"]["test"][name]) for name in SHOWN] if tested else []
    rows.append([f"ensemble ({receipt['rule']})", *none, *scores])
    console.table(header, rows, align="l" + "r" * (len(header) - 1))
    console.notes(result.notes, json=False)
    console.line()
    if outside:
        shown = figures({name: outside["scores"][name] for name in SHOWN})
        console.line(
            f"One member, out of fold, over {outside['images']:,} images: {shown}; not scores of the ensemble."
        )
    if not tested:
        console.line(
            "The ensemble on val and test: none, every image was seen by a member; name other images with --data."
        )
