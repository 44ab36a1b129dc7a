"""Distillation in ``tlkit ensemble --distill``: it trains the student after the ensemble and shows its scores."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from tl_kit.cli.cells import figure
from tl_kit.cli.console import Console
from tl_kit.cli.session import INTERRUPTED
from tl_kit.errors import TlKitError

if TYPE_CHECKING:
    from tl_kit import Distillation, EnsembleResult
    from tl_kit.config import EnsembleConfig

__all__ = ["distill_and_show"]

SHOWN = ("accuracy", "nll", "ece")


def distill_and_show(
    ensemble: EnsembleResult, student: str, given: EnsembleConfig, console: Console, *, json: bool
) -> None:
    """Train the student on the images ``given``; the ensemble is already written, and stays whatever happens.

    Raises typer.Exit if Ctrl-C ended the training, and the errors of ``distill``.
    """
    import tl_kit
    from tl_kit import alone

    try:
        config = tl_kit.student_config(
            ensemble.checkpoint, student, data=given.data, decode=given.decode, runtime=given.runtime
        )
        with alone():
            result = tl_kit.distill(replace(config, tracking=given.tracking), reporter=console)
    except KeyboardInterrupt as stopped:
        left = [f"the ensemble is in {ensemble.checkpoint}", *(str(text) for text in stopped.args)]
        raise KeyboardInterrupt("; ".join(left)) from None
    except TlKitError:
        console.message(f"the ensemble is whole, in {ensemble.checkpoint}; only its student is missing")
        raise
    if json:
        console.json({**ensemble.to_dict(), "distillation": result.to_dict()})
    else:
        _show(result, console)
    if result.status == "interrupted":
        console.error(f"interrupted: the best checkpoint so far is in {result.checkpoint}")
        raise typer.Exit(INTERRUPTED)


def _show(result: Distillation, console: Console) -> None:
    console.line()
    if result.comparison is None:
        console.line("The student is not compared: there is no test image that the teacher has not seen.")
    else:
        _compare(result.run.model, result.to_dict()["comparison"], console)
    console.line(_learned(result))
    console.entry("student", str(result.checkpoint))


def _learned(result: Distillation) -> str:
    if not result.learned:
        return (
            "Nothing of the teacher is in the student: on the validation images the head that is fitted to the labels "
            "was no worse, and is kept."
        )
    how = f"distilled with temperature {result.temperature:g}, weight {result.weight:g}; policy {result.run.policy}"
    return how if result.learned == 1 else f"{how}; averaged with the head, {1 - result.learned:.0%} of the weights"


def _compare(model: str, found: dict[str, Any], console: Console) -> None:
    rows = [(f"student ({model})", found["student"]), ("teacher", found["teacher"])]
    if found["best_member"] is not None:
        rows.append((f"best member by validation ({found['best_member_checkpoint']})", found["best_member"]))
    shown = [[name, *(figure(score, scores[score]) for score in SHOWN)] for name, scores in rows]
    console.table(["", *(f"test {score}" for score in SHOWN)], shown, align="l" + "r" * len(SHOWN))
    console.line()
    console.line(_against("the teacher", found["over_teacher"]))
    if found["over_best_member"] is not None:
        console.line(_against("the teacher's best member", found["over_best_member"]))
    console.line(f"Student and teacher disagree on {100 * found['disagreement']:.1f} % of the test images.")


def _against(other: str, gain: dict[str, Any]) -> str:
    lo, hi = gain["ci95"]
    low, high = gain["nll_ci95"]
    return (
        f"The student against {other}: {100 * gain['accuracy']:+.1f} points of test accuracy (95 % interval "
        f"{100 * lo:+.1f} to {100 * hi:+.1f}), NLL {gain['nll']:+.3f} ({low:+.3f} to {high:+.3f})."
    )
